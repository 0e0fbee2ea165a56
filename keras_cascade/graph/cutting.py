"""Where to cut a program, so that its frozen part is run once a sample.

What the frozen part gives is stored, and read in every epoch. Of what is cold,
the trainable part may run some as well, where a tensor costs more to store
than to compute again. The cut is the cheapest by the bytes that cross it and
the operations that are run again: a minimum cut.
"""

import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import keras

from keras_cascade.graph.as_input import AsInput
from keras_cascade.graph.cacheable import BlockedStep, find_cacheable
from keras_cascade.graph.flops import flops_of
from keras_cascade.graph.graph import Reference
from keras_cascade.graph.min_cut import INFINITE, Pipes
from keras_cascade.graph.program import Port, Program, Step

# What a byte costs that is stored and read again, in operations: a core reads
# some 10^9 bytes a second from shuffled rows, and computes some 3 * 10^10
# operations. A byte of an input that passes by is read as well, but takes up
# no room.
FLOPS_A_BYTE = 32
FLOPS_A_BYTE_OF_INPUT = 16
# The share of all operations that may be cold and run in every epoch.
RECOMPUTED = 0.01
# What an open size is taken for where costs are compared.
_OPEN = 128
_NONE: Mapping[str, str] = {}
# These compute nothing. Left behind the cut, what they join can be kept apart,
# and still holds when a part of it trains.
_MOVES = (
    AsInput,
    keras.layers.Concatenate,
    keras.layers.Flatten,
    keras.layers.Permute,
    keras.layers.Reshape,
)


@dataclass(frozen=True)
class Border:
    """A tensor that the trainable part takes.

    Attributes:
        name: The path of the step that gives it, or the name of the input.
        reference: The tensor.
        shape: With the batch, which is None, as are other open sizes.
        dtype: Of its values.
        is_input: Whether it is an input of the cascade, handed on as it is.
        bytes: Of one sample, without its mask; None where a size is open, and
            for text.
    """

    name: str
    reference: Reference
    shape: tuple[int | None, ...]
    dtype: str
    is_input: bool
    bytes: int | None


@dataclass(frozen=True)
class Cut:
    """A program in two parts.

    Attributes:
        frozen: From the inputs to what crosses, by the borders' names.
        trainable: From the borders to the outputs.
        borders: What the trainable part takes.
        frozen_flops: Operations that the frozen part alone runs, for one
            sample; None where a size is open.
        recomputed_flops: Operations that are cold and in the trainable part,
            likewise: storing less is worth them.
        blocked: Steps that end what is cold though nothing in them trains.
        is_cheap: Whether all that is cold computes less than it is worth to
            store.
    """

    frozen: Program
    trainable: Program
    borders: tuple[Border, ...]
    frozen_flops: int | None
    recomputed_flops: int | None
    blocked: tuple[BlockedStep, ...]
    is_cheap: bool

    def why_nothing(self) -> str:
        """Why there is no frozen part, as the end of a sentence."""
        if self.blocked:
            return "; ".join(map(str, self.blocked))
        if self.is_cheap:
            return "what does not train computes next to nothing"
        return "all of it trains, from its inputs on"

    @property
    def stored(self) -> list[Border]:
        """The borders that are no inputs."""
        return [border for border in self.borders if not border.is_input]


def find_cut(program: Program, barred: Mapping[str, str] = _NONE) -> Cut:
    """Chooses where to cut, by the flags that the layers have now.

    Args:
        program: The program.
        barred: As in `find_cacheable`. Defaults to none.
    """
    known = find_cacheable(program, barred)
    names = {step.name for step in known.steps}
    program = _without_idle(program, names)
    cold = [step for step in program.steps if step.name in names]
    again = _run_again(program, cold)
    steps = [s for s in program.steps if s.name not in names or s in again]
    behind = _without_idle(replace(program, steps=tuple(steps)), names)
    borders = _borders(program, behind.steps)
    before = _before(program, borders)
    saved = [step for step in before.steps if step not in behind.steps]
    again = [s for s in again if s in behind.steps and not _moves(s)]
    return Cut(
        before,
        replace(behind, inputs=tuple(map(_port, borders))),
        borders,
        _sum(step_flops(program, step) for step in saved),
        _sum(step_flops(program, step) for step in again),
        known.blocked,
        bool(cold) and not before.steps,
    )


def step_flops(program: Program, step: Step) -> int | None:
    """Operations of a step, for one sample; None where a size is open."""
    return _flops(program, step, None)


def _without_idle(program: Program, cold: Container[str]) -> Program:
    """The program without steps that are cold and lead nowhere.

    One that trains may count though nothing takes what it gives: it may move
    its state, or add a loss.
    """
    wanted, steps = set(program.outputs.values()), []
    for step in reversed(program.steps):
        if step.name not in cold or wanted.intersection(step.outputs):
            wanted.update(step.inputs)
            steps.append(step)
    return replace(program, steps=tuple(reversed(steps)))


