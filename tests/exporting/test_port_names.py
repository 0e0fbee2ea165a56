"""Inputs and outputs keep their names in files, whatever they are called."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc
from keras_cascade.exporting.backends import backends_for
from keras_cascade.exporting.card import read_card
from keras_cascade.exporting.options import make_options
from keras_cascade.exporting.port_names import as_identifiers
from tests.exporting.runtimes import run

# Those that a format may not like; "x" is an input and an output.
INPUTS = ("side-info", "img.rgb", "2d", "my input", "class", "größe", "_x")
INPUTS += ("self", "a:0", "side_info", "x", "Zz", "inputs", "None")
OUTPUTS = ("x", "def", "my-out", "a b", "relu", "add", "4.5", "out:0", "self")
OUTPUTS += ("größe", "_y", "zz", "multiply", "x_1")
# The names that a `.pt2` file has in the place of those above.
IN_TORCH = {
    "side-info": "side_info_1",
    "img.rgb": "img_rgb",
    "2d": "input_2d",
    "my input": "my_input",
    "class": "input_class",
    "größe": "gr__e",
    "_x": "x_1",
    "self": "input_self",
    "a:0": "a_0",
    "None": "input_None",
}
# Inputs and outputs of ONNX are tensors of one graph. Python can pass no
# argument "self" to the others, and TensorFlow confuses two of the names.
SELF = {"self": "input_self"}
IN_ONNX = {"x": "x_2", "größe": "größe_1", "self": "self_1"}
RENAMED = {
    "onnx": {"outputs": IN_ONNX},
    "tflite": {"inputs": SELF},
    "saved_model": {"inputs": {"side-info": "side_info_1", **SELF}},
}
ENDINGS = {"tflite": ".tflite", "onnx": ".onnx", "saved_model": ""}


def network():
    """Output i is relu((i + 1) * input i)."""
    inputs = [keras.Input((2,), name=name) for name in INPUTS]
    scaled = [layers.Rescaling(i + 1.0)(x) for i, x in enumerate(inputs)]
    outputs = map(layers.ReLU(), scaled)
    return keras.Model(inputs, dict(zip(OUTPUTS, outputs, strict=True)))


def exported(path):
    """The report of an export that was checked on `data`."""
    try:
        backends_for(make_options(path))
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
    rows = np.arange(6, dtype="float32").reshape(3, 2) - 1
    data = [rows * (i + 2) for i in range(len(INPUTS))]
    data = dict(zip(INPUTS, data, strict=True))
    report = kc.export(network(), path, check_data=data, verbose=False)
    expected = [np.maximum((i + 1) * x, 0) for i, x in enumerate(data.values())]
    return report, data, dict(zip(OUTPUTS, expected, strict=True))


@pytest.mark.parametrize("format", ENDINGS)
def test_a_file_has_the_names_of_the_model(format, tmp_path):
    path = tmp_path / f"file{ENDINGS[format]}"
    report, data, expected = exported(path)
    names = report.renamed.get("inputs", {})
    found = run(path, {names.get(k, k): x for k, x in data.items()})
    assert report.renamed == RENAMED[format]
    for name, own in report.renamed.get("outputs", {}).items():
        expected[own] = expected.pop(name)
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6, err_msg=name)
    assert list(report.inputs) == [names.get(k, k) for k in INPUTS]
    assert sorted(report.outputs) == sorted(expected)


@pytest.mark.parametrize("format", ENDINGS)
def test_inputs_without_names_are_called_as_their_layers(format, tmp_path):
    """Their tensors are called otherwise before the model is saved."""
    path = tmp_path / f"file{ENDINGS[format]}"
    try:
        backends_for(make_options(path))
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
    inputs = [keras.Input((2,)), keras.Input((2,))]
    difference = layers.Subtract(name="difference")(inputs)
    model = keras.Model(inputs, difference)
    names = [x.name for x in model.layers[:2]]
    rows = np.arange(6, dtype="float32").reshape(3, 2)
    data = dict(zip(names, (3 * rows, rows), strict=True))
    # Without data the file is tried; with data it is compared.
    kc.export(model, path, verbose=False)
    report = kc.export(model, path, check_data=data, verbose=False)
    assert list(report.inputs) == names
    assert list(read_card(path)["inputs"]) == names
    found = run(path, data)["difference"]
    np.testing.assert_array_equal(found, 2 * rows)


def test_a_torch_program_has_names_of_arguments(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "file.pt2"
    report, data, expected = exported(path)
    assert report.renamed == {"inputs": IN_TORCH}
    assert "'side-info' is 'side_info_1' in the file" in str(report)
    card = read_card(path)
    assert card["renamed"] == report.renamed
    assert list(card["inputs"]) == list(report.inputs)
    module = torch.export.load(path).module()
    found = module(
        **{IN_TORCH.get(k, k): torch.as_tensor(x) for k, x in data.items()}
    )
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values, rtol=1e-6, err_msg=name)


def test_identifiers_are_unique():
    found = as_identifiers(["a b", "a_b", "a-b", "a_b_1"])
    assert found == {"a b": "a_b_2", "a_b": "a_b", "a-b": "a_b_3"} | {
        "a_b_1": "a_b_1"
    }


def test_the_open_axes_of_an_onnx_file_have_names(tmp_path):
    image = keras.Input((8, 8, 3), name="image")
    words = keras.Input((None, 4), name="words")
    x = layers.Concatenate()(
        [
            layers.GlobalAveragePooling2D()(image),
            layers.GlobalAveragePooling1D()(words),
        ]
    )
    outputs = {"kind": layers.Dense(3, name="kind")(x), "each": words * 2.0}
    model, path = keras.Model([image, words], outputs), tmp_path / "file.onnx"
    try:
        backends_for(make_options(path))
    except ModuleNotFoundError as error:
        pytest.skip(str(error))
    random = np.random.default_rng(0)
    data = {
        "image": random.normal(size=(4, 8, 8, 3)).astype("float32"),
        "words": random.normal(size=(4, 5, 4)).astype("float32"),
    }
    kc.export(model, path, check_data=data, verbose=False)
    onnx = pytest.importorskip("onnx")
    graph = onnx.load(path).graph
    found = {
        tensor.name: [
            axis.dim_param or axis.dim_value
            for axis in tensor.type.tensor_type.shape.dim
        ]
        for tensor in (*graph.input, *graph.output)
    }
    # tf2onnx does not tell that two axes are as long as each other.
    each = {"tensorflow": "each_1"}.get(keras.config.backend(), "words_1")
    assert found == {
        "image": ["batch", 8, 8, 3],
        "words": ["batch", "words_1", 4],
        "kind": ["batch", 3],
        "each": ["batch", each, 4],
    }
