"""Checks the paths at which cascades are to be saved.

Tested by `tests/cascade/test_saving.py`.
"""

import os
from pathlib import Path

import keras

from keras_cascade.graph.block import NO_HDF5
from keras_cascade.training.fit_callbacks import Callbacks, as_list

FilePath = str | os.PathLike[str]
WEIGHTS = ".weights.h5"


def check_format(filepath: FilePath) -> None:
    """Raises a ValueError for a path at which no cascade can be saved.

    Args:
        filepath: The path of a whole model.
    """
    path = str(filepath)
    if path.endswith(".keras") or path.startswith("hf://"):
        return
    is_hdf5 = path.endswith((".h5", ".hdf5"))
    stem = path.removesuffix(Path(path).suffix) if is_hdf5 else path
    raise ValueError(
        f"{NO_HDF5 if is_hdf5 else 'A cascade is saved as a .keras file.'} "
        f"Received '{path}'. Save it as '{stem}.keras'; "
        f"save_weights('{stem}{WEIGHTS}') writes the weights alone."
    )


def check_checkpoints(callbacks: Callbacks) -> None:
    """Raises a ValueError for a `ModelCheckpoint` that would save nowhere."""
    # Now, and not when an epoch has been trained.
    for callback in as_list(callbacks):
        if (
            isinstance(callback, keras.callbacks.ModelCheckpoint)
            and not callback.save_weights_only
        ):
            check_format(callback.filepath)
