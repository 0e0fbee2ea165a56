"""Automatic adapters compute what NumPy does, for each pair of shapes."""

import keras
import numpy as np
import pytest

from keras_cascade.adapters.automatic import automatic_adapter
from keras_cascade.testing import check_adapter

to_numpy = keras.ops.convert_to_numpy
FORMATS = ("channels_last", "channels_first")


def sample(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def found(shape, target, data_format="channels_last", **arguments):
    return automatic_adapter(
        shape,
        target,
        name="tap",
        target_name="expert",
        data_format=data_format,
        **arguments,
    )


def matrix(count: int, size: int) -> np.ndarray:
    """The weights of an antialiased resampling, `(size, count)`."""
    ratio = count / size
    centres = (np.arange(size)[:, None] + 0.5) * ratio
    distance = abs(np.arange(count) + 0.5 - centres)
    weights = np.maximum(0, 1 - distance / max(ratio, 1))
    return weights / weights.sum(axis=1, keepdims=True)


def weights(adapter) -> dict[str, np.ndarray]:
    return {w.name: to_numpy(w) for w in adapter.weights}


def dense(x, w):
    return x @ w["kernel"] + w["bias"]


def resized(x, height, width):
    rows, columns = matrix(x.shape[1], height), matrix(x.shape[2], width)
    return np.einsum("Hh,Ww,bhwc->bHWc", rows, columns, x)


def spread(x, w, height, width):
    x = x @ w["spread_kernel"] + w["spread_bias"]
    return x.reshape(len(x), height, width, -1)


# Shape, target, the expected result in NumPy. Channels last.
CELLS = {
    "vector to vector": ((6,), (4,), dense),
    "vector to map": (
        (6,),
        (3, 2, 5),
        lambda x, w: dense(spread(x, w, 3, 2), w),
    ),
    "vector to sequence": (
        (6,),
        (3, 5),
        lambda x, w: dense(x, w).reshape(-1, 3, 5),
    ),
    "vector to map of its channels": (
        (6,),
        (3, 2, 6),
        lambda x, w: dense(spread(x, w, 3, 2), w),
    ),
    "vector to sequence of its width": (
        (6,),
        (3, 6),
        lambda x, w: dense(x, w).reshape(-1, 3, 6),
    ),
    "map to vector": ((4, 3, 6), (5,), lambda x, w: dense(x.mean((1, 2)), w)),
    "map to map": (
        (4, 3, 6),
        (2, 5, 4),
        lambda x, w: dense(resized(x, 2, 5), w),
    ),
    "map to map of its size": ((4, 3, 6), (4, 3, 2), dense),
    "map to map of its channels": (
        (4, 3, 6),
        (3, 4, 6),
        lambda x, w: resized(x, 3, 4),
    ),
    "map to sequence": (
        (4, 3, 6),
        (5, 2),
        lambda x, w: dense(matrix(12, 5) @ x.reshape(-1, 12, 6), w),
    ),
    "map to sequence of its positions": (
        (4, 3, 6),
        (12, 6),
        lambda x, w: x.reshape(-1, 12, 6),
    ),
    "sequence to vector": ((7, 6), (5,), lambda x, w: dense(x.mean(1), w)),
    "sequence of a square and one to vector": (
        (10, 6),
        (5,),
        lambda x, w: dense(x.mean(1), w),
    ),
    "sequence to map": (
        (9, 6),
        (2, 5, 5),
        lambda x, w: dense(resized(x.reshape(-1, 3, 3, 6), 2, 5), w),
    ),
    "sequence with class token to map": (
        (10, 6),
        (2, 4, 5),
        lambda x, w: dense(resized(x[:, 1:].reshape(-1, 3, 3, 6), 2, 4), w),
    ),
    "sequence that fills the map": (
        (8, 6),
        (2, 4, 5),
        lambda x, w: dense(x.reshape(-1, 2, 4, 6), w),
    ),
    "square sequence that fills the map otherwise": (
        (16, 6),
        (2, 8, 5),
        lambda x, w: dense(x.reshape(-1, 2, 8, 6), w),
    ),
    "sequence with class token that fills the map": (
        (7, 6),
        (2, 3, 5),
        lambda x, w: dense(x[:, 1:].reshape(-1, 2, 3, 6), w),
    ),
    "square sequence, one of which less would fill the map": (
        (9, 6),
        (2, 4, 5),
        lambda x, w: dense(resized(x.reshape(-1, 3, 3, 6), 2, 4), w),
    ),
    "sequence to sequence": (
        (7, 6),
        (3, 5),
        lambda x, w: dense(matrix(7, 3) @ x, w),
    ),
    "sequence to longer sequence": (
        (7, 6),
        (9, 6),
        lambda x, w: matrix(7, 9) @ x,
    ),
    "volume to vector": (
        (2, 3, 2, 6),
        (5,),
        lambda x, w: dense(x.mean((1, 2, 3)), w),
    ),
    "map to any size": ((4, 3, 6), (None, None, 2), dense),
    "map to any channels": (
        (4, 3, 6),
        (2, 2, None),
        lambda x, w: resized(x, 2, 2),
    ),
    "sequence to any length": ((7, 6), (None, 5), dense),
    "map to any length": (
        (4, 3, 6),
        (None, 5),
        lambda x, w: dense(x.reshape(-1, 12, 6), w),
    ),
    "sequence to any size": (
        (9, 6),
        (None, None, 2),
        lambda x, w: dense(x.reshape(-1, 3, 3, 6), w),
    ),
}


def moved(shape, data_format):
    first = data_format == "channels_first" and len(shape) > 2
    return (shape[-1], *shape[:-1]) if first else shape


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("case", CELLS)
def test_each_cell_of_the_table_gives_the_documented_adapter(case, data_format):
    shape, target, by_hand = CELLS[case]
    adapter = found(
        moved(shape, data_format), moved(target, data_format), data_format
    )
    x = sample(3, *shape)
    first = data_format == "channels_first"
    given = np.moveaxis(x, -1, 1) if first and x.ndim > 3 else x
    y = to_numpy(adapter(given))
    w = weights(adapter)
    if first and "spread_kernel" in w:
        # The columns of the weights go through the channels of each position.
        for name in ("spread_kernel", "spread_bias"):
            value = w[name].reshape(*w[name].shape[:-1], -1, *target[:2])
            value = np.moveaxis(value, -3, -1)
            w[name] = value.reshape(w[name].shape)
    expected = by_hand(x, w)
    if first and expected.ndim > 3:
        expected = np.moveaxis(expected, -1, 1)
    np.testing.assert_allclose(y, expected, atol=1e-5)
    wanted = moved(target, data_format)
    assert all(n in (None, m) for n, m in zip(wanted, y.shape[1:], strict=True))


@pytest.mark.parametrize(
    ("shape", "target"),
    [
        ((6,), (6,)),
        ((6,), (None,)),
        ((7, 6), (7, 6)),
        ((7, 6), (None, 6)),
        ((4, 3, 6), (4, 3, 6)),
        ((4, 3, 6), (None, None, 6)),
        ((None, None, 6), (None, None, 6)),
        ((2, 3, 2, 6), (2, 3, 2, 6)),
    ],
)
def test_no_adapter_is_inserted_between_equal_shapes(shape, target):
    assert found(shape, target) is None


@pytest.mark.parametrize("target", [None, (None,)])
@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize("shape", [(7, 6), (4, 3, 6), (2, 3, 2, 6)])
def test_any_width_lets_features_be_averaged(shape, data_format, target):
    x = sample(2, *shape)
    first = data_format == "channels_first" and x.ndim > 3
    adapter = found(moved(shape, data_format), target, data_format)
    y = adapter(np.moveaxis(x, -1, 1) if first else x)
    mean = x.mean(axis=tuple(range(1, x.ndim - 1)))
    np.testing.assert_allclose(to_numpy(y), mean, atol=1e-6)


def test_without_a_target_a_vector_passes():
    assert found((6,), None) is None


def test_without_a_target_a_sequence_is_averaged_under_its_mask():
    x, mask = sample(2, 5, 3), np.array([[1, 1, 0, 0, 0], [1, 1, 1, 1, 1]])
    y = to_numpy(found((5, 3), None)(x, mask=mask.astype(bool)))
    expected = [x[0, :2].mean(axis=0), x[1].mean(axis=0)]
    np.testing.assert_allclose(y, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("shape", "target", "given"),
    [
        ((None, None, 3), (4, 2, 5), (7, 3, 3)),
        ((None, None, 3), (4, 5), (3, 3, 3)),
        ((None, None, 3), (5,), (3, 3, 3)),
        ((None, 3), (4, 5), (9, 3)),
        ((None, 3), (5,), (9, 3)),
    ],
)
def test_a_tap_of_unknown_size_gets_the_expected_size(shape, target, given):
    inputs = keras.Input(shape)
    model = keras.Model(inputs, found(shape, target)(inputs))
    assert model.output_shape == (None, *target)
    assert model.predict(sample(2, *given), verbose=0).shape == (2, *target)


@pytest.mark.parametrize("data_format", FORMATS)
@pytest.mark.parametrize(
    "case",
    [
        "vector to map",
        "map to map",
        "map to sequence",
        "sequence with class token to map",
        "sequence to sequence",
    ],
)
def test_cascades_can_rely_on_it(case, data_format):
    shape, target, _ = CELLS[case]
    shape = moved(shape, data_format)
    adapter = found(shape, moved(target, data_format), data_format)
    assert "save_and_load_keep_the_answers" in check_adapter(adapter, shape, 4)


@pytest.mark.parametrize(
    ("shape", "target", "message"),
    [
        ((), (4,), "no known number of features"),
        ((5, None), (4,), "no known number of features"),
        ((2, 2, 2, 2, 3), (4,), "neither vector, sequence, map nor volume"),
        ((2, 2, 2, 2, 3), None, "makes a vector of 'tap'"),
        ((2, 2, 2, 3), (4, 4, 3), "from a volume to a map"),
        ((2, 2, 2, 3), (4, 3), "from a volume to a sequence"),
        ((2, 2, 3), (4, 4, 4, 3), "from a map to a volume"),
        ((6,), (None, None, 3), "a map of known size only"),
        ((6,), (None, 3), "a sequence of known length"),
        ((8, 3), (4, 4, 3), r"its 8 steps, or one less, .* grid=\(height"),
        ((None, 3), (4, 4, 3), "without a known number of steps"),
    ],
)
def test_without_a_rule_the_error_says_what_to_write(shape, target, message):
    with pytest.raises(ValueError, match=message) as caught:
        found(shape, target)
    assert f"'tap' {shape}" in str(caught.value)
    assert "adapters={'tap': layer}" in str(caught.value)
    assert target is None or len(target) == 1 or "'expert'" in str(caught.value)


def test_a_padded_sequence_cannot_become_a_map():
    with pytest.raises(ValueError, match="a padded sequence fills no grid"):
        found((9, 3), (3, 3, 3), masked=True)
