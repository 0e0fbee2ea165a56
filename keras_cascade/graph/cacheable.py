"""Finds the steps of a program whose outputs can be cached.

These give the same for the same sample in every epoch.
"""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass

import keras

from keras_cascade import _keras_compat as compat
from keras_cascade.graph.inference_inside import AUGMENTATIONS, augments
from keras_cascade.graph.program import Program, Step

_NONE: Mapping[str, str] = {}
# Keras's layers for images take `training`; these do the same in both modes.
_SAME_IN_BOTH_MODES = (
    keras.layers.AutoContrast,
    keras.layers.CenterCrop,
    keras.layers.Resizing,
)
_TRAINS = "trains"


@dataclass(frozen=True)
class BlockedStep:
    """A step that does not train, and whose output cannot be cached.

    Attributes:
        name: The path of the step.
        kind: The class of its layer.
        reason: The reason, as the end of a sentence.
    """

    name: str
    kind: str
    reason: str

    def __str__(self) -> str:
        return f"{self.kind} '{self.name}', which {self.reason}"


@dataclass(frozen=True)
class Cacheable:
    """The steps that give the same for the same sample in every epoch.

    Attributes:
        steps: These steps, in their order.
        blocked: The steps that end them though nothing in them trains; only
            the first on each way from the inputs.
    """

    steps: tuple[Step, ...]
    blocked: tuple[BlockedStep, ...]


def find_cacheable(
    program: Program, nondeterministic: Mapping[str, str] = _NONE
) -> Cacheable:
    """Finds the cacheable steps, by the flags that the layers have now.

    A step is cacheable if all its inputs are, and it neither trains, nor
    behaves differently in training, nor adds a loss or updates a metric.
    Frozen layers run in inference mode; augmentation is active whatever its
    flag. Some layers of users are not deterministic though nothing declares
    it: they draw from a generator that they do not own, or call `add_loss`.
    Only running them shows that.

    Args:
        program: The program.
        nondeterministic: Names of steps that were seen to give something else
            in each epoch, with the reason. Defaults to none.
    """
    known = {port.reference for port in program.inputs}
    steps, blocked = [], []
    for step in program.steps:
        if not known.issuperset(step.inputs):
            continue
        reason = nondeterministic.get(step.name) or _why_not(program, step)
        if reason is None:
            steps.append(step)
            known.update(step.outputs)
        elif reason != _TRAINS:
            kind = type(step.operation).__name__
            blocked.append(BlockedStep(step.name, kind, reason))
    return Cacheable(tuple(steps), tuple(blocked))


def _why_not(program: Program, step: Step) -> str | None:
    """Says why a step is not cacheable; returns None if it is."""
    operation = step.operation
    if any(program.dtypes[x] == "string" for x in step.outputs):
        return "gives text, which is not kept"
    if not isinstance(operation, keras.Layer):
        return None
    if operation.trainable_variables:
        return _TRAINS
    if isinstance(operation, AUGMENTATIONS):
        return "is augmentation, active whatever its flag"
    if augments(operation):
        return "has augmentation inside, active whatever its flag"
    takes_training = _takes_training(operation)
    if operation.trainable and takes_training:
        return "is not frozen, and may run otherwise in training"
    # A generator draws in inference too where no `training` turns it off.
    if not takes_training and any(
        variable.path.endswith("seed_generator_state")
        for variable in operation.variables
    ):
        return "draws random numbers in every call"
    inside = list(compat.sublayers(operation))
    if any(getattr(inner, "stateful", False) for inner in inside):
        return "keeps a state from one batch to the next"
    if any(map(_adds_a_loss, inside)):
        return "adds a loss, which counts in every step"
    if any(map(compat.own_metrics, inside)):
        return "updates a metric of its own in every step"
    return None


def _takes_training(layer: keras.Layer) -> bool:
    """Whether the layer, or one inside, may run otherwise in training."""
    return any(
        "training" in inspect.signature(inner.call).parameters
        for inner in compat.sublayers(layer)
        if not isinstance(inner, _SAME_IN_BOTH_MODES)
    )


def _adds_a_loss(layer: keras.Layer) -> bool:
    return layer.activity_regularizer is not None or isinstance(
        layer, keras.layers.ActivityRegularization
    )
