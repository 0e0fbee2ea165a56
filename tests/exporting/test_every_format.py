"""Files in every format, read by the format's own runtime.

Which formats a test environment can write depends on what is installed: with
one backend, what that one writes; with all, everything.
"""

import importlib.util
import json

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc
from tests.exporting.cases import (
    CASES,
    answers,
    application,
    by_name,
    spread,
)
from tests.exporting.runtimes import run

BACKEND = keras.config.backend()
HAS_TENSORFLOW = importlib.util.find_spec("tensorflow") is not None
# Format to the ending of its path.
ENDINGS = {"saved_model": "", "tflite": ".tflite", "onnx": ".onnx"}
NEEDS_TENSORFLOW = pytest.mark.skipif(
    not HAS_TENSORFLOW, reason="written by TensorFlow, which is not installed"
)
FORMATS = [
    pytest.param("saved_model", marks=NEEDS_TENSORFLOW),
    pytest.param("tflite", marks=NEEDS_TENSORFLOW),
    "onnx",
]


@pytest.fixture(scope="module")
def small():
    """The smallest application, with a few samples."""
    keras.utils.set_random_seed(0)
    return application("MobileNetV3Small", samples=4)


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_answers_as_the_cascade(small, format, tmp_path):
    cascade, x = small
    path = tmp_path / f"file{ENDINGS[format]}"
    report = kc.export(cascade, path, check_data=x, verbose=False)
    expected = answers(cascade, x)
    found = run(path, by_name(cascade, x))
    assert list(found) == ["head"]
    difference = np.abs(found["head"] - expected).max()
    assert difference < 1e-3 * spread(expected)
    assert report.difference < 1e-3
    single = {name: x[:1] for name, x in by_name(cascade, x).items()}
    difference = np.abs(run(path, single)["head"] - expected[:1]).max()
    assert difference < 1e-3 * spread(expected)


@pytest.mark.parametrize("format", FORMATS[1:])
def test_a_stitched_cascade_is_written_with_its_map(format, tmp_path):
    cascade, x = CASES["stitched"]()
    path = tmp_path / f"file{ENDINGS[format]}"
    kc.export(cascade, path, verbose=False)
    expected = answers(cascade, x)
    (found,) = run(path, by_name(cascade, x)).values()
    assert np.abs(found - expected).max() < 1e-3 * spread(expected)


def test_a_keras_file_loads_in_stock_layers(small, tmp_path):
    cascade, x = small
    path = tmp_path / "file.keras"
    kc.export(cascade, path, verbose=False)
    assert kc.read_card(path)["blocks"][0]["name"] == "upstream"
    plain = keras.saving.load_model(path)
    modules = {type(x).__module__ for x in plain._flatten_layers()}
    assert not any(name.startswith("keras_cascade") for name in modules)
    np.testing.assert_array_equal(
        plain.predict(x, verbose=0), cascade.predict(x, verbose=0)
    )


@pytest.mark.large
def test_a_keras_file_is_checked_in_a_process_of_its_own(small, tmp_path):
    cascade, x = small
    path = tmp_path / "file.keras"
    report = kc.export(cascade, path, check_data=x, verbose=False)
    assert report.difference == 0
    assert set(report.latency) == {"one_thread", "all_threads"}


@NEEDS_TENSORFLOW
def test_the_report_says_if_built_in_operators_do_not_suffice(tmp_path):
    """LiteRT has no determinant."""
    x = keras.Input((3, 3), name="x")
    model = keras.Model(x, keras.ops.det(x))
    data = np.random.default_rng(0).normal(size=(8, 3, 3)).astype("float32")
    path = tmp_path / "file.tflite"
    with pytest.warns(UserWarning, match=r"file\.tflite' needs.*Flex"):
        report = kc.export(model, path, verbose=False)
    assert report.builtin_only is False
    assert any(name.startswith("Flex") for name in report.operators)
    with pytest.raises(RuntimeError, match=r"Flex.*cannot be checked here"):
        kc.export(model, path, check_data=data, verbose=False)


