"""Counts the steps of each variable: those in which it was trained.

An optimizer has one counter for all. A variable that joins late is told apart
by the step at which it began: its own steps are the optimizer's less that. At
rest, while it is frozen, the number of its steps is kept instead.
"""

from collections.abc import Sequence

import numpy as np

# No step yet, and not training: see `began_at`.
AT_REST = -1


def began_at(
    before: np.ndarray, step: int, trains: Sequence[bool]
) -> np.ndarray:
    """When each variable began, after some come to rest or start again.

    Args:
        before: For each variable the step at which it began, moved back by
            the steps in which it rested; at rest `-1 - n`, after n steps.
        step: The optimizer's present step.
        trains: Which of them train from now on.

    Returns:
        The same for now.

    Example:
    >>> began_at(np.array([0, -1]), 100, [False, True])
    array([-101,  100])
    """
    own_steps = np.where(before < 0, AT_REST - before, step - before)
    return np.where(trains, step - own_steps, AT_REST - own_steps)
