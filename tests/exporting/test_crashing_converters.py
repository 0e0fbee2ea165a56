"""Converters that crash, hang or fill the disk: nothing is left behind."""

import importlib
import sys

import keras
import numpy as np
import psutil
import pytest
from keras import layers

import keras_cascade as kc

FULL = "raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))"
LITTER = "open(tempfile.mkdtemp() + '/big', 'w').write('x' * 9999); "
CRASHES = {
    "segfault": "ctypes.string_at(0)",
    "hang": "time.sleep(600)",
    "full disk": FULL,
    "abort": "os.abort()",
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "terminated": "os.kill(os.getpid(), signal.SIGTERM)",
    "illegal instruction": "os.kill(os.getpid(), signal.SIGILL)",
    "bus error": "os.kill(os.getpid(), signal.SIGBUS)",
    "division by zero": "os.kill(os.getpid(), signal.SIGFPE)",
    "ends early": "os._exit(0)",
    "ends with a status": "os._exit(3)",
    "exit": "sys.exit(0)",
    "busy": "exec('while True: pass')",
    "quota": "raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))",
    "no memory": "raise MemoryError",
    "interrupt": "raise KeyboardInterrupt",
    "internal error": "raise SystemError('converter')",
    "endless recursion": "return crash()",
    "litter and a segfault": LITTER + "ctypes.string_at(0)",
    "litter and a full disk": LITTER + FULL,
}
SAMPLE = list(CRASHES)[:3]
LAYER = """
import ctypes, errno, os, signal, sys, tempfile, time
import keras

@keras.saving.register_keras_serializable("{name}")
class Own(keras.layers.Layer):
    def call(self, inputs):
        return inputs * 2.0

def crash(*arguments):
    {body}

# Only the process that runs the converter has this module.
if "keras_cascade.exporting.worker" in sys.modules:
    from keras_cascade.exporting import writing
    writing._write = crash
"""


@pytest.mark.apart
@pytest.mark.skipif(sys.platform == "win32", reason="signals are POSIX's")
@pytest.mark.parametrize(
    "case",
    [
        *SAMPLE,
        *(
            pytest.param(x, marks=pytest.mark.large)
            for x in CRASHES
            if x not in SAMPLE
        ),
    ],
)
def test_a_crash_leaves_this_process_and_nothing_else(
    case, tmp_path, monkeypatch
):
    name = f"crashing_{list(CRASHES).index(case)}"
    code = LAYER.format(name=name, body=CRASHES[case])
    (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    module = importlib.import_module(name)
    x = keras.Input((4,), name="x")
    model = keras.Model(x, layers.Dense(2)(module.Own()(x)))
    is_tensorflow = keras.config.backend() == "tensorflow"
    folder = tmp_path / "files"
    folder.mkdir()
    path = folder / ("file.tflite" if is_tensorflow else "file.onnx")
    path.write_text("the old one")
    timeout = 3.0 if case in ("hang", "busy") else 600.0
    before = psutil.Process().children(recursive=True)
    with pytest.raises((OSError, RuntimeError)) as caught:
        kc.export(model, path, timeout=timeout, verbose=False)
    assert path.read_text() == "the old one"
    assert list(folder.iterdir()) == [path]
    assert psutil.Process().children(recursive=True) == before
    if case in ("full disk", "quota", "litter and a full disk"):
        assert "disk is full" in str(caught.value)
    data = np.ones((2, 4), "float32")
    assert model.predict(data, verbose=0).shape == (2, 2)
