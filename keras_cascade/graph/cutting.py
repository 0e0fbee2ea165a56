"""Chooses where to cut a program, so that its frozen part is run once a sample.

The outputs of the frozen part are stored, and read in every epoch. The
trainable part may run some cacheable steps as well, if a tensor costs more to
store than to compute again. The cut is the cheapest by the bytes that cross it
and the operations that are run again: a minimum cut.
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import TYPE_CHECKING

import keras
import numpy as np

from keras_cascade.graph.as_input import AsInput
from keras_cascade.graph.cacheable import BlockedStep, find_cacheable
from keras_cascade.graph.flops import flops_of, inner_sizes, sum_flops
from keras_cascade.graph.graph import Reference
from keras_cascade.graph.program import Port, Program, Step

if TYPE_CHECKING:
    from networkx import DiGraph

# The cost of a byte that is stored and read again, in operations: a core reads
# some 10^9 bytes a second from shuffled rows, and computes some 3 * 10^10
# operations. A byte of an input that the trainable part takes is read as well,
# but not stored.
FLOPS_A_BYTE = 32
FLOPS_A_BYTE_OF_INPUT = 16
# The share of all operations that may be cacheable and run in every epoch.
RECOMPUTED = 0.01
# The size that stands for an open one where costs are compared.
_OPEN = 128
_NONE: Mapping[str, str] = {}
# Layers that compute nothing. After the cut they leave their inputs apart,
# which can be stored even if one of them starts to train.
_REARRANGING = (
    AsInput,
    keras.layers.Concatenate,
    keras.layers.Flatten,
    keras.layers.Permute,
    keras.layers.Reshape,
)


@dataclass(frozen=True, kw_only=True)
class Border(Port):
    """A tensor that the trainable part takes.

    Its name is the path of the step that gives it, or that of the input.

    Attributes:
        is_input: Whether it is an input of the cascade, passed on unchanged.
        bytes: The bytes of one sample, without its mask; None if a size is
            open, and for text.
    """

    is_input: bool
    bytes: int | None


@dataclass(frozen=True)
class Cut:
    """A program in two parts.

    Attributes:
        frozen: The program from the inputs to the borders, by their names.
        trainable: The program from the borders to the outputs.
        borders: The tensors that the trainable part takes.
        frozen_flops: The operations for one sample that only the frozen part
            runs; None if a size is open.
        recomputed_flops: The operations of cacheable steps in the trainable
            part, likewise: cheaper than storing more.
        blocked: Steps that end the cacheable part though nothing in them
            trains.
        is_cheap: Whether all cacheable steps together are cheaper to compute
            than to store.
    """

    frozen: Program
    trainable: Program
    borders: tuple[Border, ...]
    frozen_flops: int | None
    recomputed_flops: int | None
    blocked: tuple[BlockedStep, ...]
    is_cheap: bool

    def why_nothing(self) -> str:
        """Says why there is no frozen part, as the end of a sentence."""
        if self.blocked:
            return "; ".join(map(str, self.blocked))
        if self.is_cheap:
            return "what does not train computes next to nothing"
        return "all of it trains, from its inputs on"

    @property
    def stored(self) -> list[Border]:
        """The borders that are no inputs."""
        return [border for border in self.borders if not border.is_input]


def find_cut(
    program: Program, nondeterministic: Mapping[str, str] = _NONE
) -> Cut:
    """Chooses where to cut, by the flags that the layers have now.

    Args:
        program: The program.
        nondeterministic: As in `find_cacheable`. Defaults to none.
    """
    known = find_cacheable(program, nondeterministic)
    names = {step.name for step in known.steps}
    program = _prune_unused(program, names)
    cacheable = [step for step in program.steps if step.name in names]
    repeated = _steps_to_repeat(program, cacheable)
    steps = [
        s for s in program.steps if s.name not in names or s.name in repeated
    ]
    after = _prune_unused(replace(program, steps=tuple(steps)), names)
    borders = _borders(program, after.steps)
    outputs = {x.name: x.reference for x in borders if not x.is_input}
    before = replace(program, outputs=outputs).pruned(outputs)
    saved = [step for step in before.steps if step not in after.steps]
    again = [
        step
        for step in cacheable
        if step in after.steps and not _only_rearranges(step)
    ]
    return Cut(
        before,
        replace(after, inputs=borders),
        borders,
        sum_flops(step_flops(program, step) for step in saved),
        sum_flops(step_flops(program, step) for step in again),
        known.blocked,
        bool(cacheable) and not before.steps,
    )


def step_flops(
    program: Program, step: Step, open_size: int | None = None
) -> int | None:
    """Returns the operations of a step for one sample, if they are known."""
    return flops_of(
        step.operation,
        [_filled(program.shapes[x], open_size) for x in step.inputs],
        [_filled(program.shapes[x], open_size) for x in step.outputs],
    )


def _prune_unused(program: Program, cacheable: Container[str]) -> Program:
    """Removes cacheable steps whose outputs nothing uses."""
    # A step that trains may count though nothing takes its output: it may
    # change its state, or add a loss.
    wanted, steps = set(program.outputs.values()), []
    for step in reversed(program.steps):
        if step.name not in cacheable or wanted.intersection(step.outputs):
            wanted.update(step.inputs)
            steps.append(step)
    return replace(program, steps=tuple(reversed(steps)))


def _steps_to_repeat(program: Program, cacheable: Sequence[Step]) -> set[str]:
    """Returns the cacheable steps that the trainable part runs as well."""
    costs = {step.name: _cost(program, step) for step in cacheable}
    allowed = RECOMPUTED * sum(_cost(program, x) for x in program.steps)
    # Operations get more weight until few enough of them are repeated.
    weight = 1
    while True:
        kept = nearest_minimum_cut(_flow_network(program, costs, weight))
        repeated = costs.keys() - kept
        if sum(costs[name] for name in repeated) <= allowed:
            return repeated
        weight *= 4


# Nodes of the flow network that are neither names of steps nor tensors.
SOURCE, SINK = object(), object()


def nearest_minimum_cut(network: "DiGraph") -> set:
    """Returns the source's side of the minimum cut that is nearest to it."""
    # Imported here, as `import keras_cascade` must be fast.
    from networkx import minimum_cut

    # Of several minimum cuts networkx returns the one nearest to its sink.
    _, (_, side) = minimum_cut(network.reverse(), SINK, SOURCE)
    return side


