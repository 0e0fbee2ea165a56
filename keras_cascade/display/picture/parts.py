"""Describes the boxes of each block of a cascade, and their ports.

Tested by `tests/display/picture/test_reading.py`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import keras

from keras_cascade._reporting import tables
from keras_cascade.adapters.fusions import FUSIONS
from keras_cascade.adapters.size_matching import MatchSize
from keras_cascade.display.blocks import Description
from keras_cascade.display.picture.diagram import Box, Port, Row
from keras_cascade.display.picture.injections import Merge
from keras_cascade.display.picture.leaves import (
    Leaf,
    list_leaves,
    needed_inputs,
    needed_leaves,
    path_of,
)
from keras_cascade.display.picture.stretches import Entry, Exit, divide
from keras_cascade.display.picture.text import LONGEST, shortened
from keras_cascade.display.picture.weights import (
    joined_state,
    state_of,
    weight_lines,
)
from keras_cascade.graph.graph import Graph
from keras_cascade.injection.merging import INJECTIONS

Rates = Mapping[str, float]
# More layers than these in a box are shown by the first and the last.
MAX_LISTED = 3


@dataclass(frozen=True)
class Part:
    """A box, and where the tensors of its block enter and leave it.

    Attributes:
        box: The box.
        entering: The ports by the call of the block and the position among
            its inputs.
        leaving: The ports by the position among the block's outputs.
    """

    box: Box
    entering: Mapping[tuple[int, int], str]
    leaving: Mapping[int, str]


def network_part(
    description: Description,
    calls: int,
    graph: Graph,
    merges: Mapping[str, Merge],
    rates: Rates,
) -> Part:
    """Returns the box of a network, with a row for each stretch.

    Args:
        description: The network's block, by `describe_blocks`.
        calls: How often the cascade calls it.
        graph: The graph of the block.
        merges: The injections by the names of the inputs that they feed.
        rates: The learning rates of the variables.
    """
    leaves = list_leaves(graph)
    entering, entries = _entries(graph, merges, calls)
    names = _output_names(graph)
    exits = [
        Exit(path_of(graph, x), Port(str(i), _label(names[i], x)))
        for i, x in enumerate(graph.outputs)
    ]
    operations = [leaf.operation for leaf in leaves]
    name = description["name"]
    rows = (
        Row((shortened(name),), style="title"),
        *_notes(_subtitles(description)),
        *divide(leaves, entries, exits),
        *_notes(weight_lines(operations, rates)),
    )
    column = "downstream" if name == "downstream" else "upstream"
    leaving = {i: str(i) for i in range(len(exits))}
    return Part(Box(name, column, rows), entering, leaving)


def split_parts(
    name: str, graph: Graph, rates: Rates, waiting: Iterable[str] = ()
) -> list[Part]:
    """Returns a box for each adapted stream, or head, of a block.

    Args:
        name: The name of the block.
        graph: Its graph.
        rates: The learning rates of the variables.
        waiting: The adapters that are not fitted. Defaults to `()`.
    """
    names, groups = _output_names(graph), dict[str, list[int]]()
    for position, tensor in enumerate(graph.outputs):
        label = _merge_label(graph, tensor) or names[position]
        groups.setdefault(label, []).append(position)
    return [
        _stream_part(f"{name}/{label}", name, graph, positions, rates, waiting)
        for label, positions in groups.items()
    ]


def fusion_part(graph: Graph, rates: Rates) -> Part:
    """Returns the box of the fusion, which streams enter in order."""
    operations = [
        leaf.operation
        for leaf in list_leaves(graph)
        if not isinstance(leaf.operation, MatchSize)
    ]
    words = dict.fromkeys(map(_fusion_word, operations))
    shapes = (_label("", x) for x in graph.outputs)
    ports = tuple(Port(str(i), shape) for i, shape in enumerate(shapes))
    keys = tuple(map(str, range(len(graph.inputs))))
    rows = (
        Row(tuple(words), _state(operations), "title", keys, ports),
        *_notes(weight_lines(operations, rates)),
    )
    return Part(
        Box("fusion", "fusion", rows),
        {(0, i): key for i, key in enumerate(keys)},
        {i: port.key for i, port in enumerate(ports)},
    )


def _stream_part(
    key: str,
    block: str,
    graph: Graph,
    positions: Sequence[int],
    rates: Rates,
    waiting: Iterable[str],
) -> Part:
    tensors = [graph.outputs[i] for i in positions]
    leaves = needed_leaves(graph, tensors)
    operations = [leaf.operation for leaf in leaves]
    state = _state(operations)
    port = Port("", _label("", _before_merging(graph, tensors[0])))
    unfitted = any(leaf.path[0] in waiting for leaf in leaves)
    notes = (
        *(("not fitted",) if unfitted else ()),
        *weight_lines(operations, rates),
    )
    rows = (
        Row(_layer_words(leaves), state, "title", ("",), (port,)),
        *(Row((note,), state, "note") for note in notes),
    )
    read = needed_inputs(graph, tensors)
    return Part(
        Box(key, block, rows),
        {(0, i): "" for i in read},
        dict.fromkeys(positions, ""),
    )


def _notes(lines: Iterable[str]) -> tuple[Row, ...]:
    return tuple(Row((line,), style="note") for line in lines)


def _subtitles(description: Description) -> Iterator[str]:
    network, several = description["network"], description["upstreams"]
    if network and network != description["name"]:
        yield shortened(network)
    if several:
        yield f"one network, called {len(several)} times"
    if words := description["preprocessing"]:
        yield from wrap(f"preprocessing: {words}", LONGEST)


def _entries(
    graph: Graph, merges: Mapping[str, Merge], calls: int
) -> tuple[dict[tuple[int, int], str], list[Entry]]:
    """Returns the ports of a network's inputs, and the entries there."""
    entering: dict[tuple[int, int], str] = {}
    entries: dict[str, Entry] = {}
    for position, tensor in enumerate(graph.inputs):
        merge = merges.get(tensor.name)
        for call in range(calls):
            key = merge.label if merge else f"{call}/{tensor.name}"
            entering[call, position] = key
            before = entries.get(key)
            read = before.inputs if before else frozenset()
            entries[key] = Entry(
                key,
                read | {position},
                merge.text if merge else "",
                f"{merge.label}_" if merge else "",
            )
    return entering, list(entries.values())


