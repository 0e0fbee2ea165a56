"""Trains and saves models where Keras 3.15.1 has no public way to."""

import io
from collections.abc import Callable

from keras.src.backend.common import global_state
from keras.src.utils import io_utils


def is_writing_hdf5_model() -> bool:
    """Whether Keras is writing a whole model in its older format.

    `keras.saving.save_model` asks the model for nothing but its config, in a
    scope that it sets for this format alone.
    """
    return bool(global_state.get_global_attribute("use_legacy_config"))


def ask_to_overwrite(path: str) -> bool:
    """Asks the user, as Keras does, whether a file may be replaced."""
    return bool(io_utils.ask_to_proceed_with_overwrite(path))


class _WeightsFile(io.BytesIO):
    """A file in memory; Keras looks at the name that its path ends in."""

    def __str__(self) -> str:
        return "memory.weights.h5"


def weights_file_in_memory(
    save_weights: Callable[[io.BytesIO], None],
) -> memoryview:
    """Returns the bytes of the file that a model's `save_weights` writes.

    Keras takes a path only. On a full disk, h5py 3.14 ends the process where
    it closes a file that it could not write.
    """
    file = _WeightsFile()
    save_weights(file)
    return file.getbuffer()