def _flow_network(
    program: Program, costs: Mapping[str, int], weight: int
) -> "DiGraph":
    """Builds the flow network of tensors and cacheable steps.

    Steps on the source's side are run once. A tensor from there to a step on
    the sink's side is stored.
    """
    from networkx import DiGraph

    network = DiGraph()
    network.add_nodes_from((SOURCE, SINK))
    stored = {port.reference for port in program.inputs}
    stored |= {x for s in program.steps if s.name in costs for x in s.outputs}
    for tensor in stored:
        giver = program.producers.get(tensor)
        start = SOURCE if giver is None else giver.name
        network.add_edge(start, tensor, capacity=_price(program, tensor))
    for name, cost in costs.items():
        network.add_edge(SOURCE, name, capacity=weight * cost)
    # Without a capacity, an edge is in no cut.
    for step in program.steps:
        end = step.name if step.name in costs else SINK
        network.add_edges_from(
            (x, end) for x in stored.intersection(step.inputs)
        )
    outputs = stored.intersection(program.outputs.values())
    network.add_edges_from((tensor, SINK) for tensor in outputs)
    return network


def _price(program: Program, tensor: Reference) -> int:
    """Returns the cost of storing and reading a tensor."""
    is_input = any(port.reference == tensor for port in program.inputs)
    price = FLOPS_A_BYTE_OF_INPUT if is_input else FLOPS_A_BYTE
    return price * (_bytes(program, tensor, _OPEN) or 0)


def _cost(program: Program, step: Step) -> int:
    """Returns the cost of running a step in every epoch."""
    if _only_rearranges(step):
        return 0
    return step_flops(program, step, _OPEN) or 0


def _only_rearranges(step: Step) -> bool:
    return isinstance(step.operation, _REARRANGING)


def _borders(program: Program, rest: Sequence[Step]) -> tuple[Border, ...]:
    """Returns the tensors that the steps after the cut take from before it."""
    inside = {tensor for step in rest for tensor in step.outputs}
    used = [tensor for step in rest for tensor in step.inputs]
    inputs = {port.reference: port for port in program.inputs}
    names = {reference: port.name for reference, port in inputs.items()} | {
        tensor: step.name if len(step.outputs) == 1 else f"{step.name}/{i}"
        for step in program.steps
        for i, tensor in enumerate(step.outputs)
    }
    return tuple(
        Border(
            names[tensor],
            tuple(program.shapes[tensor]),
            program.dtypes[tensor],
            tensor,
            optional=tensor in inputs and inputs[tensor].optional,
            is_input=tensor in inputs,
            bytes=_bytes(program, tensor),
        )
        for tensor in dict.fromkeys([*used, *program.outputs.values()])
        if tensor not in inside
    )


def _bytes(
    program: Program, tensor: Reference, open_size: int | None = None
) -> int | None:
    """Returns the bytes of one sample; None if a size is open, and for text."""
    sizes = inner_sizes(_filled(program.shapes[tensor], open_size))
    dtype = program.dtypes[tensor]
    if sizes is None or dtype == "string":
        return None
    # NumPy knows bfloat16, as Keras imports ml_dtypes.
    return prod(sizes) * np.dtype(dtype).itemsize


def _filled(
    shape: Sequence[int | None], open_size: int | None
) -> tuple[int | None, ...]:
    return tuple(open_size if size is None else size for size in shape)
