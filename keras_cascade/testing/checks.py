"""What the checks have in common."""

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

# Of float32 rounding, relative to the largest value.
TOLERANCE = 1e-5


class CheckError(Exception):
    """A check did not hold; the message says which, and what was found."""


def run(checks: Sequence[Callable[..., None]], *arguments: Any) -> list[str]:
    """Runs checks in order.

    Returns:
        Their names.

    Raises:
        CheckError: From the first that does not hold.
    """
    for check in checks:
        check(*arguments)
    return [check.__name__ for check in checks]


def expect(holds: bool, message: str) -> None:
    """Raises a `CheckError` where something does not hold."""
    if not holds:
        raise CheckError(message)


def expect_equal(found: Any, expected: Any, what: str) -> None:
    """Raises a `CheckError` where two structures of arrays differ at all."""
    pairs = zip(
        keras.tree.flatten(found), keras.tree.flatten(expected), strict=True
    )
    for a, b in pairs:
        difference = np.max(np.abs(a - b), initial=0.0)
        expect(
            bool(np.array_equal(a, b)),
            f"{what}: they differ by {difference:g}.",
        )


def expect_close(found: np.ndarray, expected: np.ndarray, what: str) -> None:
    """Raises a `CheckError` where arrays differ by more than rounding."""
    scale = max(float(np.abs(expected).max()), 1.0)
    difference = float(np.abs(found - expected).max())
    expect(
        difference <= TOLERANCE * scale,
        f"{what}: they differ by {difference:g}.",
    )


def reloaded(model: keras.Model) -> keras.Model:
    """The model after it was saved and loaded, in safe mode."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        again: Any = keras.saving.load_model(path)
        return again


def outputs(model: keras.Model, inputs: Any) -> Any:
    """What a model answers in inference mode, as arrays."""
    return keras.tree.map_structure(
        keras.ops.convert_to_numpy, model(inputs, training=False)
    )
