"""Tells inputs of other shapes or names than a cascade has.

Tested by `tests/behaviour/test_mistakes.py`.
"""

import warnings
from collections.abc import Mapping
from typing import Any

import keras

from keras_cascade._reporting.messages import listed
from keras_cascade.data.inputs import check_strings, fit_last_axis, input_paths

_Shape = tuple[int | None, ...]


class ExpectedInputs:
    """The inputs that a model takes.

    Args:
        model: The model.
    """

    def __init__(self, model: keras.Model):
        structure = model.input
        self._name = model.name
        self._shapes = {x.name: tuple(x.shape) for x in model.inputs}
        self._inputs = list(model.inputs)
        self._keys = list(structure) if isinstance(structure, Mapping) else None
        self._ordered = input_paths(structure).takes_lists
        self._said = False

    def arranged(self, given: Any) -> Any:
        """Returns inputs in the structure that the model takes.

        Args:
            given: The inputs as Keras takes them; of a dict, other keys are
                left out, after a warning.

        Raises:
            ValueError: An input has another shape than the model takes, or
                is of strings, and the backend has none.
        """
        arranged = self._by_key(given)
        flat = keras.tree.flatten(arranged)
        if not is_symbolic(flat):
            check_strings(self._inputs)
        without_names = isinstance(given, list | tuple) and len(flat) > 1
        if len(flat) == len(self._shapes):
            for x, name in zip(flat, self._shapes, strict=True):
                if hasattr(x, "shape"):
                    self._check(name, x, without_names)
        return arranged

    def _by_key(self, given: Any) -> Any:
        keys = self._keys
        if keys is None:
            return given
        if isinstance(given, list | tuple):
            # Of other orders Keras could mean either: the block refuses them.
            in_order = self._ordered and len(given) == len(keys)
            return dict(zip(keys, given, strict=True)) if in_order else given
        if not isinstance(given, Mapping) or any(k not in given for k in keys):
            return given
        self._warn_of([key for key in given if key not in keys])
        return {key: given[key] for key in keys}

    def _warn_of(self, others: list[Any]) -> None:
        if others and not self._said:
            self._said = True
            warnings.warn(
                f"The data have {listed(others)}, which the cascade "
                f"'{self._name}' does not read: its inputs are "
                f"{listed(self._keys or ())}.",
                stacklevel=4,
            )

    def _check(self, name: str, x: Any, without_names: bool) -> None:
        wanted = self._shapes[name]
        try:
            shape: _Shape = tuple(x.shape)
        except ValueError:  # of unknown rank, on TensorFlow
            return
        if _fits(tuple(fit_last_axis(x, wanted).shape[1:]), wanted[1:]):
            return
        names = listed(self._shapes)
        order = f" Arrays without names come in the order {names}."
        raise ValueError(
            f"The data of input '{name}' are samples of shape {shape[1:]}, and "
            f"the cascade '{self._name}' takes {wanted[1:]}."
            f"{_hint(shape, wanted)}{order * without_names}"
        )


def is_symbolic(inputs: Any) -> bool:
    """Returns whether there are symbolic tensors among inputs."""
    leaves = keras.tree.flatten(inputs)
    return any(isinstance(x, keras.KerasTensor) for x in leaves)


def _fits(given: _Shape, wanted: _Shape) -> bool:
    return len(given) == len(wanted) and all(
        None in (a, b) or a == b for a, b in zip(given, wanted, strict=True)
    )


def _hint(shape: _Shape, wanted: _Shape) -> str:
    """Returns what to do about a shape that is often met."""
    given, inner = shape[1:], wanted[1:]
    if _fits(shape, inner):
        return " This is one sample; a batch of it is x[None]."
    if len(inner) < 2:
        return ""
    if len(given) == len(inner) and _fits((*given[1:], given[0]), inner):
        return " The channels come first: np.moveaxis(x, 1, -1) moves them."
    if len(given) == len(inner) and _fits((given[-1], *given[:-1]), inner):
        return " The channels come last: np.moveaxis(x, -1, 1) moves them."
    for axis in (-1, 0):
        if found := _about_channels(given, inner, axis):
            return found
    sizes = len(inner) == 3 and len(given) == 3
    return " keras.layers.Resizing brings images to a size." * sizes


def _about_channels(given: _Shape, inner: _Shape, axis: int) -> str:
    """Returns a hint if nothing but the number of channels differs."""
    wanted, at = inner[axis], -1 if axis else 1
    if len(given) == len(inner) - 1 and _fits(given, _without(inner, axis)):
        return _repeated(f"np.expand_dims(x, {at})", wanted, at)
    if len(given) != len(inner):
        return ""
    if not _fits(_without(given, axis), _without(inner, axis)):
        return ""
    match given[axis], wanted:
        case 1, int():
            return _repeated("x", wanted, at)
        case 4, 3:
            return " Without the channel of opacity: " + (
                "x[..., :3]." if axis else "x[:, :3]."
            )
        case 3, 1:
            return f" Grey images: x.mean({at}, keepdims=True)."
    return ""


def _without(shape: _Shape, axis: int) -> _Shape:
    return shape[:-1] if axis else shape[1:]


def _repeated(x: str, channels: int | None, axis: int) -> str:
    how = f"np.repeat({x}, {channels}, {axis})"
    return f" Grey images as images of {channels} channels: {how}."
