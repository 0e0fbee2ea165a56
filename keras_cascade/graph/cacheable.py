"""Which steps of a program are the same in every epoch, and why others not."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import keras

from keras_cascade import _keras_compat as compat
from keras_cascade.graph.block import AUGMENTATIONS
from keras_cascade.graph.program import Program, Step

_NONE: Mapping[str, str] = {}
# They take `training` with Keras's augmentation, and do the same in both modes.
_ALIKE = (
    keras.layers.AutoContrast,
    keras.layers.CenterCrop,
    keras.layers.Resizing,
)


@dataclass(frozen=True)
class BlockedStep:
    """A step that nothing trains, and that is not the same in every epoch.

    Attributes:
        name: Its path.
        kind: The class of its layer.
        reason: Why it is not, as the end of a sentence.
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
        blocked: Steps that end them though nothing in them trains; only the
            first on each way from the inputs.
    """

    steps: tuple[Step, ...]
    blocked: tuple[BlockedStep, ...]


def find_cacheable(
    program: Program, barred: Mapping[str, str] = _NONE
) -> Cacheable:
    """Finds them, by the flags that the layers have now.

    A step is cold if all that it takes is, and it neither trains, nor runs
    otherwise in training, nor adds a loss. Frozen layers run in inference
    mode; augmentation is active whatever its flag. What a layer of the user's
    does unasked, such as to draw numbers of a generator that it does not own
    or to call `add_loss`, is not seen here: that takes a run.

    Args:
        program: The program.
        barred: Names of steps that are known not to be the same in every
            epoch, with the reason. Defaults to none.
    """
    known = {port.reference for port in program.inputs}
    cold, blocked = [], []
    for step in program.steps:
        if not known.issuperset(step.inputs):
            continue
        reason = barred.get(step.name) or _why_not(program, step)
        if reason is None:
            cold.append(step)
            known.update(step.outputs)
        elif reason != _TRAINS:
            kind = type(step.operation).__name__
            blocked.append(BlockedStep(step.name, kind, reason))
    return Cacheable(tuple(cold), tuple(blocked))


_TRAINS = "trains"


def _why_not(program: Program, step: Step) -> str | None:
    """Why a step is not the same in every epoch, or not kept; else None."""
    operation = step.operation
    if any(program.dtypes[x] == "string" for x in step.outputs):
        return "gives text, which is not kept"
    if not isinstance(operation, keras.Layer):
        return None
    if operation.trainable_variables:
        return _TRAINS
    if isinstance(operation, AUGMENTATIONS):
        return "is augmentation, which stays active whatever its flag"
    if operation.trainable and _takes_training(operation):
        return "is not frozen, and may run otherwise in training"
    if _draws_in_every_mode(operation):
        return "draws random numbers in every call"
    if any(getattr(inner, "stateful", False) for inner in _inside(operation)):
        return "keeps a state from one batch to the next"
    if _adds_a_loss(operation):
        return "adds a loss, which counts in every step"
    return None


def _takes_training(layer: keras.Layer) -> bool:
    """Whether it, or a layer inside, to which Keras hands `training` on."""
    return any(
        "training" in inspect.signature(inner.call).parameters
        for inner in _inside(layer)
        if not isinstance(inner, _ALIKE)
    )


def _draws_in_every_mode(layer: keras.Layer) -> bool:
    """Whether it has a generator, and nothing tells it not to draw."""
    return not _takes_training(layer) and any(
        variable.path.endswith("seed_generator_state")
        for variable in layer.variables
    )


def _adds_a_loss(layer: keras.Layer) -> bool:
    return any(
        inner.activity_regularizer is not None
        or isinstance(inner, keras.layers.ActivityRegularization)
        for inner in _inside(layer)
    )


def _inside(layer: keras.Layer) -> Sequence[keras.Layer]:
    return list(compat.sublayers(layer))
