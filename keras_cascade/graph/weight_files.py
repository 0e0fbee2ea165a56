"""Lays out weights in files as the network has them that a block copies.

Keras finds the weights in a `.weights.h5` file by the classes of the layers
and by their order. A block has other classes (networks inside it are blocks),
may lack layers, and may have another order.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import keras

from keras_cascade import _keras_compat as compat
from keras_cascade.graph.graph import Graph

# Networks are Functional in files, unless the layout says otherwise.
_NETWORK = "Functional"


@dataclass(frozen=True)
class Layout:
    """The layers of a network in the order of a file.

    Attributes:
        entries: The name of the class of each layer, and its name in the
            block, which is None if the block lacks it.
    """

    entries: tuple[tuple[str, str | None], ...]

    @classmethod
    def of_block(cls, block: keras.Model) -> Self:
        """Returns the layout of a network with the layers of a block."""
        return cls(tuple((_kind(x), x.name) for x in _weighted(block.layers)))

    @classmethod
    def of_source(cls, graph: Graph, block: keras.Model) -> Self:
        """Returns the layout of the network that a block was copied from."""
        known = getattr(graph.network, "layout", None)
        names = {id(node.operation): node.name for node in graph.nodes}
        layers = _weighted(getattr(graph.network, "layers", ()))
        entries: list[tuple[str, str | None]] = (
            list(known.entries)
            if isinstance(known, cls)
            else [(_kind(x), names.get(id(x))) for x in layers]
        )
        own = {layer.name for layer in block.layers}
        found = [(kind, n if n in own else None) for kind, n in entries]
        while found and found[-1][1] is None:
            found.pop()
        return cls(tuple(found))


def weights_view(block: Any) -> Any:
    """Returns what Keras saves, and loads, as it does the network itself.

    The states of random layers stand beside the layers, where Keras does not
    look for them.
    """
    blocks: list[keras.Model] = []
    view = _view(block, _NETWORK, blocks)
    view.random_states = [compat.make_view("RandomState", x) for x in blocks]
    return view


def _view(block: Any, kind: str, blocks: list[keras.Model]) -> Any:
    """Returns the view of one level, and adds its block to `blocks`."""
    blocks.append(block)
    layers = {layer.name: layer for layer in _weighted(block.layers)}
    layout = block.layout or Layout.of_block(block)
    entries = [(kind, layers.pop(name, None)) for kind, name in layout.entries]
    # Operations that an injection added come after those of the network.
    entries += [(_kind(layer), layer) for layer in layers.values()]
    view = compat.make_view(kind)
    view.layers = [
        compat.make_view(kind)
        if layer is None
        else _view_inside(layer, kind, blocks)
        for kind, layer in entries
    ]
    return view


def _view_inside(layer: Any, kind: str, blocks: list[keras.Model]) -> Any:
    """Returns the view of a layer, which may have a block inside."""
    if _is_block(layer):
        return _view(layer, kind, blocks)
    if not hasattr(layer, "weights_kind"):
        return layer
    view = compat.make_view(layer.weights_kind)
    view.layer = _view_inside(layer.layer, _NETWORK, blocks)
    return view


def _weighted(layers: Iterable[keras.Layer]) -> list[keras.Layer]:
    kind = keras.layers.InputLayer
    return [layer for layer in layers if not isinstance(layer, kind)]


def _is_block(layer: object) -> bool:
    # The class of blocks stands above this module.
    return hasattr(type(layer), "layout")


def _kind(layer: keras.Layer) -> str:
    if _is_block(layer):
        return _NETWORK
    return getattr(layer, "weights_kind", type(layer).__name__)
