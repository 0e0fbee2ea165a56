"""Tells ints and finite numbers, of Python and NumPy, from other arguments.

Tested by `tests/adapters/test_label_map.py` and `tests/adapters/test_pca.py`.
"""

import math
from typing import TypeGuard

import numpy as np


def is_int(value: object) -> TypeGuard[int]:
    """Whether a value is an int; a bool is none, as it is a mistake."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_finite(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number."""
    number = isinstance(value, int | float | np.integer | np.floating)
    return number and math.isfinite(value)
