"""Trains and saves models where Keras 3.15.1 has no public way to."""

import io
import zipfile
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import h5py
import keras
from keras.src.backend.common import global_state
from keras.src.saving import saving_lib
from keras.src.saving.keras_saveable import KerasSaveable
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
    try:
        save_weights(file)
    finally:
        _close_hdf5(file)
    return file.getbuffer()


def _close_hdf5(file: io.BytesIO) -> None:
    """Closes what Keras 3.15.1 leaves open after an error.

    At the end of the process HDF5 would write to a file that is gone.
    """
    name = repr(file).encode()
    for found in h5py.h5f.get_obj_ids(types=h5py.h5f.OBJ_FILE):
        if found.name == name:
            h5py.File(found).close()


class _View(KerasSaveable):
    """Has the layers that Keras saves, and loads, in their order."""

    built = True

    def __init__(self) -> None:
        self.layers: list[KerasSaveable] = []

    def _obj_type(self) -> str:
        return "Functional"


class _OwnVariables(_View):
    """Has the variables that a layer saves itself, without those inside it."""

    def __init__(self, layer: keras.Layer) -> None:
        super().__init__()
        self.save_own_variables = layer.save_own_variables
        self.load_own_variables = layer.load_own_variables


def make_view(kind: str, own: keras.Layer | None = None) -> Any:
    """Returns what Keras saves as if it were a network of a class.

    Keras names the parts of a file by the names of classes, `dense_1`, and
    numbers them in the order of `layers`; no argument gives it other ones.

    Args:
        kind: The name of the class.
        own: A layer of which only its own variables are saved. Defaults to
            `None`: nothing but the `layers`, which can be set.
    """
    bases = (_View,) if own is None else (_OwnVariables,)
    view: Any = type(kind, bases, {})
    return view() if own is None else view(own)


def is_in_weights_file(path: str, groups: Iterable[str]) -> bool:
    """Whether a file of weights has one of these groups.

    Keras's readers of its files are not public.
    """
    if path.endswith(".keras"):
        with zipfile.ZipFile(path) as archive:
            name = saving_lib._VARS_FNAME_H5
            store = saving_lib.H5IOStore(name, archive=archive, mode="r")
            return any(map(store.has_path, groups))
    sharded = path.endswith("weights.json")
    reader = saving_lib.ShardedH5IOStore if sharded else saving_lib.H5IOStore
    store = reader(path, mode="r")
    try:
        return any(map(store.has_path, groups))
    finally:
        store.close()


_KINDS = ("trainable", "non_trainable", "optimizer", "metrics")
_STATES = {
    "train_function": _KINDS,
    "test_function": ("trainable", "non_trainable", "metrics"),
    "predict_function": ("trainable", "non_trainable"),
}


def keep_arrays_of_steps(
    model: Any,
    attribute: str,
    put_off: Callable[[Callable[[], object]], Any],
) -> None:
    """Makes an interrupted step on JAX leave the model its arrays.

    Keras takes them from the variables before the first step and gives them
    back in the end, if it knows of a step that was done. `put_off` is a context
    in which interrupts wait, as the arrays that a step was given are deleted,
    and that calls its argument however the block ends.
    """
    step = getattr(model, attribute)
    if keras.config.backend() != "jax" or hasattr(step, "keeps_arrays"):
        return
    names = [f"{kind}_variables" for kind in _STATES[attribute]]

    def run(state: Any, iterator: Any) -> Any:
        latest = state

        def keep() -> None:
            model._jax_state = dict(zip(names, latest, strict=True))

        with put_off(keep):
            logs, latest = step(state, iterator)
        return logs, latest

    vars(run)["keeps_arrays"] = True
    setattr(model, attribute, run)
    vars(model)["_purge_model_variables"] = partial(_keep_values, model)


def _keep_values(model: Any, **kinds: bool) -> None:
    """Leaves the arrays in the variables until a step has deleted them.

    Keras takes them out some lines before the step.
    """
    model._jax_state = None  # of an earlier epoch


def give_arrays_back(model: Any) -> None:
    """Gives the arrays of the last step on JAX back to the variables.

    After `fit` Keras does so itself, after an interrupted `evaluate` not.
    """
    if keras.config.backend() == "jax":
        model.jax_state_sync()


def drop_parallel_wrapper(model: keras.Model) -> None:
    """Has Keras wrap a model for data parallelism again, for the flags of now.

    From 3.16 on Keras wraps a model on torch once, in the attribute
    `ddp_model`. Torch then reduces the gradients of the weights that trained
    at the time alone: those that join would differ between processes.
    """
    if getattr(model, "ddp_model", None) is not None:
        model.__dict__["ddp_model"] = None


def never_wrap_parallel(model: keras.Model) -> None:
    """Has Keras not wrap a model that never trains, for which torch raises.

    The method is Keras 3.16's.
    """
    model.__dict__["_initialize_ddp"] = lambda: None
