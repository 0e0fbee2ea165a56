"""Impossible arguments are errors that name the possible ones."""

from pathlib import Path

import numpy as np
import pytest

from keras_cascade.exporting.options import (
    check_calibration,
    check_labels,
    check_outputs,
    common_batch_size,
    make_options,
)


def request(path="model.tflite", **changes):
    return make_options(path, **changes)


@pytest.mark.parametrize(
    ("path", "format"),
    [
        ("model", "saved_model"),
        ("model.tflite", "tflite"),
        ("model.TFLite", "tflite"),
        ("some.dir/model.onnx", "onnx"),
        ("model.keras", "keras"),
        (Path("model.pt2"), "torch"),
    ],
)
def test_the_paths_ending_sets_the_format(path, format):
    assert request(path).format == format


@pytest.mark.parametrize(
    ("path", "format", "found"),
    [
        ("model", "onnx", "onnx"),
        ("model.v2", "tflite", "tflite"),
        ("model.v2", "saved_model", "saved_model"),
        ("model.tflite", "litert", "tflite"),
        ("model", "tf_saved_model", "saved_model"),
        ("model.keras", "keras", "keras"),
    ],
)
def test_formats_have_the_names_that_keras_gives_them_too(path, format, found):
    assert request(path, format=format).format == found


def test_paths_become_absolute_and_the_home_is_expanded(monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert request("~/a.onnx").path == tmp_path / "a.onnx"
    assert request("a.onnx").path == tmp_path / "a.onnx"


@pytest.mark.parametrize(
    ("quantize", "tolerance", "by_mean"),
    [
        (None, 1e-3, False),
        ("float16", 5e-2, False),
        ("dynamic", 5e-2, True),
        ("int8", 1e-1, True),
        ("mixed", 1e-1, True),
    ],
)
def test_the_quantization_sets_the_tolerance(quantize, tolerance, by_mean):
    found = request(quantize=quantize)
    assert (found.tolerance, found.by_mean) == (tolerance, by_mean)
    assert request(quantize=quantize, tolerance=0.5).tolerance == 0.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"path": "m.tf"},
            r"ending '\.tf' of 'm\.tf'.*'\.onnx'.*or pass",
        ),
        ({"path": None}, "path is where the file goes.*received None"),
        ({"path": ""}, "path is where the file goes"),
        ({"path": 3}, "received 3"),
        (
            {"format": "mlmodel"},
            "no format 'mlmodel'. There are: 'saved",
        ),
        (
            {"format": "onnx"},
            r"'model\.tflite' does not end.*'model\.onnx', or pass.*'tflite'",
        ),
        (
            {"path": "model", "format": "keras"},
            r"'model' does not end like.*Call it 'model\.keras'\.$",
        ),
        ({"quantize": "int4"}, "no quantization 'int4' for tflite.*'mixed'"),
        (
            {"path": "m.onnx", "quantize": "mixed"},
            "no quantization 'mixed' for onnx. There are: 'dynamic', 'int8'",
        ),
        (
            {"path": "m", "quantize": "int8"},
            "'saved_model' is not quantized.*can be: 'tflite', 'onnx'",
        ),
        ({"input_dtype": "int16"}, "input_dtype is one of 'float32', 'int8'"),
        ({"output_dtype": "half"}, "output_dtype is one of.*received 'half'"),
        (
            {"input_dtype": "uint8"},
            "input_dtype='uint8' needs a LiteRT file with quantize='int8'",
        ),
        (
            {"output_dtype": "int8", "quantize": "mixed"},
            "output_dtype='int8' needs.*quantize='mixed'",
        ),
        (
            {"path": "m.onnx", "quantize": "int8", "input_dtype": "int8"},
            "the format is 'onnx'",
        ),
        ({"tolerance": 0}, "tolerance is a number above 0; received 0"),
        ({"tolerance": -1.0}, "tolerance is a number above 0"),
        ({"tolerance": float("nan")}, "tolerance is a number above 0"),
        ({"tolerance": "0.1"}, "received '0.1'"),
        ({"tolerance": True}, "received True"),
        ({"timeout": 0.0}, "timeout is a number above 0"),
        ({"timeout": None}, "timeout is a number above 0; received None"),
    ],
)
def test_an_impossible_argument_is_an_error_with_the_possible_ones(
    changes, message
):
    with pytest.raises(ValueError, match=message):
        request(**changes)


