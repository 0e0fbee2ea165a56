"""Saves the slots of an optimizer with the paths of their variables.

Keras numbers slots in files, and skips all of them where their number is not
that of the optimizer: so it is with a file of another stage.
"""

import json
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_cascade._keras_compat import optimizers as compat
from keras_cascade._reporting.messages import listed
from keras_cascade.graph.stored_values import read_value
from keras_cascade.training.rates.step_counts import AT_REST

_LAYOUT = "layout"
_BEGAN_AT = "began_at"
_OWNER = "The optimizer's slots"
_WHAT_TO_DO = (
    "The file is damaged, or not written by keras_cascade; weights alone load "
    "into a cascade that is not compiled."
)
# An attribute of the optimizer, and the path of a variable or None.
_Name = tuple[str, str | None]


class Layout(NamedTuple):
    """The order of slots in a file.

    Attributes:
        variables: The paths of the variables, in the order of `began_at`.
        slots: For each number in the file the attribute that has the slot,
            and the number of its variable; None for what all share.
    """

    variables: list[str]
    slots: list[tuple[str, int | None]]

    def problem(self, keys: Sequence[str]) -> str | None:
        """Returns what is wrong with it, in a store of these keys, or None."""
        paths, places = self.variables, range(len(self.variables))
        if not all(isinstance(path, str) for path in paths):
            return "its layout has paths that are no text"
        if not all(
            isinstance(name, str)
            and (i is None or (type(i) is int and i in places))
            for name, i in self.slots
        ):
            return "its layout has slots of variables that it does not name"
        if len(set(paths)) < len(paths) or len(set(self.slots)) < len(
            self.slots
        ):
            return "its layout names something twice"
        if (_BEGAN_AT, None) not in self.slots:
            return f"its layout does not say where '{_BEGAN_AT}' is"
        missing = [x for x in map(str, range(len(self.slots))) if x not in keys]
        return f"it lacks {listed(missing[:5])}" if missing else None

    def in_words_of(self, known: Sequence[str]) -> "Layout":
        """Returns the layout with the paths that a model has.

        As many as are left over on both sides are the same in another order
        of names: weights without names are numbered by the process.
        """
        own = [path for path in self.variables if path not in known]
        others = [path for path in known if path not in self.variables]
        if len(own) != len(others):
            return self
        renamed = dict(zip(own, others, strict=True))
        return self._replace(
            variables=[renamed.get(path, path) for path in self.variables]
        )


def write_layout(
    store: Any,
    optimizer: keras.optimizers.Optimizer,
    saved: Sequence[keras.Variable],
) -> None:
    """Adds the layout to a store that has the values of `saved` by number."""
    variables = compat.built_for(optimizer)
    number = {id(variable): i for i, variable in enumerate(variables)}
    places: dict[int, tuple[str, int | None]] = {
        id(slot): (attribute, None if key is None else number[key])
        for (attribute, key), slot in compat.slots(optimizer).items()
    }
    places[id(vars(optimizer)[_BEGAN_AT])] = (_BEGAN_AT, None)
    # An optimizer may keep a slot where nobody finds it: then numbers count.
    if all(id(slot) in places for slot in saved):
        layout = Layout(_paths(variables), [places[id(x)] for x in saved])
        text = json.dumps(layout._asdict()).encode()
        store[_LAYOUT] = np.frombuffer(text, "uint8")


def read_layout(store: Any) -> Layout | None:
    """Returns the layout of a store; None if an earlier version wrote it.

    Raises:
        ValueError: If there is one that was not written so.
    """
    # Keras's stores are no mappings.
    keys = list(store.keys())
    if _LAYOUT not in keys:
        return None
    try:
        layout = _parse(np.asarray(store[_LAYOUT]))
    except (KeyError, RecursionError, TypeError, ValueError) as error:
        reason = f"its layout cannot be read ({error})"
        raise ValueError(f"{_OWNER}: {reason}. {_WHAT_TO_DO}") from error
    if reason := layout.problem(keys):
        raise ValueError(f"{_OWNER}: {reason}. {_WHAT_TO_DO}")
    return layout


def _parse(content: np.ndarray) -> Layout:
    if content.dtype != np.uint8 or content.ndim != 1:
        raise ValueError(f"{content.dtype} of shape {content.shape}")
    read = json.loads(content.tobytes())
    return Layout(
        list(read["variables"]), [(name, i) for name, i in read["slots"]]
    )


def load_slots(
    store: Any,
    layout: Layout,
    optimizer: keras.optimizers.Optimizer,
    build_anew: Callable[[list[keras.Variable]], keras.optimizers.Optimizer],
) -> None:
    """Loads slots by the paths of their variables.

    Slots that the file lacks are as before the first step, as they were when
    it was written. It warns of slots for variables that are unknown.
    """
    variables = compat.built_for(optimizer)
    layout = layout.in_words_of(_paths(variables))
    slots, saved = _by_name(optimizer), _saved_by_name(store, layout)
    # All is read before anything changes.
    values = {
        name: read_value(store, saved[name], slots[name], _OWNER)
        for name in slots.keys() & saved.keys()
    }
    began = _read_steps(store, saved[_BEGAN_AT, None], layout)
    if slots.keys() - saved.keys():
        fresh = _by_name(build_anew(variables))
        for name in slots.keys() - saved.keys():
            slots[name].assign(fresh[name].value)
    for name, value in values.items():
        slots[name].assign(value)
    steps = [began.pop(path, AT_REST) for path in _paths(variables)]
    vars(optimizer)[_BEGAN_AT].assign(steps)
    _warn_of_unknown(began)


def _read_steps(store: Any, key: str, layout: Layout) -> dict[str, int]:
    """Returns the steps at which variables joined, by their paths."""
    steps = np.asarray(store[key])
    if steps.shape != (len(layout.variables),) or steps.dtype.kind not in "iu":
        raise ValueError(
            f"{_OWNER}: '{_BEGAN_AT}' is {steps.dtype} of shape "
            f"{steps.shape}, for {len(layout.variables)} variables. "
            f"{_WHAT_TO_DO}"
        )
    return dict(zip(layout.variables, steps.tolist(), strict=True))


def _warn_of_unknown(steps: Mapping[str, int]) -> None:
    if steps:
        warnings.warn(
            f"The file has the optimizer's slots of {listed(steps)}, which the "
            "cascade does not have: they are not loaded.",
            stacklevel=2,
        )


def _by_name(
    optimizer: keras.optimizers.Optimizer,
) -> dict[_Name, keras.Variable]:
    variables = compat.built_for(optimizer)
    paths = dict(zip(map(id, variables), _paths(variables), strict=True))
    return {
        (attribute, None if key is None else paths[key]): slot
        for (attribute, key), slot in compat.slots(optimizer).items()
    }


def _saved_by_name(store: Any, layout: Layout) -> dict[_Name, str]:
    """Returns the numbers of slots in a store."""
    return {
        (name, None if i is None else layout.variables[i]): str(number)
        for number, (name, i) in enumerate(layout.slots)
    }


def _paths(variables: Sequence[keras.Variable]) -> list[str]:
    """Returns the paths of variables, numbered where two have the same."""
    seen: dict[str, int] = {}
    paths = []
    for variable in variables:
        count = seen[variable.path] = seen.get(variable.path, 0) + 1
        paths.append(
            variable.path if count == 1 else f"{variable.path}:{count}"
        )
    return paths
