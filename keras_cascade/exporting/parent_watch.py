"""Ends a child process when its parent is gone.

Imports nothing of this package: children run it before anything else.

Tested by `tests/exporting/test_processes.py`.
"""

import ctypes
import os
import signal
import sys
import threading

# Of Linux's `prctl`: the signal that a process gets when its parent ends.
_PR_SET_PDEATHSIG = 1


def end_with_parent() -> None:
    """Ends this process as soon as the other end of its input is closed.

    The parent holds that end of the pipe, which the system closes even if the
    parent is killed. Code that reads the standard input finds it empty.
    """
    pipe, nothing = os.dup(0), os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    if sys.platform == "linux":
        # A converter may keep the interpreter, and so the thread below, busy
        # for minutes. The parent's thread that started this process waits for
        # it: the signal does not come while the parent lives.
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    threading.Thread(target=_wait_for_end, args=(pipe,), daemon=True).start()


def _wait_for_end(pipe: int) -> None:
    while os.read(pipe, 1):
        pass
    os._exit(1)
