"""Counts the steps in which each variable of an optimizer was trained.

An optimizer has one counter. A variable that joins late is described by the
step at which it began: its own steps are the optimizer's less that. While it
is frozen, the number of its steps is kept instead.

Tested by `tests/training/rates/test_blockwise_optimizer.py`.
"""

from collections.abc import Sequence

import numpy as np

# No step yet, and not training: see `began_at`.
AT_REST = -1


def began_at(
    before: np.ndarray, step: int, trains: Sequence[bool]
) -> np.ndarray:
    """Returns when each variable began, after some were frozen or unfrozen.

    Args:
        before: The previous values: the step at which a variable began, moved
            later by the steps in which it was frozen; while it is frozen
            `-1 - n`, after n steps of its own.
        step: The optimizer's present step.
        trains: For each variable whether it trains from now on.

    Example:
    >>> began_at(np.array([0, -1]), 100, [False, True])
    array([-101,  100])
    """
    own_steps = np.where(before < 0, AT_REST - before, step - before)
    return np.where(trains, step - own_steps, AT_REST - own_steps)
