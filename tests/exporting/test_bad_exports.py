"""Impossible exports are clear errors before any work, and leave no files."""

import errno
import importlib.util
import re
import sys

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc
from keras_cascade.exporting import backends, exporter, options, writing
from keras_cascade.exporting.backends import possible_backends
from keras_cascade.exporting.inference_program import to_inference_program
from keras_cascade.exporting.options import make_options

BACKEND = keras.config.backend()
X = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
Y = np.arange(8) % 2
NEEDS_TENSORFLOW = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None,
    reason="int8 needs TensorFlow, which is not installed",
)


def network():
    x = keras.Input((4,), name="features")
    return keras.Model(x, layers.Dense(3, name="out")(x), name="small")


@pytest.fixture
def cascade():
    return kc.build_cascade(network(), head=2)


@pytest.fixture
def folder(tmp_path):
    """A folder in which no files may be left."""
    yield tmp_path
    left = [x for x in tmp_path.rglob("*") if "kept" not in x.parts[-1]]
    assert not left


def export(cascade, path, **arguments):
    return kc.export(cascade, path, verbose=False, **arguments)


WRONG = {
    "an ending that stands for no format": (
        {"path": "file.h5"},
        r"ending '\.h5' of 'file\.h5'.*'\.tflite', '\.onnx'",
    ),
    "a format that there is not": (
        {"path": "file", "format": "coreml"},
        "no format 'coreml'.*'saved_model', 'tflite', 'onnx', 'keras', 'torch'",
    ),
    "a quantization that the format has not": (
        {"path": "file.onnx", "quantize": "float16"},
        "no quantization 'float16' for onnx.*'dynamic', 'int8'",
    ),
    "a quantization of a format without any": (
        {"path": "file.keras", "quantize": "int8"},
        "format 'keras' is not quantized.*'tflite', 'onnx'",
    ),
    "int8 without calibration": (
        {"path": "file.tflite", "quantize": "int8"},
        "quantize='int8' needs calibration_data",
    ),
    "an input dtype that there is not": (
        {"path": "file.tflite", "quantize": "int8", "input_dtype": "int4"},
        "input_dtype is one of 'float32', 'int8', 'uint8'; received 'int4'",
    ),
    "integer inputs of a file that is not quantized": (
        {"path": "file.tflite", "input_dtype": "int8"},
        "input_dtype='int8' needs a LiteRT file with quantize='int8'",
    ),
    "a tolerance of nothing": (
        {"path": "file.keras", "tolerance": 0},
        "tolerance is a number above 0; received 0",
    ),
    "an output that there is not": (
        {"path": "file.keras", "outputs": "tail"},
        "no output 'tail'.*'head'",
    ),
    "labels that are too few": (
        {"path": "file.keras", "labels": ["cat"]},
        "1 names for output 'head', which has 2 values",
    ),
    "labels of an output that there is not": (
        {"path": "file.keras", "labels": {"tail": ["cat", "dog"]}},
        "no output 'tail'.*'head'",
    ),
    "check data of the wrong shape": (
        {"path": "file.keras", "check_data": X[:, :3]},
        r"check_data: input 'inputs' has samples of shape \(3,\).*\(4,\)",
    ),
    "check data that lacks an input": (
        {"path": "file.keras", "check_data": {"other": X}},
        "check_data does not.*: it has 'other' and lacks 'inputs'",
    ),
    "check data with too many inputs": (
        {"path": "file.keras", "check_data": [X, X]},
        "check_data does not.*'inputs': it has 2 arrays without names",
    ),
    "check data that is text": (
        {"path": "file.keras", "check_data": np.full((8, 4), "a")},
        "check_data: input 'inputs' holds values of dtype <U1",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_explained(case, cascade, folder):
    arguments, message = WRONG[case]
    arguments = dict(arguments)
    with pytest.raises(ValueError, match=re.compile(message, re.DOTALL)):
        export(cascade, folder / arguments.pop("path"), **arguments)


@NEEDS_TENSORFLOW
def test_calibration_data_of_the_wrong_shape(cascade, folder):
    with pytest.raises(ValueError, match=r"calibration_data: input 'inputs'"):
        export(
            cascade,
            folder / "file.tflite",
            quantize="int8",
            calibration_data=X[:, :2],
        )


def test_check_data_without_labels_leaves_metrics_out(tmp_path):
    cascade = kc.build_cascade(
        network(),
        head=2,
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    path = tmp_path / "file.keras"
    report = export(cascade, path, check_data=X)
    assert report.holds
    assert not report.metrics
    assert report.metrics_left_out == "'accuracy'"
    assert "metrics left out" in str(report)


def test_a_cascade_whose_adapters_are_not_fitted(folder):
    cascade = kc.build_cascade(
        network(), adapters=kc.adapters.PCAAdapter(2), head=2
    )
    with pytest.raises(ValueError, match=r"'adapters/output'.*cascade\.adapt"):
        export(cascade, folder / "file.keras")


def test_an_object_that_is_no_model(folder):
    with pytest.raises(TypeError, match=r"cascade or a keras\.Model; received"):
        export(layers.Dense(2), folder / "file.keras")


def test_a_model_without_a_graph(folder):
    class Own(keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(ValueError, match="subclassed model: it has no graph"):
        export(Own(name="own"), folder / "file.keras")


@pytest.mark.skipif(
    sys.platform == "win32", reason="a file is no folder there either"
)
def test_a_folder_that_cannot_be_written_to(cascade, folder):
    (folder / "kept").write_text("a file")
    with pytest.raises(OSError, match=r"Cannot write.*kept' is no folder"):
        export(cascade, folder / "kept" / "file.keras")


def test_a_full_disk(cascade, folder, monkeypatch):
    def write(model, frozen, path, *rest):
        path.write_bytes(b"half of a fi")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(writing, "write", write)
    with pytest.raises(OSError, match=r"disk is full: writing.*file\.keras"):
        export(cascade, folder / "file.keras")


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="/dev/full is Linux's"
)
@pytest.mark.parametrize("name", ["file.pt2", "file.onnx", "file.tflite"])
def test_a_writer_survives_a_full_disk(name, tmp_path):
    options = make_options(tmp_path / name)
    if BACKEND not in possible_backends(options.format):
        pytest.skip("written by another backend")
    options.path.symlink_to("/dev/full")
    model = network()
    frozen = to_inference_program(model)
    with pytest.raises(OSError, match="No space left"):
        writing.write(model, frozen, options.path, options, None)


def test_an_interrupt_leaves_the_old_file(cascade, folder, monkeypatch):
    def write(model, frozen, path, *rest):
        path.write_bytes(b"half of a fi")
        raise KeyboardInterrupt

    path = folder / "kept.keras"
    path.write_text("the old one")
    monkeypatch.setattr(writing, "write", write)
    with pytest.raises(KeyboardInterrupt):
        export(cascade, path)
    assert path.read_text() == "the old one"


def test_a_backend_that_is_not_installed_is_named(cascade, folder, monkeypatch):
    monkeypatch.setattr(backends, "is_installed", lambda module: False)
    with pytest.raises(ModuleNotFoundError) as caught:
        export(cascade, folder / "file.tflite")
    assert 'pip install "keras_cascade[tensorflow]"' in str(caught.value)
    with pytest.raises(ModuleNotFoundError) as caught:
        export(cascade, folder / "file.onnx")
    assert "on jax: pip install" in str(caught.value)
    assert "jax2onnx" in str(caught.value)


@pytest.mark.parametrize(
    ("ending", "quantize"), [(".onnx", "dynamic"), (".tflite", None)]
)
def test_more_weights_than_a_file_can_hold(
    ending, quantize, cascade, folder, monkeypatch
):
    if ending == ".tflite" and not importlib.util.find_spec("tensorflow"):
        pytest.skip("TensorFlow is not installed")
    # 4 * 3 + 3 weights of the network, and 3 * 2 + 2 of the head.
    monkeypatch.setitem(options.LARGEST, ending.removeprefix("."), 91)
    with pytest.raises(ValueError, match=r"take 92 bytes.*at most 91.*SavedM"):
        export(cascade, folder / f"file{ending}", quantize=quantize)


def test_tensorflow_alone_does_not_write_large_onnx_files(
    cascade, folder, monkeypatch
):
    monkeypatch.setitem(options.LARGEST, "onnx", 91)
    monkeypatch.setattr(exporter, "backends_for", lambda _: ["tensorflow"])
    with pytest.raises(ModuleNotFoundError, match=r"92 bytes.*at most 91.*pip"):
        export(cascade, folder / "file.onnx")


def test_a_wrong_file_is_kept_under_another_name(folder, monkeypatch):
    """The converter gets another model than the one that is compared."""
    model = network()
    write = writing.write

    def write_another(model, *rest):
        other = keras.models.clone_model(model)
        return write(other, *rest)

    monkeypatch.setattr(writing, "write", write_another)
    path = folder / "kept.keras"
    path.write_text("the old one")
    with pytest.raises(kc.ParityError, match=r"at most 0\.001") as caught:
        export(model, path, check_data=X)
    kept = folder / "kept.beyond_tolerance.keras"
    assert caught.value.report.path == kept
    assert keras.saving.load_model(kept).name == "small"
    assert path.read_text() == "the old one"
