"""Reads the boxes and links of a cascade off its graph.

Tested by `tests/display/picture/test_reading.py`.
"""

from collections.abc import Iterator, Mapping, Sequence

import keras

from keras_cascade._cascade_view import CascadeView, as_model
from keras_cascade._reporting import tables
from keras_cascade.adapters.fitting import unfitted
from keras_cascade.display.blocks import describe_blocks
from keras_cascade.display.picture.diagram import Box, Diagram, Link, Port, Row
from keras_cascade.display.picture.injections import find_merges
from keras_cascade.display.picture.leaves import needed_inputs
from keras_cascade.display.picture.parts import (
    Part,
    fusion_part,
    network_part,
    split_parts,
)
from keras_cascade.display.picture.text import shortened
from keras_cascade.graph.graph import Graph, Node, read_graph

# Shown as a line in the box of the network that reads it.
PREPROCESSING = "preprocessing"


def read_diagram(cascade: CascadeView) -> Diagram:
    """Returns the boxes and links of a cascade."""
    graph = read_graph(as_model(cascade), keep_names=True)
    parts = _read_parts(cascade, graph)
    outputs = _outputs(as_model(cascade))
    links = [*_inner_links(graph, parts), *_last_links(graph, parts, outputs)]
    boxes = (
        *(_text_box("input", x.name, x) for x in graph.inputs),
        *(part.box for several in parts.values() for part in several),
        *(_text_box("output", name, x) for name, x in outputs.items()),
    )
    return Diagram(
        f"Cascade '{cascade.name}'", boxes, tuple(dict.fromkeys(links))
    )


def _read_parts(cascade: CascadeView, graph: Graph) -> dict[str, list[Part]]:
    """Returns the boxes of each block, by the block's name."""
    rates = cascade.learning_rates() if cascade.compiled else {}
    waiting = [path[1] for path in unfitted(as_model(cascade))]
    parts: dict[str, list[Part]] = {}
    for description in describe_blocks(cascade):
        name = description["name"]
        calls = graph.calls.get(name, [])
        inner = calls[0].inner if calls else None
        if inner is None or name == PREPROCESSING:
            continue
        if name in ("adapters", "head"):
            parts[name] = split_parts(name, inner, rates, waiting)
        elif name == "fusion":
            parts[name] = [fusion_part(inner, rates)]
        else:
            merges = find_merges(cascade, inner) if name == "downstream" else {}
            parts[name] = [
                network_part(description, len(calls), inner, merges, rates)
            ]
    return parts


def _inner_links(
    graph: Graph, parts: Mapping[str, Sequence[Part]]
) -> Iterator[Link]:
    for name, several in parts.items():
        for number, call in enumerate(graph.calls[name]):
            for position, tensor in enumerate(call.inner_arguments):
                for part in several:
                    key = part.entering.get((number, position))
                    if key is not None:
                        yield from (
                            Link(*source, part.box.key, key)
                            for source in _sources(graph, parts, tensor)
                        )


def _last_links(
    graph: Graph,
    parts: Mapping[str, Sequence[Part]],
    outputs: Mapping[str, keras.KerasTensor],
) -> Iterator[Link]:
    for name, tensor in outputs.items():
        for source in _sources(graph, parts, tensor):
            yield Link(*source, f"output/{name}", "")


def _sources(
    graph: Graph,
    parts: Mapping[str, Sequence[Part]],
    tensor: keras.KerasTensor,
) -> Iterator[tuple[str, str]]:
    """Yields the boxes and ports that a tensor comes from."""
    node, index = graph.sources[id(tensor)]
    if node.is_input:
        yield f"input/{tensor.name}", ""
    elif node.name == PREPROCESSING:
        for given in _prepared_from(node, index):
            yield from _sources(graph, parts, given)
    else:
        for part in parts[node.name]:
            if index in part.leaving:
                yield part.box.key, part.leaving[index]


def _prepared_from(node: Node, index: int) -> list[keras.KerasTensor]:
    inner = node.inner
    if inner is None:
        return node.tensors
    positions = needed_inputs(inner, [inner.outputs[index]])
    return [node.inner_arguments[i] for i in positions]


def _text_box(column: str, name: str, tensor: keras.KerasTensor) -> Box:
    """Returns the name and shape of an input or output of the cascade."""
    lines = (shortened(name), tables.shape(tensor.shape))
    row = Row(lines, "", "name", ("",), (Port(""),))
    return Box(f"{column}/{name}", column, (row,))


def _outputs(model: keras.Model) -> dict[str, keras.KerasTensor]:
    if isinstance(model.output, dict):
        return dict(model.output)
    names = ["output"] if len(model.outputs) == 1 else model.output_names
    return dict(zip(names, model.outputs, strict=True))
