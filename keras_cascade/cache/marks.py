"""How cached features are told from a cascade's inputs: by their names."""

from collections.abc import Iterable, Mapping
from typing import Any

# No input has such a name: Keras's names hold no colon.
MARK = "cached:"


def mark(features: Mapping[str, Any]) -> dict[str, Any]:
    """Features by the names that a cascade knows them by."""
    return {MARK + name: x for name, x in features.items()}


def is_marked(inputs: Any) -> bool:
    """Whether inputs are features that were marked."""
    return isinstance(inputs, Mapping) and _all_marked(inputs)


def unmark(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The features by their own names."""
    return {name.removeprefix(MARK): x for name, x in inputs.items()}


def _all_marked(names: Iterable[Any]) -> bool:
    found = [isinstance(n, str) and n.startswith(MARK) for n in names]
    return bool(found) and all(found)
