"""Child processes: started, watched, ended, and their errors told."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

# What a child says of itself, a line each; the rest of its output is a log.
STAGE = "keras_cascade stage: "
_LAST_LINES = 15


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
            env={**os.environ, **(environment or {})},
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
    seen = 0
    while not done.wait(0.1):
        stages = _stages(log)
        for stage in stages[seen:]:
            report(stage)
        seen = len(stages)
        if time.monotonic() > end:
            raise TimeoutError(
                f"{what} took longer than {timeout:g} seconds and was ended. "
                "Pass a larger `timeout`."
            )


def _stages(log: Path) -> list[str]:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return [x.removeprefix(STAGE) for x in lines if x.startswith(STAGE)]


def _failure(what: str, status: int, log: Path) -> str:
    """The child's last words, or the signal that it died of."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    told = [line for line in lines if line.strip()][-_LAST_LINES:]
    if status < 0:
        advice = " Most likely memory ran out." if status == -9 else ""
        reason = f"its process was killed by signal {-status}.{advice}"
    else:
        reason = told[-1].strip() if told else f"it exited with {status}."
    details = "\n".join(f"  {line}" for line in told[:-1])
    return f"{what} failed: {reason}" + (
        f"\nIts last output:\n{details}" if details else ""
    )
