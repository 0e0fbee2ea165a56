"""The inputs of a cascade: what they are called, and what they look like."""

from collections.abc import Iterable, Mapping
from typing import Any

import keras

from keras_cascade.graph.names import is_numbered_by_keras
from keras_cascade.graph.reading import Graph
from keras_cascade.graph.taps import Tap
from keras_cascade.graph.tensors import input_like
from keras_cascade.spec import BLOCKS, ExtraInput

Tensors = dict[str, keras.KerasTensor]


def input_names(graph: Graph) -> dict[str, str]:
    """The upstream's inputs to what the cascade calls them.

    One is `inputs`; several keep their names, but for Keras's numbers.
    """
    nodes = [graph.sources[id(tensor)][0] for tensor in graph.inputs]
    if len(nodes) == 1:
        return {nodes[0].name: "inputs"}
    names, unnamed = {}, 0
    for node in nodes:
        names[node.name] = node.name
        if is_numbered_by_keras(node.operation):
            names[node.name] = f"inputs_{unnamed}" if unnamed else "inputs"
            unnamed += 1
    return names


def taken_names(
    tapped: Iterable[Tap], names: Mapping[str, str]
) -> dict[str, str]:
    """The names that an extra input cannot have, with what has them."""
    return (
        dict.fromkeys(BLOCKS, "a block of the cascade")
        | {tap.name: f"the tap at '{tap.path}'" for tap in tapped}
        | dict.fromkeys(names.values(), "an input of the upstream")
    )


def main_inputs(block: keras.Model, names: Mapping[str, str]) -> Tensors:
    """Inputs for those of a network's that its copy still takes."""
    return {names[x.name]: input_like(x, names[x.name]) for x in block.inputs}


def side_inputs(extras: Mapping[str, ExtraInput]) -> Tensors:
    """The inputs for side features, by their names."""
    return {
        name: input_like(extra.tensor, name) for name, extra in extras.items()
    }


def packed(inputs: Tensors) -> Any:
    """One input as it is, several by their names."""
    return inputs if len(inputs) > 1 else next(iter(inputs.values()))
