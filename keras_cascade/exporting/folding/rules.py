"""Folds a program into fewer and cheaper steps that compute the same.

Layers that do nothing in inference are dropped. Linear layers become part of
the layer beside them, if that takes no more multiplications and costs no
precision.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import keras
import numpy as np

from keras_cascade.exporting.folding import affine, combined_layers, conditions
from keras_cascade.exporting.folding.concatenations import (
    flatten_concatenation,
    fold_through_concatenation,
)
from keras_cascade.graph.program import Program, Step

# Types are compared: a subclass may do something in inference.
_NO_OPS = (
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
# After a change, rules may apply to so many earlier steps of a chain; the next
# round finds what lies further back.
_LOOK_BACK = 3
# A mean of up to so many standard deviations is folded into the bias. It costs
# about 2e-6 of the output for each.
MEAN_LIMIT = 10.0

Means = Mapping[str, float]
# Each returns the program after folding at a step, or None if it cannot.
_Rules = Mapping[str, Callable[[Program, Step], Program | None]]


@dataclass(frozen=True)
class Folded:
    """A program after folding, and how often each rule was applied."""

    program: Program
    counts: dict[str, int] = field(default_factory=dict)


def fold(program: Program, means: Means) -> Folded:
    """Applies the folding rules until none applies.

    Args:
        program: The program, which stays as it is.
        means: How many standard deviations from zero the mean lies that a
            Normalization subtracts, by the name of its step. A Normalization
            whose mean is not known keeps subtracting it.
    """
    rules: _Rules = {
        "no-op in inference left out": _drop_no_op,
        "BatchNormalization into the layer before it": _fold_batch_norm,
        "normalization into the layer after it": partial(
            _fold_preceding_scale, means
        ),
        "linear layer into the layer after it": _fold_linear,
        "concatenation into the next": flatten_concatenation,
        "linear layers through a concatenation": fold_through_concatenation,
    }
    counts: Counter[str] = Counter()
    before = None
    while program is not before:
        before = program
        program = _fold_once(program, rules, counts)
    return Folded(program.pruned(program.outputs), dict(counts))


def _fold_once(
    program: Program, rules: _Rules, counts: Counter[str]
) -> Program:
    """Folds from the first step to the last; returns `program` if nothing."""
    place = 0
    while place < len(program.steps):
        step = program.steps[place]
        for name, rule in rules.items():
            if (new := rule(program, step)) is not None:
                program, place = new, max(0, place - _LOOK_BACK)
                counts[name] += 1
                break
        else:
            place += 1
    return program


def _drop_no_op(program: Program, step: Step) -> Program | None:
    """Drops a layer that does nothing in inference."""
    if type(step.operation) not in _NO_OPS or step.only_input is None:
        return None
    given, kept = step.only_input, step.outputs[0]
    # A layer of another dtype casts, even if it does nothing else.
    if program.dtypes[given] != program.dtypes[kept]:
        return None
    is_output = kept in program.outputs.values()
    is_input = given not in program.producers
    return None if is_output and is_input else program.without(step)


def _fold_batch_norm(program: Program, step: Step) -> Program | None:
    """Folds a BatchNormalization into the layer with a kernel before it."""
    before = conditions.sole_predecessor(program, step)
    if before is None or not affine.is_linear(before.operation):
        return None
    rank = len(program.shapes[step.outputs[0]])
    scaling = affine.batch_norm_scaling(step.operation, rank)
    axis = affine.channel_axis(before.operation, rank)
    calls = conditions.paired_calls(program, before, step)
    if scaling is None or scaling.axis != axis or not calls:
        return None
    layer = combined_layers.absorb_scale(before.operation, scaling)
    for call, norm in calls:
        new = Step(call.address, layer, call.args, call.kwargs, norm.outputs)
        program = program.replaced([call, norm], new)
    return program


def _fold_preceding_scale(
    means: Means, program: Program, step: Step
) -> Program | None:
    """Folds a normalization into the layer after it that mixes channels."""
    before = conditions.sole_predecessor(program, step)
    if before is None or before.only_input is None:
        return None
    given = before.only_input
    # The layer that is left takes the tensor without a cast.
    if program.dtypes[given] != "float32":
        return None
    if not conditions.mixes_channels(program, step):
        return None
    rank = len(program.shapes[given])
    scaling = affine.scaling_of(before.operation, rank)
    axis = affine.channel_axis(step.operation, rank)
    if scaling is None or scaling.axis != axis:
        return None
    is_norm = type(before.operation) is keras.layers.Normalization
    if is_norm and means.get(before.name, np.inf) > MEAN_LIMIT:
        return _fold_divisor(program, before, step, scaling)
    layer = combined_layers.absorb_preceding_scale(step.operation, scaling)
    return program.replaced([before, step], step.on([given], layer))


def _fold_divisor(
    program: Program, before: Step, step: Step, scaling: affine.Scaling
) -> Program:
    """Folds the divisor of a Normalization, whose mean is still subtracted."""
    mean = (-scaling.shift / scaling.scale).astype("float32")
    subtract = combined_layers.subtract_mean
    args = (*before.args, mean)
    centred = Step(before.address, subtract, args, {}, before.outputs)
    scale = affine.Scaling(scaling.scale, 0 * scaling.shift, scaling.axis)
    layer = combined_layers.absorb_preceding_scale(step.operation, scale)
    program = program.replaced([before], centred)
    return program.replaced([step], step.on(before.outputs, layer))


def _fold_linear(program: Program, step: Step) -> Program | None:
    """Folds a linear layer into the layer after it that mixes channels."""
    before = conditions.sole_predecessor(program, step)
    if before is None or not affine.can_absorb_mixer(before.operation):
        return None
    if conditions.is_shared(program, before):
        return None
    if not conditions.mixes_channels(program, step):
        return None
    rank = len(program.shapes[step.outputs[0]])
    first, second = before.operation, step.operation
    axes = {affine.channel_axis(x, rank) for x in (first, second)}
    saved = affine.weights_saved_by_chaining(first, second)
    if len(axes) > 1 or saved < 0:
        return None
    layer = combined_layers.chain(first, second)
    new = Step(step.address, layer, before.args, before.kwargs, step.outputs)
    return program.replaced([before, step], new)
