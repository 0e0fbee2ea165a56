"""Which variables have which learning rate, and what a block's is called."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import keras

from keras_cascade._cascade_view import CascadeView
from keras_cascade.graph.paths import LayerPath
from keras_cascade.training.layer_lookup import LayerLookup
from keras_cascade.training.rates.block_rates import Rate
from keras_cascade.training.rates.layerwise_decay import (
    LayerwiseDecay,
    groups_by_depth,
)


class RateGroups(NamedTuple):
    """What `BlockwiseOptimizer` is given.

    Attributes:
        rates: Group to its rate: a pattern's own, or one for each group of
            layers of a `LayerwiseDecay`.
        variables: Group to the variables that have it.
    """

    rates: dict[str, Rate]
    variables: dict[str, list[keras.Variable]]


def rate_groups(cascade: CascadeView, rates: Mapping[str, Any]) -> RateGroups:
    """Spells out the rates of a cascade's blocks.

    Args:
        cascade: The cascade.
        rates: Path pattern to a float, a schedule or a `LayerwiseDecay`; of
            two that overlap the later counts.

    Raises:
        ValueError: If a pattern matches nothing.
    """
    lookup = LayerLookup(cascade)
    owners = lookup.deciding_patterns(rates, "learning_rates")
    found = RateGroups({}, {})
    for pattern, rate in rates.items():
        paths = [path for path, owner in owners.items() if owner == pattern]
        if not isinstance(rate, LayerwiseDecay):
            _add(found, pattern, rate, paths, lookup)
            continue
        groups = groups_by_depth(cascade, paths, rate.groups)
        for group in sorted(set(groups.values())):
            members = [path for path, of in groups.items() if of == group]
            name = f"{pattern} ({group})"
            _add(found, name, rate.rate_of(group), members, lookup)
    return found


def named_variables(
    cascade: CascadeView, rates: Mapping[str, Any]
) -> dict[str, list[keras.Variable]]:
    """The variables of each block, by the name that its rate goes by.

    That is the block's, or where patterns divide a block those of its
    patterns, and the block's for the rest of it.

    Args:
        cascade: The cascade.
        rates: Path pattern to rate.
    """
    lookup = LayerLookup(cascade)
    owners = lookup.deciding_patterns(rates, "learning_rates")
    found: dict[str, list[keras.Variable]] = {}
    for block in cascade.blocks:
        paths = [
            path
            for path, layer in lookup.layers.items()
            if path[0] == block and layer.weights
        ]
        alike = len({owners.get(path) for path in paths}) == 1
        for path in paths:
            name = block if alike else owners.get(path) or block
            found.setdefault(name, []).extend(lookup.layers[path].weights)
    return found


def _add(
    found: RateGroups,
    name: str,
    rate: Rate,
    paths: list[LayerPath],
    lookup: LayerLookup,
) -> None:
    found.rates[name] = rate
    found.variables[name] = [
        variable for path in paths for variable in lookup.layers[path].variables
    ]