@pytest.mark.parametrize("format", ["onnx", *FORMATS[1:2]])
def test_a_model_trained_in_half_precision_is_written_in_float32(
    format, tmp_path
):
    with_policy = {"dtype": "mixed_float16"}
    x = keras.Input((8, 8, 3), name="x")
    y = keras.layers.Conv2D(4, 3, **with_policy)(x)
    y = keras.layers.GlobalAveragePooling2D(**with_policy)(y)
    model = keras.Model(x, keras.layers.Dense(4, "tanh", **with_policy)(y))
    single = keras.models.clone_model(
        model,
        clone_function=lambda layer: type(layer).from_config(
            {**layer.get_config(), "dtype": "float32"}
        ),
    )
    single.set_weights(model.get_weights())
    data = np.random.default_rng(0).normal(size=(8, 8, 8, 3)).astype("float32")
    path = tmp_path / f"file{ENDINGS[format]}"
    report = kc.export(model, path, check_data=data, verbose=False)
    assert report.builtin_only in (None, True)
    (found,) = run(path, {"x": data}).values()
    expected = answers(single, data)
    assert np.abs(found - expected).max() < 1e-3 * spread(expected)
    assert model.layers[1].compute_dtype == "float16"


@pytest.mark.skipif(BACKEND != "torch", reason="torch's own format")
def test_a_torch_program_answers_as_the_cascade(small, tmp_path):
    import torch

    cascade, x = small
    path = tmp_path / "file.pt2"
    kc.export(cascade, path, verbose=False)
    texts = {"model_card.json": ""}
    module = torch.export.load(path, extra_files=texts).module()
    assert json.loads(texts["model_card.json"])["name"] == "cascade"
    expected = answers(cascade, x)
    for rows in (slice(None), slice(1)):
        found = module(inputs=torch.as_tensor(x[rows]))["head"]
        difference = np.abs(found.detach().numpy() - expected[rows]).max()
        assert difference < 1e-3 * spread(expected)


@pytest.mark.large
@pytest.mark.parametrize("format", ENDINGS)
@pytest.mark.parametrize("case", CASES)
def test_every_kind_of_cascade_in_every_format(
    case, format, tmp_path, record_property
):
    cascade, x = CASES[case]()
    expected = answers(cascade, x)
    path = tmp_path / f"file{ENDINGS[format]}"
    report = kc.export(cascade, path, verbose=False)
    (found,) = run(path, by_name(cascade, x)).values()
    difference = np.abs(found - expected).max() / spread(expected)
    record_property("difference", difference)
    record_property("backend", report.backend)
    record_property("tried", str(dict(report.tried)))
    assert difference < 1e-3
    assert report.builtin_only in (None, True)


@NEEDS_TENSORFLOW
@pytest.mark.large
def test_every_kind_of_cascade_in_every_format_but_text(
    tmp_path, record_property
):
    """Only TensorFlow splits strings, in a SavedModel."""
    words = layers.TextVectorization(
        vocabulary=["hello", "there"], output_sequence_length=4
    )
    texts = np.array([["Hello there!"], ["there, x"], [""]])
    ids = np.array([[2, 3, 0, 0], [3, 1, 0, 0], [0, 0, 0, 0]])
    x = keras.Input((1,), dtype="string", name="text")
    embed = layers.Embedding(4, 6, "normal", name="embed")
    y = layers.Flatten(name="flat")(embed(words(x)))
    cascade = kc.build_cascade(keras.Model(x, y, name="net"), head=10)
    # NumPy's answers: those of the cascade need TensorFlow.
    table, *_ = cascade.get_layer("upstream").get_layer("embed").get_weights()
    kernel, bias = (np.asarray(w) for w in cascade.get_weights()[-2:])
    powers = np.exp(table[ids].reshape(3, -1) @ kernel + bias)
    expected = powers / powers.sum(axis=1, keepdims=True)
    path = tmp_path / "file"
    report = kc.export(cascade, path, verbose=False)
    (name,) = report.inputs
    (found,) = run(path, {name: texts}).values()
    difference = np.abs(found - expected).max() / spread(expected)
    record_property("difference", difference)
    record_property("backend", report.backend)
    assert difference < 1e-3
    with pytest.warns(UserWarning, match="needs operators of TensorFlow's"):
        kc.export(cascade, tmp_path / "file.tflite", verbose=False)
    with pytest.raises(ValueError, match="neither strings nor tables"):
        kc.export(cascade, tmp_path / "file.onnx", verbose=False)
