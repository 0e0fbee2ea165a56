"""Operations that converters know, compared with Keras's own."""

import importlib.util
from dataclasses import replace

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc
from keras_cascade.exporting.formats.convertible import (
    convertible_operations,
)
from keras_cascade.exporting.formats.errors import litert_error
from keras_cascade.exporting.options import make_options
from tests.exporting.runtimes import run

BACKEND = keras.config.backend()
NEEDS_TENSORFLOW = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None,
    reason="LiteRT files are written by TensorFlow, which is not installed",
)
OPTIONS = replace(make_options("m.onnx"), source=BACKEND)
IMAGES = np.random.default_rng(0).uniform(0, 255, (2, 12, 9, 3))
IMAGES = IMAGES.astype("float32")
KINDS = [(how, a) for how in ("bilinear", "bicubic") for a in (False, True)]
if BACKEND != "torch":  # which has no other interpolation
    KINDS += [("lanczos3", True), ("lanczos5", False)]


@pytest.mark.parametrize("size", [(5, 4), (20, 31), (12, 4)])
@pytest.mark.parametrize(("interpolation", "antialias"), KINDS)
def test_resized_images_are_keras_own(interpolation, antialias, size):
    how = {"interpolation": interpolation, "antialias": antialias}
    layer = layers.Resizing(*size, **how)
    expected = layer(IMAGES)
    with convertible_operations(OPTIONS):
        found = layer(IMAGES)
    np.testing.assert_allclose(*map(numpy, (found, expected)), atol=2e-3)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize("ratio", ["crop", "pad"])
@pytest.mark.parametrize("size", [(5, 4), (4, 11), (30, 31)])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
def test_the_aspect_ratio_is_kept(interpolation, ratio, size, data_format):
    images = IMAGES
    if data_format == "channels_first":
        images = np.moveaxis(IMAGES, -1, 1)
    how = {
        "interpolation": interpolation,
        f"{ratio}_to_aspect_ratio": True,
        "data_format": data_format,
    }
    expected = keras.ops.image.resize(images, size, **how)
    with convertible_operations(OPTIONS):
        found = keras.ops.image.resize(images, size, **how)
        single = keras.ops.image.resize(images[0], size, **how)
    np.testing.assert_allclose(*map(numpy, (found, expected)), atol=2e-3)
    np.testing.assert_allclose(numpy(single), numpy(found)[0], atol=2e-3)


def numpy(x):
    return keras.ops.convert_to_numpy(x)


SEQUENCES = {
    "lstm": lambda: layers.LSTM(3),
    "gru": lambda: layers.GRU(3, return_sequences=True, go_backwards=True),
    "simple": lambda: layers.SimpleRNN(3),
    "bidirectional": lambda: layers.Bidirectional(layers.LSTM(3)),
    "stacked": lambda: layers.RNN([layers.GRUCell(3), layers.LSTMCell(2)]),
    "conv_lstm": lambda: keras.Sequential(
        [layers.Reshape((5, 2, 2, 1)), layers.ConvLSTM2D(2, 2, padding="same")]
    ),
    "masked": lambda: keras.Sequential(
        [layers.Masking(), layers.LSTM(3), layers.Dense(2)]
    ),
}
SIGNALS = np.random.default_rng(0).normal(size=(6, 5, 4)).astype("float32")
SIGNALS[:2, 3:] = 0  # masked


# Files in 8 bits that LiteRT does not run.
NOT_IN_8_BITS = ("conv_lstm", "masked")


@NEEDS_TENSORFLOW
@pytest.mark.parametrize(
    "quantize", [None, pytest.param("int8", marks=pytest.mark.large)]
)
def test_recurrent_layers_need_built_in_operators_only(quantize, tmp_path):
    """All kinds in one file, as converting takes seconds for each."""
    keras.utils.set_random_seed(0)
    x = keras.Input((5, 4), name="x")
    parts = [
        layers.Flatten()(make()(x))
        for name, make in SEQUENCES.items()
        if quantize is None or name not in NOT_IN_8_BITS
    ]
    model = keras.Model(x, layers.Concatenate()(parts))
    expected = model.predict(SIGNALS, verbose=0)
    path = tmp_path / "file.tflite"
    report = kc.export(
        model,
        path,
        quantize=quantize,
        calibration_data=SIGNALS if quantize else None,
        verbose=False,
    )
    assert report.builtin_only
    bound = 1e-5 if quantize is None else 0.1
    for rows in (slice(None), slice(1)):
        (found,) = run(path, {"x": SIGNALS[rows]}).values()
        assert np.abs(found - expected[rows]).mean() < bound


