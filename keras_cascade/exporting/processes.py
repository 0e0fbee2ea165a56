"""Runs child processes, reports their stages, and explains their errors."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TextIO

from keras_cascade.exporting import parent_watch

# A child prints its stages in lines that begin so; its other output is a log.
STAGE = "keras_cascade stage: "
_LAST_LINES = 15
_OWN_ERROR = "keras_cascade."
# A child begins with this: if the parent is killed, it ends as well.
_WATCH = (
    "import runpy; "
    f"runpy.run_path({parent_watch.__file__!r})['end_with_parent']()\n"
)
# Python prints an error as a trace, indented lines, and the error itself.
_TRACE = "Traceback (most recent call last)"
_ERROR = re.compile(r"[A-Za-z_][\w.]*(:|$)")


def run_child(
    code: str,
    *,
    what: str,
    log: Path,
    timeout: float,
    environment: Mapping[str, str] | None = None,
    report: Callable[[str], None] = lambda stage: None,
) -> None:
    """Runs Python code in a process of its own, to its end.

    Errors name its work as `what`. Its output goes to the file `log`, and
    its temporary files to the folder of `log`. `report` is called with each
    stage that it prints. The process ends with this one, however this ends.

    Raises:
        RuntimeError: The child failed, or was killed; the message has its
            error.
        TimeoutError: The child took longer than the timeout.
    """
    # Unbuffered, the log has output and errors in their true order.
    own = {**os.environ, "PYTHONUNBUFFERED": "1"}
    # Converters that crash or are killed leave temporary files.
    own |= dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(log.parent))
    with (
        log.open("w", encoding="utf-8", errors="replace") as stream,
        subprocess.Popen(
            # -P keeps a script's folder off the path: a module there could
            # hide one that the child needs.
            [sys.executable, "-P", "-c", _WATCH + code],
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env={**own, **(environment or {})},
        ) as child,
    ):
        try:
            _watch(child, log, timeout, what, report)
        finally:
            # Does nothing to a child that has ended.
            child.kill()
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
    with log.open(encoding="utf-8", errors="replace") as stream:
        running = True
        while running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(0.1)
            # Asked before reading: nothing is printed between the two.
            running = child.returncode is None
            _report_stages(stream, report)
            if running and time.monotonic() > end:
                raise TimeoutError(
                    f"{what} took longer than {timeout:g} seconds and was "
                    "ended. Pass a larger `timeout`."
                )


def _report_stages(stream: TextIO, report: Callable[[str], None]) -> None:
    """Reports the stages that were printed since the last time."""
    place = stream.tell()
    while line := stream.readline():
        if not line.endswith("\n"):
            # The child is still writing this line.
            stream.seek(place)
            return
        place = stream.tell()
        if line.startswith(STAGE):
            report(line.removeprefix(STAGE).rstrip())


def _failure(what: str, status: int, log: Path) -> str:
    """Returns the child's error, or its signal, and its last output."""
    text = log.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    if status < 0:
        output, reason = lines, _signal(-status)
    else:
        output, reason = _error(lines)
        reason = reason or f"it exited with status {status}."
    if reason.startswith(_OWN_ERROR):
        # It says all there is to say, without the converter's output.
        output, reason = [], reason.partition(": ")[2]
    details = "\n".join(f"  {line}" for line in output[-_LAST_LINES:])
    return f"{what} failed: {reason}" + (
        f"\nIts last output:\n{details}" if details else ""
    )


def _error(lines: list[str]) -> tuple[list[str], str]:
    """Returns the output before Python's last error, and all its lines."""
    # Errors that led to each other have a trace each: the last one counts.
    traces = [i for i, line in enumerate(lines) if line.startswith(_TRACE)]
    for place in range(traces[-1] if traces else 0, len(lines)):
        if traces and _ERROR.match(lines[place]):
            return lines[:place], "\n".join(lines[place:]).strip()
    return lines[:-1], "".join(lines[-1:]).strip()


def _signal(number: int) -> str:
    names = {x.value: x.name for x in signal.Signals}
    name = names.get(number, "unknown")
    # Linux kills a process with this signal if memory runs out.
    advice = " Most likely memory ran out." if name == "SIGKILL" else ""
    return f"its process was killed by signal {number} ({name}).{advice}"
