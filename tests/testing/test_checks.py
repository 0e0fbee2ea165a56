"""The checks pass on what is right, and fail on what is wrong."""

import keras
import numpy as np
import pytest

import keras_cascade as kc
from keras_cascade.testing import CheckError, check_adapter, check_cascade


@keras.saving.register_keras_serializable(package="tests")
class Doubled(kc.adapters.Adapter):
    def call(self, inputs):
        return inputs * 2

    def compute_output_shape(self, input_shape):
        return input_shape


@keras.saving.register_keras_serializable(package="tests")
class MixesSamples(Doubled):
    def call(self, inputs):
        return inputs - keras.ops.mean(inputs, axis=0, keepdims=True)


@keras.saving.register_keras_serializable(package="tests")
class ForgetsItsArgument(Doubled):
    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def get_config(self):
        return {**super().get_config(), "factor": self.factor + 1}


@keras.saving.register_keras_serializable(package="tests")
class LeavesOutItsArgument(Doubled):
    def __init__(self, factor=1.0, **kwargs):
        super().__init__(**kwargs)
        self.factor = factor

    def get_config(self):
        return super().get_config()


@keras.saving.register_keras_serializable(package="tests")
class Centred(Doubled):
    """Uses in `reset_state` what `build` has set."""

    needs_data = True

    def build(self, input_shape):
        super().build(input_shape)
        self.width = input_shape[-1]
        self.mean = self.add_weight(
            name="mean", shape=(self.width,), trainable=False
        )

    def reset_state(self):
        self.sums, self.count = np.zeros(self.width), 0

    def update_state(self, batch):
        self.sums += keras.ops.convert_to_numpy(batch).sum(axis=0)
        self.count += len(batch)

    def finalize_state(self):
        self.mean.assign(self.sums / self.count)
        super().finalize_state()

    def call(self, inputs):
        return inputs - self.mean


@keras.saving.register_keras_serializable(package="tests")
class LearnsOtherwiseAlone(Centred):
    def adapt(self, data, batch_size=256):
        super().adapt(data, batch_size)
        self.mean.assign(self.mean + 1)
        return self


@keras.saving.register_keras_serializable(package="tests")
class SaysAnotherShape(Doubled):
    def compute_output_spec(self, inputs):
        return keras.KerasTensor((None, 3), dtype=inputs.dtype)


@pytest.mark.parametrize(
    "adapter",
    [
        kc.adapters.DenseAdapter(3),
        kc.adapters.PCAAdapter(2),
        kc.adapters.PCAAdapter(2, whiten=True),
        Doubled(),
        Centred(),
        keras.layers.Dense(3),
        keras.layers.Normalization(),
    ],
    ids=lambda adapter: type(adapter).__name__,
)
def test_adapters_that_are_right_pass(adapter):
    assert "save_and_load_keep_the_answers" in check_adapter(adapter)


def test_maps_pass():
    check_adapter(kc.adapters.PCAAdapter(2), input_shape=(4, 4, 3))


@pytest.mark.parametrize(
    ("adapter", "message"),
    [
        (MixesSamples(), "depend on its batch"),
        (SaysAnotherShape(), "call gives"),
        (ForgetsItsArgument(), "leaves something out"),
        (LeavesOutItsArgument(), r"leaves out 'factor' of the constructor's"),
        (LearnsOtherwiseAlone(), "when adapted alone"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_adapters_that_are_wrong_fail(adapter, message):
    with pytest.raises(CheckError, match=message):
        check_adapter(adapter)


def test_alone_an_adapter_learns_what_numpy_finds():
    x = np.random.default_rng(0).normal(size=(300, 4)).astype("float32")
    centred = Centred().adapt(x, batch_size=100)
    found = keras.ops.convert_to_numpy(centred.mean)
    np.testing.assert_allclose(found, x.mean(axis=0), atol=1e-6)


def _network():
    inputs = keras.Input((6,))
    x = keras.layers.Dense(5, name="hidden")(inputs)
    x = keras.layers.BatchNormalization(name="norm")(x)
    return keras.Model(inputs, x, name="network")


def test_a_cascade_passes():
    x = np.random.default_rng(0).normal(size=(16, 6)).astype("float32")
    cascade = kc.build_cascade(_network(), head=2)
    assert len(check_cascade(cascade, x)) == 3


def test_a_cascade_with_a_path_twice_fails():
    x = np.zeros((2, 6), "float32")
    cascade = kc.build_cascade(_network(), head=2)
    first, second = cascade.weights[:2]
    kc._keras_compat.set_variable_path(second, first.path)
    with pytest.raises(CheckError, match="one path"):
        check_cascade(cascade, x)
