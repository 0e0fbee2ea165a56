"""Quantized files of the zoo's cascade on real digits, by their runtimes."""

import importlib.util

import keras
import numpy as np
import pytest

import keras_cascade as kc
from tests.exporting.runtimes import run

pytest.importorskip("sklearn")
BACKEND = keras.config.backend()
NEEDS_TENSORFLOW = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None,
    reason="LiteRT files are written by TensorFlow, which is not installed",
)


@pytest.fixture(scope="module")
def digits():
    train, test = kc.zoo.digits()
    return (
        {"inputs": train.images, "metadata": train.side},
        {"inputs": test.images, "metadata": test.side},
        test.labels,
    )


@pytest.fixture(scope="module")
def cascade(digits):
    """Two networks that read digits without training, and a PCA."""
    keras.utils.set_random_seed(0)
    train, _, _ = digits
    cascade = kc.build_cascade(
        kc.zoo.load("glyph_encoder"),
        kc.zoo.load("digits_expert"),
        taps={"texture": "stage2_out", "shape": "-1"},
        adapters={
            "texture": kc.adapters.PCAAdapter(32),
            "shape": kc.adapters.DenseAdapter(96),
        },
        extra_inputs={"metadata": (2,)},
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    ).adapt(train, verbose=False)
    cascade.fit(train, kc.zoo.digits()[0].labels, epochs=4, verbose=0)
    return cascade


@pytest.fixture(scope="module")
def float32_size(cascade, tmp_path_factory):
    """Size of a file of the same cascade without quantization."""
    folder = tmp_path_factory.mktemp("float32")

    def size(ending):
        path = folder / f"file{ending}"
        if not path.exists():
            kc.export(cascade, path, verbose=False)
        return path.stat().st_size

    return size


def accuracy(answers, labels):
    return float((answers.argmax(1) == labels).mean())


FORMATS = [pytest.param(".tflite", marks=NEEDS_TENSORFLOW), ".onnx"]


@pytest.mark.parametrize("ending", FORMATS)
def test_int8_reads_digits_as_well_in_a_quarter_of_the_size(
    cascade, digits, float32_size, ending, tmp_path
):
    train, test, labels = digits
    path = tmp_path / f"digits{ending}"
    report = kc.export(
        cascade,
        path,
        quantize="int8",
        calibration_data=train,
        check_data=(test, labels),
        verbose=False,
    )
    own = accuracy(cascade.predict(test, verbose=0), labels)
    found = accuracy(run(path, test)["digits"], labels)
    assert own > 0.8
    assert abs(found - own) < 0.02
    assert path.stat().st_size <= 0.3 * float32_size(ending)
    assert report.metrics["accuracy"]["file"] == pytest.approx(found, abs=2e-3)
    assert report.metrics["accuracy"]["model"] == pytest.approx(own, abs=2e-3)


@pytest.mark.parametrize("ending", FORMATS)
def test_calibration_data_on_another_scale_is_caught(
    cascade, digits, ending, tmp_path
):
    train, test, labels = digits
    unscaled = {**train, "inputs": train["inputs"] / 255}
    with pytest.raises(kc.ParityError, match="raw inputs") as caught:
        kc.export(
            cascade,
            tmp_path / f"digits{ending}",
            quantize="int8",
            calibration_data=unscaled,
            check_data=(test, labels),
            verbose=False,
        )
    assert [x.name for x in tmp_path.iterdir()] == [
        f"digits.beyond_tolerance{ending}"
    ]
    assert not caught.value.report.holds
    # ONNX has no quantization that is finer than "int8".
    assert ("'mixed'" in str(caught.value)) == (ending == ".tflite")


@NEEDS_TENSORFLOW
@pytest.mark.parametrize(
    ("quantize", "share", "tolerance"),
    [("float16", 0.55, 2e-3), ("dynamic", 0.3, 5e-2), ("mixed", 0.4, 5e-2)],
)
def test_other_quantizations_answer_closely(
    cascade, digits, float32_size, quantize, share, tolerance, tmp_path
):
    train, test, _ = digits
    path = tmp_path / "digits.tflite"
    report = kc.export(
        cascade,
        path,
        quantize=quantize,
        calibration_data=train,
        verbose=False,
    )
    expected = cascade.predict(test, verbose=0)
    found = run(path, test)["digits"]
    spread = expected.std(axis=0).mean()
    assert np.abs(found - expected).mean() < tolerance * spread
    assert path.stat().st_size < share * float32_size(".tflite")
    stored = {row["stored"] for row in report.layers}
    assert stored == ({"float16", "int8"} if quantize == "mixed" else set())


@NEEDS_TENSORFLOW
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_a_file_takes_and_gives_integers(cascade, digits, dtype, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    train, test, labels = digits
    path = tmp_path / "digits.tflite"
    kc.export(
        cascade,
        path,
        quantize="int8",
        calibration_data=train,
        check_data=(test, labels),
        input_dtype=dtype,
        output_dtype=dtype,
        verbose=False,
    )
    runner = Interpreter(str(path)).get_signature_runner("serving_default")
    details = [*runner.get_input_details().values()]
    details += runner.get_output_details().values()
    assert {np.dtype(x["dtype"]).name for x in details} == {dtype}
    given = {}
    for name, detail in runner.get_input_details().items():
        scale, zero = detail["quantization"]
        steps = np.round(test[name] / scale + zero)
        bounds = np.iinfo(dtype)
        given[name] = np.clip(steps, bounds.min, bounds.max).astype(dtype)
    found = accuracy(runner(**given)["digits"], labels)
    own = accuracy(cascade.predict(test, verbose=0), labels)
    assert abs(found - own) < 0.02


def test_onnx_with_8_bit_weights_answers_closely(
    cascade, digits, float32_size, tmp_path
):
    _, test, _ = digits
    path = tmp_path / "digits.onnx"
    kc.export(cascade, path, quantize="dynamic", verbose=False)
    expected = cascade.predict(test, verbose=0)
    difference = np.abs(run(path, test)["digits"] - expected).mean()
    assert difference < 5e-2 * expected.std(axis=0).mean()
    assert path.stat().st_size < 0.35 * float32_size(".onnx")
