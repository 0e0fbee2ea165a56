"""Folds concatenations, and the linear layers on both sides of one."""

from keras_cascade.exporting.folding import affine, combined_layers, conditions
from keras_cascade.graph.graph import Reference
from keras_cascade.graph.program import Program, Source, Step


def flatten_concatenation(program: Program, step: Step) -> Program | None:
    """Folds a concatenation into one that it is part of."""
    parts = conditions.concatenated(step)
    for place, part in enumerate(parts):
        inner = program.producers.get(part)
        if inner is None or not _is_only_part(program, step, part):
            continue
        own = conditions.concatenated(inner)
        if own and _axis(program, inner) == _axis(program, step):
            tensors = [*parts[:place], *own, *parts[place + 1 :]]
            new = step.on(tensors, step.operation)
            return program.replaced([inner, step], new)
    return None


def fold_through_concatenation(program: Program, step: Step) -> Program | None:
    """Folds concatenated linear layers into a layer that mixes channels."""
    join = conditions.sole_predecessor(program, step)
    parts = conditions.concatenated(join) if join else []
    if not join or not parts or not conditions.mixes_channels(program, step):
        return None
    shape, axis = program.shapes[join.outputs[0]], _axis(program, join)
    sizes = [program.shapes[part][axis] for part in parts]
    widths = [size for size in sizes if size is not None]
    channels = affine.channel_axis(step.operation, len(shape))
    if axis != channels or len(widths) < len(sizes):
        return None
    before = [_linear_layer_of(program, join, step, part) for part in parts]
    layers = [x and x.operation for x in before]
    saved = affine.weights_saved_by_joining(layers, step.operation)
    if saved < 0 or not any(before):
        return None
    tensors = [
        part if x is None else x.inputs[0]
        for part, x in zip(parts, before, strict=True)
    ]
    # The layers that go would have cast their inputs.
    if any(program.dtypes[tensor] != "float32" for tensor in tensors):
        return None
    layer = combined_layers.join(layers, widths, step.operation)
    # The concatenation is wider or narrower now, and so another tensor.
    joined = ((step.name, "joined", 0),)
    wide = (*shape[:axis], layer.kernel.shape[-2], *shape[axis + 1 :])
    program = program.with_tensor(joined[0], wide, "float32")
    args = ([*map(Source, tensors)],)
    wider = Step(join.address, join.operation, args, {}, joined)
    gone = [x for x in before if x is not None]
    program = program.replaced([*gone, join], wider)
    return program.replaced([step], step.on(joined, layer))


def _linear_layer_of(
    program: Program, join: Step, last: Step, part: Reference
) -> Step | None:
    """Returns the linear layer of a part, if nothing else needs its output."""
    found = program.producers.get(part)
    if found is None or found.only_input is None:
        return None
    layer = found.operation
    if not affine.is_linear(layer) or not affine.mixes_channels(layer):
        return None
    if conditions.is_shared(program, found):
        return None
    rank = len(program.shapes[part])
    axes = {affine.channel_axis(x, rank) for x in (layer, last.operation)}
    # Dense hands masks on, convolutions do not.
    if len(axes) > 1 or (
        found.operation.supports_masking != last.operation.supports_masking
    ):
        return None
    return found if _is_only_part(program, join, part) else None


def _is_only_part(program: Program, join: Step, part: Reference) -> bool:
    """Whether a tensor goes into a concatenation, once, and nowhere else."""
    alone = program.only_consumer(part) is join
    return alone and join.inputs.count(part) == 1


def _axis(program: Program, join: Step) -> int:
    """Returns the axis of a concatenation, counted from the first."""
    return join.operation.axis % len(program.shapes[join.outputs[0]])
