"""Tests saved cascades with LoRA: equal predictions, training goes on."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_cascade as kc
from keras_cascade.cascade.cascade import Cascade
from keras_cascade.graph import low_rank
from keras_cascade.training.lora import LoRA

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 4, 6)).astype("float32")
Y = RNG.normal(size=(16, 2)).astype("float32")


def numpy(x):
    return np.array(ops.convert_to_numpy(x))


def values(model):
    return {v.path: numpy(v) for v in model.variables}


def assert_equal(found, expected):
    assert list(found) == list(expected)
    for path, value in expected.items():
        np.testing.assert_array_equal(found[path], value, err_msg=path)


def network():
    """Returns a network with a plain, a composite and a wrapped layer."""
    x = inputs = keras.Input((4, 6), name="x")
    x = layers.Dense(6, activation="tanh", name="hidden")(x)
    x = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = layers.TimeDistributed(layers.Dense(3, name="each"), name="wrapped")(x)
    x = layers.GlobalAveragePooling1D(name="pool")(x)
    return keras.Model(inputs, x, name="encoder")


def build(trainable, **arguments):
    return kc.build_cascade(
        network(),
        head=2,
        trainable=trainable,
        optimizer=keras.optimizers.Adam(0.02),
        loss="mse",
        **arguments,
    )


def train(cascade):
    return cascade.fit(
        X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0
    ).history["loss"]


@pytest.fixture(scope="module")
def trained():
    """Returns a cascade after two epochs of LoRA, for reading only."""
    keras.utils.set_random_seed(0)
    cascade = build({"upstream": LoRA(2, alpha=8), "head": False})
    train(cascade)
    return cascade


@pytest.fixture(scope="module")
def path(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("lora") / "cascade.keras"
    trained.save(path)
    return path


def reloaded(path):
    return keras.models.load_model(path)


def optimizer_state(cascade):
    return {v.path: numpy(v) for v in cascade.optimizer.variables}


def test_training_changes_a_and_b(trained):
    for path, value in values(trained).items():
        if path.endswith("_b"):
            assert np.abs(value).max() > 1e-3, path


def test_a_file_contains_kernels_a_and_b(trained, path):
    assert_equal(values(reloaded(path)), values(trained))


def test_a_loaded_cascade_predicts_the_same(trained, path):
    np.testing.assert_array_equal(numpy(reloaded(path)(X)), numpy(trained(X)))


def test_a_loaded_cascade_trains_the_same_variables(trained, path):
    found, expected = (
        [v.path for v in cascade.trainable_variables]
        for cascade in (reloaded(path), trained)
    )
    assert found == expected
    assert all("/lora_kernel_" in path for path in found)


def test_rank_and_alpha_are_in_the_loaded_spec(path):
    spec = reloaded(path).spec
    assert spec.trainable == {"upstream": LoRA(2, alpha=8), "head": False}


def test_the_optimizers_state_is_restored(trained, path):
    found = optimizer_state(reloaded(path))
    assert_equal(found, optimizer_state(trained))
    assert len(found) > 2 * len(trained.trainable_variables)


def test_training_goes_on_as_if_it_had_not_stopped(path):
    whole = build({"upstream": LoRA(2, alpha=8), "head": False})
    whole.set_weights(first_weights())
    loaded = reloaded(path)
    losses = train(whole) + train(whole)
    assert train(loaded) == losses[2:]
    assert_equal(values(loaded), values(whole))


def first_weights():
    """Returns the cascade that `trained` started from."""
    keras.utils.set_random_seed(0)
    return build({"upstream": LoRA(2, alpha=8), "head": False}).get_weights()


def test_weights_alone_can_be_saved_and_loaded(trained, tmp_path):
    trained.save_weights(tmp_path / "cascade.weights.h5")
    other = build({"upstream": LoRA(2, alpha=8), "head": False})
    train(other)  # Keras loads slots only into existing ones.
    other.load_weights(tmp_path / "cascade.weights.h5")
    assert_equal(values(other), values(trained))


def test_weights_without_lora_load_and_a_can_train(tmp_path):
    plain = build(None)
    plain.save_weights(tmp_path / "plain.weights.h5")
    cascade = build({"upstream": LoRA(2)})
    cascade.load_weights(tmp_path / "plain.weights.h5")
    found = values(cascade)
    assert_equal({p: found[p] for p in values(plain)}, values(plain))
    assert np.abs(found["upstream/hidden/lora_kernel_a"]).max() > 0
    assert (found["upstream/hidden/lora_kernel_b"] == 0).all()


def test_get_weights_and_set_weights_carry_a_and_b(trained):
    other = build({"upstream": LoRA(2, alpha=8), "head": False})
    other.set_weights(trained.get_weights())
    assert_equal(values(other), values(trained))


def test_layers_frozen_later_load_frozen_and_can_train(tmp_path):
    cascade = build({"upstream": LoRA(2)})
    for layer in cascade.blocks["upstream"].layers:
        low_rank.set_flag(layer, False)
    cascade.save(tmp_path / "frozen.keras")
    block = reloaded(tmp_path / "frozen.keras").blocks["upstream"]
    assert block.trainable_variables == []
    for layer in block.layers:
        low_rank.set_flag(layer, True)
    paths = [v.path for v in block.variables if "/lora_" in v.path]
    assert [v.path for v in block.trainable_variables] == paths != []


def test_a_config_alone_gives_the_same_variables(trained):
    again = Cascade.from_config(trained.get_config())
    found, expected = (
        [(v.path, tuple(v.shape), v.trainable) for v in cascade.variables]
        for cascade in (again, trained)
    )
    assert found == expected


def test_a_plain_model_in_a_file_predicts_the_same(trained, tmp_path):
    trained.to_plain().save(tmp_path / "plain.keras")
    plain = keras.models.load_model(tmp_path / "plain.keras")
    np.testing.assert_array_equal(numpy(plain(X)), numpy(trained(X)))
    assert not any("lora" in v.path for v in plain.variables)


def test_a_cascade_of_a_loaded_one_is_merged(trained, path):
    outer = kc.build_cascade(reloaded(path), trainable={"upstream": LoRA(3)})
    np.testing.assert_array_equal(numpy(outer(X)), numpy(trained(X)))


def test_a_rebuilt_cascade_keeps_a_and_b(trained):
    again = trained.rebuild(learning_rates={"upstream": 1e-4})
    assert_equal(values(again), values(trained))
    assert again.spec.reinitialized == ()


def test_a_loaded_cascade_is_rebuilt_with_its_a_and_b(trained, path):
    again = reloaded(path).rebuild(learning_rates={"upstream": 1e-4})
    assert_equal(values(again), values(trained))


@pytest.mark.parametrize(
    "trainable",
    [True, {"upstream": LoRA(2)}, {"upstream": LoRA(3, alpha=8)}],
    ids=["without", "another alpha", "another rank"],
)
def test_rebuilding_with_other_updates_merges_the_old(trained, trainable):
    again = trained.rebuild(trainable=trainable)
    np.testing.assert_array_equal(numpy(again(X)), numpy(trained(X)))
    a, b = (
        values(trained)[f"upstream/hidden/lora_kernel_{x}"].astype("float64")
        for x in "ab"
    )
    np.testing.assert_allclose(
        values(again)["upstream/hidden/kernel"],
        values(trained)["upstream/hidden/kernel"] + 4.0 * a @ b,
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow",
    reason="exports to SavedModel need the TensorFlow backend here",
)
def test_a_saved_model_predicts_the_same(trained, tmp_path):
    import tensorflow as tf

    trained.export(tmp_path / "exported", verbose=False)
    loaded = tf.saved_model.load(tmp_path / "exported")
    (found,) = loaded.serve(inputs=X).values()
    np.testing.assert_allclose(
        numpy(found), numpy(trained(X)), rtol=1e-5, atol=1e-6
    )