def test_integer_inputs_and_outputs_are_possible_with_int8():
    found = request(quantize="int8", input_dtype="uint8", output_dtype="int8")
    assert (found.input_dtype, found.output_dtype) == ("uint8", "int8")


@pytest.mark.parametrize("quantize", ["int8", "mixed"])
def test_eight_bits_need_data_to_calibrate_on(quantize):
    found = request(quantize=quantize)
    check_calibration(found, np.zeros((2, 3)))
    with pytest.raises(ValueError, match=f"'{quantize}' needs calibration"):
        check_calibration(found, None)


@pytest.mark.parametrize("quantize", [None, "float16", "dynamic"])
def test_other_quantizations_need_no_calibration_data(quantize):
    check_calibration(request(quantize=quantize), None)


@pytest.mark.parametrize(
    ("outputs", "found"),
    [
        (None, ("a", "b")),
        ("b", ("b",)),
        (["b", "a"], ("b", "a")),
        (("a", "a"), ("a",)),
    ],
)
def test_all_outputs_are_written_or_one_or_several(outputs, found):
    assert check_outputs(outputs, ["a", "b"]) == found


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ("c", "no output 'c'. The outputs are: 'a', 'b'"),
        (["a", "c", "d"], "no output 'c', 'd'"),
        ([], r"outputs=\[\]: pass one or more of 'a', 'b'"),
        (0, "outputs=0: pass one or more"),
        ("", "no output ''"),
    ],
)
def test_unknown_outputs_are_an_error(outputs, message):
    with pytest.raises(ValueError, match=message):
        check_outputs(outputs, ["a", "b"])


SHAPES = {"digit": (None, 3), "parity": (None, 2)}
DIGITS = ["0", "1", "2"]


def test_labels_are_sorted_by_output():
    one = {"digit": (None, 3)}
    assert check_labels(None, SHAPES) is None
    assert check_labels(DIGITS, one) == {"digit": DIGITS}
    assert check_labels(range(3), one) == {"digit": DIGITS}
    assert check_labels(np.array(DIGITS), one) == {"digit": DIGITS}
    assert check_labels({"digit": DIGITS}, SHAPES) == {"digit": DIGITS}


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (DIGITS, "labels are a dict.*'digit', 'parity'"),
        ({"letter": DIGITS}, "no output 'letter'. The outputs are: 'digit'"),
        ({"digit": ["0", "1"]}, "2 names for output 'digit', which has 3 val"),
        ({"digit": "012"}, "'digit' needs a list of names; received '012'"),
        ({"digit": 3}, "received 3"),
    ],
)
def test_labels_that_do_not_fit_are_an_error(labels, message):
    with pytest.raises(ValueError, match=message):
        check_labels(labels, SHAPES)


def test_the_size_of_batches_is_that_of_the_model_or_a_number():
    open_batch, fixed = {"x": (None, 3)}, {"x": (4, 3)}
    assert common_batch_size(open_batch, None) is None
    assert common_batch_size(open_batch, 2) == 2
    assert common_batch_size(fixed, None) == 4
    assert common_batch_size(fixed, 4) == 4
    with pytest.raises(ValueError, match=r"=2: input 'x' takes.*of 4"):
        common_batch_size(fixed, 2)
    for wrong in (0, -1, 1.5, True, "2"):
        with pytest.raises(ValueError, match="batch_size is a whole number"):
            request(batch_size=wrong)
    with pytest.raises(ValueError, match=r"a '\.keras' file has the inputs"):
        request("m.keras", batch_size=1)
