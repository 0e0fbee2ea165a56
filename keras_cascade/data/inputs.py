"""Sorts a batch by the names of a model's inputs, and fits arrays to them.

Everything that reads the user's data for a model takes a batch in the forms,
and its arrays in the ranks, that Keras's own `fit` and `predict` take.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_cascade._keras_compat import input_name
from keras_cascade._reporting.messages import listed

# The keys that lead to an input in the structure that a model takes.
KeyPath = tuple[Any, ...]


class InputPaths(dict[str, KeyPath]):
    """The keys of each input of a model, by the input's name.

    Attributes:
        takes_lists: Whether the order of arrays without names is clear. Keras
            refuses a list for a dict whose keys are not in sorted order: it
            might be meant in the order of the dict, and is taken in the other.
    """

    def __init__(self, paths: Mapping[str, KeyPath], takes_lists: bool = True):
        super().__init__(paths)
        self.takes_lists = takes_lists


def input_paths(structure: Any) -> InputPaths:
    """Returns the keys of each input in `model.input`, by the input's name.

    Any structure of objects with names will do. Without dict, they are keys.
    """
    leaves = keras.tree.flatten_with_path(structure)
    by_key = isinstance(structure, Mapping)
    named = [(input_name(x), path) for path, x in leaves]
    paths = {name: path if by_key else (name,) for name, path in named}
    return InputPaths(paths, not by_key or [*structure] == sorted(structure))


def sort_inputs(
    batch: object,
    inputs: InputPaths,
    what: str,
    needed: Iterable[str] | None = None,
    alone: bool = False,
) -> dict[str, Any]:
    """Returns the arrays of a batch by the names of a model's inputs.

    Args:
        batch: A dict by the keys that the model takes, or by the names of its
            inputs, in which more may stand; or an array, or any structure of
            arrays in the order of the inputs, if Keras takes one.
        inputs: The keys of all inputs of the model, from `input_paths`.
        what: What the batch was passed as, for the error.
        needed: The names of the inputs to return; a dict may lack the others.
            Defaults to `None`: all.
        alone: Whether a batch without names may have the needed inputs only.
            Defaults to `False`.

    Raises:
        ValueError: An input is missing, or the arrays without names are not
            as many as the inputs, or their order is not clear.

    Example:
    >>> inputs = {"image": keras.Input((2,), name="image")}
    >>> sort_inputs([1], input_paths(inputs), "x")
    {'image': 1}
    """
    keys = {n: inputs[n] for n in (inputs if needed is None else needed)}
    if not isinstance(batch, Mapping):
        return _sort_unnamed(
            keras.tree.flatten(batch), inputs, what, keys, alone
        )
    found = dict(keras.tree.flatten_with_path(dict(batch)))
    # Either all by key or all by name: in a model of {"a": Input(name="b"),
    # "b": Input(name="a")} a mixture would swap them.
    for paths in (keys, {name: (name,) for name in keys}):
        if all(path in found for path in paths.values()):
            return {name: found[path] for name, path in paths.items()}
    missing = [path for path in keys.values() if path not in found]
    received = f"{_shown(found)} and lacks {_shown(missing)}"
    raise _mismatch(what, received, keys.values())


def check_strings(inputs: Iterable[Any]) -> None:
    """Raises a ValueError for inputs of strings where the backend has none."""
    backend = keras.config.backend()
    texts = [input_name(x) for x in inputs if x.dtype == "string"]
    if texts and backend != "tensorflow":
        raise ValueError(
            f"Input '{texts[0]}' takes strings, which Keras has on the "
            f"TensorFlow backend alone; the running backend is {backend}. Set "
            "KERAS_BACKEND=tensorflow before Keras is imported, or look up the "
            "words before the network. Saving and exporting work here too."
        )


def as_input(x: np.ndarray, shape: Sequence[int | None], dtype: str) -> Any:
    """Returns an array in the rank and dtype in which a Functional runs it."""
    numpy_s = "object" if dtype == "string" else dtype
    return fit_last_axis(x, shape).astype(numpy_s, copy=False)


def fit_last_axis(x: Any, shape: Sequence[int | None]) -> Any:
    """Returns an array or tensor with a last axis of one added or removed.

    A Functional does so where the rank of an array is one off.
    """
    rank = len(x.shape)
    if rank == len(shape) + 1 and x.shape[-1] == 1:
        return x[..., 0]
    if 0 < rank == len(shape) - 1 and shape[-1] == 1:
        return x[..., None]
    return x


def check_shape(
    x: Any, shape: Sequence[int | None], name: str, what: str
) -> None:
    """Raises a ValueError if an array has another shape than its input.

    The batch sizes are not compared.
    """
    wanted, received = tuple(shape[1:]), tuple(x.shape[1:])
    fits = len(wanted) == len(received) and all(
        size in (None, given)
        for size, given in zip(wanted, received, strict=True)
    )
    if not fits:
        raise ValueError(
            f"{what}: input '{name}' has samples of shape {received}, the "
            f"model takes {wanted}."
        )


def _sort_unnamed(
    leaves: Sequence[Any],
    inputs: InputPaths,
    what: str,
    keys: Mapping[str, KeyPath],
    alone: bool,
) -> dict[str, Any]:
    """Returns arrays without names by the names of the inputs in `keys`."""
    names = list(keys if alone and len(leaves) == len(keys) else inputs)
    received = f"{len(leaves)} arrays without names"
    if len(leaves) != len(names):
        raise _mismatch(what, received, [inputs[name] for name in names])
    if len(leaves) > 1 and not inputs.takes_lists:
        received += (
            ", and the keys are not in sorted order, in which Keras would take "
            "them"
        )
        raise _mismatch(what, received, inputs.values())
    by_name = dict(zip(names, leaves, strict=True))
    return {name: by_name[name] for name in keys}


def _mismatch(
    what: str, received: str, possible: Iterable[KeyPath]
) -> ValueError:
    return ValueError(
        f"{what} does not fit the inputs of the model, {_shown(possible)}: it "
        f"has {received}. Pass a dict with an array for each."
    )


def _shown(paths: Iterable[KeyPath]) -> str:
    return listed("/".join(map(str, path)) for path in paths)
