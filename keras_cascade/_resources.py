"""Finds the files that ship with the package, in a wheel and in a checkout."""

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent
# Where a checkout keeps what a wheel carries under `_data`, by its name there.
_IN_CHECKOUT = {
    "saved_models": Path("saved_models"),
    "benchmarks": Path("tests", "benchmarks"),
}


def folder(name: str) -> Path:
    """Finds a folder of files that ship with the package.

    Args:
        name: `"saved_models"`, the zoo's networks, or `"benchmarks"`, the
            measurements that `keras-cascade bench` runs.

    Returns:
        The existing folder.

    Raises:
        ValueError: if nothing of that name ships with the package.
        FileNotFoundError: if the installation lacks the folder.
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
    """Finds the root of the checkout that the package is imported from.

    Returns:
        The folder that holds `pyproject.toml`, or None for an installed
        wheel.
    """
    root = _PACKAGE.parent
    return root if (root / "pyproject.toml").is_file() else None
