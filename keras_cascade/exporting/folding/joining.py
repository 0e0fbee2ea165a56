"""Concatenations, and what is linear on both sides of one."""

from collections.abc import Mapping

from keras_cascade.exporting.folding import affine, combining, neighbours
from keras_cascade.graph.flattening import Source
from keras_cascade.graph.graph import Reference
from keras_cascade.graph.program import Program, Step


def join_into_join(
    program: Program, step: Step, means: Mapping[str, float]
) -> Program | None:
    """A concatenation in a concatenation."""
    parts = neighbours.joined(step)
    for place, part in enumerate(parts):
        inner = program.producers.get(part)
        if inner is None or not _only_part(program, step, part):
            continue
        own = neighbours.joined(inner)
        if own and _join_axis(program, inner) == _join_axis(program, step):
            tensors = [*parts[:place], *own, *parts[place + 1 :]]
            new = step.on(tensors, step.operation)
            return program.replaced([inner, step], new)
    return None


def kernels_through_join(
    program: Program, step: Step, means: Mapping[str, float]
) -> Program | None:
    """Linear layers, joined by a concatenation, then what mixes channels."""
    join = neighbours.before(program, step)
    if join is None or not neighbours.joined(join):
        return None
    if not neighbours.mixes(program, step):
        return None
    shape = program.shapes[join.outputs[0]]
    axis = _join_axis(program, join)
    parts = neighbours.joined(join)
    sizes = [program.shapes[part][axis] for part in parts]
    widths = [size for size in sizes if size is not None]
    channels = affine.channel_axis(step.operation, len(shape))
    if axis != channels or len(widths) < len(sizes):
        return None
    ahead = [_mixing_before(program, join, step, part) for part in parts]
    layers = [None if x is None else x.operation for x in ahead]
    if affine.saved_by_joining(layers, step.operation) < 0 or not any(ahead):
        return None
    tensors = [
        part if before is None else before.inputs[0]
        for part, before in zip(parts, ahead, strict=True)
    ]
    if not all(neighbours.is_float32(program, tensor) for tensor in tensors):
        return None
    layer = combining.joined(layers, widths, step.operation)
    # The joined tensor is another one now.
    outputs = ((step.name, "joined", 0),)
    width = layer.kernel.shape[-2]
    wide = tuple(width if i == axis else n for i, n in enumerate(shape))
    wider = Step(
        join.name, join.operation, ([*map(Source, tensors)],), {}, outputs
    )
    program = program.with_tensor(outputs[0], wide, "float32")
    gone = [before for before in ahead if before is not None]
    program = program.replaced([*gone, join], wider)
    return program.replaced([step], step.on(outputs, layer))


def _mixing_before(
    program: Program, join: Step, last: Step, part: Reference
) -> Step | None:
    """The linear layer that gives a part, if nobody else needs it."""
    before = program.producers.get(part)
    if before is None or before.only_input is None:
        return None
    layer = before.operation
    if not affine.is_linear(layer) or not affine.mixes(layer):
        return None
    if neighbours.is_shared(program, before):
        return None
    rank = len(program.shapes[part])
    axes = {affine.channel_axis(x, rank) for x in (layer, last.operation)}
    # Dense hands masks on, convolutions do not.
    if len(axes) > 1 or (
        layer.supports_masking != last.operation.supports_masking
    ):
        return None
    return before if _only_part(program, join, part) else None


def _only_part(program: Program, join: Step, part: Reference) -> bool:
    """Whether a tensor goes into a concatenation, once, and nowhere else."""
    alone = program.only_consumer(part) is join
    return alone and join.inputs.count(part) == 1


def _join_axis(program: Program, step: Step) -> int:
    """The axis of a concatenation, counted from the first."""
    return step.operation.axis % len(program.shapes[step.outputs[0]])
