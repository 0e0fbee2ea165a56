import keras
import numpy as np
import pytest

import keras_cascade as kc
from keras_cascade.networks.loading import (
    as_functional,
    as_network,
    load_network,
)

layers = keras.layers


@pytest.fixture
def rows():
    return np.random.default_rng(0).normal(size=(8, 4)).astype("float32")


def _functional():
    x = keras.Input((4,), name="x")
    return keras.Model(x, layers.Dense(3, name="h")(x), name="net")


@keras.saving.register_keras_serializable(package="tests")
class Own(keras.Model):
    """A subclassed network: it has no graph."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(3, name="h")

    def call(self, inputs, training=None):
        return self.dense(inputs) * 2.0


def test_a_model_is_taken_as_it_is():
    network = _functional()
    assert load_network(network, "upstream") is network
    assert as_network(network, "upstream") is network
    assert as_functional(network) is network


@pytest.mark.parametrize("as_text", [True, False])
def test_a_file_is_loaded(as_text, rows, tmp_path):
    network = _functional()
    path = tmp_path / "net.keras"
    network.save(path)
    loaded = load_network(str(path) if as_text else path, "upstream")
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(network(rows)),
        keras.ops.convert_to_numpy(loaded(rows)),
    )
    cascade = kc.build_cascade(path, taps="h", adapters=None)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(network(rows)),
        keras.ops.convert_to_numpy(cascade(rows)),
    )


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"upstream: there is no file '.*no"):
        kc.build_cascade(str(tmp_path / "no.keras"))


def test_another_kind_of_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"downstream='.*h5' is no network"):
        kc.build_cascade(_functional(), str(tmp_path / "net.h5"))


def test_an_unknown_name_is_an_error_that_says_what_strings_mean():
    with pytest.raises(
        ValueError,
        match=r"upstream='mobilenetv3small' is no network\. Closest: "
        r"'MobileNetV3Small'.* A string is the name of a Keras application "
        r"\('MobileNetV3Small'\), the path of a '\.keras' file, a KerasHub "
        r"preset \('hub:resnet_18_imagenet'\), or a network of timm or "
        r"transformers \('timm:resnet18', 'hf:user/model'\)\.",
    ):
        load_network("mobilenetv3small", "upstream")


def test_the_name_of_an_application_is_asked_of_keras(monkeypatch):
    asked = {}
    network = _functional()

    def constructor(**kwargs):
        asked.update(kwargs)
        return network

    monkeypatch.setattr(keras.applications, "Xception", constructor)
    assert load_network("Xception", "upstream") is network
    assert asked == {
        "weights": "imagenet",
        "include_top": False,
        "input_shape": (299, 299, 3),
    }


@pytest.mark.parametrize("network", [3, None, layers.Dense(2), keras.Model])
def test_objects_that_are_no_network_are_refused(network):
    with pytest.raises(TypeError, match=r"upstream must be a keras\.Model"):
        kc.build_cascade(network)


def test_a_sequential_becomes_functional_with_its_own_layers():
    network = keras.Sequential([keras.Input((4,)), layers.Dense(3)], name="s")
    functional = as_functional(network)
    assert functional.layers[-1] is network.layers[-1]
    assert functional.name == "s"


def test_a_sequential_may_end_in_several_outputs(rows):
    lstm = layers.LSTM(3, return_state=True, name="lstm")
    network = keras.Sequential([keras.Input((5, 4)), lstm])
    sequences = np.stack([rows] * 5, axis=1)
    cascade = kc.build_cascade(network, adapters=None, fusion=None)
    given = cascade(sequences).values()
    for one, other in zip(network(sequences), given, strict=True):
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(one),
            keras.ops.convert_to_numpy(other),
            rtol=1e-5,
            atol=1e-6,
        )


def test_a_sequential_without_a_shape_has_no_defined_input():
    network = keras.Sequential([layers.Dense(3)], name="s")
    assert as_functional(network) is None
    with pytest.raises(
        ValueError, match=r"upstream 's' has no defined input shape.*Input"
    ) as error:
        kc.build_cascade(network)
    assert "\n" not in str(error.value)


def test_a_subclassed_network_without_a_shape_has_no_defined_input():
    with pytest.raises(ValueError, match="'own' has no defined input shape"):
        kc.build_cascade(Own(name="own"))


def test_a_sequential_that_was_built_has_a_shape(rows):
    network = keras.Sequential([layers.Dense(3)])
    network.build((None, 4))
    cascade = kc.build_cascade(network, adapters=None)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(network(rows)),
        keras.ops.convert_to_numpy(cascade(rows)),
    )


def test_a_subclassed_network_is_a_black_box_with_its_output(rows):
    network = Own(name="own")
    expected = keras.ops.convert_to_numpy(network(rows))
    before = [w.copy() for w in network.get_weights()]
    cascade = kc.build_cascade(network, adapters=None)
    np.testing.assert_array_equal(
        expected, keras.ops.convert_to_numpy(cascade(rows))
    )
    for one, other in zip(before, network.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not set(map(id, network.variables)) & set(map(id, cascade.variables))


def test_a_black_box_survives_saving(rows, tmp_path):
    network = Own(name="own")
    network(rows)
    cascade = kc.build_cascade(network, adapters=None, head=2)
    cascade.save(tmp_path / "c.keras")
    loaded = keras.saving.load_model(tmp_path / "c.keras")
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(cascade(rows)),
        keras.ops.convert_to_numpy(loaded(rows)),
    )


@pytest.mark.parametrize("path", ["h", "own/h", "dense"])
def test_a_subclassed_network_cannot_be_tapped_inside(path, rows):
    network = Own(name="own")
    network(rows)
    with pytest.raises(ValueError, match="no graph to look into") as error:
        kc.build_cascade(network, taps=path)
    assert "\n" not in str(error.value)


def test_a_black_box_inside_a_network_gives_its_output(rows):
    x = keras.Input((4,), name="x")
    network = keras.Model(x, layers.Dense(2)(Own(name="own")(x)))
    cascade = kc.build_cascade(network, taps="own", adapters=None, fusion=None)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(network.get_layer("own")(rows)),
        keras.ops.convert_to_numpy(cascade(rows)["own"]),
    )
    with pytest.raises(ValueError, match="'own' is a Own, which has no graph"):
        kc.build_cascade(network, taps="own/h")


def test_a_functional_with_a_call_of_its_own_is_a_black_box(rows):
    @keras.saving.register_keras_serializable(package="tests")
    class Twice(keras.Model):
        def call(self, inputs, training=None, mask=None):
            return super().call(inputs, training=training, mask=mask) * 2.0

    x = keras.Input((4,), name="x")
    network = Twice(x, layers.Dense(3, name="h")(x), name="twice")
    assert as_functional(network) is None
    cascade = kc.build_cascade(network, adapters=None)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(network(rows)),
        keras.ops.convert_to_numpy(cascade(rows)),
    )
