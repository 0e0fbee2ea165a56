"""Finds the files that ship with the package, in a wheel and in a checkout."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parents[1]
# Each folder of a wheel's `_data`, and its path in a checkout.
_IN_CHECKOUT = {
    "saved_models": Path("saved_models"),
    "benchmarks": Path("tests", "benchmarks"),
}


def folder(name: str) -> Path:
    """Returns a folder of files that ship with the package.

    Args:
        name: `"saved_models"`, the zoo's networks, or `"benchmarks"`, the
            measurements that `keras-cascade bench` runs.

    Raises:
        ValueError: If nothing of that name ships with the package.
        FileNotFoundError: If the installation lacks the folder.
    """
    if name not in _IN_CHECKOUT:
        raise ValueError(
            f"No folder {name!r} ships with keras_cascade. There are: "
            f"{', '.join(map(repr, _IN_CHECKOUT))}."
        )
    root = checkout()
    path = root / _IN_CHECKOUT[name] if root else _PACKAGE / "_data" / name
    if not path.is_dir():
        raise FileNotFoundError(
            f"keras_cascade's folder {name!r} is missing at {path}. "
            "Install the package again."
        )
    return path


def checkout() -> Path | None:
    """Returns the checkout that the package is in; None for a wheel."""
    root = _PACKAGE.parent
    return root if (root / "pyproject.toml").is_file() else None