@NEEDS_TENSORFLOW
@pytest.mark.large
def test_a_file_that_its_runtime_rejects_is_an_error(tmp_path):
    """LiteRT's kernels do not take all that its converter writes."""
    x = keras.Input((5, 4), name="x")
    model = keras.Model(x, SEQUENCES["masked"]()(x))
    path = tmp_path / "file.tflite"
    with pytest.raises(RuntimeError, match="failed to prepare"):
        kc.export(
            model,
            path,
            quantize="int8",
            calibration_data=SIGNALS,
            verbose=False,
        )
    assert not any(tmp_path.iterdir())


@NEEDS_TENSORFLOW
def test_sequences_of_any_length_need_a_batch_of_a_fixed_size(tmp_path):
    x = keras.Input((None, 4), name="x")
    model = keras.Model(x, layers.LSTM(3)(x))
    expected = model.predict(SIGNALS, verbose=0)
    path = tmp_path / "file.tflite"
    with pytest.warns(UserWarning, match=r"FlexTensorList.*batch_size=1"):
        report = kc.export(model, path, verbose=False)
    assert report.builtin_only is False
    report = kc.export(model, path, batch_size=2, verbose=False)
    assert report.builtin_only
    assert report.inputs == {"x": (2, None, 4)}
    (found,) = run(path, {"x": SIGNALS[:2]}).values()
    np.testing.assert_allclose(found, expected[:2], atol=1e-5)


@NEEDS_TENSORFLOW
def test_antialiased_and_bicubic_resizing_is_built_in(tmp_path):
    x = keras.Input((12, 9, 3), name="x")
    y = layers.Resizing(5, 4, "bicubic", antialias=True)(x)
    parts = [
        y,
        keras.ops.image.resize(x, (5, 4), interpolation="bicubic"),
        layers.Resizing(5, 4, antialias=True, crop_to_aspect_ratio=True)(x),
        layers.Resizing(5, 4, "nearest", pad_to_aspect_ratio=True)(x),
    ]
    model = keras.Model(x, layers.Concatenate()(parts))
    path = tmp_path / "file.tflite"
    assert kc.export(model, path, verbose=False).builtin_only
    (found,) = run(path, {"x": IMAGES}).values()
    expected = model.predict(IMAGES, verbose=0)
    np.testing.assert_allclose(found, expected, atol=2e-3)


def test_an_error_of_the_converter_names_operators_and_places():
    text = """
<unknown>:0: error: loc(callsite("resizing_1/resize/Scale@__inference_f")):
'tf.ScaleAndTranslate' op is neither a custom op nor a flex op
Details: tf.ScaleAndTranslate(tensor<?x?x?x3xf32>) -> (tensor<?x5x5x3xf32>)
"""
    message = str(litert_error(text))
    assert "no operator for ScaleAndTranslate, which" in message
    assert "'resizing_1/resize/Scale'" in message
    assert "tensor<" not in message


@pytest.mark.large
@NEEDS_TENSORFLOW
@pytest.mark.parametrize("quantize", [None, "int8"])
def test_a_network_of_a_fixed_batch_is_checked_on_more_samples(
    quantize, tmp_path
):
    x = keras.Input(batch_shape=(2, 5, 4), name="x")
    model = keras.Model(x, layers.LSTM(3)(x))
    path = tmp_path / "file.tflite"
    report = kc.export(
        model,
        path,
        quantize=quantize,
        calibration_data=SIGNALS if quantize else None,
        check_data=SIGNALS[:5],
        verbose=False,
    )
    assert report.holds
    assert report.inputs == {"x": (2, 5, 4)}
    (found,) = run(path, {"x": SIGNALS[2:4]}).values()
    expected = model.predict(SIGNALS[2:4], verbose=0)
    assert np.abs(found - expected).mean() < (0.1 if quantize else 1e-5)
