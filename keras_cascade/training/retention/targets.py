"""Finds the weights and networks that a mapping of retention covers."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import keras

from keras_cascade import _keras_compat as compat
from keras_cascade._cascade_view import CascadeView
from keras_cascade._reporting.messages import listed
from keras_cascade.graph import low_rank
from keras_cascade.graph.graph import Graph
from keras_cascade.graph.paths import LayerPath
from keras_cascade.training.layer_lookup import (
    LayerLookup,
    operations_by_path,
    overridden,
)
from keras_cascade.training.retention.lwf import LwF
from keras_cascade.training.retention.method import Retention

Methods = Mapping[str, Retention]


@dataclass(frozen=True)
class Weight:
    """A weight that is pulled to its pretrained value."""

    path: str  # in the cascade
    layer: LayerPath
    number: int  # among the weights of the layer
    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Weight":
        """Returns the weight of a config, whose tuples JSON made lists."""
        tuples = {key: tuple(config[key]) for key in ("layer", "shape")}
        return cls(**{**config, **tuples})


def normalise_retention(retention: object) -> dict[str, Retention]:
    """Returns the argument `retention` as a dict, or raises a TypeError."""
    if retention is None:
        return {}
    if not isinstance(retention, Mapping):
        raise TypeError(
            "retention must be a mapping {path pattern: L2SP, EWC or LwF}; "
            f"received {retention!r}."
        )
    for pattern, method in retention.items():
        if not isinstance(pattern, str):
            raise TypeError(
                f"retention names {pattern!r}; a path pattern is text, such as "
                "'upstream/conv*'."
            )
        if not isinstance(method, Retention):
            raise TypeError(
                f"retention['{pattern}'] must be a method such as L2SP(0.1), "
                f"EWC(100, data) or LwF(1.0); received {method!r}."
            )
    return dict(retention)


def weights_of(layer: keras.Layer) -> list[keras.Variable]:
    """Returns the weights of a layer without moments, frozen or not.

    Of a layer with low-rank updates they are the weights of the plain layer.
    """
    found = []
    for inner in compat.sublayers(layer):
        if low_rank.has_low_rank(inner):
            found += low_rank.plain_variables(inner)
        else:
            found += compat.trainable_kind(inner)
    return found


def value_readers(layer: keras.Layer) -> list[Callable[[], Any]]:
    """Returns for each of `weights_of` a function that reads its value.

    A kernel with a low-rank update is read with the update merged.
    """
    merged = {
        id(low_rank.base(inner)): partial(low_rank.merged, inner)
        for inner in low_rank.low_rank_layers(layer)
    }
    return [
        merged.get(id(weight), lambda weight=weight: weight)
        for weight in weights_of(layer)
    ]


def original_layers(
    graphs: Mapping[str, Graph],
) -> dict[LayerPath, keras.Layer]:
    """Returns the layers of the original networks, by path in the cascade."""
    return {
        path: operation
        for block, graph in graphs.items()
        for path, operation in operations_by_path(graph, (block,)).items()
        if isinstance(operation, keras.Layer)
    }


def find_pulled_layers(
    lookup: LayerLookup, methods: Methods, networks: Iterable[str]
) -> dict[str, list[LayerPath]]:
    """Returns the layers that each method but `LwF` pulls, by its pattern.

    Of several patterns that cover a layer the last counts. `networks` are the
    blocks that were pretrained; patterns of others raise a ValueError.
    """
    pulling = [p for p, m in methods.items() if not isinstance(m, LwF)]
    for pattern in pulling:
        _check_pretrained(lookup, pattern, list(networks))
    deciding = lookup.deciding_patterns(pulling, "retention", False)
    lookup.check_none_overridden(pulling, deciding, "retention")
    found: dict[str, list[LayerPath]] = {pattern: [] for pattern in pulling}
    for path, pattern in deciding.items():
        found[pattern].append(path)
    return found


def find_taught_blocks(
    cascade: CascadeView, methods: Methods, networks: Iterable[str]
) -> dict[str, str]:
    """Returns the networks that `LwF` distils, and the pattern of each.

    Raises a ValueError if a pattern of `LwF` is not a whole network.
    """
    possible = list(dict.fromkeys(networks))
    roles = cascade.spec.roles.items()
    block_of = {name: block for block, names in roles for name in names}
    deciding: dict[str, str] = {}
    patterns = [p for p, m in methods.items() if isinstance(m, LwF)]
    for pattern in patterns:
        block = block_of.get(pattern, pattern)
        blocks = [block] if block in possible else []
        if pattern == "upstream":
            blocks = cascade.upstreams
        if not blocks:
            raise ValueError(
                f"retention['{pattern}'] is LwF, which keeps the outputs of a "
                f"whole network. Give it one of: {listed(possible)}. For a "
                "part of a network take L2SP or EWC."
            )
        deciding |= dict.fromkeys(blocks, pattern)
    for pattern in patterns:
        if pattern not in deciding.values():
            later = set(deciding.values())
            raise ValueError(overridden("retention", pattern, later))
    return deciding


def pair_weights(
    path: LayerPath, layer: keras.Layer, original: keras.Layer
) -> list[tuple[Weight, Callable[[], Any]]]:
    """Returns the weights of a layer, with readers of the original values."""
    pairs = zip(weights_of(layer), value_readers(original), strict=True)
    return [
        (_weight(path, number, variable), read)
        for number, (variable, read) in enumerate(pairs)
    ]


def _weight(path: LayerPath, number: int, variable: keras.Variable) -> Weight:
    prefix, name = "/".join(path), variable.path
    if not name.startswith(f"{prefix}/"):
        # With copy=False the layers have the names of the user's network.
        name = f"{prefix}/{number}_{variable.name}"
    return Weight(name, path, number, tuple(variable.shape), variable.dtype)


def _check_pretrained(
    lookup: LayerLookup, pattern: str, networks: list[str]
) -> None:
    paths = lookup.covered(pattern, "retention", inside=False)
    blocks = dict.fromkeys(path[0] for path in paths)
    if new := [block for block in blocks if block not in networks]:
        raise ValueError(
            f"retention['{pattern}'] covers {listed(new)}, which is randomly "
            "initialised and has no pretrained weights to keep. Possible are "
            f"the networks: {listed(networks)}."
        )
