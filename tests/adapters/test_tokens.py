"""TokenAdapter computes the same as sums over tokens in NumPy."""

import keras
import numpy as np
import pytest

from keras_cascade.adapters import TokenAdapter
from keras_cascade.testing import check_adapter

to_numpy = keras.ops.convert_to_numpy
FORMATS = ("channels_last", "channels_first")


def sample(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def shrunk(row: np.ndarray, size: int, counts=None) -> np.ndarray:
    """Averages by a triangle over each cell, of the values that count."""
    ratio = len(row) / size
    counts = np.ones(len(row)) if counts is None else counts
    result = []
    for i in range(size):
        total = weights = 0.0
        for j, value in enumerate(row):
            distance = abs((j + 0.5) - (i + 0.5) * ratio)
            weight = counts[j] * max(0.0, 1 - distance / max(ratio, 1.0))
            if weight:
                total, weights = total + weight * value, weights + weight
        result.append(total / weights if weights else 0.0)
    return np.array(result)


def resampled(steps: np.ndarray, size: int, axis: int = 1) -> np.ndarray:
    return np.apply_along_axis(shrunk, axis, steps.astype("float64"), size)


def placed(maps: np.ndarray, data_format: str) -> np.ndarray:
    first = data_format == "channels_first"
    return np.moveaxis(maps, -1, 1) if first else maps


def through(layers, x):
    for layer in layers:
        assert type(layer).__module__.startswith("keras.")
        x = layer(x)
    return to_numpy(x)


def projected(adapter: TokenAdapter, x: np.ndarray) -> np.ndarray:
    return x @ to_numpy(adapter.kernel) + to_numpy(adapter.bias)


# The constructor's arguments, the number of tokens, the pooling in NumPy.
VECTORS = {
    "no square: the mean": ({}, 6, lambda x: x.mean(axis=1)),
    "a square: the mean": ({}, 9, lambda x: x.mean(axis=1)),
    "one over: the class token": ({}, 10, lambda x: x[:, 0]),
    "told that there is one": ({"class_token": True}, 6, lambda x: x[:, 0]),
    "told that there is none": (
        {"class_token": False},
        10,
        lambda x: x.mean(axis=1),
    ),
}


@pytest.mark.parametrize("case", VECTORS)
def test_a_vector_is_the_class_token_or_the_mean(case):
    arguments, count, pooled = VECTORS[case]
    x = sample(3, count, 4)
    adapter = TokenAdapter(
        "vector", channels=5, bias_initializer="ones", **arguments
    )
    y = to_numpy(adapter(x))
    np.testing.assert_allclose(y, projected(adapter, pooled(x)), atol=1e-5)
    np.testing.assert_allclose(through(adapter.to_plain(), x), y, atol=1e-5)
    assert adapter.compute_output_shape((None, count, 4)) == (None, 5)


def test_a_class_token_needs_no_known_number_of_steps():
    inputs = keras.Input((None, 4))
    adapter = TokenAdapter("vector", class_token=True)
    model = keras.Model(inputs, adapter(inputs))
    x = sample(3, 7, 4)
    np.testing.assert_array_equal(model.predict(x, verbose=0), x[:, 0])
    np.testing.assert_array_equal(through(adapter.to_plain(), x), x[:, 0])


# The constructor's arguments, the number of tokens, first token, grid.
GRIDS = {
    "a square": ({}, 9, 0, (3, 3)),
    "one over": ({}, 10, 1, (3, 3)),
    "a grid": ({"grid": (2, 3)}, 6, 0, (2, 3)),
    "a grid and one over": ({"grid": (2, 3)}, 7, 1, (2, 3)),
    "told that there is one": ({"class_token": True}, 10, 1, (3, 3)),
    "resized": ({"size": (2, 5)}, 9, 0, (3, 3)),
    "resized, one over": ({"size": (5, None)}, 10, 1, (3, 3)),
}


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("case", GRIDS)
def test_tokens_are_laid_out_row_by_row(case, data_format):
    arguments, count, first, grid = GRIDS[case]
    x = sample(2, count, 4)
    adapter = TokenAdapter(
        "map", channels=3, data_format=data_format, **arguments
    )
    y = to_numpy(adapter(x))
    maps = x[:, first:].reshape(2, *grid, 4)
    height, width = arguments.get("size", grid)
    maps = resampled(maps, height)
    maps = resampled(maps, width or grid[1], axis=2)
    expected = placed(projected(adapter, maps), data_format)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(through(adapter.to_plain(), x), y, atol=1e-5)
    symbolic = adapter.compute_output_shape((None, count, 4))
    assert symbolic == (None, *y.shape[1:])


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("size", [None, 4, 12])
def test_the_positions_of_a_map_become_steps(size, data_format):
    maps = sample(2, 3, 3, 4)
    x = placed(maps, data_format)
    adapter = TokenAdapter(
        "sequence", size, 5, data_format=data_format, bias_initializer="ones"
    )
    y = to_numpy(adapter(x))
    steps = maps.reshape(2, 9, 4)
    expected = projected(adapter, resampled(steps, size) if size else steps)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(through(adapter.to_plain(), x), y, atol=1e-5)
    symbolic = adapter.compute_output_shape((None, *x.shape[1:]))
    assert symbolic == (None, *y.shape[1:])


@pytest.mark.parametrize("data_format", FORMATS)
def test_tokens_of_a_map_go_back_to_it(data_format):
    x = placed(sample(2, 3, 5, 4), data_format)
    tokens = TokenAdapter("sequence", data_format=data_format)(x)
    back = TokenAdapter("map", grid=(3, 5), data_format=data_format)(tokens)
    np.testing.assert_array_equal(to_numpy(back), x)


@pytest.mark.parametrize("size", [3, 7, 11])
def test_a_sequence_is_resampled(size):
    x = sample(2, 7, 4)
    adapter = TokenAdapter("sequence", size, 5, "auto", activation="tanh")
    y = to_numpy(adapter(x))
    expected = np.tanh(projected(adapter, resampled(x, size)))
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(through(adapter.to_plain(), x), y, atol=1e-5)


def test_a_sequence_leaves_out_its_class_token():
    x = sample(2, 7, 4)
    adapter = TokenAdapter("sequence", 3, class_token=True)
    y = to_numpy(adapter(x))
    np.testing.assert_allclose(y, resampled(x[:, 1:], 3), atol=1e-5)
    np.testing.assert_allclose(through(adapter.to_plain(), x), y, atol=1e-5)


def test_a_vector_becomes_a_sequence():
    x = sample(3, 6)
    adapter = TokenAdapter("sequence", 4, 2, bias_initializer="ones")
    y = to_numpy(adapter(x))
    expected = projected(adapter, x).reshape(3, 4, 2)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    np.testing.assert_allclose(through(adapter.to_plain(), x), y, atol=1e-5)


@pytest.mark.parametrize("shape", [(None, 4), (None, None, 4)])
def test_the_number_of_steps_may_be_unknown_when_it_is_built(shape):
    inputs = keras.Input(shape)
    adapter = TokenAdapter("sequence", 5, 2, data_format="channels_last")
    model = keras.Model(inputs, adapter(inputs))
    assert model.output_shape == (None, 5, 2)
    x = sample(3, 12, 4)
    given = x if len(shape) == 2 else x.reshape(3, 4, 3, 4)
    expected = projected(adapter, resampled(x, 5))
    np.testing.assert_allclose(
        model.predict(given, verbose=0), expected, atol=1e-5
    )
    np.testing.assert_allclose(
        through(adapter.to_plain(), given), expected, atol=1e-5
    )


MASK = np.array(
    [
        [True, True, True, False, False, False],
        [True, True, True, True, True, True],
        [True, False, False, False, False, False],
        [False] * 6,
    ]
)


def masked_sample() -> np.ndarray:
    x = sample(4, 6, 3)
    x[~MASK] = np.nan
    return x


def test_the_mean_is_that_of_the_steps_that_are_not_masked():
    y = to_numpy(TokenAdapter("vector")(masked_sample(), mask=MASK))
    x = sample(4, 6, 3)
    for row in range(3):
        expected = x[row][MASK[row]].mean(axis=0)
        np.testing.assert_allclose(y[row], expected, atol=1e-6)
    np.testing.assert_array_equal(y[3], 0)


@pytest.mark.parametrize("size", [2, 3, 9])
def test_masked_steps_do_not_bleed_into_a_resampled_sequence(size):
    adapter = TokenAdapter("sequence", size)
    y = to_numpy(adapter(masked_sample(), mask=MASK))
    x = sample(4, 6, 3)
    expected = np.stack(
        [
            np.apply_along_axis(shrunk, 0, x[row], size, MASK[row])
            for row in range(4)
        ]
    )
    np.testing.assert_allclose(y, expected, atol=1e-5)


@pytest.mark.parametrize("size", [2, 3, 9])
def test_a_resampled_step_counts_if_any_step_in_it_counts(size):
    adapter = TokenAdapter("sequence", size)
    adapter.build((None, 6, 3))
    mask = to_numpy(adapter.compute_mask(None, MASK))
    reach = [
        [shrunk(np.eye(6)[j], size)[i] > 0 for j in range(6)]
        for i in range(size)
    ]
    np.testing.assert_array_equal(mask, (MASK[:, None] & reach).any(axis=-1))
    assert mask[:3].any(axis=1).all()
    assert not mask[3].any()


def test_a_full_mask_changes_nothing():
    x = sample(2, 6, 3)
    adapter = TokenAdapter("sequence", 4, 2)
    full = np.ones((2, 6), bool)
    np.testing.assert_allclose(
        to_numpy(adapter(x, mask=full)), to_numpy(adapter(x)), atol=1e-6
    )


@pytest.mark.parametrize("length", [6, None])
def test_the_mask_goes_along_in_a_network(length, tmp_path):
    tokens = np.array([[1, 2, 3, 0, 0, 0], [4, 3, 2, 1, 2, 0]])
    inputs = keras.Input((length,), dtype="int32")
    embedding = keras.layers.Embedding(5, 3, mask_zero=True)
    adapter = TokenAdapter("sequence", 3, 2)
    mean = keras.layers.GlobalAveragePooling1D()
    model = keras.Model(inputs, mean(adapter(embedding(inputs))))
    y = model.predict(tokens, verbose=0)
    table = to_numpy(embedding.embeddings)
    for row, ids in enumerate(tokens):
        steps = np.apply_along_axis(shrunk, 0, table[ids], 3, ids > 0)
        reach = [shrunk((ids > 0).astype(float), 3)[i] > 0 for i in range(3)]
        expected = projected(adapter, steps)[reach].mean(axis=0)
        np.testing.assert_allclose(y[row], expected, atol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(tokens, verbose=0), y)


def test_a_mask_loses_the_step_of_a_class_token():
    adapter = TokenAdapter("sequence", class_token=True)
    adapter.build((None, 6, 3))
    np.testing.assert_array_equal(adapter.compute_mask(None, MASK), MASK[:, 1:])


def test_vectors_and_maps_carry_no_mask():
    assert TokenAdapter("vector").compute_mask(None, MASK) is None
    assert TokenAdapter("map").compute_mask(None, MASK) is None


def test_masked_tokens_of_a_grid_are_zero():
    adapter = TokenAdapter("map", grid=(2, 3), data_format="channels_last")
    y = to_numpy(adapter(masked_sample(), mask=MASK))
    expected = np.where(MASK[..., None], sample(4, 6, 3), 0)
    np.testing.assert_array_equal(y, expected.reshape(4, 2, 3, 3))


def test_resampling_under_a_mask_has_no_stock_layers():
    adapter = TokenAdapter("sequence", 3, name="tap")
    adapter(sample(4, 6, 3), mask=MASK)
    with pytest.raises(NotImplementedError, match="'tap' gets masked"):
        adapter.to_plain()


def test_projecting_under_a_mask_has_stock_layers():
    adapter = TokenAdapter("sequence", channels=2)
    x = sample(4, 6, 3)
    y = to_numpy(adapter(x, mask=MASK))
    np.testing.assert_allclose(through(adapter.to_plain(), x), y, atol=1e-6)


@pytest.mark.parametrize(
    ("to", "arguments"),
    [
        ("vector", {"class_token": True}),
        ("vector", {}),
        ("map", {"size": (2, 5)}),
        ("sequence", {"size": 4}),
    ],
)
def test_training_reaches_the_tokens(to, arguments):
    inputs = keras.Input((9, 3))
    before = keras.layers.Dense(3, use_bias=False)
    after = TokenAdapter(to, **arguments)
    model = keras.Model(inputs, after(before(inputs)))
    model.compile(keras.optimizers.SGD(1.0), "mse")
    kernel = to_numpy(before.kernel).astype("float64")
    x = sample(2, 9, 3)
    zeros = np.zeros((2, *model.output_shape[1:]))
    model.fit(x, zeros, verbose=0)
    # The adapter is linear: its results on a basis determine it.
    basis = np.eye(9)[None].repeat(1, 0).astype("float32")
    twin = TokenAdapter(to, data_format="channels_last", **arguments)
    matrix = to_numpy(twin(basis)).reshape(-1, 9)
    seen = matrix @ x.astype("float64")
    gradient = np.einsum("bti,bto->io", seen, 2 * seen @ kernel)
    gradient /= seen.size
    np.testing.assert_allclose(
        to_numpy(before.kernel), kernel - gradient, atol=1e-5
    )


def test_an_open_width_is_settled_on_a_copy():
    adapter = TokenAdapter("vector", channels="auto", name="tap")
    assert adapter.open_width
    assert adapter.with_units(7)(sample(2, 4, 3)).shape == (2, 7)
    with pytest.raises(ValueError, match="'tap' is open"):
        adapter(sample(2, 4, 3))


def test_its_configuration_is_complete():
    adapter = TokenAdapter(
        "map",
        (2, None),
        3,
        class_token=False,
        grid=(2, 8),
        activation="gelu",
        interpolation="nearest",
        antialias=False,
        use_bias=False,
        kernel_initializer=keras.initializers.HeNormal(seed=1),
        bias_regularizer=keras.regularizers.L2(0.1),
        data_format="channels_first",
        trainable=False,
        dtype="mixed_bfloat16",
    )
    config = adapter.get_config()
    again = TokenAdapter.from_config(config)
    assert again.get_config() == config
    assert (again.to, again.size, again.grid) == ("map", (2, None), (2, 8))
    assert (again.class_token, again.trainable) == (False, False)


def test_mixed_precision_computes_in_the_compute_dtype():
    adapter = TokenAdapter("sequence", 3, 2, dtype="mixed_bfloat16")
    x = sample(4, 6, 3)
    for mask in (None, MASK):
        y = adapter(x, mask=mask)
        assert keras.backend.standardize_dtype(y.dtype) == "bfloat16"
    assert adapter.kernel.dtype == "float32"


@pytest.mark.parametrize(
    ("adapter", "shape"),
    [
        (TokenAdapter("vector", channels=2), (10, 3)),
        (TokenAdapter("vector"), (6, 3)),
        (TokenAdapter("map", (2, 5), 4), (10, 3)),
        (TokenAdapter("sequence", 4, 2), (6, 3)),
        (TokenAdapter("sequence", 4, 2), (3, 3, 2)),
        (TokenAdapter("sequence", 4, 2), (5,)),
    ],
    ids=["class token", "mean", "map", "sequence", "of a map", "of a vector"],
)
def test_cascades_can_rely_on_it(adapter, shape):
    assert "stock_layers_give_the_same" in check_adapter(adapter, shape, 8)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"to": "image"}, "`to` is one of"),
        ({"to": "vector", "size": 3}, "a vector has no `size`, received 3"),
        ({"to": "sequence", "size": 0}, "`size` is a positive number of steps"),
        ({"to": "map", "size": (1, 2, 3)}, r"`size` is \(height, width\)"),
        ({"to": "sequence", "grid": 3}, "`grid` is for to='map'"),
        ({"to": "map", "class_token": "first"}, "`class_token` is one of"),
    ],
)
def test_impossible_arguments_are_an_error(arguments, message):
    with pytest.raises(ValueError, match=message) as caught:
        TokenAdapter(**arguments, name="tap")
    assert "'tap'" in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "shape", "message"),
    [
        ({"to": "vector"}, (4,), "DenseAdapter takes"),
        ({"to": "vector"}, (4, 4, 3), "DenseAdapter takes"),
        ({"to": "map"}, (4,), "SpatialAdapter takes"),
        ({"to": "sequence"}, (2, 2, 2, 2), "vectors, sequences and maps"),
        ({"to": "sequence"}, (4, None), "number of features is not known"),
        ({"to": "sequence", "size": 3}, (4,), "`size` and `channels`"),
        ({"to": "map"}, (7, 3), "7 tokens fill no square grid"),
        ({"to": "map"}, (None, 3), "number of steps is not known"),
        ({"to": "map", "class_token": False}, (10, 3), "10 tokens fill no"),
        ({"to": "map", "grid": (2, 3)}, (9, 3), r"those of grid=\(2, 3\)"),
    ],
)
def test_a_shape_that_does_not_go_with_it_is_an_error(
    arguments, shape, message
):
    adapter = TokenAdapter(**arguments, name="tap")
    with pytest.raises(ValueError, match=message) as caught:
        adapter.build((None, *shape))
    assert "'tap'" in str(caught.value)
