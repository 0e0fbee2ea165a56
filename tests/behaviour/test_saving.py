"""Tests that saved cascades load unchanged, and plain models alone."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops, optimizers
from keras.optimizers import schedules

import keras_cascade as kc
from keras_cascade.adapters import DenseAdapter, PCAAdapter

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 6)).astype("float32")
SIDE = RNG.normal(size=(32, 2)).astype("float32")
Y = RNG.integers(0, 3, size=32)
DATA = {"inputs": X, "side": SIDE}
LOSS = "sparse_categorical_crossentropy"


@pytest.fixture(scope="module")
def networks():
    """Returns networks that all tests share: a cascade works on copies."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((6,), name="x")
    x = layers.Dense(8, activation="relu", name="hidden")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Dense(5)(x)
    x = layers.Dense(5)(x * 2.0)
    downstream = keras.Sequential(
        [keras.Input((9,)), layers.Dense(3, "softmax", name="out")],
        name="expert",
    )
    return keras.Model(inputs, x, name="encoder"), downstream


def build(networks, **arguments):
    arguments = {
        "taps": {"low": "norm", "high": "-1"},
        "adapters": {"low": PCAAdapter(3), "high": 4},
        "extra_inputs": {"side": (2,)},
        "trainable": {"upstream/dense_1": True},
        "learning_rates": {
            "upstream": 1e-4,
            "adapters": schedules.ExponentialDecay(1e-2, 3, 0.5),
        },
        "optimizer": optimizers.AdamW(
            schedules.CosineDecay(1e-2, 50), global_clipnorm=1.0
        ),
        "loss": LOSS,
        "metrics": ["accuracy"],
        **arguments,
    }
    return kc.build_cascade(*networks, **arguments)


def fit(cascade, **arguments):
    arguments = {"batch_size": 8, "shuffle": False, "verbose": 0, **arguments}
    return cascade.fit(DATA, Y, **arguments).history


def through_file(model, folder, **arguments):
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras", **arguments)


def values(variables):
    return {v.path: np.array(ops.convert_to_numpy(v)) for v in variables}


def assert_equal(first, second):
    assert list(first) == list(second)
    for path, value in first.items():
        np.testing.assert_array_equal(value, second[path], err_msg=path)


def test_a_trained_cascade_loads_unchanged_and_trains_on(networks, tmp_path):
    """Outputs, flags, rates, taps, slots, adapters; bit for bit."""
    cascade = build(networks).adapt(DATA, verbose=False)
    fit(cascade)
    loaded = through_file(cascade, tmp_path)
    assert type(loaded) is kc.Cascade
    np.testing.assert_array_equal(
        loaded.predict(DATA, verbose=0), cascade.predict(DATA, verbose=0)
    )
    assert_equal(values(cascade.variables), values(loaded.variables))
    assert [v.path for v in loaded.trainable_variables] == [
        v.path for v in cascade.trainable_variables
    ]
    assert loaded.taps == cascade.taps == {"low": "norm", "high": "dense_1"}
    assert list(loaded.blocks) == list(cascade.blocks)
    assert loaded.learning_rates() == cascade.learning_rates()
    assert loaded.adapters["low"].fitted
    np.testing.assert_array_equal(
        loaded.adapters["low"].explained_variance_ratio_,
        cascade.adapters["low"].explained_variance_ratio_,
    )
    slots = [
        [np.array(ops.convert_to_numpy(v)) for v in m.optimizer.variables]
        for m in (cascade, loaded)
    ]
    assert len(slots[0]) == len(slots[1]) > 10
    for slot, other in zip(*slots, strict=True):
        np.testing.assert_array_equal(slot, other)
    assert fit(loaded) == fit(cascade)
    assert_equal(values(cascade.variables), values(loaded.variables))


def test_the_summary_is_the_same_after_load(networks, tmp_path):
    cascade, texts = build(networks), []
    loaded = through_file(cascade, tmp_path)
    cascade.summary(print_fn=texts.append)
    loaded.summary(print_fn=texts.append)
    assert texts[0] == texts[1]


def test_an_uncompiled_cascade_loads_uncompiled(networks, tmp_path):
    loaded = through_file(build(networks, loss=None), tmp_path)
    assert not loaded.compiled
    loaded.compile(optimizers.SGD(0.1), LOSS)
    rates = loaded.learning_rates()
    assert rates["upstream/dense_1/kernel"] == pytest.approx(1e-4)


