"""Fewer, cheaper steps that compute the same.

What does nothing in inference goes; what is linear joins the layer next to it,
where that makes no more multiplications and costs no precision.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import keras
import numpy as np

from keras_cascade.exporting import affine
from keras_cascade.exporting.program import Program, Step
from keras_cascade.graph.flattening import Source
from keras_cascade.graph.reading import Reference

_NOTHING = (
    keras.layers.ActivityRegularization,
    keras.layers.AlphaDropout,
    keras.layers.Dropout,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.Identity,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
)
# A shift of the mean that is this many deviations or less goes into the bias:
# it costs about 2e-6 of the output a deviation.
MEAN_LIMIT = 10.0


@dataclass(frozen=True)
class Folded:
    """A program after folding, and what was done.

    Attributes:
        program: What is left.
        counts: What was done, in words, and how often.
    """

    program: Program
    counts: dict[str, int] = field(default_factory=dict)


Means = Mapping[str, float]


def fold(program: Program, means: Means) -> Folded:
    """Folds whatever can be.

    Args:
        program: It stays as it is.
        means: How many deviations from zero the mean lies that a
            Normalization subtracts, by the name of the step; of others it is
            not known, and they keep theirs.

    Returns:
        The program that is left, and what was done to it.
    """
    counts: dict[str, int] = {}
    while (found := _first(program, means)) is not None:
        program, what = found
        counts[what] = counts.get(what, 0) + 1
    return Folded(program.pruned(program.outputs), counts)


def _first(program: Program, means: Means) -> tuple[Program, str] | None:
    for step in program.steps:
        for what, rule in RULES.items():
            if (new := rule(program, step, means)) is not None:
                return new, what
    return None


def _drop(program: Program, step: Step, means: Means) -> Program | None:
    """What does nothing in inference."""
    if not isinstance(step.operation, _NOTHING) or len(step.inputs) != 1:
        return None
    is_output = step.outputs[0] in program.outputs.values()
    is_input = step.inputs[0] not in program.producers
    return None if is_output and is_input else program.without(step)


def _norm_into_kernel(
    program: Program, step: Step, means: Means
) -> Program | None:
    """A layer with a kernel, then a BatchNormalization."""
    before = _before(program, step)
    if before is None or not affine.is_linear(before.operation):
        return None
    rank = len(program.shapes[step.outputs[0]])
    scaling = affine.batch_norm(step.operation, rank)
    axis = affine.channel_axis(before.operation, rank)
    if scaling is None or scaling.axis != axis:
        return None
    layer = affine.scaled(before.operation, scaling)
    new = Step(before.name, layer, before.args, before.kwargs, step.outputs)
    return program.replaced([before, step], new)


def _scaling_into_kernel(
    program: Program, step: Step, means: Means
) -> Program | None:
    """A BatchNormalization or Normalization, then what mixes channels."""
    before = _before(program, step)
    if before is None or before.only_input is None or not _mixes(step):
        return None
    rank = len(program.shapes[before.only_input])
    scaling = affine.batch_norm(before.operation, rank)
    scaling = scaling or affine.normalization(before.operation, rank)
    axis = affine.channel_axis(step.operation, rank)
    if scaling is None or scaling.axis != axis:
        return None
    if _is_far(before, means):
        return _scale_into_kernel(program, before, step, scaling)
    new = step.on([before.only_input], affine.behind(step.operation, scaling))
    return program.replaced([before, step], new)


def _is_far(step: Step, means: Means) -> bool:
    """Whether a Normalization's mean is too large for a bias."""
    kind = type(step.operation)
    far = means.get(step.name, np.inf) > MEAN_LIMIT
    return kind is keras.layers.Normalization and far


def _scale_into_kernel(
    program: Program, before: Step, step: Step, scaling: affine.Scaling
) -> Program:
    """The mean is subtracted still; what divides goes into the kernel."""
    mean = (-scaling.shift / scaling.scale).astype("float32")
    args = (*before.args, mean)
    centred = Step(before.name, keras.ops.subtract, args, {}, before.outputs)
    scale = affine.Scaling(scaling.scale, 0 * scaling.shift, scaling.axis)
    scaled = step.on(before.outputs, affine.behind(step.operation, scale))
    program = program.replaced([before], centred)
    return program.replaced([step], scaled)


