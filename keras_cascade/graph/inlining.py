"""Rebuilds a model without nested networks, where these share layers.

Keras 3.15.1 cannot load a stock model in which two networks share a layer: its
file has the layer twice, and the weights once.

Tested by `tests/behaviour/test_shared_networks.py`.
"""

from typing import Any

import keras

from keras_cascade.graph.as_input import AsInput
from keras_cascade.graph.flattening import flatten
from keras_cascade.graph.graph import Graph, Reference, read_graph
from keras_cascade.graph.names import numbered_name, rename
from keras_cascade.graph.paths import names_of
from keras_cascade.graph.program import Source, Step
from keras_cascade.graph.tensors import input_like, pack_in_order


def inline_shared(model: keras.Model) -> keras.Model:
    """Returns the model, without nesting if its networks share a layer.

    Args:
        model: A stock Functional that nobody else uses: its layers get names
            of their paths, `upstream_conv1`.
    """
    graph = read_graph(model, keep_names=True)
    if not _shares_layers(graph):
        return model
    program = flatten(graph)
    given = [input_like(x, x.name) for x in graph.inputs]
    ports = [port.reference for port in program.inputs]
    values: dict[Reference, Any] = dict(zip(ports, given, strict=True))
    names: dict[int, str] = {}
    for step in program.steps:
        if id(step.operation) not in names:
            name = "_".join(names_of(step.address))
            name = numbered_name(name, names.values())
            names[id(step.operation)] = name
            rename(step.operation, name)
        outputs = _call(step, values)
        values.update(zip(step.outputs, outputs, strict=True))
    found = [values[reference] for reference in program.outputs.values()]
    return keras.Model(
        pack_in_order(graph.input_structure, given),
        pack_in_order(graph.output_structure, found),
        name=model.name,
    )


def _shares_layers(graph: Graph) -> bool:
    """Whether an operation is in several networks, at any level."""
    owners: dict[int, set[tuple[int, ...]]] = {}
    for nodes in graph.walk():
        around = tuple(id(node.operation) for node in nodes[:-1])
        owners.setdefault(id(nodes[-1].operation), set()).add(around[-1:])
    return max(map(len, owners.values())) > 1


def _call(step: Step, values: dict[Reference, Any]) -> list[Any]:
    def value(x: Any) -> Any:
        if not isinstance(x, Source):
            return x
        # A mask from outside the graph, which Keras passes on by itself.
        return None if x.reference is None else values[x.reference]

    call = step.map_arguments(value)
    if isinstance(step.operation, AsInput):
        # In stock operations: the model loads without this package.
        return [step.operation.call(*call.args)]
    return keras.tree.flatten(step.operation(*call.args, **call.kwargs))
