"""TensorFlow's log is off on the console, and all other lines are kept."""

import os
import subprocess
import sys

import pytest

from keras_cascade.cli.framework_log import without_framework_log

LINES = [
    "WARNING: All log messages before absl::InitializeLog() is called\n",
    "I0000 00:00:1795737348.577884   27993 port.cc:153] oneDNN is on.\n",
    "E0000 00:00:1795737348.577884   27993 cuda_dnn.cc:8] Unable to do it\n",
    "layers.py:3: UserWarning: Own layers are deprecated.\n",
    "It 0000 has began\n",
]


def log() -> None:
    os.write(2, "".join(LINES[:3]).encode())
    sys.stderr.write(LINES[3])
    os.write(2, LINES[4].encode())


def test_lines_of_the_log_are_left_out(capfd, monkeypatch):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    with without_framework_log():
        log()
    assert sorted(capfd.readouterr().err.splitlines(True)) == sorted(LINES[3:])


def test_an_error_leaves_the_stream_as_it_was(capfd, monkeypatch):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    with pytest.raises(KeyboardInterrupt), without_framework_log():
        log()
        raise KeyboardInterrupt
    os.write(2, b"after\n")
    assert capfd.readouterr().err.endswith("after\n")


def test_who_asks_for_the_log_gets_it(capfd, monkeypatch):
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    with without_framework_log():
        log()
    assert "oneDNN is on" in capfd.readouterr().err


def test_a_subcommand_writes_no_line_that_is_not_its_own():
    environment = {**os.environ}
    environment.pop("TF_CPP_MIN_LOG_LEVEL", None)
    done = subprocess.run(
        [sys.executable, "-m", "keras_cascade", "inspect", "none.keras"],
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
    )
    (line,) = done.stderr.splitlines()
    assert line.startswith("keras-cascade: model: there is no file")
