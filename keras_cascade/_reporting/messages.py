"""Writes names for error messages, and values as JSON.

Tested by `tests/behaviour/test_bad_input.py` and `tests/cli/test_entry.py`.
"""

import difflib
import json
import math
from collections.abc import Iterable, Mapping
from typing import Any


def listed(names: Iterable[object]) -> str:
    """Returns `'a', 'b'` for an error message, or `none`."""
    return ", ".join(f"'{name}'" for name in names) or "none"


def closest(wanted: str, possible: Iterable[str]) -> str:
    """Returns ` Closest: 'a', 'b'.` for an error message, or nothing.

    Args:
        wanted: The name that was not found.
        possible: The names that there are, at most three of which are
            suggested: the most similar ones, upper case or lower, or else
            those that contain `wanted`.
    """
    by_lower = {name.lower(): name for name in possible}
    lower = wanted.lower()
    found = difflib.get_close_matches(lower, by_lower, n=3, cutoff=0.5)
    found = found or [name for name in by_lower if lower in name][:3]
    return f" Closest: {listed(by_lower[x] for x in found)}." if found else ""


def in_bytes(count: float) -> str:
    """Returns a number of bytes as text, such as `1.5 MB`."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"


def to_json(value: object) -> str:
    """Returns a value as JSON text, in which NaN and infinity are null."""
    return json.dumps(finite(value), indent=2, allow_nan=False)


def finite(value: object) -> Any:
    """Returns a value of plain dicts and lists with None for NaN and infinity.

    JSON has no word for them, and a wrong file may differ by infinity.
    """
    if isinstance(value, Mapping):
        return {str(name): finite(x) for name, x in value.items()}
    if isinstance(value, list | tuple):
        return [finite(x) for x in value]
    odd = isinstance(value, float) and not math.isfinite(value)
    return None if odd else value
