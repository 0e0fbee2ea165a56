"""Groups the variables of a cascade by their learning rate.

Tested by `tests/training/test_rates_of_cascades.py` and
`tests/training/rates/test_layerwise_decay.py`.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import keras

from keras_cascade.graph.paths import LayerPath
from keras_cascade.training.layer_lookup import LayerLookup
from keras_cascade.training.rates.block_rates import Rate
from keras_cascade.training.rates.layerwise_decay import (
    LayerwiseDecay,
    groups_by_depth,
)


class RateGroups(NamedTuple):
    """The groups of a `BlockwiseOptimizer` by their names.

    A group is a path pattern, or one group of layers of its `LayerwiseDecay`.
    """

    rates: dict[str, Rate]
    variables: dict[str, list[keras.Variable]]


def group_rates(
    lookup: LayerLookup, rates: Mapping[str, Rate | LayerwiseDecay]
) -> RateGroups:
    """Returns the groups of variables that have one rate each.

    Of two patterns that overlap the later counts.
    """
    found = RateGroups({}, {})
    for pattern, paths in _paths_by_pattern(lookup, rates).items():
        rate = rates[pattern]
        if not isinstance(rate, LayerwiseDecay):
            found.rates[pattern] = rate
            found.variables[pattern] = _variables(lookup, paths)
            continue
        whole = [path for path in paths if path not in lookup.holders]
        if not whole:
            raise ValueError(
                f"learning_rates['{pattern}'] divides layers by their depth, "
                "and those inside a layer have none of their own. Give them a "
                "rate, or the pattern of the layer around them."
            )
        groups = groups_by_depth(lookup.graph, whole, rate.groups)
        for group in sorted(set(groups.values())):
            members = [path for path, of in groups.items() if of == group]
            name = f"{pattern} ({group})"
            found.rates[name] = rate.rate_of(group)
            found.variables[name] = _variables(lookup, members)
    return found


def variables_by_name(
    lookup: LayerLookup, patterns: Iterable[str]
) -> dict[str, list[keras.Variable]]:
    """Returns the variables that the logs show one rate of, by its name.

    The name is the block's. Where patterns divide a block, it is the pattern,
    and the block's name for the rest of it.
    """
    deciding = lookup.deciding_patterns(patterns, "learning_rates")
    found: dict[str, list[keras.Variable]] = {}
    for block in lookup.cascade.blocks:
        paths = [
            path
            for path, layer in lookup.layers.items()
            if path[0] == block and layer.weights
        ]
        undivided = len({deciding.get(path) for path in paths}) == 1
        for path in paths:
            name = block if undivided else deciding.get(path, block)
            found.setdefault(name, []).extend(lookup.layers[path].weights)
    return found


def _paths_by_pattern(
    lookup: LayerLookup, patterns: Iterable[str]
) -> dict[str, list[LayerPath]]:
    deciding = lookup.deciding_patterns(patterns, "learning_rates")
    return {
        pattern: [path for path, one in deciding.items() if one == pattern]
        for pattern in patterns
    }


def _variables(
    lookup: LayerLookup, paths: Iterable[LayerPath]
) -> list[keras.Variable]:
    return [v for path in paths for v in lookup.layers[path].variables]
