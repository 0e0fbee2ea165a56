"""The attributes of Keras's layers are those that the package reads."""

import keras
import numpy as np
import pytest

from keras_cascade import _keras_compat


def test_what_keras_notes_on_layers_and_networks_is_known():
    class Own(keras.layers.Layer):
        def __init__(self):
            super().__init__()
            self.mine, self.inner = 3, keras.layers.Dense(1)

        def call(self, x):
            return self.inner(x)

    class Network(keras.Model):
        def __init__(self):
            super().__init__()
            self.own = Own()

        def call(self, x):
            return self.own(x)

    x, model = np.ones((4, 2)), Network()
    model.compile("sgd", "mse", metrics=["mae"])
    model.fit(x, x[:, :1], verbose=0)
    model.evaluate(x, x[:, :1], verbose=0)
    model.predict(x, verbose=0)
    kept = {"_layers", "_supports_masking", "autocast"}
    if keras.config.backend() == "torch":
        kept |= {"_buffers", "_parameters"}
    keras_s = _keras_compat.attributes_of_keras()
    # torch keeps layers inside elsewhere, and Keras in `_layers`.
    assert vars(model).keys() - keras_s - {"own"} == kept
    assert vars(model.own).keys() - keras_s - {"inner"} == {"mine", *kept}
    assert model._layers == [model.own]


@pytest.mark.parametrize("shape", [None, (3,), lambda shape: shape])
def test_the_output_shape_of_a_lambda_is_the_argument(shape):
    layer = keras.layers.Lambda(lambda x: x, output_shape=shape)
    assert _keras_compat.lambda_output_shape(layer) == shape
