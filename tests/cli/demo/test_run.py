"""The demo as a user runs it, and its parts on every backend."""

import importlib.util
import json
import subprocess
import sys

import keras
import numpy as np
import pytest
from rich.console import Console

from keras_cascade.cli import main
from keras_cascade.cli.demo import exports, strategies

pytest.importorskip("sklearn")
BRIEF = {
    name: way._replace(epochs=1) for name, way in strategies.STRATEGIES.items()
}

needs_tensorflow = pytest.mark.skipif(
    keras.config.backend() != "tensorflow",
    reason="Keras writes SavedModel and .tflite on TensorFlow only",
)


@pytest.fixture
def console():
    return Console(quiet=True)


@pytest.fixture(scope="module")
def task():
    return strategies.draw_task(seed=0)


@pytest.fixture
def chain():
    """The two networks in a chain, which need no training."""
    names = "glyph_encoder", "digits_expert"
    return strategies.chain(*map(strategies.zoo.load, names))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """The command in a process of its own, as a user runs it."""
    output = tmp_path_factory.mktemp("demo")
    leave_files_of_an_earlier_run(output)
    command = [sys.executable, "-m", "keras_cascade", "demo", "--json"]
    result = subprocess.run(
        [*command, "--output", str(output)],
        capture_output=True,
        text=True,
    )
    return result, output


def leave_files_of_an_earlier_run(output):
    (output / exports.FILES["saved_model"]).mkdir()
    (output / exports.FILES["saved_model"] / "saved_model.pb").touch()
    (output / exports.FILES["saved_model"] / "old").touch()
    (output / exports.FILES["tflite"]).write_text("old")


@needs_tensorflow
def test_the_command_succeeds_and_prints_one_json_object(run):
    result, _ = run
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["backend"] == "tensorflow"
    assert report["labels"] == 100


@needs_tensorflow
def test_fine_tuning_beats_the_other_ways_on_the_same_labels(run):
    result, _ = run
    accuracy = json.loads(result.stdout)["accuracy"]
    assert list(accuracy) == list(strategies.STRATEGIES)
    tuned = accuracy.pop("jointly fine-tuned")
    assert tuned > 0.9
    assert tuned > max(accuracy.values())


@needs_tensorflow
def test_the_command_leaves_four_files_that_agree(run):
    result, output = run
    reported = json.loads(result.stdout)["files"]
    assert set(reported) == {"keras", "saved_model", "tflite", "int8"}
    small = reported.pop("int8")
    assert small["agreement"] > 0.97
    assert small["size"] < 0.3 * reported["tflite"]["size"]
    for check in reported.values():
        assert check["difference"] < 1e-3
        assert check["agreement"] > 0.995
    assert {path.name for path in output.iterdir()} == {*exports.FILES.values()}


def test_each_digit_has_as_many_labels(task):
    _, labels = task.few
    np.testing.assert_array_equal(np.bincount(labels), [10] * 10)


def test_the_labels_drawn_depend_on_nothing_but_the_seed(task):
    again, other = strategies.draw_task(0), strategies.draw_task(1)
    first = task.few[0]["inputs"]
    np.testing.assert_array_equal(first, again.few[0]["inputs"])
    assert (first != other.few[0]["inputs"]).any()


def test_no_test_image_is_among_those_to_learn_from(task):
    known = {image.tobytes() for image in task.images["inputs"]}
    assert not any(x.tobytes() in known for x in task.test[0]["inputs"])


def test_the_four_ways_train_what_they_say(task, console):
    cascades = strategies.make_cascades(task, console, BRIEF)
    learning = {
        way: {v.path.split("/")[0] for v in cascade.trainable_variables}
        for way, cascade in cascades.items()
    }
    everything = {"upstream", "adapters", "downstream"}
    assert learning["adapted"] == {"adapters"}
    assert learning["jointly fine-tuned"] == everything
    assert learning["from scratch"] == everything
    adapted, tuned, scratch = list(cascades.values())[1:]
    assert adapted.count_params() == tuned.count_params()
    assert adapted.count_params() == scratch.count_params()


def test_the_chain_as_it_is_equals_its_networks_by_hand(task, chain):
    inputs, labels = task.test
    encoder, expert = map(
        strategies.zoo.load, ("glyph_encoder", "digits_expert")
    )
    features = encoder.predict(inputs["inputs"], verbose=0)
    evidence = np.concatenate([features, inputs["metadata"]], axis=1)
    answers = expert.predict(evidence, verbose=0).argmax(1)
    assert strategies.accuracy(chain, task) == pytest.approx(
        (answers == labels).mean(), abs=2 / len(labels)
    )


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is not None,
    reason="where TensorFlow is installed the whole command is tested",
)
def test_without_tensorflow_exports_are_skipped_in_one_line(
    tmp_path, task, chain, capsys
):
    console = Console(width=80)
    checks = exports.write_files(
        chain, task.test[0], task.images, tmp_path, console
    )
    out = capsys.readouterr().out
    (line,) = [x for x in out.splitlines() if "Left out: " in x]
    assert 'pip install "keras_cascade[tensorflow]"' in line
    assert all(
        name in line for n, name in exports.FILES.items() if n != "keras"
    )
    assert list(checks) == ["keras"]
    assert checks["keras"].difference == 0


@needs_tensorflow
def test_files_of_an_earlier_run_are_replaced(run):
    _, output = run
    assert not list(output.rglob("old"))
    assert (output / exports.FILES["tflite"]).stat().st_size > 1000


def test_without_scikit_learn_the_error_is_one_line(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    assert main(["demo", "--output", str(tmp_path)]) == 1
    (error,) = capsys.readouterr().err.splitlines()
    assert 'pip install "keras_cascade[demo]"' in error
