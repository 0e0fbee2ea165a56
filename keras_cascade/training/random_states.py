"""Keeps what draws random numbers in the process where it was."""

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from keras_cascade import _keras_compat as compat


@contextmanager
def preserve_random_states() -> Iterator[None]:
    """Leaves every global random state as it found it, also after an error.

    These are Python's (from which Keras draws default seeds), NumPy's,
    Keras's, and torch's where it is imported (from which unseeded Dropout
    draws on that backend).
    """
    states = random.getstate(), np.random.get_state(), compat.global_seed()
    torch_states = _torch_states()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        compat.set_global_seed(states[2])
        _set_torch_states(torch_states)


def _torch_states() -> Any:
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    on_gpus = torch.cuda.is_available()
    gpus = torch.cuda.get_rng_state_all() if on_gpus else None
    return torch.get_rng_state(), gpus


def _set_torch_states(states: Any) -> None:
    if states is None:
        return
    torch = sys.modules["torch"]
    torch.set_rng_state(states[0])
    if states[1] is not None:
        torch.cuda.set_rng_state_all(states[1])
