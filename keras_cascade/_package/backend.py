"""Imports Keras, or says in two lines what its backend lacks."""

import importlib.util
import json
import os
import re
import sys
from pathlib import Path

BACKENDS = ("tensorflow", "jax", "torch")
# As in pyproject.toml.
OLDEST_KERAS = "3.15.1"


class BackendError(ImportError):
    """Says in one line what Keras lacks here, and in a second what to do."""


def import_keras() -> None:
    """Imports Keras on the backend that it is set to.

    Raises:
        BackendError: Keras or the backend is not installed, Keras is too old,
            or the backend is none that cascades run on.
    """
    try:
        import keras
    except (ImportError, ValueError):
        problem = _missing_keras() or _missing_backend(*_chosen_backend())
        if problem is None:  # The installation is broken in another way.
            raise
        _forget_keras()
        # Forty frames of Keras's imports would hide the two lines.
        raise BackendError(problem) from None
    if _release(keras.__version__) < _release(OLDEST_KERAS):
        raise BackendError(
            f"keras_cascade needs Keras {OLDEST_KERAS} or later; installed is "
            f"{keras.__version__}.\n"
            f'Run: pip install --upgrade "keras>={OLDEST_KERAS}"'
        )
    if problem := _unknown_backend(keras.config.backend(), "as it is set"):
        raise BackendError(problem)


def _missing_keras() -> str | None:
    if importlib.util.find_spec("keras"):
        return None
    return (
        "keras_cascade needs Keras, which is not installed.\n"
        f"Install it with a backend: {_EXTRAS}"
    )


def _missing_backend(name: str, chosen_by: str) -> str | None:
    """Returns what to do about a backend that cannot be imported."""
    if problem := _unknown_backend(name, chosen_by):
        return problem
    if importlib.util.find_spec(name):
        return None
    return f"Keras's backend is '{name}' ({chosen_by}), {_other_ways(name)}"


def _unknown_backend(name: str, chosen_by: str) -> str | None:
    if name in BACKENDS:
        return None
    return (
        f"Keras's backend is '{name}' ({chosen_by}); cascades run on "
        f"{', '.join(BACKENDS)}.\n"
        "Set the environment variable KERAS_BACKEND to one that is installed; "
        f"or run: {_EXTRAS}"
    )


def _other_ways(name: str) -> str:
    others = [x for x in BACKENDS if importlib.util.find_spec(x)]
    if not others:
        return (
            "which is not installed, and no other one is.\n"
            "Set the environment variable KERAS_BACKEND to the one you want, "
            f"and run: {_EXTRAS}"
        )
    return (
        f"which is not installed; {' and '.join(others)} is.\n"
        f"Set the environment variable KERAS_BACKEND to '{others[0]}', or run: "
        f'pip install "keras_cascade[{name}]"'
    )


def _chosen_backend() -> tuple[str, str]:
    """Returns the backend that Keras is set to, and what set it."""
    if name := os.environ.get("KERAS_BACKEND"):
        return name, "set by KERAS_BACKEND"
    home = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
    path = Path(home, "keras.json")
    try:
        return json.loads(path.read_text())["backend"], f"set in {path}"
    except (OSError, ValueError, KeyError):
        return "tensorflow", "Keras's default"


def _forget_keras() -> None:
    """Lets a notebook import Keras again, on another backend."""
    for name in [x for x in sys.modules if x.partition(".")[0] == "keras"]:
        del sys.modules[name]


def _release(version: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])


_EXTRAS = (
    'pip install "keras_cascade[torch]" (or "keras_cascade[tensorflow]", '
    '"keras_cascade[jax]")'
)
