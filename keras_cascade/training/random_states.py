"""Restores the random states of the process.

Tested by `tests/training/range_test/test_finder.py`.
"""

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

from keras_cascade import _keras_compat as compat


@contextmanager
def preserve_random_states() -> Iterator[None]:
    """Restores every global random state on exit, also after an error.

    These are Python's (from which Keras draws default seeds), NumPy's,
    Keras's, and torch's where it is imported (from which unseeded Dropout
    draws on that backend).
    """
    python, numpy = random.getstate(), np.random.get_state()
    seed = compat.global_seed()
    torch = sys.modules.get("torch")
    with_gpus = torch is not None and torch.cuda.is_available()
    on_cpu = None if torch is None else torch.get_rng_state()
    on_gpus = torch.cuda.get_rng_state_all() if torch and with_gpus else None
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        compat.set_global_seed(seed)
        if torch is not None:
            torch.set_rng_state(on_cpu)
        if torch and with_gpus:
            torch.cuda.set_rng_state_all(on_gpus)
