"""DenseAdapter pools and projects as the same formula in NumPy."""

import keras
import numpy as np
import pytest

from keras_cascade.adapters import DenseAdapter

to_numpy = keras.ops.convert_to_numpy


def sample(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def by_hand(adapter: DenseAdapter, pooled: np.ndarray) -> np.ndarray:
    return pooled @ to_numpy(adapter.kernel) + to_numpy(adapter.bias)


# Shape, pool, the pooling in NumPy.
POOLS = {
    "vector": ((5, 6), "auto", lambda x: x),
    "vector, max": ((5, 6), "max", lambda x: x),
    "sequence": ((5, 4, 6), "auto", lambda x: x.mean(axis=1)),
    "map": ((5, 3, 2, 6), "auto", lambda x: x.mean(axis=(1, 2))),
    "volume": ((5, 2, 3, 2, 6), "auto", lambda x: x.mean(axis=(1, 2, 3))),
    "map, avg": ((5, 3, 2, 6), "avg", lambda x: x.mean(axis=(1, 2))),
    "sequence, max": ((5, 4, 6), "max", lambda x: x.max(axis=1)),
    "map, max": ((5, 3, 2, 6), "max", lambda x: x.max(axis=(1, 2))),
    "map, flatten": ((5, 3, 2, 6), "flatten", lambda x: x.reshape(5, -1)),
    "map, none": ((5, 3, 2, 6), None, lambda x: x),
}


@pytest.mark.parametrize("case", POOLS)
def test_it_pools_and_projects(case: str):
    shape, pool, pooled = POOLS[case]
    x = sample(*shape)
    adapter = DenseAdapter(7, pool=pool, bias_initializer="ones")
    y = to_numpy(adapter(x))
    np.testing.assert_allclose(y, by_hand(adapter, pooled(x)), atol=1e-5)
    symbolic = adapter.compute_output_shape((None, *shape[1:]))
    assert symbolic == (None, *y.shape[1:])


@pytest.mark.parametrize("case", POOLS)
def test_stock_layers_compute_the_same(case: str):
    shape, pool, _ = POOLS[case]
    x = sample(*shape)
    adapter = DenseAdapter(7, "tanh", pool=pool, name="shape")
    expected = to_numpy(adapter(x))
    layers = adapter.to_plain()
    assert layers[-1].name == "shape"
    y = x
    for layer in layers:
        assert layer.__module__.startswith("keras.")
        y = layer(y)
    np.testing.assert_allclose(to_numpy(y), expected, atol=1e-6)


@pytest.mark.parametrize("pool", ["auto", "max", "flatten"])
def test_channels_first_pools_over_the_positions(pool: str):
    x = sample(5, 6, 3, 2)
    adapter = DenseAdapter(4, pool=pool, data_format="channels_first")
    y = to_numpy(adapter(x))
    pooled = {
        "auto": x.mean(axis=(2, 3)),
        "max": x.max(axis=(2, 3)),
        "flatten": x.reshape(5, -1),
    }
    np.testing.assert_allclose(y, by_hand(adapter, pooled[pool]), atol=1e-5)
    plain = x
    for layer in adapter.to_plain():
        plain = layer(plain)
    np.testing.assert_allclose(to_numpy(plain), y, atol=1e-5)


@pytest.mark.parametrize("pool", ["auto", "max"])
def test_masked_steps_do_not_count(pool: str):
    tokens = np.array([[1, 2, 0, 0], [3, 1, 2, 4], [0, 0, 0, 0]])
    inputs = keras.Input((4,), dtype="int32")
    embedding = keras.layers.Embedding(5, 6, mask_zero=True)
    adapter = DenseAdapter(3, pool=pool)
    model = keras.Model(inputs, adapter(embedding(inputs)))
    table = to_numpy(embedding.embeddings)
    reduce = np.mean if pool == "auto" else np.max
    pooled = [reduce(table[row[row > 0]], axis=0) for row in tokens[:2]]
    np.testing.assert_allclose(
        model.predict(tokens, verbose=0),
        by_hand(adapter, np.array([*pooled, np.zeros(6)])),
        atol=1e-5,
    )


def test_a_pooled_output_carries_no_mask():
    mask = np.ones((2, 4), bool)
    assert DenseAdapter(3).compute_mask(None, mask) is None
    assert DenseAdapter(3, pool=None).compute_mask(None, mask) is mask


def test_masked_nan_does_not_reach_the_mean():
    x = sample(2, 3, 4)
    x[:, 2] = np.nan
    mask = np.array([[True, True, False]] * 2)
    adapter = DenseAdapter(5)
    np.testing.assert_allclose(
        to_numpy(adapter(x, mask=mask)),
        by_hand(adapter, x[:, :2].mean(axis=1)),
        atol=1e-5,
    )


def test_an_open_width_is_settled_on_a_copy():
    adapter = DenseAdapter(activation="relu", name="shape", trainable=False)
    assert adapter.open_width
    settled = adapter.with_units(9)
    assert (settled.units, settled.open_width) == (9, False)
    assert (settled.name, settled.trainable) == ("shape", False)
    assert settled.activation is keras.activations.relu
    assert adapter.units is None
    with pytest.raises(ValueError, match="'shape' is open"):
        adapter(keras.Input((4,)))
    with pytest.raises(ValueError, match="has units=9"):
        settled.with_units(3)


def test_its_weights_carry_its_name_and_follow_its_flag():
    adapter = DenseAdapter(3, name="shape", trainable=False)
    adapter.build((None, 4))
    paths = {weight.path for weight in adapter.weights}
    assert paths == {"shape/kernel", "shape/bias"}
    assert not any(weight.trainable for weight in adapter.weights)
    again = DenseAdapter.from_config(adapter.get_config())
    again.build((None, 4))
    assert not any(weight.trainable for weight in again.weights)
    again.trainable = True
    assert len(again.trainable_weights) == 2


def test_its_configuration_is_complete():
    adapter = DenseAdapter(
        3,
        activation="gelu",
        pool="max",
        use_bias=False,
        kernel_initializer=keras.initializers.HeNormal(seed=1),
        kernel_regularizer=keras.regularizers.L2(0.1),
        activity_regularizer=keras.regularizers.L1(0.2),
        kernel_constraint=keras.constraints.MaxNorm(2.0),
        data_format="channels_first",
        dtype="mixed_bfloat16",
    )
    config = adapter.get_config()
    again = DenseAdapter.from_config(config)
    assert again.get_config() == config
    assert (again.pool, again.use_bias) == ("max", False)
    assert again.data_format == "channels_first"
    assert float(again.kernel_regularizer.l2) == pytest.approx(0.1)
    assert float(again.activity_regularizer.l1) == pytest.approx(0.2)
    assert again.compute_dtype == "bfloat16"


def test_its_regularizer_enters_the_loss():
    adapter = DenseAdapter(3, kernel_regularizer=keras.regularizers.L2(0.5))
    adapter(sample(2, 4))
    kernel = to_numpy(adapter.kernel)
    np.testing.assert_allclose(
        to_numpy(adapter.losses[0]), 0.5 * (kernel**2).sum(), rtol=1e-5
    )


def test_mixed_precision_computes_in_the_compute_dtype():
    adapter = DenseAdapter(3, dtype="mixed_float16")
    y = adapter(sample(2, 5, 5, 4))
    assert keras.backend.standardize_dtype(y.dtype) == "float16"
    assert adapter.kernel.dtype == "float32"


def test_integer_inputs_are_projected_as_numbers():
    adapter = DenseAdapter(3)
    x = np.arange(8).reshape(2, 4)
    np.testing.assert_allclose(
        to_numpy(adapter(x)), by_hand(adapter, x.astype("float32")), atol=1e-5
    )


def test_save_and_load_give_the_same_outputs(tmp_path):
    x = sample(4, 3, 3, 5)
    inputs = keras.Input((None, None, 5))
    outputs = DenseAdapter(2, "relu", name="shape")(inputs)
    model = keras.Model(inputs, outputs)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0)
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"units": 0}, "'shape': `units` is a positive int"),
        ({"units": 2.5}, "received 2.5"),
        ({"units": True}, "received True"),
        ({"pool": "mean"}, "`pool` is one of"),
        ({"data_format": "NHWC"}, "received 'NHWC'"),
    ],
)
def test_impossible_arguments_are_an_error(arguments: dict, message: str):
    with pytest.raises(ValueError, match=message):
        DenseAdapter(**{"units": 3, "name": "shape"} | arguments)


@pytest.mark.parametrize(
    ("shape", "arguments", "message"),
    [
        ((), {}, "at least an axis of features"),
        ((None,), {}, "known number of features"),
        ((None, None, 3), {"pool": "flatten"}, "known number of features"),
        ((2, 2, 2, 2, 3), {}, "use pool='flatten' or pool=None"),
        (
            (3, 8, 8),
            {"pool": None, "data_format": "channels_first"},
            "permute the tap first",
        ),
    ],
)
def test_a_shape_that_cannot_be_pooled_is_an_error(shape, arguments, message):
    adapter = DenseAdapter(3, name="shape", **arguments)
    with pytest.raises(ValueError, match=message) as caught:
        adapter.build((None, *shape))
    assert "'shape'" in str(caught.value)


def test_stock_layers_of_an_unbuilt_adapter_are_an_error():
    with pytest.raises(ValueError, match="'shape' is not built"):
        DenseAdapter(3, name="shape").to_plain()


def test_another_width_than_it_was_built_for_is_an_error():
    adapter = DenseAdapter(3, name="shape")
    adapter.build((None, 4, 4, 6))
    with pytest.raises(ValueError, match="layer 'shape'"):
        adapter(sample(2, 4, 4, 5))
