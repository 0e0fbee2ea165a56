"""The code and the values that an operation reaches beside its config.

Keras's own layers are what their config says, but for functions and layers of
the user that they hold, and for what they save beside their weights. Layers of
the user are what their classes and attributes say.

Tested by `tests/cache/contents/test_operations.py`.
"""

import functools
import hashlib
import tempfile
import types
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import keras

from keras_cascade import _keras_compat as compat
from keras_cascade.cache.contents.origins import (
    release_of_class,
    release_of_function,
)
from keras_cascade.cache.contents.values import (
    Described,
    Describer,
    Description,
    cells,
    unique_token,
)

States = dict[str, Described]
# Stands for code of the user.
_OWN = object()
# The places that the code of an operation was seen to change by running.
_WRITTEN: weakref.WeakKeyDictionary[object, set[str]] = (
    weakref.WeakKeyDictionary()
)


def describe_code(
    operation: object, key: str | None = None
) -> tuple[Described, Description]:
    """Describes what an operation reaches beside its config and weights.

    Args:
        operation: The operation.
        key: A name by which the user says that compiled code is the same.
            Defaults to `None`.

    Returns:
        None for an operation that its config says all of, else a description
        for JSON; and the object that has its states.
    """
    made = Description(_WRITTEN.get(operation, ()), key, _SPECIAL)
    if not holds_own_code(operation):
        return None, made
    # Hashed as weights already.
    for number, variable in enumerate(getattr(operation, "variables", ())):
        made.know(variable, f"weight {number}")
    described = made.of(operation, "")
    return [described, sorted(made.states.items())], made


def states_of(operations: Iterable[object]) -> list[States]:
    """Returns the values that the code of operations may change, as now."""
    return [describe_code(x)[1].states for x in operations]


def note_written(operations: Iterable[object], before: list[States]) -> bool:
    """Notes the values that operations changed by running.

    A counter of calls is no reason to compute features again.

    Returns:
        Whether there were any.
    """
    found = False
    for operation, old in zip(operations, before, strict=True):
        new = describe_code(operation)[1].states
        places = {x for x in old.keys() | new.keys() if _differ(x, old, new)}
        found |= bool(places)
        if places:
            _WRITTEN[operation] = _WRITTEN.get(operation, set()) | places
    return found


def holds_own_code(x: object, seen: set[int] | None = None) -> bool:
    """Whether a value has code, or state, that no config tells."""
    seen = set() if seen is None else seen
    if x is _OWN or id(x) in seen:
        return x is _OWN
    seen.add(id(x))
    return any(holds_own_code(part, seen) for part in _parts(x))


def _parts(x: object) -> Iterable[object]:
    """Returns what may hold code in a value; `_OWN` for code of the user."""
    if isinstance(x, types.FunctionType):
        return cells(x).values() if release_of_function(x) else [_OWN]
    if isinstance(x, type):
        return [] if release_of_class(x) else [_OWN]
    if isinstance(x, types.MethodType):
        return [x.__func__, x.__self__]
    if isinstance(x, functools.partial):
        return [x.func, x.args, x.keywords]
    if isinstance(x, Mapping):
        return x.values()
    if isinstance(x, (list, tuple, set, frozenset)):
        return x
    return _parts_of_object(x)


def _parts_of_object(x: object) -> Iterable[object]:
    if keras.ops.is_tensor(x) or isinstance(x, keras.Variable):
        return []
    if release_of_class(type(x)) is None or saves_assets(x):
        return [_OWN]
    if isinstance(x, keras.Operation):
        return [type(x).call, *_attributes(x).values()]
    if callable(x):
        inner = getattr(x, "__dict__", {})
        return [*inner.values(), getattr(x, "__wrapped__", None)]
    return []


def _describe(
    made: Description, operation: keras.Operation, place: str
) -> Described:
    """Describes an operation by class, config, attributes and files."""
    attributes = _attributes(operation)
    if release_of_class(type(operation)):
        attributes = {
            name: value
            for name, value in attributes.items()
            if holds_own_code(value)
        }
    return [
        made.of(type(operation), place),
        made.of(type(operation).call, place),
        _config(made, operation, place),
        made.attributes(attributes, place or type(operation).__qualname__),
        _assets(operation) if saves_assets(operation) else None,
    ]


def _config(
    made: Description, operation: keras.Operation, place: str
) -> Described:
    # The config of the operation itself is hashed without this.
    if not place:
        return None
    try:
        config = operation.get_config()
    except (NotImplementedError, AttributeError, TypeError, OSError):
        return unique_token(operation)
    return made.of(_without_names(config), place)


def _without_names(x: object) -> object:
    """Returns a config without the names of layers and their flags."""
    if isinstance(x, (list, tuple)):
        return [_without_names(item) for item in x]
    if not isinstance(x, Mapping):
        return x
    drop = ("name", "trainable") if {"name", "trainable"} <= set(x) else ()
    return {
        k: _without_names(v)
        for k, v in x.items()
        if k not in drop and k != "shared_object_id"
    }


def _attributes(operation: object) -> dict[str, object]:
    """Returns the attributes of an operation that Keras does not set."""
    skipped = compat.attributes_of_keras()
    return {k: v for k, v in vars(operation).items() if k not in skipped}


def saves_assets(operation: object) -> bool:
    """Whether a layer of a package saves files, such as a vocabulary."""
    return (
        isinstance(operation, keras.Layer)
        and hasattr(operation, "save_assets")
        and release_of_class(type(operation)) is not None
    )


def _assets(layer: Any) -> Described:
    """Describes the files that a layer saves, and its vocabulary."""
    with tempfile.TemporaryDirectory() as folder:
        layer.save_assets(folder)
        files = {
            x.relative_to(folder).as_posix(): x.read_bytes()
            for x in Path(folder).rglob("*")
            if x.is_file()
        }
    weights: dict[str, object] = {}
    if hasattr(layer, "get_vocabulary"):
        # One that was set after another was passed is in no file, and weights
        # of words are no variables.
        files["vocabulary"] = repr(layer.get_vocabulary()).encode()
        layer.save_own_variables(weights)
    made = Description()
    return [
        [[x, hashlib.sha256(files[x]).hexdigest()] for x in sorted(files)],
        made.of(weights, ""),
    ]


def _differ(place: str, old: States, new: States) -> bool:
    return old.get(place, _MISSING) != new.get(place, _MISSING)


_MISSING = object()
_SPECIAL: dict[type, Describer] = {keras.Operation: _describe}
