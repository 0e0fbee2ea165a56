"""Progress that vanishes, and lines that go where the user reads."""

import io
import logging
import re
import sys
from contextlib import contextmanager

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc
from keras_cascade._reporting.console import progress, say
from tests.notebook_shell import run

X = np.random.default_rng(0).normal(size=(40, 6)).astype("float32")


class Terminal(io.StringIO):
    """A terminal, which shows what control sequences leave of the text."""

    def isatty(self):
        return True

    def screen(self):
        """Returns the lines that are seen in the end."""
        lines, row, column = [""], 0, 0
        codes = r"(\x1b\[[?0-9;]*[A-Za-z]|\r|\n)"
        for part in re.split(codes, self.getvalue()):
            if part == "\n":
                row, column = row + 1, 0
                lines += [""] * (row == len(lines))
            elif part == "\r":
                column = 0
            elif part == "\x1b[2K":
                lines[row] = ""
            elif part.endswith("A") and part.startswith("\x1b["):
                row -= int(part[2:-1])
            elif not part.startswith("\x1b"):
                line = lines[row].ljust(column)
                column += len(part)
                lines[row] = line[: column - len(part)] + part + line[column:]
        return [line.rstrip() for line in lines if line.strip()]


@contextmanager
def on_terminal():
    """Has standard error be a terminal; pytest resets it before each test."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TERM", "xterm")
        patch.setattr(sys, "stderr", Terminal())
        yield sys.stderr


def to_adapt():
    inputs = keras.Input((6,))
    network = keras.Model(inputs, layers.Dense(4, name="dense")(inputs))
    return kc.build_cascade(
        network,
        adapters=kc.adapters.PCAAdapter(2),
        head=1,
        optimizer="sgd",
        loss="mse",
    )


def adapt(folder, verbose=True):
    to_adapt().adapt(X, verbose=verbose)


def range_test(folder, verbose=True):
    cascade = to_adapt().adapt(X, verbose=False)
    kc.find_learning_rates(cascade, (X, X[:, :1]), steps=20, verbose=verbose)


def export(folder, verbose=True):
    cascade = to_adapt().adapt(X, verbose=False)
    cascade.export(folder / "model.keras", verbose=verbose)


TASKS = {"adapt": adapt, "range test of head": range_test, "export": export}


@pytest.mark.parametrize("text", TASKS)
def test_progress_is_seen_in_a_terminal_and_vanishes(text, tmp_path):
    with on_terminal() as terminal:
        TASKS[text](tmp_path)
    assert text in terminal.getvalue()
    assert terminal.screen() == []


@pytest.mark.parametrize("text", TASKS)
def test_progress_can_be_switched_off(text, tmp_path):
    with on_terminal() as terminal:
        TASKS[text](tmp_path, verbose=False)
    assert terminal.getvalue() == ""


def test_the_emulated_terminal_keeps_what_is_not_removed():
    terminal = Terminal()
    terminal.write("kept\nremoved\r\x1b[2Kalso kept\n")
    assert terminal.screen() == ["kept", "also kept"]


@pytest.mark.parametrize("text", TASKS)
def test_in_pipes_there_is_no_progress(text, capsys, tmp_path):
    TASKS[text](tmp_path)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("text", TASKS)
def test_progress_vanishes_from_a_notebook(text, tmp_path):
    out, outputs = run("task(folder)", task=TASKS[text], folder=tmp_path)
    assert out == ""
    assert any(text in x.get("text/plain", "") for x in outputs)
    # Updates of one output, of which the last is empty.
    assert outputs[-1] == {}
    assert not any("Output()" in str(x) for x in outputs)


def test_a_task_that_fails_leaves_no_progress():
    with (
        on_terminal() as terminal,
        pytest.raises(ZeroDivisionError),
        progress(3, True) as bar,
    ):
        bar("task", 1)
        raise ZeroDivisionError
    assert terminal.screen() == []


def test_lines_follow_keras_where_it_logs(capsys, caplog):
    say("printed [/] :map:")
    keras.config.disable_interactive_logging()
    with caplog.at_level(logging.INFO, logger="absl"):
        say("logged")
    keras.config.enable_interactive_logging()
    assert capsys.readouterr().out == "printed [/] :map:\n"
    assert "logged" in caplog.text
