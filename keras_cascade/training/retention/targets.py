"""Which weights and networks a mapping of retention covers."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import keras

from keras_cascade import _keras_compat as compat
from keras_cascade.graph import low_rank
from keras_cascade.graph.graph import Graph
from keras_cascade.graph.paths import LayerPath
from keras_cascade.training.layer_lookup import LayerLookup
from keras_cascade.training.retention.lwf import LwF
from keras_cascade.training.retention.method import Retention

Methods = Mapping[str, Retention]


@dataclass(frozen=True)
class Weight:
    """A weight that is kept.

    Attributes:
        path: Its path in the cascade.
        layer: The path of its layer.
        number: Its place among the weights of the layer.
        shape: Its shape.
        dtype: Its dtype.
    """

    path: str
    layer: tuple[str, ...]
    number: int
    shape: tuple[int, ...]
    dtype: str

    def get_config(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Weight":
        """The weight that `get_config` wrote."""
        return cls(
            **{
                **config,
                "layer": tuple(config["layer"]),
                "shape": tuple(config["shape"]),
            }
        )


def normalise_retention(retention: Any) -> dict[str, Retention]:
    """Path pattern to method, as the user gave them.

    Raises:
        TypeError: If it is no mapping of path patterns to methods.
    """
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
    """The weights of a layer that training can move, frozen or not.

    Of a layer with low-rank updates these are the weights that it had before:
    what it computes with instead, `current_values` tells.
    """
    found = []
    for inner in compat.sublayers(layer):
        if low_rank.has_low_rank(inner):
            found += low_rank.plain_variables(inner)
        else:
            found += compat.trainable_kind(inner)
    return found


def current_values(layer: keras.Layer) -> list[Callable[[], Any]]:
    """What gives the values that a layer computes with, of each weight.

    A kernel with a low-rank update is what comes of both.
    """
    merged = {
        id(low_rank.base(inner)): partial(low_rank.merged, inner)
        for inner in low_rank.low_rank_layers(layer)
    }
    return [
        merged.get(id(variable), partial(_itself, variable))
        for variable in weights_of(layer)
    ]


def _itself(variable: keras.Variable) -> keras.Variable:
    return variable


def original_layers(
    graphs: Mapping[str, Graph],
) -> dict[LayerPath, keras.Layer]:
    """The layers of the original networks, by their paths in the cascade."""
    return {
        path: layer
        for block, graph in graphs.items()
        for path, layer in _layers_of(graph, (block,))
    }


def covered_weights(
    lookup: LayerLookup, methods: Methods, networks: Iterable[str]
) -> dict[str, list[LayerPath]]:
    """The layers that each method pulls: the last that covers one counts.

    `LwF` is left out: it pulls answers, not weights.

    Args:
        lookup: The cascade's layers.
        methods: Path pattern to method.
        networks: The blocks that were pretrained.

    Raises:
        ValueError: If a pattern matches nothing, covers what was never
            pretrained, or says nothing that later ones leave standing.
    """
    pulling = [p for p, m in methods.items() if not isinstance(m, LwF)]
    for pattern in pulling:
        _check_pretrained(lookup, pattern, list(networks))
    owners = lookup.deciding_patterns(pulling, "retention")
    found: dict[str, list[LayerPath]] = {pattern: [] for pattern in pulling}
    for path, pattern in owners.items():
        found[pattern].append(path)
    for pattern, paths in found.items():
        if not paths:
            later = {
                owners[path] for path in lookup.covered(pattern, "retention")
            }
            raise ValueError(_overridden(pattern, later))
    return found


def taught_blocks(
    upstreams: list[str], methods: Methods, networks: Iterable[str]
) -> dict[str, str]:
    """The networks whose answers are kept, and the pattern that says so.

    Args:
        upstreams: The names of the upstreams.
        methods: Path pattern to method.
        networks: The blocks that were pretrained.

    Raises:
        ValueError: If a pattern of `LwF` is no whole network.
    """
    possible = list(dict.fromkeys(networks))
    owners: dict[str, str] = {}
    patterns = [p for p, m in methods.items() if isinstance(m, LwF)]
    for pattern in patterns:
        blocks = [pattern] if pattern in possible else []
        if pattern == "upstream":
            blocks = upstreams
        if not blocks:
            names = ", ".join(f"'{name}'" for name in possible)
            raise ValueError(
                f"retention['{pattern}'] is LwF, which keeps the answers of a "
                f"whole network. Give it one of: {names}. For a part of a "
                "network take L2SP or EWC."
            )
        owners |= dict.fromkeys(blocks, pattern)
    for pattern in patterns:
        if pattern not in owners.values():
            raise ValueError(_overridden(pattern, set(owners.values())))
    return owners


def weights_at(
    paths: Iterable[LayerPath],
    layers: Mapping[LayerPath, keras.Layer],
    originals: Mapping[LayerPath, keras.Layer],
) -> list[tuple[Weight, Callable[[], Any]]]:
    """The weights of layers, with what gives the original network's values.

    Layers that entered with an injection have no original, and none is kept.
    """
    return [
        (_weight(path, number, variable), original)
        for path in paths
        if path in originals
        for number, (variable, original) in enumerate(
            zip(
                weights_of(layers[path]),
                current_values(originals[path]),
                strict=True,
            )
        )
    ]


def _layers_of(
    graph: Graph, prefix: LayerPath
) -> Iterator[tuple[LayerPath, Any]]:
    for node in graph.nodes:
        path = (*prefix, node.name)
        if node.inner is not None:
            yield from _layers_of(node.inner, path)
        elif isinstance(node.operation, keras.Layer):
            yield path, node.operation


def _weight(path: LayerPath, number: int, variable: keras.Variable) -> Weight:
    prefix, name = "/".join(path), variable.path
    if not name.startswith(f"{prefix}/"):
        # The network's own layers, under the names that they have.
        name = f"{prefix}/{number}_{variable.name}"
    return Weight(name, path, number, tuple(variable.shape), variable.dtype)


def _check_pretrained(
    lookup: LayerLookup, pattern: str, networks: list[str]
) -> None:
    covered = lookup.covered(pattern, "retention")
    anew = dict.fromkeys(path[0] for path in covered if path[0] not in networks)
    if anew:
        names = ", ".join(f"'{name}'" for name in anew)
        possible = ", ".join(f"'{name}'" for name in networks)
        raise ValueError(
            f"retention['{pattern}'] covers {names}, which begins anew and has "
            "no pretrained weights to keep. Possible are the networks: "
            f"{possible}."
        )


def _overridden(pattern: str, later: set[str]) -> str:
    names = ", ".join(f"'{name}'" for name in sorted(later))
    return (
        f"retention: '{pattern}' changes nothing, as the later {names} "
        "overrides it everywhere. Put the general pattern first, or drop it."
    )