def test_loading_with_compile_false_compiles_nothing(networks, tmp_path):
    assert not through_file(build(networks), tmp_path, compile=False).compiled


def test_rates_given_to_compile_are_those_that_load(networks, tmp_path):
    cascade = build(networks, loss=None)
    cascade.compile("sgd", LOSS, learning_rates={"downstream": 0.5})
    found = through_file(cascade, tmp_path).learning_rates()
    assert found["downstream/out/kernel"] == pytest.approx(0.5)
    assert found["upstream/dense_1/kernel"] == pytest.approx(0.01)


def test_losses_and_metrics_given_as_objects_load(networks, tmp_path):
    cascade = kc.build_cascade(
        networks[0],
        head={"digit": 3, "odd": 1},
        optimizer=optimizers.SGD(0.1, momentum=0.9),
        loss={
            "digit": keras.losses.SparseCategoricalCrossentropy(),
            "odd": "binary_crossentropy",
        },
        metrics={"digit": [keras.metrics.SparseTopKCategoricalAccuracy(k=2)]},
    )
    y = {"digit": Y, "odd": (Y % 2)[:, None]}
    cascade.fit(X, y, verbose=0)
    loaded = through_file(cascade, tmp_path)
    assert loaded.evaluate(X, y, verbose=0, return_dict=True) == (
        cascade.evaluate(X, y, verbose=0, return_dict=True)
    )


@keras.saving.register_keras_serializable(package="keras_cascade_tests")
class Steps(schedules.LearningRateSchedule):
    """A user's schedule."""

    def __init__(self, first):
        self.first = first

    def __call__(self, step):
        return self.first / (1.0 + ops.cast(step, "float32"))

    def get_config(self):
        return {"first": self.first}


def test_a_schedule_of_the_user_continues_at_its_step(networks, tmp_path):
    cascade = build(
        networks,
        adapters=None,
        taps="norm",
        extra_inputs={"side": (1,)},
        optimizer=optimizers.SGD(Steps(0.5)),
        learning_rates={"downstream": Steps(0.1)},
        trainable=None,
    )
    data = {"inputs": X, "side": SIDE[:, :1]}
    cascade.fit(data, Y, batch_size=8, verbose=0)
    loaded = through_file(cascade, tmp_path)
    found = loaded.learning_rates()
    assert found["downstream/out/kernel"] == pytest.approx(0.1 / 5)


def test_a_partly_frozen_composite_layer_stays_so_when_loaded(tmp_path):
    network = keras.Sequential(
        [
            keras.Input((4, 6)),
            layers.Bidirectional(layers.LSTM(3), name="both_ways"),
        ]
    )
    network.layers[0].backward_layer.trainable = False
    cascade = kc.build_cascade(network, head=2, copy=True)
    cascade.blocks["upstream"].get_layer("both_ways").trainable = True
    composite = cascade.blocks["upstream"].get_layer("both_ways")
    composite.backward_layer.trainable = False
    loaded = through_file(cascade, tmp_path)
    assert [v.path for v in loaded.trainable_variables] == [
        v.path for v in cascade.trainable_variables
    ]


def test_weights_alone_can_be_loaded_into_another_cascade(networks, tmp_path):
    first = build(networks).adapt(DATA, verbose=False)
    keras.utils.set_random_seed(7)
    second = build(networks)
    first.save_weights(tmp_path / "some.weights.h5")
    second.load_weights(tmp_path / "some.weights.h5")
    np.testing.assert_array_equal(
        second.predict(DATA, verbose=0), first.predict(DATA, verbose=0)
    )


def test_a_cloned_cascade_is_a_cascade_without_the_weights(networks):
    cascade = build(networks)
    clone = keras.models.clone_model(cascade)
    assert type(clone) is kc.Cascade
    assert [v.path for v in clone.variables] == [
        v.path for v in cascade.variables
    ]
    clone.set_weights(cascade.adapt(DATA, verbose=False).get_weights())
    np.testing.assert_array_equal(
        clone.predict(DATA, verbose=0), cascade.predict(DATA, verbose=0)
    )


