"""Fewer, cheaper steps that compute the same.

What does nothing in inference goes; what is linear joins the layer next to it,
where that makes no more multiplications and costs no precision.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import keras
import numpy as np

from keras_cascade.exporting.folding import affine, combining, neighbours
from keras_cascade.exporting.folding.joining import (
    join_into_join,
    kernels_through_join,
)
from keras_cascade.graph.program import Program, Step

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
# What a rule changes lies so many steps back at most where steps follow each
# other; what lies further back is found in the next round.
_LOOKS_BACK = 3
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
    counts: Counter[str] = Counter()
    before = None
    while program is not before:
        before = program
        program = _once_through(program, means, counts)
    return Folded(program.pruned(program.outputs), dict(counts))


def _once_through(
    program: Program, means: Means, counts: Counter[str]
) -> Program:
    """From the first step to the last; the program itself if nothing is."""
    place = 0
    while place < len(program.steps):
        found = _at(program, program.steps[place], means)
        if found is None:
            place += 1
        else:
            program, what = found
            counts[what] += 1
            place = max(0, place - _LOOKS_BACK)
    return program


def _at(
    program: Program, step: Step, means: Means
) -> tuple[Program, str] | None:
    for what, rule in RULES.items():
        if (new := rule(program, step, means)) is not None:
            return new, what
    return None


def _drop(program: Program, step: Step, means: Means) -> Program | None:
    """What does nothing in inference; subclasses may do something."""
    if type(step.operation) not in _NOTHING or step.only_input is None:
        return None
    given, kept = step.only_input, step.outputs[0]
    if program.dtypes[given] != program.dtypes[kept]:
        return None
    is_output = step.outputs[0] in program.outputs.values()
    is_input = step.inputs[0] not in program.producers
    return None if is_output and is_input else program.without(step)


def _norm_into_kernel(
    program: Program, step: Step, means: Means
) -> Program | None:
    """A layer with a kernel, then a BatchNormalization."""
    before = neighbours.before(program, step)
    if before is None or not affine.is_linear(before.operation):
        return None
    rank = len(program.shapes[step.outputs[0]])
    scaling = affine.batch_norm(step.operation, rank)
    axis = affine.channel_axis(before.operation, rank)
    calls = neighbours.followed_alike(program, before, step)
    if scaling is None or scaling.axis != axis or not calls:
        return None
    layer = combining.scaled(before.operation, scaling)
    for call, norm in calls:
        new = Step(call.name, layer, call.args, call.kwargs, norm.outputs)
        program = program.replaced([call, norm], new)
    return program


def _scaling_into_kernel(
    program: Program, step: Step, means: Means
) -> Program | None:
    """A BatchNormalization or Normalization, then what mixes channels."""
    before = neighbours.before(program, step)
    if before is None or before.only_input is None:
        return None
    given = before.only_input
    if not neighbours.is_float32(program, given):
        return None
    if not neighbours.mixes(program, step):
        return None
    rank = len(program.shapes[given])
    scaling = affine.batch_norm(before.operation, rank)
    scaling = scaling or affine.normalization(before.operation, rank)
    axis = affine.channel_axis(step.operation, rank)
    if scaling is None or scaling.axis != axis:
        return None
    if _is_far(before, means):
        return _scale_into_kernel(program, before, step, scaling)
    layer = combining.behind(step.operation, scaling)
    new = step.on([given], layer)
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
    centred = Step(before.name, combining.centred, args, {}, before.outputs)
    scale = affine.Scaling(scaling.scale, 0 * scaling.shift, scaling.axis)
    scaled = step.on(before.outputs, combining.behind(step.operation, scale))
    program = program.replaced([before], centred)
    return program.replaced([step], scaled)


def _kernel_into_kernel(
    program: Program, step: Step, means: Means
) -> Program | None:
    """A linear layer, then what mixes its channels."""
    before = neighbours.before(program, step)
    if before is None or not affine.can_lead(before.operation):
        return None
    if neighbours.is_shared(program, before):
        return None
    if not neighbours.mixes(program, step):
        return None
    rank = len(program.shapes[step.outputs[0]])
    first, second = before.operation, step.operation
    axes = {affine.channel_axis(x, rank) for x in (first, second)}
    if len(axes) > 1 or affine.saved_by_chaining(first, second) < 0:
        return None
    layer = combining.chained(first, second)
    new = Step(step.name, layer, before.args, before.kwargs, step.outputs)
    return program.replaced([before, step], new)


RULES = {
    "no-op in inference left out": _drop,
    "BatchNormalization into the layer before it": _norm_into_kernel,
    "normalization into the layer behind it": _scaling_into_kernel,
    "linear layer into the layer behind it": _kernel_into_kernel,
    "concatenation into the next": join_into_join,
    "linear layers through a concatenation": kernels_through_join,
}
