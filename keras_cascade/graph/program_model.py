"""A part of a cascade as a model that shares its layers."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_cascade import _keras_compat as compat
from keras_cascade.graph.program import Port, Program

# Behind the name of a tensor: its mask.
MASK_SUFFIX = ":mask"


class ProgramModel(keras.Model):
    """Runs a program on the layers that it was read from.

    It shares their variables: what moves in one moves in the other. It is
    saved with the model that it is a part of, not by itself.

    Args:
        program: What it computes, from a dict by the names of its inputs, or
            a list in their order. A tensor with a mask comes with another
            one, its name followed by `:mask`.
        structure: The structure of what it gives. Defaults to `None`: a dict
            by name, masks included.
        taken: The names of the inputs of the whole model, in their order:
            a list of all of them is taken as well. Defaults to `()`.
        **kwargs: Of `keras.Model`.
    """

    def __init__(
        self,
        program: Program,
        structure: Any = None,
        taken: Sequence[str] = (),
        **kwargs: Any,
    ):
        # Inputs keep their dtypes, as in a Functional.
        super().__init__(autocast=False, **kwargs)
        # In a closure, where Keras tracks nothing twice.
        self._held = lambda: (program, structure, taken)
        self.shared = _layers(program)
        self.supports_masking = True
        self.built = True

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """Nothing to add: its layers have hung their masks on what it gives."""
        return None

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """What the part gives."""
        program, structure, taken = self._held()
        given = _by_name(inputs, program, taken)
        tensors = [_tensor(given, port) for port in program.inputs]
        found = program(*tensors, training=bool(training))
        if structure is None:
            return found | _masks(found)
        packed = keras.tree.pack_sequence_as(structure, list(found.values()))
        is_single = isinstance(packed, list | tuple) and len(packed) == 1
        return packed[0] if is_single else packed

    def get_config(self) -> dict[str, Any]:
        """There is none.

        Raises:
            NotImplementedError: Always: it shares the layers of a cascade.
        """
        raise NotImplementedError(
            f"'{self.name}' is a part of a cascade and shares its variables. "
            "Save the cascade, and split it again when it is loaded."
        )


def _layers(program: Program) -> list[keras.Layer]:
    """All its layers: Keras clears the losses of those that it knows of."""
    found = {id(step.operation): step.operation for step in program.steps}
    return [x for x in found.values() if isinstance(x, keras.Layer)]


def _by_name(
    inputs: Any, program: Program, taken: Sequence[str]
) -> Mapping[str, Any]:
    own = [port.name for port in program.inputs]
    given = inputs
    if not isinstance(inputs, Mapping):
        flat = keras.tree.flatten(inputs)
        fitting = [x for x in (own, taken) if len(x) == len(flat)]
        if not fitting:
            raise ValueError(
                f"This part of a cascade takes {len(own)} inputs, {own}; "
                f"received {len(flat)}."
            )
        given = dict(zip(fitting[0], flat, strict=True))
    if missing := [name for name in own if name not in given]:
        raise ValueError(
            f"This part of a cascade takes {own}; {missing} are missing "
            f"among {[*given]}."
        )
    return given


def _tensor(given: Mapping[str, Any], port: Port) -> Any:
    """A tensor in the dtype and rank in which a Functional hands it on."""
    tensor: Any = keras.ops.convert_to_tensor(
        given[port.name], dtype=port.dtype
    )
    more = len(tensor.shape) - len(port.shape)
    if more == 1 and tensor.shape[-1] == 1:
        tensor = keras.ops.squeeze(tensor, axis=-1)
    elif more == -1 and port.shape[-1] == 1:
        tensor = keras.ops.expand_dims(tensor, axis=-1)
    mask = given.get(port.name + MASK_SUFFIX)
    if mask is not None:
        compat.set_keras_mask(tensor, keras.ops.convert_to_tensor(mask, "bool"))
    return tensor


def _masks(found: Mapping[str, Any]) -> dict[str, Any]:
    masks = {
        name + MASK_SUFFIX: compat.keras_mask(x) for name, x in found.items()
    }
    return {name: mask for name, mask in masks.items() if mask is not None}
