"""Features take the size of others, with the weights of Keras's resizing."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_cascade.adapters.size_matching import MatchSize

FORMATS = ("channels_last", "channels_first")
# The shapes of the features, and of those whose size they get.
SIZES = {
    "smaller": ((7, 9), (3, 4)),
    "larger": ((3, 4), (7, 9)),
    "mixed": ((7, 4), (3, 9)),
    "of one position": ((1, 1), (3, 2)),
    "equal": ((5, 3), (5, 3)),
}
RNG = np.random.default_rng(0)


def maps(size, channels, data_format):
    x = RNG.normal(size=(2, *size, channels)).astype("float32")
    return x if data_format == "channels_last" else np.moveaxis(x, -1, 1)


def open_inputs(*arrays, axes):
    """Inputs for arrays, some of whose axes are not known."""
    return [
        keras.Input(
            [None if i in axes else n for i, n in enumerate(x.shape)][1:]
        )
        for x in arrays
    ]


def answers(*given, layer, axes, plain=False):
    """The answer of a model whose sizes are not known."""
    inputs = open_inputs(*given, axes=axes)
    model = keras.Model(inputs, layer(inputs))
    if plain:
        (stock,) = layer.to_plain()
        model = keras.Model(inputs, stock(inputs))
    return model.predict(list(given), verbose=0)


@pytest.mark.parametrize(
    ("size", "data_format"),
    [*((size, FORMATS[0]) for size in SIZES), ("mixed", FORMATS[1])],
)
def test_maps_are_resized_as_by_keras(size, data_format):
    given, wanted = SIZES[size]
    x, like = maps(given, 4, data_format), maps(wanted, 3, data_format)
    expected = ops.image.resize(
        x, wanted, antialias=True, data_format=data_format
    )
    axes = (1, 2) if data_format == "channels_last" else (2, 3)
    for plain in (False, True)[: 1 + (size == "mixed")]:
        found = answers(
            x, like, layer=MatchSize(data_format), axes=axes, plain=plain
        )
        np.testing.assert_allclose(
            found, ops.convert_to_numpy(expected), atol=1e-5
        )


@pytest.mark.parametrize("shape", [(2, 6, 4), (2, 6, 5, 4, 3)])
def test_sequences_and_volumes_keep_a_straight_line(shape):
    """Interpolated between the ends, a line is a line of another length."""
    line = np.linspace(0, 1, 6, endpoint=False, dtype="float32") + 1 / 12
    column = line.reshape(-1, *[1] * (len(shape) - 2))
    x = np.broadcast_to(column, shape[1:])[None].repeat(2, 0)
    like = np.zeros((2, 12, *shape[2:]), "float32")
    found = answers(x, like, layer=MatchSize(), axes=range(1, len(shape) - 1))
    inner = found.reshape(2, 12, -1)[:, 1:-1]
    expected = (np.arange(12)[1:-1, None] + 0.5) / 12
    np.testing.assert_allclose(
        inner, np.broadcast_to(expected, inner.shape), atol=1e-6
    )


def test_masked_steps_count_for_nothing_and_padding_stays_padding():
    tokens = np.array([[1, 2, 3, 0, 0, 0], [1, 2, 3, 4, 5, 6]], "int32")
    ids, like = keras.Input((None,), dtype="int32"), keras.Input((None, 1))
    steps = keras.layers.Embedding(9, 2, mask_zero=True)(ids)
    layer = MatchSize()
    x = layer([steps, like])
    # A mean under the mask that the layer hands on.
    mean = keras.layers.GlobalAveragePooling1D()(x)
    model = keras.Model([ids, like], [steps, x, mean])
    three = np.zeros((2, 3, 1), "float32")
    embedded, found, average = model.predict([tokens, three], verbose=0)
    triangles = [[3, 3, 1, 0, 0, 0], [0, 1, 3, 3, 1, 0], [0, 0, 0, 1, 3, 3]]
    kernel = np.array(triangles) * (tokens != 0)[:, None]
    total = kernel.sum(-1, keepdims=True)
    expected = kernel / np.where(total > 0, total, 1) @ embedded
    np.testing.assert_allclose(found, expected, atol=1e-6)
    counts = (total > 0)[..., 0]
    by_hand = [
        row[kept].mean(0) for row, kept in zip(found, counts, strict=True)
    ]
    np.testing.assert_allclose(average, by_hand, atol=1e-6)
    with pytest.raises(NotImplementedError, match="masked sequences"):
        layer.to_plain()


def test_features_of_the_size_stay_bit_for_bit():
    x, like = maps((5, 3), 4, "channels_last"), maps((5, 3), 1, "channels_last")
    np.testing.assert_array_equal(
        ops.convert_to_numpy(MatchSize()([x, like])), x
    )
