"""Reads the attributes of layers that Keras 3.15.1 does not make public."""

import functools
from typing import Any

import keras


def lambda_output_shape(layer: keras.layers.Lambda) -> Any:
    """Returns the very argument `output_shape` of a Lambda.

    The public `get_config` serializes a function that is passed for it.
    """
    return layer._output_shape


@functools.cache
def attributes_of_keras() -> frozenset[str]:
    """Returns the names of what Keras itself notes on layers and networks.

    What else an object has is its author's, or the user's. What finds the
    layers and tensors inside of it is left out, and so are two flags that
    change what a layer computes.
    """
    x = keras.Input((1,), name="x")
    # With names, for none is to be numbered differently from now on.
    objects = [
        keras.layers.Layer(name="layer"),
        keras.Model(x, keras.layers.Identity(name="y")(x), name="model"),
    ]
    names = {name for each in objects for name in vars(each)}
    return frozenset((names | _OF_TRAINING) - _OF_CONTENT)


_OF_CONTENT = {
    "_buffers",
    "_layers",
    "_operations",
    "_parameters",
    "_supports_masking",
    "autocast",
}


# Set by `compile` and `fit`, and by Sequential and its kin.
_OF_TRAINING = {
    "_compile_config",
    "_compile_loss",
    "_compile_metrics",
    "_compiled_trainable_state",
    "_eval_epoch_iterator",
    "_jax_state",
    "_jax_state_synced",
    "_loss_tracker",
    "_symbolic_build_done",
    "_torch_params",
    "history",
    "optimizer",
    "predict_function",
    "stop_evaluating",
    "stop_predicting",
    "stop_training",
    "test_function",
    "train_function",
}
