"""Finds the stages of a network: the tensors that are tapped most often."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import keras

from keras_cascade._reporting import tables
from keras_cascade.graph.data_formats import data_format
from keras_cascade.graph.flattening import flatten
from keras_cascade.graph.graph import Graph, Reference, read_graph
from keras_cascade.graph.program import Program, Step
from keras_cascade.graph.resolutions import Shapes, known_shapes
from keras_cascade.graph.tap_places import path_of
from keras_cascade.networks.loading import as_network, load_network

# The stages of a network whose maps all have one resolution.
_BLOCKS = 4


def stages(network: keras.Model | str) -> "Stages":
    """Returns the tensors of a network that are tapped most often.

    In a network that reduces its maps step by step, a stage is the last map
    of each resolution: the one from which the next lower resolution is
    computed, and the last of the lowest. In a network of one resolution, such
    as a vision transformer, in one of sequences or of vectors, at most four
    blocks are chosen, evenly, the last included.

    Args:
        network: A built Functional or Sequential model, or any other network
            that `build_cascade` takes; an application that is given by name
            is built without downloading weights.

    Returns:
        A dict `{"stage1": path, ...}`, the first stages first, which is a
        `taps=` argument and is shown as a table. Its `rows` have the shape,
        channels and reduction of each.

    Raises:
        ValueError: If the network has no graph to look into.

    Example:
    >>> found = stages("MobileNetV2")
    >>> found["stage2"]
    'block_3_expand_relu'
    >>> [stage.reduction for stage in found.rows]
    [2, 4, 8, 16, 32]
    """
    model = load_network(network, "network", weights=False)
    return find_stages(read_graph(as_network(model, "network")))


@dataclass(frozen=True)
class Stage:
    """A stage of a network.

    Attributes:
        name: `"stage1"`, `"stage2"` and so on.
        path: The path in the network.
        shape: The shape, with the batch as the first entry.
        channels: The number of channels, or of features; `None` if open.
        reduction: The size of the network's input over that of the map, as
            the nearest power of two; `None` for a block of a network whose
            maps have one resolution.
    """

    name: str
    path: str
    shape: tuple[int | None, ...]
    channels: int | None
    reduction: int | None


class Stages(tables.Tabular, dict[str, str]):
    """The stages of a network: a dict of paths that is shown as a table.

    Attributes:
        rows: The stages, the first first.
    """

    def __init__(self, rows: Iterable[Stage]):
        self.rows = tuple(rows)
        super().__init__({row.name: row.path for row in self.rows})

    def _parts(self) -> list[tables.Part]:
        columns = ("stage", "path", "shape", "channels", "reduction")
        rows = [
            (
                row.name,
                row.path,
                tables.shape(row.shape),
                tables.count(row.channels),
                str(row.reduction or ""),
            )
            for row in self.rows
        ]
        return [tables.Table("Stages", columns, rows, columns[3:])]


def find_stages(graph: Graph) -> Stages:
    """Returns the stages of a network that was read as a graph."""
    program = flatten(graph)
    is_last = (data_format(graph) or keras.config.image_data_format()) != (
        "channels_first"
    )
    reductions = _Reductions(program, is_last).by_level()
    if len(reductions) < 2:
        found = dict.fromkeys(_blocks(program))
    else:
        found = {ref: 2**n for n, ref in sorted(reductions.items())}
    return Stages(
        _stage(graph, program, number, ref, reduction, is_last)
        for number, (ref, reduction) in enumerate(found.items(), start=1)
    )


def _stage(
    graph: Graph,
    program: Program,
    number: int,
    reference: Reference,
    reduction: int | None,
    is_last: bool,
) -> Stage:
    shape = program.shapes[reference]
    channels = shape[-1 if is_last or len(shape) < 4 else 1]
    path = path_of(graph, reference)
    return Stage(f"stage{number}", path, shape, channels, reduction)


class _Reductions:
    """The maps of a program, and how far each is reduced.

    A level n is a reduction by 2 ** n, rounded: padding hardly changes it.
    """

    def __init__(self, program: Program, is_last: bool):
        self._program = program
        self._axes = slice(1, -1) if is_last else slice(2, None)
        self._levels: dict[Reference, int] = {}
        images = [x for x in program.inputs if len(x.shape) > 2]
        if images:
            shapes = known_shapes(program, self._axes)
            self._add_levels(images[0].reference, shapes)
        padded = {
            x for step in program.steps if _pads(step) for x in step.outputs
        }
        learned = learned_tensors(program) - padded
        self._maps = [x for x in self._levels if x in learned]

    def by_level(self) -> dict[int, Reference]:
        """Returns the last map of each level.

        It is the last from which all maps come that are reduced there: no
        branch that is reduced at its end.
        """
        if not self._maps:
            return {}
        found: dict[int, set[Reference]] = {}
        origins = self._origins()
        for step in self._program.steps:
            for given, level in self._reduced_by(step):
                common = found.setdefault(level, origins[given])
                found[level] = common & origins[given]
        found[max(self._levels[x] for x in self._maps)] = {*self._maps}
        ends: dict[int, Reference] = {}
        for x in self._maps:
            if x in found.get(self._levels[x], ()):
                ends[self._levels[x]] = x
        return ends

    def _origins(self) -> dict[Reference, set[Reference]]:
        """Returns the maps of its level from which each map comes, and it."""
        found = {x.reference: {x.reference} for x in self._program.inputs}
        for step in self._program.steps:
            for output in step.outputs:
                level = self._levels.get(output)
                same = [x for x in step.inputs if self._levels.get(x) == level]
                found[output] = {output}.union(*(found[x] for x in same))
        return found

    def _reduced_by(self, step: Step) -> Iterator[tuple[Reference, int]]:
        """Yields the maps that a step reduces, with their levels."""
        level = self._levels.get(step.outputs[0])
        for given in step.inputs:
            own = self._levels.get(given)
            if level is not None and own is not None and own < level:
                yield given, own

    def _add_levels(self, image: Reference, shapes: Shapes) -> None:
        first = self._sizes(shapes[image])
        self._levels[image] = 0
        for step in self._program.steps:
            given = [x for x in step.inputs if x in self._levels]
            for output in step.outputs:
                sizes = self._sizes(shapes[output])
                same_rank = len(shapes[output]) == len(shapes[image])
                if same_rank and self._is_map(sizes, given, shapes):
                    ratios = map(_ratio, first, sizes)
                    self._levels[output] = round(math.log2(max(ratios)))

    def _is_map(
        self, sizes: Sequence[int], given: Sequence[Reference], shapes: Shapes
    ) -> bool:
        """Returns whether a tensor has positions: one that is pooled has none.

        The last map of a small image may be a point, if its size was halved.
        """
        if not given or 0 in sizes:
            return False
        largest = max(max(self._sizes(shapes[x])) for x in given)
        return max(sizes) > 1 or largest <= 2

    def _sizes(self, shape: Sequence[int | None]) -> list[int]:
        return [size or 0 for size in shape[self._axes]]


def _pads(step: Step) -> bool:
    return "Padding" in type(step.operation).__name__


def _ratio(whole: int, part: int) -> float:
    return max(whole, 1) / part


def learned_tensors(program: Program) -> set[Reference]:
    """Returns the tensors that a kernel or an embedding has computed."""
    found: set[Reference] = set()
    for step in program.steps:
        if _has_kernel(step) or not found.isdisjoint(step.inputs):
            found.update(step.outputs)
    return found


def _has_kernel(step: Step) -> bool:
    weights = getattr(step.operation, "weights", ())
    return any(len(weight.shape) > 1 for weight in weights)


def _blocks(program: Program) -> list[Reference]:
    """Returns some of the tensors through which everything passes."""
    trunk = list(_trunk(program))
    learned = learned_tensors(program)
    sums = [x for x in trunk if len({*x.inputs} & learned) > 1]
    kernels = [step for step in trunk if _has_kernel(step)]
    blocks = next((x for x in (sums, kernels) if len(x) > 1), trunk)
    count = min(_BLOCKS, len(blocks))
    ends = [round(i * len(blocks) / max(count, 1)) for i in range(count + 1)]
    chosen = [blocks[end - 1].outputs[0] for _, end in pairwise(ends)]
    return chosen or list(dict.fromkeys(program.outputs.values()))


def _trunk(program: Program) -> Iterator[Step]:
    """Yields the steps that no learned tensor passes by."""
    learned = learned_tensors(program)
    position = {step.outputs[0]: i for i, step in enumerate(program.steps)}
    last = {
        ref: max((position[x.outputs[0]] for x in steps), default=-1)
        for ref, steps in program.consumers.items()
        if ref in learned
    }
    reach = -1
    for number, step in enumerate(program.steps):
        if step.outputs[0] in learned and reach <= number:
            yield step
        reach = max([reach, *(last.get(x, -1) for x in step.outputs)])
