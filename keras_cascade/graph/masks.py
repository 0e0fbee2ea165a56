"""Passes Keras's masks from one tensor to another.

Tested by `tests/graph/test_as_input.py`.
"""

from collections.abc import Mapping
from typing import Any

from keras_cascade import _keras_compat as compat


def masks_of(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the masks of those tensors that have one, by name."""
    masks = {name: compat.keras_mask(x) for name, x in tensors.items()}
    return {name: mask for name, mask in masks.items() if mask is not None}


def copy_mask(source: Any, target: Any) -> Any:
    """Returns `target` with the mask of `source`, if that has one."""
    mask = compat.keras_mask(source)
    if mask is not None:
        compat.set_keras_mask(target, mask)
    return target
