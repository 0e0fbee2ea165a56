"""Files that another backend writes, in a process of its own."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc
from keras_cascade.exporting.options import make_options
from keras_cascade.exporting.subprocess_export import (
    NotLoadableError,
    modules_of,
    write_in_subprocess,
)
from tests.exporting.cases import spread
from tests.exporting.runtimes import run

ROOT = Path(__file__).parents[2]
BACKEND = keras.config.backend()

EXPORT = """
import json
import sys
import keras
import numpy as np
import keras_cascade as kc
from tests.exporting.cases import answers, application, by_name

keras.utils.set_random_seed(0)
cascade, x = application("MobileNetV3Small", samples=4)
np.savez("inputs.npz", **by_name(cascade, x))
np.save("expected.npy", answers(cascade, x))
reports = [
    kc.export(cascade, path, check_data=x, verbose=False).to_dict()
    for path in ("saved_model", "file.tflite")
]
print(json.dumps(reports))
"""


@pytest.mark.interop
@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_saved_model_and_litert_come_from_every_backend(backend, tmp_path):
    environment = {
        **os.environ,
        "KERAS_BACKEND": backend,
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, "-c", EXPORT],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    reports = json.loads(done.stdout.splitlines()[-1])
    expected = np.load(tmp_path / "expected.npy")
    with np.load(tmp_path / "inputs.npz") as arrays:
        inputs = dict(arrays)
    for report in reports:
        assert report["rehosted"]
        assert report["backend"] == "tensorflow"
        found = run(Path(report["path"]), inputs)["head"]
        difference = np.abs(found - expected).max()
        assert difference < 1e-3 * spread(expected)
    names = {"saved_model", "file.tflite", "inputs.npz", "expected.npy"}
    names |= {"given.npz", "answers.npz"}
    assert {path.name for path in tmp_path.iterdir()} == names


# What follows needs no other backend: a process under the running one.


@pytest.fixture
def cascade():
    x = keras.Input((4,), name="features")
    network = keras.Model(x, layers.Dense(3, name="out")(x), name="small")
    return kc.build_cascade(network, head=2)


def write(model, folder, timeout=600.0):
    options = make_options(folder / "file.keras", timeout=timeout)
    stages = []
    path = options.path
    write_in_subprocess(model, path, options, None, BACKEND, stages.append)
    return path, stages


def module(folder, monkeypatch, name, body):
    """A module of the user's that another process can import."""
    code = f"""
import os, signal, sys, time
import keras

@keras.saving.register_keras_serializable("{name}")
class Own(keras.layers.Layer):
    def call(self, inputs):
        {body}
        return inputs * 2.0
"""
    (folder / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(folder))
    return __import__(name)


def with_layer(layer):
    x = keras.Input((4,), name="features")
    return keras.Model(x, layer(x), name="small")


IN_CHILD = 'if "keras_cascade.exporting.worker" in sys.modules: '


def test_stages_are_reported(cascade, tmp_path):
    path, stages = write(cascade, tmp_path)
    assert path.is_file()
    assert stages[0] == "saving the model"


def test_layers_of_the_users_are_imported(tmp_path, monkeypatch):
    own = module(tmp_path, monkeypatch, "own_layers", "pass")
    model = with_layer(own.Own(name="own"))
    assert modules_of(model) == ["own_layers"]
    path, _ = write(model, tmp_path)
    x = np.ones((2, 4), "float32")
    loaded = keras.saving.load_model(path)
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), 2 * x)


def test_a_class_of_a_script_is_an_error_before_any_work(monkeypatch):
    class Local(layers.Layer):
        def call(self, inputs):
            return 2.0 * inputs

    monkeypatch.setattr(Local, "__module__", "__main__")
    with pytest.raises(ValueError, match=r"'mine' is of Local.*to a module"):
        modules_of(with_layer(Local(name="mine")))


@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
def test_a_process_that_is_killed_is_a_clear_error(tmp_path, monkeypatch):
    own = module(
        tmp_path,
        monkeypatch,
        "deadly_layers",
        IN_CHILD + "os.kill(os.getpid(), signal.SIGKILL)",
    )
    model = with_layer(own.Own(name="own"))
    with pytest.raises(RuntimeError, match=r"killed by signal 9.*memory"):
        write(model, tmp_path)
    assert not (tmp_path / "file.keras").exists()


def test_an_error_of_the_process_is_reported(tmp_path, monkeypatch):
    own = module(
        tmp_path,
        monkeypatch,
        "failing_layers",
        IN_CHILD + 'raise ValueError("no such luck")',
    )
    model = with_layer(own.Own(name="own"))
    with pytest.raises(NotLoadableError, match="no such luck"):
        write(model, tmp_path)


def test_a_process_that_takes_too_long_is_killed(tmp_path, monkeypatch):
    own = module(
        tmp_path, monkeypatch, "slow_layers", IN_CHILD + "time.sleep(600)"
    )
    model = with_layer(own.Own(name="own"))
    start = time.monotonic()
    with pytest.raises(TimeoutError, match="longer than 3 seconds"):
        write(model, tmp_path, timeout=3.0)
    assert time.monotonic() - start < 60
