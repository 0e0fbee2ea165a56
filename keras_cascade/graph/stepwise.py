"""Gives several outputs of a network that is called once per step.

Keras's `TimeDistributed` stacks one output. Where layers inside its network
are tapped, a layer of the same name stacks all that are wanted, of one pass.

Tested by `tests/graph/test_taps_of_steps.py`.
"""

from collections.abc import Mapping
from typing import Any, cast

import keras
from keras import ops

from keras_cascade.graph.block import Block
from keras_cascade.graph.step_shapes import of_all_steps, without_steps


@keras.saving.register_keras_serializable(package="keras_cascade")
class StepBlock(Block):
    """A block inside a layer, which names its variables."""

    @property
    def path_prefix(self) -> None:
        """None: the names of its variables are those of its layers."""
        return


@keras.saving.register_keras_serializable(package="keras_cascade")
class Stepwise(keras.layers.TimeDistributed):
    """A `TimeDistributed` of a network with outputs by name.

    Each step is called as `TimeDistributed` does, with the step's mask, and
    the mask of the steps goes on to each of the stacked outputs.
    """

    # How the layer is called in files of weights.
    weights_kind = "TimeDistributed"

    def call(
        self, inputs: Any, training: bool | None = None, mask: Any = None
    ) -> Any:
        """Returns the outputs of all steps, each (batch, steps, ...)."""
        steps = _steps_first(inputs)
        masks = {} if mask is None else {"mask": _steps_first(mask)}

        def call(number: Any) -> Any:
            own = {name: value[number] for name, value in masks.items()}
            return self.layer.call(steps[number], training=training, **own)

        if steps.shape[0] is None:
            number_of_steps = cast(tuple, ops.shape(steps))[0]
            numbers = ops.arange(number_of_steps)
            found = ops.vectorized_map(call, numbers)
        else:
            each = [call(number) for number in range(steps.shape[0])]
            found = keras.tree.map_structure(
                lambda *x: ops.stack(x), each[0], *each[1:]
            )
        return keras.tree.map_structure(_steps_first, found)

    def compute_output_spec(
        self, inputs: Any, training: bool | None = None, mask: Any = None
    ) -> Any:
        """Returns the symbolic outputs."""
        del training, mask
        step = keras.KerasTensor(without_steps(inputs.shape), inputs.dtype)
        found = self.layer.compute_output_spec(step)
        return keras.tree.map_structure(
            lambda x: of_all_steps(x, inputs.shape[1]), found
        )

    def compute_output_shape(self, input_shape: Any) -> Any:
        """Returns the shapes of the outputs."""
        found = self.compute_output_spec(keras.KerasTensor(input_shape))
        return keras.tree.map_structure(lambda x: x.shape, found)

    def compute_mask(self, inputs: Any, previous_mask: Any = None) -> Any:
        """Returns the mask of the steps, for each output."""
        if previous_mask is None:
            return None
        network = self.layer
        while isinstance(network, Stepwise):
            network = network.layer
        return dict.fromkeys(network.output, previous_mask)


def call_in_stock_layers(
    network: keras.Model, like: keras.Layer, x: Any, mask: Any
) -> Mapping[str, Any]:
    """Calls a network once per step in layers of Keras alone.

    Several outputs are one long vector in each step, which is cut again.

    Args:
        network: The network, whose outputs have names.
        like: The layer whose name and dtype the new one gets.
        x: The symbolic input, of all steps.
        mask: The mask of the steps, or None.

    Returns:
        The symbolic outputs of all steps, by name.

    Raises:
        NotImplementedError: If there are several outputs and their sizes are
            not known, their dtypes differ, or there is a mask.
    """
    outputs: dict[str, keras.KerasTensor] = dict(network.output)
    options = {"dtype": like.dtype_policy, "name": like.name}
    if len(outputs) == 1:
        ((name, output),) = outputs.items()
        one = keras.Model(network.input, output, name=network.name)
        return {name: keras.layers.TimeDistributed(one, **options)(x)}
    sizes = {name: tuple(y.shape[1:]) for name, y in outputs.items()}
    dtypes = {y.dtype for y in outputs.values()}
    if None in sum(sizes.values(), ()) or len(dtypes) > 1 or mask is not None:
        raise NotImplementedError(
            f"Several tensors inside '{like.name}' are wanted. Stock layers "
            "can give them where their sizes are known, their dtypes are the "
            "same, and the steps have no mask; here they are "
            f"{sizes} of {', '.join(sorted(dtypes))}"
            f"{'' if mask is None else ', with a mask'}. Tap one, or keep the "
            "cascade as it is."
        )
    return _cut(network, options, x)


def _cut(
    network: keras.Model, options: dict[str, Any], x: Any
) -> Mapping[str, Any]:
    outputs: dict[str, keras.KerasTensor] = dict(network.output)
    (dtype,) = {y.dtype for y in outputs.values()}
    flat = [keras.layers.Flatten(dtype=dtype)(y) for y in outputs.values()]
    joined = keras.layers.Concatenate(dtype=dtype)(flat)
    one = keras.Model(network.input, joined, name=network.name)
    every = keras.layers.TimeDistributed(one, **options)(x)
    found, start = {}, 0
    for (name, y), vector in zip(outputs.items(), flat, strict=True):
        end = start + vector.shape[-1]
        shape = (x.shape[1] or -1, *y.shape[1:])
        found[name] = keras.layers.Reshape(shape, dtype=dtype)(
            every[..., start:end]
        )
        start = end
    return found


def _steps_first(x: Any) -> Any:
    """Swaps the axes of the batch and of the steps."""
    return ops.swapaxes(x, 0, 1)