def _output_names(graph: Graph) -> list[str]:
    """Returns the keys of a network's outputs, in the order of its tensors."""
    structure = graph.output_structure
    if isinstance(structure, dict):
        return keras.tree.flatten({key: key for key in structure})
    return [""] * len(graph.outputs)


def _label(name: str, tensor: keras.KerasTensor) -> tuple[str, ...]:
    shape = tables.shape(tensor.shape)
    return (shortened(name), shape) if name else (shape,)


def _state(operations: Iterable[keras.Operation]) -> str:
    return joined_state(map(state_of, operations))


def _merge_label(graph: Graph, tensor: keras.KerasTensor) -> str | None:
    """Returns the injection that an output of the adapters is for."""
    node, index = graph.sources[id(tensor)]
    if node.name != INJECTIONS or node.inner is None:
        return None
    (position,) = needed_inputs(node.inner, [node.inner.outputs[index]])
    return node.inner.inputs[position].name


def _before_merging(
    graph: Graph, tensor: keras.KerasTensor
) -> keras.KerasTensor:
    """Returns an adapted stream, before its side of a merge."""
    node, index = graph.sources[id(tensor)]
    if node.name != INJECTIONS or node.inner is None:
        return tensor
    (position,) = needed_inputs(node.inner, [node.inner.outputs[index]])
    return node.inner.inputs[position]


def _layer_words(leaves: Sequence[Leaf]) -> tuple[str, ...]:
    """Returns the layers of a stream, then those that prepare its merge."""
    adapting = [x for x in leaves if x.path[0] != INJECTIONS]
    merging = [x for x in leaves if x.path[0] == INJECTIONS]
    words = _listed([_layer_word(leaf.operation) for leaf in adapting])
    weighted = [x.operation for x in merging if state_of(x.operation)]
    words += dict.fromkeys(f"+ {type(x).__name__}" for x in weighted)
    return tuple(words) or ("as it is",)


def _listed(words: list[str]) -> list[str]:
    return words if len(words) <= MAX_LISTED else [words[0], "…", words[-1]]


def _layer_word(operation: keras.Operation) -> str:
    word = type(operation).__name__
    activation: Any = getattr(operation, "activation", None)
    name = getattr(activation, "__name__", "linear")
    return word if name == "linear" else f"{word}, {name}"


def _fusion_word(operation: keras.Operation) -> str:
    names = {layer: name for name, layer in FUSIONS.items()}
    return names.get(type(operation), type(operation).__name__)
