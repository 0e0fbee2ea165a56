"""A part of a cascade as a model that shares its layers."""

from collections.abc import Iterator, Mapping
from typing import Any

import keras

from keras_cascade import _keras_compat as compat
from keras_cascade.data.inputs import fit_last_axis, input_paths, sort_inputs
from keras_cascade.graph.program import Program

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
        taken: The structure of the inputs of the whole model, which is taken
            as well. Defaults to `None`: only what the program takes.
        **kwargs: Of `keras.Model`.
    """

    def __init__(
        self,
        program: Program,
        structure: Any = None,
        taken: Any = None,
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
        tensors = list(_tensors(inputs, program, taken))
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


def _tensors(inputs: Any, program: Program, taken: Any) -> Iterator[Any]:
    """Yields the inputs of a program in the dtypes and ranks that it runs on.

    A Functional converts its inputs likewise before its layers see them.
    """
    ports: Any = program.inputs
    own = [port.name for port in ports]
    paths = input_paths(ports if taken is None else taken)
    given = sort_inputs(inputs, paths, "The batch", own, alone=True)
    masks = inputs if isinstance(inputs, Mapping) else {}
    for port in ports:
        tensor = keras.ops.convert_to_tensor(given[port.name], port.dtype)
        tensor = fit_last_axis(tensor, port.shape)
        mask = masks.get(port.name + MASK_SUFFIX)
        if mask is not None:
            mask = keras.ops.convert_to_tensor(mask, "bool")
            compat.set_keras_mask(tensor, mask)
        yield tensor


def _masks(found: Mapping[str, Any]) -> dict[str, Any]:
    masks = {
        name + MASK_SUFFIX: compat.keras_mask(x) for name, x in found.items()
    }
    return {name: mask for name, mask in masks.items() if mask is not None}
