"""Writes the plain model as a `.keras` file, on any backend."""

from pathlib import Path
from typing import Any


def write(model: Any, path: Path) -> None:
    """Writes what Keras loads without this package.

    Args:
        model: A cascade, whose `to_plain()` it is, or a stock model.
        path: The file.
    """
    plain = model.to_plain() if hasattr(model, "to_plain") else model
    plain.save(path)
