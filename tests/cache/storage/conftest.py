"""Fixtures for tests of stores."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import keras_cascade

WRITER = Path(__file__).with_name("writer.py")


class Writer:
    """A process that runs `writer.py`, spoken to line by line."""

    def __init__(self, *arguments):
        command, environment = how_to_write(*arguments)
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
            text=True,
        )

    def ask(self, line):
        self.say(line)
        return self.hear()

    def say(self, line):
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()

    def hear(self):
        line = self._process.stdout.readline()
        assert line, "The writer has ended."
        return line.strip()

    def kill(self):
        self._process.kill()

    def end(self):
        self._process.communicate(timeout=60)
        return self._process.returncode


def how_to_write(*arguments):
    """The command, and its environment."""
    path = keras_cascade.__path__[0]
    # A process with threads of its own could not fork.
    own = {"KERAS_CASCADE_PATH": path, "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, str(WRITER), *map(str, arguments)]
    return command, {**os.environ, **own}


@pytest.fixture
def writer_command():
    """Function: command and environment of a process that writes."""
    return how_to_write


@pytest.fixture
def writer():
    """Function: starts a process that writes, which ends with the test."""
    started = []

    def writer(*arguments):
        started.append(Writer(*arguments))
        return started[-1]

    yield writer
    for process in started:
        process.kill()
        process.end()


@pytest.fixture
def snapshot():
    """Function: all files of a folder: content, inode and time of writing."""

    def snapshot(folder):
        found = {}
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                status = path.stat()
                written = status.st_ino, status.st_mtime_ns
                name = path.relative_to(folder).as_posix()
                found[name] = (path.read_bytes(), *written)
        return found

    return snapshot
