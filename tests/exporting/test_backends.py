"""The backends that write each format."""

import keras

from keras_cascade.exporting.backends import possible_backends


def test_each_format_has_the_backends_that_write_it():
    running = keras.config.backend()
    assert possible_backends("saved_model") == ("tensorflow",)
    assert possible_backends("tflite") == ("tensorflow",)
    assert possible_backends("torch") == ("torch",)
    assert possible_backends("keras") == (running,)
    assert possible_backends("onnx")[0] == running
    assert set(possible_backends("onnx")) == {"tensorflow", "jax", "torch"}
