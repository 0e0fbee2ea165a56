"""Networks that take strings, or look up numbers, in files."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc
from keras_cascade.exporting.backends import is_installed
from tests.exporting.runtimes import run

pytestmark = pytest.mark.skipif(
    not is_installed("tensorflow"), reason="the layers need TensorFlow"
)
BACKEND = keras.config.backend()
WORDS = ["hello", "there"]
TEXTS = np.array([["hello there"], ["größe there"], [""]], dtype=object)
# A layer, its input, and the ids that it gives.
LOOKUPS = {
    "text": (
        lambda: layers.TextVectorization(vocabulary=WORDS),
        TEXTS,
        [[2, 3], [1, 3], [0, 0]],
    ),
    "words": (
        lambda: layers.StringLookup(vocabulary=WORDS),
        np.array([["there", "x"], ["hello", ""]]),
        [[2, 0], [1, 0]],
    ),
    "numbers": (
        lambda: layers.IntegerLookup(vocabulary=[12, 36]),
        np.array([[12, 7], [36, 12]]),
        [[1, 0], [2, 1]],
    ),
}


def network(kind):
    """Each id as a vector with a one at its place."""
    layer, x, ids = LOOKUPS[kind]
    dtype = "int64" if kind == "numbers" else "string"
    words = keras.Input(x.shape[1:], dtype=dtype, name="words")
    embed = layers.Embedding(4, 4, embeddings_initializer="identity")
    model = keras.Model(words, {"out": embed(layer()(words))})
    return model, x, np.eye(4)[np.array(ids)]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="strings are TensorFlow's")
@pytest.mark.parametrize("kind", LOOKUPS)
def test_a_saved_model_keeps_the_tables_of_layers(kind, tmp_path):
    model, x, expected = network(kind)
    # Two networks: each has a table of its own.
    cascade = kc.build_cascade(
        {"a": model, "b": keras.models.clone_model(model)},
        adapters=None,
        fusion=None,
    )
    path = tmp_path / "file"
    report = kc.export(cascade, path, check_data=x, verbose=False)
    assert report.holds
    given = x if x.dtype.kind == "i" else x.astype(str)
    (name,) = report.inputs
    for values in run(path, {name: given}).values():
        np.testing.assert_array_equal(values, expected)


@pytest.mark.parametrize("ending", [".onnx", ".pt2"])
@pytest.mark.parametrize("kind", ["words", "numbers"])
def test_a_format_without_tables_is_refused(kind, ending, tmp_path):
    if not is_installed("torch"):
        pytest.skip("these formats need torch")
    model, *_ = network(kind)
    with pytest.raises(ValueError, match=r"neither strings nor.*SavedModel"):
        kc.export(model, tmp_path / f"file{ending}", verbose=False)
    assert not any(tmp_path.iterdir())


def test_check_data_of_strings(tmp_path):
    model, x, _ = network("words")
    path = tmp_path / "file.keras"
    wrong = np.array([["a", 1]], dtype=object)
    match = "'words' holds values of dtype object"
    if BACKEND != "tensorflow":
        wrong, match = x, "'words' takes strings.*TensorFlow backend alone"
    with pytest.raises(ValueError, match=match):
        kc.export(model, path, check_data=wrong, verbose=False)
    kc.export(model, path, verbose=False)
    assert path.is_file()
