"""An adapter of a user's own is fitted, saved, loaded and copied."""

import doctest
import importlib

import keras
import numpy as np
import pytest

from keras_cascade import adapters
from keras_cascade.adapters import Adapter

to_numpy = keras.ops.convert_to_numpy
X = np.array([[0.0, 2.0], [2.0, 4.0], [4.0, 9.0]], "float32")


@keras.saving.register_keras_serializable(package="keras_cascade_tests")
class Centre(Adapter):
    """Subtracts the mean of the data."""

    needs_data = True

    def build(self, input_shape):
        super().build(input_shape)
        self.mean = self.add_weight(
            name="mean", shape=input_shape[-1:], initializer="zeros"
        )

    def reset_state(self):
        self.total, self.count = 0.0, 0

    def update_state(self, batch):
        self.total = self.total + np.sum(batch, axis=0)
        self.count += len(batch)

    def finalize_state(self):
        self.mean.assign(self.total / self.count)
        super().finalize_state()

    def call(self, inputs):
        return inputs - self.mean


class Scale(Adapter):
    """Learns nothing from data."""

    def call(self, inputs):
        return 2.0 * inputs


@pytest.mark.parametrize("batch_size", [1, 2, 256])
def test_adapt_builds_and_learns_in_one_pass(batch_size: int):
    adapter = Centre()
    assert not adapter.fitted
    assert adapter.adapt(X, batch_size) is adapter
    assert adapter.fitted
    np.testing.assert_allclose(to_numpy(adapter.mean), X.mean(axis=0))


def test_the_fitted_state_survives_save_and_load(tmp_path):
    inputs = keras.Input((2,))
    for learned in (False, True):
        adapter = Centre(name="centre")
        model = keras.Model(inputs, adapter(inputs))
        if learned:
            adapter.adapt(X)
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert loaded.get_layer("centre").fitted is learned
        np.testing.assert_array_equal(
            loaded.predict(X, verbose=0), model.predict(X, verbose=0)
        )


def test_a_copy_is_independent_and_keeps_state_and_flag():
    adapter = Centre(name="centre", trainable=False).adapt(X)
    with keras.name_scope("adapters"):
        twin = adapter.copy("shape")
    assert {weight.path for weight in twin.weights} == {
        "adapters/shape/fitted",
        "adapters/shape/mean",
    }
    assert (twin.fitted, twin.trainable) == (True, False)
    assert not twin.mean.trainable
    twin.adapt(X + 1.0)
    np.testing.assert_allclose(to_numpy(adapter.mean), X.mean(axis=0))


def test_a_copy_of_an_unbuilt_adapter_is_unbuilt():
    twin = Centre(name="centre").copy()
    assert (twin.name, twin.built, twin.fitted) == ("centre", False, False)


def test_an_adapter_that_learns_nothing_reads_no_data():
    def never_read():
        pytest.fail("The data was read.")
        yield X

    adapter = Scale()
    assert (adapter.needs_data, adapter.fitted) == (False, True)
    assert adapter.adapt(never_read()) is adapter
    assert adapter.weights == []


def test_a_width_is_not_open_by_default():
    adapter = Scale(name="twice")
    assert not adapter.open_width
    with pytest.raises(ValueError, match=r"'twice' \(Scale\) is not open"):
        adapter.with_units(3)


def test_a_missing_method_is_named_in_the_error():
    class NoUpdate(Adapter):
        needs_data = True

    class NoSuperBuild(Centre):
        def build(self, input_shape):
            self.mean = self.add_weight(name="mean", shape=(2,))

    with pytest.raises(NotImplementedError, match=r"NoUpdate.*update_state"):
        NoUpdate().adapt(X)
    with pytest.raises(RuntimeError, match=r"NoSuperBuild\.build\(\) must"):
        NoSuperBuild().adapt(X)
    with pytest.raises(NotImplementedError, match="Scale has no `to_plain"):
        Scale().to_plain()


def test_completion_shows_the_public_adapters_alone():
    assert dir(adapters) == [
        "Adapter",
        "DenseAdapter",
        "LabelMapAdapter",
        "LogitsAdapter",
        "PCAAdapter",
        "SpatialAdapter",
        "StitchAdapter",
        "TokenAdapter",
    ]


@pytest.mark.parametrize(
    "module",
    [
        "adapters.adapter",
        "adapters.affine",
        "adapters.automatic",
        "adapters.calibration",
        "adapters.dense",
        "adapters.label_map",
        "adapters.logits",
        "adapters.moments",
        "adapters.pca",
        "adapters.spatial",
        "adapters.stitch",
        "adapters.tokens",
        "cache.fingerprint",
        "data.reading",
        "injection.arguments",
    ],
)
def test_the_examples_in_the_docstrings_run(module: str):
    found = doctest.testmod(importlib.import_module(f"keras_cascade.{module}"))
    assert found.attempted > 0
    assert found.failed == 0