def _kernel_into_kernel(
    program: Program, step: Step, means: Means
) -> Program | None:
    """A linear layer, then what mixes its channels."""
    before = _before(program, step)
    if before is None or not affine.can_lead(before.operation):
        return None
    if not _mixes(step):
        return None
    rank = len(program.shapes[step.outputs[0]])
    first, second = before.operation, step.operation
    axes = {affine.channel_axis(x, rank) for x in (first, second)}
    if len(axes) > 1 or affine.saved_by_chaining(first, second) < 0:
        return None
    layer = affine.chained(first, second)
    new = Step(step.name, layer, before.args, before.kwargs, step.outputs)
    return program.replaced([before, step], new)


def _join_into_join(
    program: Program, step: Step, means: Means
) -> Program | None:
    """A concatenation in a concatenation."""
    parts = _joined(step)
    for place, part in enumerate(parts):
        inner = program.producers.get(part)
        if inner is None or program.only_consumer(part) is not step:
            continue
        own = _joined(inner)
        if own and inner.operation.axis == step.operation.axis:
            tensors = [*parts[:place], *own, *parts[place + 1 :]]
            new = step.on(tensors, step.operation)
            return program.replaced([inner, step], new)
    return None


def _kernels_through_join(
    program: Program, step: Step, means: Means
) -> Program | None:
    """Linear layers, joined by a concatenation, then what mixes channels."""
    join = _before(program, step)
    if join is None or not _joined(join) or not _mixes(step):
        return None
    shape = program.shapes[join.outputs[0]]
    axis = join.operation.axis % len(shape)
    parts = _joined(join)
    widths = [program.shapes[part][axis] for part in parts]
    channels = affine.channel_axis(step.operation, len(shape))
    if axis != channels or None in widths:
        return None
    ahead = [_mixing_before(program, part, channels) for part in parts]
    layers = [None if x is None else x.operation for x in ahead]
    if affine.saved_by_joining(layers, step.operation) < 0 or not any(ahead):
        return None
    tensors = [
        part if before is None else before.inputs[0]
        for part, before in zip(parts, ahead, strict=True)
    ]
    layer = affine.joined(layers, widths, step.operation)
    # The joined tensor is another one now.
    outputs = ((step.name, "joined", 0),)
    width = layer.kernel.shape[-2]
    wide = tuple(width if i == axis else n for i, n in enumerate(shape))
    wider = Step(
        join.name, join.operation, ([*map(Source, tensors)],), {}, outputs
    )
    program = program.with_shape(outputs[0], wide)
    gone = [before for before in ahead if before is not None]
    program = program.replaced([*gone, join], wider)
    return program.replaced([step], step.on(outputs, layer))


RULES = {
    "no-op in inference left out": _drop,
    "BatchNormalization into the layer before it": _norm_into_kernel,
    "normalization into the layer behind it": _scaling_into_kernel,
    "linear layer into the layer behind it": _kernel_into_kernel,
    "concatenation into the next": _join_into_join,
    "linear layers through a concatenation": _kernels_through_join,
}


def _before(program: Program, step: Step) -> Step | None:
    """The step that alone feeds this one, and nothing else."""
    if step.only_input is None:
        return None
    before = program.producers.get(step.only_input)
    if before is None or program.only_consumer(step.only_input) is not step:
        return None
    return before if before.only_input or _joined(before) else None


def _mixes(step: Step) -> bool:
    layer = step.operation
    return affine.mixes(layer) and affine.is_float32(layer)


def _mixing_before(program: Program, part: Reference, axis: int) -> Step | None:
    """The linear layer that gives a part, if nobody else needs it."""
    before = program.producers.get(part)
    if before is None or len(program.consumers.get(part, [])) != 1:
        return None
    if part in program.outputs.values() or before.only_input is None:
        return None
    layer = before.operation
    if not affine.is_linear(layer) or not affine.mixes(layer):
        return None
    own = affine.channel_axis(layer, len(program.shapes[part]))
    return before if own == axis else None


def _joined(step: Step) -> list[Reference]:
    """The tensors that a concatenation joins; none for another step."""
    if type(step.operation) is not keras.layers.Concatenate or step.kwargs:
        return []
    return list(step.inputs)
