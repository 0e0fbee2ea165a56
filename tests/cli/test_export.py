"""`keras-cascade export` passes options on, and prints a report."""

import json
import os
import subprocess
import sys
from inspect import signature

import keras
import numpy as np
import pytest
from PIL import Image

import keras_cascade as kc
from keras_cascade import exporting
from keras_cascade.cli import main
from keras_cascade.exporting.checking.parity import OutputParity

ON_TENSORFLOW = pytest.mark.skipif(
    keras.config.backend() != "tensorflow",
    reason="LiteRT files are written on TensorFlow",
)
SIDE = 8
ARGUMENTS = {*signature(kc.export).parameters} - {"cascade", "path"}


@pytest.fixture
def model(tmp_path):
    """A file of a model that tells dark images from bright ones, mostly."""
    inputs = keras.Input((SIDE, SIDE, 1), name="photo")
    x = keras.layers.Rescaling(1 / 255)(inputs)
    x = keras.layers.Conv2D(4, 3, activation="relu")(x)
    x = keras.layers.GlobalAveragePooling2D()(x)
    outputs = keras.layers.Dense(2, activation="softmax", name="tone")(x)
    network = keras.Model(inputs, outputs)
    network.compile(
        loss="sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    # As after training: Keras warns of an optimizer without its slots.
    network.optimizer.build(network.trainable_variables)
    network.save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


@pytest.fixture
def photos(tmp_path):
    """Ten images in a folder for each of two classes."""
    random = np.random.default_rng(0)
    for name, brightest in (("bright", 256), ("dark", 64)):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for row in range(10):
            pixels = random.integers(0, brightest, (SIDE, SIDE), dtype="uint8")
            path = tmp_path / "photos" / name / f"{row}.png"
            Image.fromarray(pixels).save(path)
    return tmp_path / "photos"


@pytest.fixture
def passed_on(monkeypatch):
    """Replaces `export`; contains the arguments of its call."""
    called = {}

    def export(*args, **kwargs):
        called.update(kwargs, args=args)
        raise RuntimeError("nothing was written")

    monkeypatch.setattr(exporting, "export", export)
    return called


def exit_status(argv) -> int:
    try:
        return main([str(x) for x in argv])
    except SystemExit as done:
        return done.code


def accuracy_by_hand(model, photos) -> float:
    network = keras.saving.load_model(model)
    right = []
    for label, name in enumerate(["bright", "dark"]):
        for path in sorted((photos / name).iterdir()):
            pixels = np.asarray(Image.open(path), "float32")[None, ..., None]
            answer = keras.ops.convert_to_numpy(network(pixels))
            right.append(answer.argmax() == label)
    return float(np.mean(right))


def one_error(text: str) -> str:
    """Returns the last line; frameworks may log above it."""
    *above, error = text.splitlines()
    assert not any("Traceback" in line for line in above)
    assert error.startswith("keras-cascade: ")
    return error


# usage


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "required: MODEL.keras, OUT"),
        (["m.keras"], "required: OUT"),
        (["m.keras", "m.txt"], "No format has the ending '.txt'"),
        (["m.keras", "m", "--format", "word"], "invalid choice: 'word'"),
        (["m.keras", "m.tflite", "--quantize", "int8"], "--calibration DIR"),
        (["m.keras", "m.tflite", "--quantize", "int4"], "'int4'"),
        (["m.keras", "m.onnx", "--quantize", "float16"], "for onnx"),
        (
            ["m.keras", "m.tflite", "--input-dtype", "int8"],
            "input_dtype='int8'",
        ),
        (
            ["m.keras", "m.tflite", "--tolerance", "-1"],
            "tolerance is a number above 0",
        ),
        (
            ["m.keras", "m.tflite", *2 * ["--input-dtype", "int8"]],
            "pass one dtype for all, or NAME=DTYPE once for each name",
        ),
        (["m.keras", "m.tflite", "--batch-size", "0"], "above 0; received 0"),
        (["m.keras", "m.tflite", "--timeout", "soon"], "'soon'"),
        (["m.keras", "m.tflite", "--output", "x"], "ambiguous option"),
    ],
    ids=lambda x: " ".join(x) if isinstance(x, list) else None,
)
def test_bad_usage_is_an_error_before_anything_is_loaded(
    options, message, capsys
):
    assert exit_status(["export", *options]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error


def test_every_option_reaches_export(model, photos, passed_on, tmp_path):
    labels = tmp_path / "labels.txt"
    labels.write_text("\ufeffbright\ndark\n\n", "utf-8")
    options = "--quantize int8 --input-dtype uint8 --output-dtype int8 "
    options += "--tolerance 0.5 --timeout 60 --no-fold --format tflite "
    options += "--output-name tone --output-name other --batch-size 2 --quiet"
    data = ["--calibration", photos, "--check", photos, "--labels", labels]
    argv = ["export", model, tmp_path / "out", *options.split(), *data]
    assert exit_status(argv) == 1
    network, path = passed_on.pop("args")
    assert network.name == keras.saving.load_model(model).name
    assert path == tmp_path / "out"
    for name in ("calibration_data", "check_data"):
        assert passed_on.pop(name).path == photos
    assert passed_on == {
        "format": "tflite",
        "quantize": "int8",
        "tolerance": 0.5,
        "input_dtype": "uint8",
        "output_dtype": "int8",
        "labels": ["bright", "dark"],
        "outputs": ["tone", "other"],
        "fold": False,
        "timeout": 60.0,
        "batch_size": 2,
        "verbose": False,
    }
    # All that Python can ask for, the console can.
    assert {*passed_on, "calibration_data", "check_data"} == ARGUMENTS


def test_dtypes_are_given_for_each_input_by_its_name(
    model, photos, passed_on, tmp_path
):
    options = "--quantize int8 --input-dtype photo=uint8 --input-dtype a=b=int8"
    data = ["--calibration", photos, "--output-dtype", "tone=int8"]
    argv = ["export", model, tmp_path / "m.tflite", *options.split(), *data]
    assert exit_status(argv) == 1
    assert passed_on["input_dtype"] == {"photo": "uint8", "a=b": "int8"}
    assert passed_on["output_dtype"] == {"tone": "int8"}


def test_missing_options_are_left_to_export(model, passed_on, tmp_path):
    assert exit_status(["export", model, tmp_path / "out.keras"]) == 1
    del passed_on["args"]
    assert passed_on.pop("fold") is True
    assert passed_on.pop("timeout") == 3600
    assert passed_on.pop("verbose") is True
    assert set(passed_on.values()) == {None}


def test_labels_of_several_outputs_follow_their_names(
    model, passed_on, tmp_path
):
    labels = tmp_path / "labels.txt"
    labels.write_text("tone\tbright\ntone\tdark\nage\told one\n")
    argv = ["export", model, tmp_path / "out.keras", "--labels", labels]
    assert exit_status(argv) == 1
    assert passed_on["labels"] == {
        "tone": ["bright", "dark"],
        "age": ["old one"],
    }


# files


def test_a_file_is_written_and_its_card_has_the_labels(model, tmp_path, capsys):
    (tmp_path / "labels.txt").write_text("bright\ndark\n")
    out = tmp_path / "out.keras"
    argv = ["export", model, out, "--labels", tmp_path / "labels.txt"]
    assert exit_status(argv) == 0
    assert "out.keras" in capsys.readouterr().out
    assert exporting.read_card(out)["labels"] == {"tone": ["bright", "dark"]}


def test_the_report_has_the_metrics_on_the_images_of_a_folder(
    model, photos, tmp_path, capsys
):
    out = tmp_path / "out.keras"
    argv = ["export", model, out, "--check", photos, "--json"]
    assert exit_status(argv) == 0
    report = json.loads(capsys.readouterr().out)
    expected = pytest.approx(accuracy_by_hand(model, photos))
    assert report["metrics"]["accuracy"] == {
        "model": expected,
        "file": expected,
    }
    assert report["holds"] is True
    assert report["path"] == str(out)


@pytest.mark.parametrize("as_json", [True, False])
def test_beyond_the_tolerance_the_report_is_printed_and_the_status_is_1(
    as_json, model, tmp_path, capsys, monkeypatch
):
    kept = tmp_path / "out.beyond_tolerance.keras"

    def export(*args, **kwargs):
        sys.stdout.write("some converter talks\n")
        parity = {"tone": OutputParity(1.0, float("inf"), 2.0, 0.5)}
        report = exporting.ExportReport(
            kept, "keras", "jax", False, None, 9, {}, {}, parity=parity
        )
        raise exporting.ParityError("It answers otherwise.", report)

    monkeypatch.setattr(exporting, "export", export)
    argv = ["export", model, tmp_path / "out.keras"]
    assert exit_status([*argv, "--json"] if as_json else argv) == 1
    captured = capsys.readouterr()
    assert one_error(captured.err) == "keras-cascade: It answers otherwise."
    if as_json:
        report = json.loads(captured.out)
        assert report["path"] == str(kept)
        assert report["holds"] is False
        assert report["parity"]["tone"]["agreement"] == 0.5
    else:
        assert kept.name in captured.out
        assert "some converter talks" not in captured.out


def test_metrics_without_labels_are_refused_unless_they_are_left_out(
    model, photos, passed_on, tmp_path, capsys
):
    argv = ["export", model, tmp_path / "x.keras", "--check", photos / "dark"]
    assert exit_status(argv) == 1
    error = one_error(capsys.readouterr().err)
    assert "no labels" in error
    assert "--no-metrics" in error
    assert not passed_on
    assert exit_status([*argv, "--no-metrics"]) == 1
    network, _ = passed_on["args"]
    assert not network.compiled


@pytest.mark.parametrize(
    "missing", ["no_model.keras", "no_folder", "no_labels.txt"]
)
def test_a_missing_file_fails_in_one_line(missing, model, tmp_path, capsys):
    given = {
        "no_model.keras": ["no_model.keras", tmp_path / "x.keras"],
        "no_folder": [model, tmp_path / "x.keras", "--check", "no_folder"],
        "no_labels.txt": [model, tmp_path / "x.keras"],
    }[missing]
    if missing == "no_labels.txt":
        given += ["--labels", missing]
    assert exit_status(["export", *given]) == 1
    assert missing in one_error(capsys.readouterr().err)
    assert not (tmp_path / "x.keras").exists()


def run(*argv) -> subprocess.CompletedProcess:
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "keras_cascade", *map(str, argv)],
        env={**os.environ, "KERAS_BACKEND": keras.config.backend()},
        capture_output=True,
        text=True,
    )


def test_a_process_prints_one_json_object_and_nothing_else(model, tmp_path):
    done = run("export", model, tmp_path / "out.keras", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["format"] == "keras"
    assert (tmp_path / "out.keras").is_file()


@ON_TENSORFLOW
def test_a_quantized_file_is_calibrated_and_checked_on_folders(
    model, photos, tmp_path
):
    out = tmp_path / "out.tflite"
    done = run(
        *("export", model, out, "--quantize", "int8", "--json"),
        *("--calibration", photos, "--check", photos, "--tolerance", 1),
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["quantize"] == "int8"
    assert report["metrics"]["accuracy"]["model"] == pytest.approx(
        accuracy_by_hand(model, photos)
    )
    assert report["operators"]["QUANTIZE"] == 1
    assert report["builtin_only"] is True
    assert out.is_file()
