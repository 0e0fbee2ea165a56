"""Comparisons that the checks of adapters and cascades share."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import keras
import numpy as np

# Rounding in float32, relative to the largest value.
TOLERANCE = 1e-5


class CheckError(Exception):
    """Raised by a check that fails; the message says which, and what was found.

    Example:
    >>> keras_cascade.testing.check_cascade(cascade, images[:8])
    Traceback (most recent call last):
    CheckError: Frozen, but moved in training mode: ['upstream/norm/gamma'].
    """


def run(checks: Sequence[Callable[..., None]], *arguments: object) -> list[str]:
    """Runs checks in order and returns their names.

    Raises:
        CheckError: If a check fails; the checks after it are not run.
    """
    for check in checks:
        check(*arguments)
    return [check.__name__ for check in checks]


def expect(holds: bool, message: str) -> None:
    """Raises a `CheckError` with the message unless the condition holds."""
    if not holds:
        raise CheckError(message)


def expect_equal(found: object, expected: object, what: str) -> None:
    """Raises a `CheckError` if two structures of arrays differ in any bit."""
    arrays = map(keras.tree.flatten, (found, expected))
    for a, b in zip(*arrays, strict=True):
        difference = np.max(np.abs(a - b), initial=0.0)
        message = f"{what}: they differ by {difference:g}."
        expect(bool(np.array_equal(a, b)), message)


def expect_close(found: np.ndarray, expected: np.ndarray, what: str) -> None:
    """Raises a `CheckError` if two arrays differ by more than rounding."""
    scale = max(float(np.abs(expected).max()), 1.0)
    difference = float(np.abs(found - expected).max())
    message = f"{what}: they differ by {difference:g}."
    expect(difference <= TOLERANCE * scale, message)


def reloaded(model: keras.Model) -> keras.Model:
    """Saves a model and returns it loaded again, in safe mode."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        return cast(keras.Model, keras.saving.load_model(path))


def outputs(model: keras.Model, inputs: object) -> Any:
    """Returns the outputs of a model in inference mode, as arrays."""
    return keras.tree.map_structure(
        keras.ops.convert_to_numpy, model(inputs, training=False)
    )