def test_the_state_of_random_layers_is_restored(tmp_path):
    network = keras.Sequential(
        [keras.Input((6,)), layers.GaussianNoise(1.0, name="noise")]
    )
    cascade = kc.build_cascade(network, head=2, trainable=True)
    cascade(X, training=True)
    loaded = through_file(cascade, tmp_path)
    np.testing.assert_array_equal(
        *(ops.convert_to_numpy(m(X, training=True)) for m in (cascade, loaded))
    )


@pytest.mark.parametrize("block", ["upstream", "adapters", "downstream"])
def test_each_block_is_a_model_that_saves_and_loads(networks, tmp_path, block):
    cascade = build(networks).adapt(DATA, verbose=False)
    model = cascade.blocks[block]
    loaded = through_file(model, tmp_path)
    assert_equal(values(model.variables), values(loaded.variables))
    assert [x.trainable for x in loaded.variables] == [
        x.trainable for x in model.variables
    ]


# Adapters, and the mean of their features.
PLAIN = {
    "pca": PCAAdapter(3),
    "whitened pca": PCAAdapter(3, whiten=True),
    "dense": DenseAdapter(4, "tanh"),
    "nothing": None,
}


@pytest.mark.parametrize("mean", [0.0, 1000.0])
@pytest.mark.parametrize("case", PLAIN)
def test_a_plain_model_predicts_the_same(case, mean):
    cascade = on_maps(PLAIN[case], mean)
    maps = RNG.normal(size=(40, 4, 4, 1)).astype("float32")
    cascade.adapt(maps, verbose=False)
    plain = cascade.to_plain()
    assert {type(x).__module__.split(".")[0] for x in walk(plain)} == {"keras"}
    expected = cascade.predict(maps, verbose=0)
    spread = expected.std(axis=0).max()
    result = plain.predict(maps, verbose=0)
    np.testing.assert_allclose(result, expected, atol=2e-5 * spread)


def on_maps(adapter, mean):
    """Returns a cascade of maps with a mean, an adapter, and a linear head."""
    network = keras.Sequential(
        [
            keras.Input((4, 4, 1)),
            layers.Conv2D(5, 3, name="conv", bias_initializer=_constant(mean)),
        ]
    )
    return kc.build_cascade(
        network,
        taps={"map": "conv"},
        adapters={"map": adapter},
        head=[layers.GlobalAveragePooling2D()] if adapter is None else None,
    )


def _constant(value):
    return keras.initializers.Constant(value)


def walk(model):
    for layer in model.layers:
        yield layer
        yield from walk(layer) if isinstance(layer, keras.Model) else ()


WITHOUT_THE_PACKAGE = """
import sys
import keras
import numpy as np
model = keras.models.load_model(sys.argv[1])
given = dict(np.load(sys.argv[2]))
np.save(sys.argv[3], model.predict(given, verbose=0))
assert not any(name.startswith("keras_cascade") for name in sys.modules)
"""


def test_a_plain_model_loads_without_the_package(networks, tmp_path):
    cascade = build(networks, adapters={"low": PCAAdapter(3, whiten=True)})
    cascade.adapt(DATA, verbose=False)
    cascade.to_plain().save(tmp_path / "plain.keras")
    np.savez(tmp_path / "data.npz", **DATA)
    files = [tmp_path / n for n in ("plain.keras", "data.npz", "result.npy")]
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend()}
    subprocess.run(
        [sys.executable, "-P", "-c", WITHOUT_THE_PACKAGE, *map(str, files)],
        check=True,
        env=environment,
    )
    np.testing.assert_allclose(
        np.load(files[2]), cascade.predict(DATA, verbose=0), atol=1e-6
    )


def test_an_adapter_that_is_not_fitted_has_no_plain_form(networks):
    with pytest.raises(ValueError, match="before writing a plain model"):
        build(networks).to_plain()


def test_a_cascade_on_another_is_saved_with_it(networks, tmp_path):
    inner = kc.build_cascade(
        networks[0], taps={"low": "norm"}, adapters=PCAAdapter(3)
    ).adapt(X, verbose=False)
    outer = kc.build_cascade(inner, adapters=4, head=2, loss="mse")
    expected = outer.predict(X, verbose=0)
    loaded = through_file(outer, tmp_path)
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), expected)
    assert [v.path for v in loaded.variables] == [
        v.path for v in outer.variables
    ]
    np.testing.assert_allclose(
        outer.to_plain().predict(X, verbose=0), expected, atol=1e-6
    )
