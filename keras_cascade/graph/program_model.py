"""Runs a part of a cascade as a model that shares its layers.

Tested by `tests/cascade/test_splitting.py`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import keras

from keras_cascade import _keras_compat as compat
from keras_cascade.data.arrays import strings_as_tensors
from keras_cascade.data.inputs import (
    check_strings,
    fit_last_axis,
    input_paths,
    sort_inputs,
)
from keras_cascade.graph.masks import masks_of
from keras_cascade.graph.program import Program

# Follows the name of a tensor: its mask.
MASK_SUFFIX = ":mask"


class ProgramModel(keras.Model):
    """Runs a program on the layers that it was read from.

    The model shares their variables: training it trains the whole model. It is
    saved with that, not by itself.

    Args:
        program: The program. The model takes a dict by the names of its
            inputs, or a list in their order. The mask of a tensor is another
            one, of the same name followed by `:mask`.
        structure: The structure of the outputs. Defaults to `None`: a dict by
            name, masks included.
        taken: The structure of the inputs of the whole model, which the model
            takes as well. Defaults to `None`: only the program's inputs.
        **kwargs: Arguments of `keras.Model`.
    """

    def __init__(
        self,
        program: Program,
        structure: object = None,
        taken: object = None,
        **kwargs: Any,
    ):
        # Inputs keep their dtypes, as in a Functional.
        super().__init__(autocast=False, **kwargs)
        # In a closure: Keras would track the layers in an attribute twice.
        self._held = lambda: (program, structure, taken)
        # All of them: Keras clears the losses only of layers that it tracks.
        operations = {id(x.operation): x.operation for x in program.steps}
        self.shared = [
            x for x in operations.values() if isinstance(x, keras.Layer)
        ]
        self.supports_masking = True
        self.built = True

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns the outputs of the program."""
        # Before Keras makes tensors of strings, which it refuses in its way.
        check_strings(self._held()[0].inputs)
        return super().__call__(inputs, *args, **kwargs)

    def compute_mask(
        self, inputs: object, previous_mask: object = None
    ) -> None:
        """Returns None: the layers have attached masks to the outputs."""

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        """Returns the outputs of the program."""
        program, structure, taken = self._held()
        tensors = list(_tensors(inputs, program, taken))
        found = program(*tensors, training=training)
        if structure is None:
            masks = masks_of(found).items()
            return found | {name + MASK_SUFFIX: x for name, x in masks}
        packed = keras.tree.pack_sequence_as(structure, list(found.values()))
        is_single = isinstance(packed, list | tuple) and len(packed) == 1
        return packed[0] if is_single else packed

    def predict(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """Predicts as Keras does; strings may be in NumPy arrays."""
        check_strings(self._held()[0].inputs)
        return super().predict(strings_as_tensors(x), *args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        """Raises a NotImplementedError: the layers belong to a cascade."""
        raise NotImplementedError(
            f"'{self.name}' is a part of a cascade and shares its variables. "
            "Save the cascade, and split it again when it is loaded."
        )


def _tensors(inputs: Any, program: Program, taken: Any) -> Iterator[Any]:
    """Yields the inputs of a program in the dtypes and ranks that it runs on.

    A Functional converts its inputs likewise before its layers see them.
    """
    ports: Any = program.inputs
    own = [port.name for port in ports]
    paths = input_paths(ports if taken is None else taken)
    if isinstance(inputs, Mapping):
        # What is optional may be left out of a dict.
        absent = [port.name for port in ports if port.optional]
        inputs = {**dict.fromkeys(absent), **inputs}
    given = sort_inputs(inputs, paths, "The batch", own, alone=True)
    masks = inputs if isinstance(inputs, Mapping) else {}
    for port in ports:
        if port.optional and given[port.name] is None:
            yield None
            continue
        tensor = keras.ops.convert_to_tensor(given[port.name], port.dtype)
        tensor = fit_last_axis(tensor, port.shape)
        mask = masks.get(port.name + MASK_SUFFIX)
        if mask is not None:
            mask = keras.ops.convert_to_tensor(mask, "bool")
            compat.set_keras_mask(tensor, mask)
        yield tensor
