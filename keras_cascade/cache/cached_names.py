"""The names under which a cascade takes cached features, like inputs.

Tested by `tests/cache/test_segments.py`.
"""

from collections.abc import Mapping
from typing import TypeGuard, TypeVar

Tensor = TypeVar("Tensor")

# No input has such a name: Keras's names have no colon.
_PREFIX = "cached:"


def to_cached_names(features: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns features under the names by which a cascade knows them."""
    return {_PREFIX + name: x for name, x in features.items()}


def from_cached_names(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Returns features under their own names."""
    return {name.removeprefix(_PREFIX): x for name, x in inputs.items()}


def are_cached(inputs: object) -> TypeGuard[Mapping[str, object]]:
    """Whether the inputs of a call are cached features."""
    return (
        isinstance(inputs, Mapping)
        and bool(inputs)
        and all(isinstance(n, str) and n.startswith(_PREFIX) for n in inputs)
    )
