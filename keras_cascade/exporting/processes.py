"""Child processes: started, watched, ended, and their errors told."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TextIO

# What a child says of itself, a line each; the rest of its output is a log.
STAGE = "keras_cascade stage: "
_LAST_LINES = 15
# How Python tells of an error: a trace, indented lines, and the error itself.
_TRACE = "Traceback (most recent call last)"
_ERROR = re.compile(r"[A-Za-z_][\w.]*(:|$)")


def run_child(
    command: Sequence[str],
    *,
    what: str,
    log: Path,
    timeout: float,
    environment: Mapping[str, str] | None = None,
    report: Callable[[str], None] = lambda stage: None,
) -> None:
    """Runs a Python process to its end.

    Args:
        command: What follows the name of the interpreter.
        what: What it does, for errors.
        log: Where its output goes.
        timeout: Seconds after which it is ended.
        environment: Variables set on top of this process's own. Defaults to
            `None`.
        report: Called with each stage that the child names.

    Raises:
        RuntimeError: It failed, or was killed; the message has its error.
        TimeoutError: It took longer than it may.
    """
    with log.open("w", encoding="utf-8", errors="replace") as stream:
        child = subprocess.Popen(
            # Without the folder of a script on the path: a module there could
            # hide one that the child needs.
            [sys.executable, "-P", *command],
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={
                **os.environ,
                # What it says stands in the log in the order in which it
                # was said.
                "PYTHONUNBUFFERED": "1",
                **(environment or {}),
            },
        )
        try:
            _watch(child, log, timeout, what, report)
        finally:
            if child.poll() is None:
                child.kill()
                child.wait()
    if child.returncode:
        raise RuntimeError(_failure(what, child.returncode, log))


def _watch(
    child: subprocess.Popen,
    log: Path,
    timeout: float,
    what: str,
    report: Callable[[str], None],
) -> None:
    end = time.monotonic() + timeout
    done = threading.Event()
    threading.Thread(
        target=lambda: (child.wait(), done.set()), daemon=True
    ).start()
    with log.open(encoding="utf-8", errors="replace") as stream:
        while not done.wait(0.1):
            _tell_stages(stream, report)
            if time.monotonic() > end:
                raise TimeoutError(
                    f"{what} took longer than {timeout:g} seconds and was "
                    "ended. Pass a larger `timeout`."
                )
        _tell_stages(stream, report)


def _tell_stages(stream: TextIO, report: Callable[[str], None]) -> None:
    """Reports the stages in what was written since the last time."""
    place = stream.tell()
    while line := stream.readline():
        if not line.endswith("\n"):
            # It is being written.
            stream.seek(place)
            return
        place = stream.tell()
        if line.startswith(STAGE):
            report(line.removeprefix(STAGE).rstrip())


def _failure(what: str, status: int, log: Path) -> str:
    """The child's error, or the signal that it died of, and its last words."""
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    if status < 0:
        told, reason = lines, _signal(-status)
    else:
        told, reason = _error(lines)
        reason = reason or f"it exited with status {status}."
    details = "\n".join(f"  {line}" for line in told[-_LAST_LINES:])
    return f"{what} failed: {reason}" + (
        f"\nIts last output:\n{details}" if details else ""
    )


def _error(lines: list[str]) -> tuple[list[str], str]:
    """Python's last error with all its lines, and what came before."""
    traces = [i for i, line in enumerate(lines) if line.startswith(_TRACE)]
    for place in range(traces[-1] if traces else 0, len(lines)):
        if traces and _ERROR.match(lines[place]):
            return lines[:place], "\n".join(lines[place:]).strip()
    return lines[:-1], "".join(lines[-1:]).strip()


def _signal(number: int) -> str:
    names = {x.value: x.name for x in signal.Signals}
    name = names.get(number, "unknown")
    # What Linux ends a process with that takes too much.
    advice = " Most likely memory ran out." if name == "SIGKILL" else ""
    return f"its process was killed by signal {number} ({name}).{advice}"
