"""SpatialAdapter resizes and projects as sums over pixels in NumPy."""

import keras
import numpy as np
import pytest

from keras_cascade.adapters import SpatialAdapter
from keras_cascade.testing import check_adapter

to_numpy = keras.ops.convert_to_numpy
FORMATS = ("channels_last", "channels_first")


def sample(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def shrunk(row: np.ndarray, size: int) -> np.ndarray:
    """Averages by a triangle over each cell, as wide as the size ratio."""
    ratio = len(row) / size
    result = []
    for i in range(size):
        total = weights = 0.0
        for j, value in enumerate(row):
            distance = abs((j + 0.5) - (i + 0.5) * ratio)
            weight = max(0.0, 1 - distance / max(ratio, 1.0))
            total, weights = total + weight * value, weights + weight
        result.append(total / weights)
    return np.array(result)


def resized(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    maps = np.apply_along_axis(shrunk, 1, maps.astype("float64"), height)
    return np.apply_along_axis(shrunk, 2, maps, width)


def placed(maps: np.ndarray, data_format: str) -> np.ndarray:
    first = data_format == "channels_first"
    return np.moveaxis(maps, -1, 1) if first else maps


def through(layers, x):
    for layer in layers:
        assert type(layer).__module__.startswith("keras.")
        x = layer(x)
    return to_numpy(x)


# Height and width before and after.
SIZES = {
    "smaller": ((7, 6), (3, 4)),
    "larger": ((3, 4), (7, 6)),
    "one smaller, one larger": ((2, 9), (5, 3)),
    "the same": ((4, 5), (4, 5)),
    "one pixel": ((5, 4), (1, 1)),
}


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("case", SIZES)
def test_it_resizes_and_projects(case, data_format):
    before, after = SIZES[case]
    x = sample(2, *before, 5)
    adapter = SpatialAdapter(
        after, 3, data_format=data_format, bias_initializer="ones"
    )
    y = to_numpy(adapter(placed(x, data_format)))
    kernel, bias = to_numpy(adapter.kernel), to_numpy(adapter.bias)
    expected = placed(resized(x, *after) @ kernel + bias, data_format)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    shape = (None, *placed(x, data_format).shape[1:])
    assert adapter.compute_output_shape(shape) == (None, *y.shape[1:])


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("case", SIZES)
def test_stock_layers_compute_the_same(case, data_format):
    before, after = SIZES[case]
    x = placed(sample(2, *before, 5), data_format)
    adapter = SpatialAdapter(after, 3, "tanh", data_format=data_format)
    y = to_numpy(adapter(x))
    np.testing.assert_allclose(through(adapter.to_plain(), x), y, atol=1e-5)


@pytest.mark.parametrize("interpolation", ["bilinear", "nearest"])
@pytest.mark.parametrize("antialias", [True, False])
def test_it_resizes_as_keras_does(interpolation, antialias):
    x = sample(2, 8, 3, 2)
    options = {"interpolation": interpolation, "antialias": antialias}
    y = SpatialAdapter((4, 6), data_format="channels_last", **options)(x)
    expected = keras.ops.image.resize(
        x, (4, 6), data_format="channels_last", **options
    )
    np.testing.assert_allclose(to_numpy(y), to_numpy(expected), atol=1e-5)


def test_without_channels_there_is_nothing_to_learn():
    adapter = SpatialAdapter((2, 3), data_format="channels_last")
    x = sample(2, 5, 5, 4)
    np.testing.assert_allclose(
        to_numpy(adapter(x)), resized(x, 2, 3), atol=1e-5
    )
    assert adapter.weights == []


@pytest.mark.parametrize("size", [None, 3, (None, 3)])
def test_open_sizes_stay_as_they_are(size):
    adapter = SpatialAdapter(size, 2, data_format="channels_last")
    height = 3 if size == 3 else 4
    width = 5 if size is None else 3
    assert adapter(sample(2, 4, 5, 6)).shape == (2, height, width, 2)


@pytest.mark.parametrize("data_format", FORMATS)
def test_positions_may_be_unknown_when_it_is_built(data_format):
    shape = placed(np.empty((1, 1, 1, 3)), data_format).shape
    open_shape = [n if n == 3 else None for n in shape[1:]]
    inputs = keras.Input(open_shape)
    adapter = SpatialAdapter((3, 5), 2, "tanh", data_format=data_format)
    model = keras.Model(inputs, adapter(inputs))
    x = sample(2, 7, 4, 3)
    given = placed(x, data_format)
    y = model.predict(given, verbose=0)
    kernel = to_numpy(adapter.kernel)
    expected = placed(np.tanh(resized(x, 3, 5) @ kernel), data_format)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(
        through(adapter.to_plain(), given), expected, atol=1e-5
    )


def test_a_partly_open_size_of_unknown_positions_has_no_stock_layers():
    adapter = SpatialAdapter((None, 5), data_format="channels_last", name="a")
    adapter.build((None, None, None, 3))
    with pytest.raises(NotImplementedError, match="need to know both sizes"):
        adapter.to_plain()


@pytest.mark.parametrize("data_format", FORMATS)
def test_a_vector_is_spread_over_the_positions(data_format):
    x = sample(3, 6)
    adapter = SpatialAdapter(
        (2, 4), 10, data_format=data_format, bias_initializer="ones"
    )
    y = to_numpy(adapter(x))
    weights = {w.name: to_numpy(w) for w in adapter.weights}
    assert weights["kernel"].shape == (8, 10)
    spread = x @ weights["spread_kernel"] + weights["spread_bias"]
    first = data_format == "channels_first"
    maps = spread.reshape((3, 8, 2, 4) if first else (3, 2, 4, 8))
    maps = np.moveaxis(maps, 1, -1) if first else maps
    expected = placed(maps @ weights["kernel"] + weights["bias"], data_format)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(through(adapter.to_plain(), x), y, atol=1e-5)


def test_a_vector_needs_no_more_numbers_than_channels():
    adapter = SpatialAdapter((2, 4), 3)
    adapter.build((None, 6))
    assert adapter.spread_kernel.shape == (6, 2 * 4 * 3)


def test_a_wide_map_that_grows_is_projected_first(monkeypatch):
    seen = []
    adapter = SpatialAdapter((9, 9), 2, data_format="channels_last")
    adapter.build((None, 3, 3, 64))
    project = adapter._project

    def spy(x):
        seen.append(tuple(x.shape))
        return project(x)

    monkeypatch.setattr(adapter, "_project", spy)
    adapter(sample(2, 3, 3, 64))
    assert seen == [(2, 3, 3, 64)]


@pytest.mark.parametrize("data_format", FORMATS)
def test_gradients_reach_the_layers_before_the_resize(data_format):
    inputs = keras.Input(placed(sample(1, 6, 6, 3), data_format).shape[1:])
    before = keras.layers.Rescaling(1.0)
    first = SpatialAdapter(None, 3, data_format=data_format, name="first")
    second = SpatialAdapter((3, 2), 2, data_format=data_format, name="second")
    model = keras.Model(inputs, second(first(before(inputs))))
    second.trainable = False
    model.compile(keras.optimizers.SGD(0.1), "mse")
    x = placed(sample(4, 6, 6, 3), data_format)
    kernel = to_numpy(first.kernel).copy()
    model.fit(x, np.ones((4, *model.output_shape[1:])), verbose=0)
    # The gradient of mean (y - 1)**2 by hand: resizing is linear.
    maps = np.moveaxis(x, 1, -1) if data_format == "channels_first" else x
    small, last = resized(maps, 3, 2), to_numpy(second.kernel)
    error = 2 * (small @ kernel @ last - 1) / (4 * 3 * 2 * 2)
    gradient = np.einsum("bhwi,bhwo->io", small, error @ last.T)
    np.testing.assert_allclose(
        to_numpy(first.kernel), kernel - 0.1 * gradient, atol=1e-5
    )


def test_an_open_width_is_settled_on_a_copy():
    adapter = SpatialAdapter((2, 2), "auto", name="tap")
    assert adapter.open_width
    settled = adapter.with_units(7)
    assert (settled.channels, settled.open_width) == (7, False)
    assert settled.size == (2, 2)
    with pytest.raises(ValueError, match="'tap' is open"):
        adapter(sample(2, 4, 4, 3))
    with pytest.raises(ValueError, match="channels=7, it cannot be given 3"):
        settled.with_units(3)
    assert not SpatialAdapter((2, 2)).open_width


def test_its_configuration_is_complete():
    adapter = SpatialAdapter(
        (2, None),
        3,
        activation="gelu",
        interpolation="nearest",
        antialias=False,
        use_bias=False,
        kernel_initializer=keras.initializers.HeNormal(seed=1),
        kernel_regularizer=keras.regularizers.L2(0.1),
        activity_regularizer=keras.regularizers.L1(0.2),
        data_format="channels_first",
        trainable=False,
        dtype="mixed_bfloat16",
    )
    config = adapter.get_config()
    again = SpatialAdapter.from_config(config)
    assert again.get_config() == config
    assert (again.size, again.channels, again.use_bias) == ((2, None), 3, False)
    assert (again.interpolation, again.antialias) == ("nearest", False)
    assert (again.trainable, again.compute_dtype) == (False, "bfloat16")


def test_a_seeded_initializer_gives_the_same_weights():
    kernels = []
    for _ in range(2):
        seeded = keras.initializers.HeNormal(seed=3)
        adapter = SpatialAdapter((2, 2), 4, kernel_initializer=seeded)
        adapter.build((None, 5))
        kernels.append([to_numpy(w) for w in adapter.weights])
    for one, other in zip(*kernels, strict=True):
        np.testing.assert_array_equal(one, other)


def test_regularizers_enter_the_loss():
    adapter = SpatialAdapter(
        2, 3, kernel_regularizer=keras.regularizers.L2(0.5)
    )
    adapter(sample(2, 4, 4, 5))
    kernel = to_numpy(adapter.kernel)
    np.testing.assert_allclose(
        to_numpy(adapter.losses[0]), 0.5 * (kernel**2).sum(), rtol=1e-5
    )


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_computes_in_the_compute_dtype(dtype):
    adapter = SpatialAdapter(
        (2, 3), 2, dtype=dtype, data_format="channels_last"
    )
    x = sample(2, 4, 4, 5)
    y = adapter(x)
    assert keras.backend.standardize_dtype(y.dtype) == dtype[6:]
    assert adapter.kernel.dtype == "float32"
    expected = resized(x, 2, 3) @ to_numpy(adapter.kernel)
    y = to_numpy(keras.ops.cast(y, "float32"))
    np.testing.assert_allclose(y, expected, atol=0.05)


def test_integer_maps_are_resized_as_numbers():
    x = np.arange(16).reshape(1, 4, 4, 1)
    adapter = SpatialAdapter((2, 2), data_format="channels_last")
    np.testing.assert_allclose(
        to_numpy(adapter(x)), resized(x, 2, 2), rtol=1e-6
    )


@pytest.mark.parametrize("shape", [(5, 4, 3), (3, None, 4), (6,)])
def test_save_and_load_give_the_same_outputs(shape, tmp_path):
    inputs = keras.Input(shape)
    adapter = SpatialAdapter(
        (3, 6), 2, "relu", data_format="channels_last", name="tap"
    )
    model = keras.Model(inputs, adapter(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    x = sample(4, *(n or 5 for n in shape))
    np.testing.assert_array_equal(
        loaded.predict(x, verbose=0), model.predict(x, verbose=0)
    )


@pytest.mark.parametrize(
    ("adapter", "shape"),
    [
        (SpatialAdapter((3, 2), 4, "tanh"), (5, 4, 3)),
        (SpatialAdapter((3, 2), data_format="channels_first"), (3, 5, 4)),
        # As wide as it has channels: their bias is not of the last axis.
        (
            SpatialAdapter(
                (3, 4),
                4,
                bias_initializer="normal",
                data_format="channels_first",
            ),
            (3, 5, 5),
        ),
        (SpatialAdapter((3, 2), 4), (6,)),
    ],
    ids=["map", "channels first", "as many channels", "vector"],
)
def test_cascades_can_rely_on_it(adapter, shape):
    assert "stock_layers_give_the_same" in check_adapter(adapter, shape, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"size": 0}, "`size` is a positive int, for height and width, or"),
        ({"size": (1, 2, 3)}, r"`size` is \(height, width\)"),
        ({"size": (2.5, 1)}, "received 2.5"),
        ({"channels": 0}, "`channels` is a positive int, 'auto' or None"),
        ({"channels": True}, "received True"),
        ({"interpolation": "cubic"}, "`interpolation` is one of"),
        ({"data_format": "NHWC"}, "received 'NHWC'"),
    ],
)
def test_impossible_arguments_are_an_error(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        SpatialAdapter(**arguments, name="tap")
    assert "'tap'" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "shape", "message"),
    [
        ({"size": 2}, (4, 5), "it takes maps and vectors"),
        ({"size": 2}, (4, 5, None), "number of channels is not known"),
        ({"channels": 2}, (4,), "where height, width and `channels`"),
        ({"size": 2}, (4,), "where height, width and `channels`"),
    ],
)
def test_a_shape_that_is_no_map_is_an_error(arguments, shape, message):
    adapter = SpatialAdapter(
        **arguments, name="tap", data_format="channels_last"
    )
    with pytest.raises(ValueError, match=message) as caught:
        adapter.build((None, *shape))
    assert "'tap'" in str(caught.value)


def test_stock_layers_of_an_unbuilt_adapter_are_an_error():
    with pytest.raises(ValueError, match="'tap' is not built"):
        SpatialAdapter(2, name="tap").to_plain()
