"""Holds back what TensorFlow logs while it is imported.

Tested by `tests/cli/test_framework_log.py`.
"""

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

_LEVEL = "TF_CPP_MIN_LOG_LEVEL"
_QUIET = "3"
# `I0000 00:00:1795737348.577884   27993 port.cc:153] oneDNN ...`
_LOGGED = re.compile(
    rb"[IWE]\d{4} [\d:.]+ +\d+ \S+:\d+\] |"
    rb"WARNING: All log messages before absl::InitializeLog"
)


@contextmanager
def without_framework_log() -> Iterator[None]:
    """Leaves TensorFlow's log out of standard error, unless it is asked for.

    TensorFlow 2.21 logs while it is imported whatever its variable says, and
    afterwards as it says. All other lines are printed at the end.
    """
    if os.environ.setdefault(_LEVEL, _QUIET) != _QUIET:
        yield
        return
    # TensorFlow writes to the file descriptor, not to Python's stream.
    with tempfile.TemporaryFile() as log:
        sys.stderr.flush()
        original = os.dup(2)
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(original, 2)
            log.seek(0)
            others = [line for line in log if not _LOGGED.match(line)]
            os.write(original, b"".join(others))
            os.close(original)