def _run_again(program: Program, cold: Sequence[Step]) -> list[Step]:
    """The cold steps that the trainable part runs in every epoch.

    Operations are given more weight until few enough of them are.
    """
    costs = {step.name: _cost(program, step) for step in cold}
    allowed = RECOMPUTED * sum(_cost(program, x) for x in program.steps)
    weight = 1
    while True:
        again = _cheapest(program, costs, weight)
        if sum(costs[name] for name in again) <= allowed:
            return [step for step in cold if step.name in again]
        weight *= 4


def _cheapest(
    program: Program, costs: Mapping[str, int], weight: int
) -> set[str]:
    """The names of the steps that are cheaper run again.

    On the source's side are the steps that are not. A tensor on its way from
    there to a step of the other side is stored.

    Args:
        program: The program.
        costs: What each cold step costs if it is run again.
        weight: Of these costs.
    """
    pipes = Pipes()
    steps = [step for step in program.steps if step.name in costs]
    stored = {port.reference for port in program.inputs}
    stored.update(tensor for step in steps for tensor in step.outputs)
    for tensor in stored:
        giver = program.producers.get(tensor)
        start = _SOURCE if giver is None else giver.name
        pipes.add(start, tensor, _price(program, tensor))
    for name, cost in costs.items():
        pipes.add(_SOURCE, name, weight * cost)
    for step in program.steps:
        end = step.name if step.name in costs else _SINK
        for tensor in stored.intersection(step.inputs):
            pipes.add(tensor, end, INFINITE)
    for tensor in stored.intersection(program.outputs.values()):
        pipes.add(tensor, _SINK, INFINITE)
    _, kept = pipes.cut(_SOURCE, _SINK)
    return {name for name in costs if name not in kept}


# No names of steps, nor tensors.
_SOURCE, _SINK = object(), object()


def _price(program: Program, tensor: Reference) -> int:
    """What it costs that a tensor crosses."""
    ports = [port.reference for port in program.inputs]
    price = FLOPS_A_BYTE_OF_INPUT if tensor in ports else FLOPS_A_BYTE
    return price * (_bytes(program, tensor, _OPEN) or 0)


def _cost(program: Program, step: Step) -> int:
    """What it costs that a step runs in every epoch."""
    return 0 if _moves(step) else _flops(program, step, _OPEN) or 0


def _moves(step: Step) -> bool:
    return isinstance(step.operation, _MOVES)


def _borders(program: Program, rest: Sequence[Step]) -> tuple[Border, ...]:
    """What the steps behind the cut, and the outputs, take from before it."""
    inside = {tensor for step in rest for tensor in step.outputs}
    used = [tensor for step in rest for tensor in step.inputs]
    inputs = {port.reference: port.name for port in program.inputs}
    names = inputs | {
        tensor: step.name if len(step.outputs) == 1 else f"{step.name}/{i}"
        for step in program.steps
        for i, tensor in enumerate(step.outputs)
    }
    return tuple(
        Border(
            names[tensor],
            tensor,
            tuple(program.shapes[tensor]),
            program.dtypes[tensor],
            tensor in inputs,
            _bytes(program, tensor),
        )
        for tensor in dict.fromkeys([*used, *program.outputs.values()])
        if tensor not in inside
    )


def _before(program: Program, borders: Iterable[Border]) -> Program:
    outputs = {x.name: x.reference for x in borders if not x.is_input}
    return replace(program, outputs=outputs).pruned(outputs)


def _port(border: Border) -> Port:
    return Port(border.name, border.shape, border.dtype, border.reference)


def _flops(program: Program, step: Step, open_size: int | None) -> int | None:
    """Operations of a step, with something in the place of open sizes."""
    return flops_of(
        step.operation,
        [_filled(program.shapes[x], open_size) for x in step.inputs],
        [_filled(program.shapes[x], open_size) for x in step.outputs],
    )


def _bytes(
    program: Program, tensor: Reference, open_size: int | None = None
) -> int | None:
    """The bytes of a sample, with something in the place of open sizes."""
    sizes = _filled(program.shapes[tensor], open_size)[1:]
    known = [size for size in sizes if size is not None]
    itemsize = _itemsize(program.dtypes[tensor])
    if len(known) < len(sizes) or itemsize is None:
        return None
    return prod(known) * itemsize


def _filled(
    shape: Sequence[int | None], open_size: int | None
) -> tuple[int | None, ...]:
    return tuple(open_size if size is None else size for size in shape)


def _itemsize(dtype: str) -> int | None:
    """The bytes of a number: 4 for `float32`; None for text."""
    if dtype == "bool":
        return 1
    bits = re.search(r"\d+", dtype)
    return max(1, int(bits[0]) // 8) if bits else None


def _sum(several: Iterable[int | None]) -> int | None:
    found = list(several)
    return None if None in found else sum(x for x in found if x is not None)
