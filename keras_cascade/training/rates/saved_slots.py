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
from keras_cascade._messages import listed
from keras_cascade.training.rates.step_counts import AT_REST

_LAYOUT = "layout"
_BEGAN_AT = "began_at"
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
    """Returns the layout of a store; None if an earlier version wrote it."""
    # Keras's stores are no mappings.
    if _LAYOUT not in list(store.keys()):
        return None
    read = json.loads(np.asarray(store[_LAYOUT]).tobytes())
    return Layout(read["variables"], [tuple(slot) for slot in read["slots"]])


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
    if slots.keys() - saved.keys():
        fresh = _by_name(build_anew(variables))
        for name in slots.keys() - saved.keys():
            slots[name].assign(fresh[name].value)
    for name in slots.keys() & saved.keys():
        slots[name].assign(store[saved[name]])
    steps = store[saved[_BEGAN_AT, None]].tolist()
    began = dict(zip(layout.variables, steps, strict=True))
    values = [began.pop(path, AT_REST) for path in _paths(variables)]
    vars(optimizer)[_BEGAN_AT].assign(values)
    _warn_of_unknown(began)


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
