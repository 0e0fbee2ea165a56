"""Describes values, and the code that they reach, as JSON.

Functions and classes of installed packages count by the package's release. A
user's own count by their bytecode, and by the functions, classes and values
that it looks up: globals, closures, defaults, attributes of modules.

Tested by `tests/cache/contents/test_operations.py`.
"""

import enum
import functools
import hashlib
import json
import os
import re
import sys
import threading
import types
import uuid
import weakref
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_cascade.cache.contents.bytecode import Code, read_code
from keras_cascade.cache.contents.origins import (
    release_of_class,
    release_of_function,
    release_of_module,
)
from keras_cascade.graph.layer_copying import to_numpy_copy

# What is larger or deeper is not followed: it may be anything.
_MOST, _DEEPEST = 200_000, 100
_PLAIN = (type(None), bool, int, float, complex, str, bytes)
_WITHOUT_CONTENT = (
    type(threading.Lock()),
    type(threading.RLock()),
    threading.local,
    # What code reads of it cannot be told: the documentation says so.
    type(os.environ),
    weakref.ReferenceType,
    weakref.WeakKeyDictionary,
    weakref.WeakSet,
    weakref.WeakValueDictionary,
    keras.KerasTensor,
)
_BUILTIN = (
    types.BuiltinFunctionType,
    types.MethodDescriptorType,
    types.MethodWrapperType,
    types.WrapperDescriptorType,
    np.ufunc,
)
_ACCESSORS = (staticmethod, classmethod, functools.cached_property)
_PARTIALS = (functools.partial, functools.partialmethod)
_GLOBAL = re.compile(r"[\w.]+:\w+")
_BY_KEY = "FeatureCache(key=...) says that it stays as it is"
Described = object
Describer = Callable[["Description", Any, str], Described]


class Description:
    """The description of one value, and of what code of it may change.

    Args:
        written: The places in `states` to leave out: the code itself changes
            what is there.
        key: A name by which the user says that compiled code is the same.
            Defaults to `None`.
        special: Types with a description of their own. Defaults to none.

    Attributes:
        states: The description of each value that code looks up, by place:
            globals, attributes and variables of closures.
        unknown: The places of which the content is not known, with the
            reason. Each has a unique token, so that no other process has it.
    """

    def __init__(
        self,
        written: Collection[str] = (),
        key: str | None = None,
        special: Mapping[type, Describer] | None = None,
    ):
        self.states: dict[str, Described] = {}
        self.unknown: dict[str, str] = {}
        self._written, self._key = written, key
        self._special = tuple((special or {}).items())
        self._places: dict[int, str] = {}
        # What is described stays alive, so that no other gets its id.
        self._alive: list[object] = []
        self._depth = 0

    def of(self, x: object, place: str) -> Described:
        """Returns the description of a value.

        Args:
            x: The value.
            place: The place where it is found, in words that are the same in
                other processes.
        """
        if isinstance(x, _PLAIN) and type(x) in _PLAIN:
            return [type(x).__name__, repr(x)]
        if id(x) in self._places:
            return ["as", self._places[id(x)]]
        self._places[id(x)] = place
        self._alive.append(x)
        if len(self._alive) > _MOST or self._depth > _DEEPEST:
            return self._token(x, place, "is too large to be followed")
        self._depth += 1
        try:
            return self._of(x, place)
        finally:
            self._depth -= 1

    def attributes(self, named: Mapping[str, object], place: str) -> Described:
        """Describes values by name, each as a state of its own."""
        found = [
            self.state(named[name], f"{place}.{name}") for name in sorted(named)
        ]
        # Without those that are written: they may not be there at first.
        return [described for described in found if described is not None]

    def know(self, x: object, place: str) -> None:
        """Takes a value as described, by what is said of its place."""
        self._places[id(x)] = place
        self._alive.append(x)

    def state(self, x: object, place: str) -> Described:
        """Describes a value that code may change, as a state of its own."""
        if isinstance(x, (types.FunctionType, type, types.ModuleType)):
            return [place, self.of(x, place)]
        if place in self._written:
            return None
        if place not in self.states:
            self.states[place] = None  # while it is described
            self.states[place] = self.of(x, place)
        return place

    def _of(self, x: object, place: str) -> Described:
        for kind, describe in (*self._special, *_DESCRIBERS):
            if isinstance(x, kind):
                return describe(self, x, place)
        if keras.ops.is_tensor(x) or isinstance(x, keras.Variable):
            return self._tensor(x, place)
        inner = getattr(x, "__wrapped__", None)
        if callable(x) and inner is not None:
            return [self.of(type(x), place), self.of(inner, place)]
        return self._object(x, place)

    def _array(self, x: np.ndarray | np.generic, place: str) -> Described:
        array = np.ascontiguousarray(x)
        if array.dtype.hasobject:
            return ["array", list(array.shape), self.of(array.tolist(), place)]
        content = hashlib.sha256(array.tobytes()).hexdigest()
        return [str(array.dtype), list(array.shape), content]

    def _tensor(self, x: object, place: str) -> Described:
        if str(getattr(x, "dtype", "")).count("resource"):
            return self._token(x, place, "is a resource of TensorFlow")
        try:
            return self._array(to_numpy_copy(x), place)
        except (TypeError, NotImplementedError):
            # It was left by tracing, which gives it anew.
            return "symbolic tensor"

    def _items(self, x: Iterable[object], place: str) -> Described:
        found = [self.of(v, f"{place}[{i}]") for i, v in enumerate(x)]
        return [self._kind(x, place), found]

    def _set(self, x: Iterable[object], place: str) -> Described:
        alone = [self._alone(item, place) for item in x]
        return ["set", sorted(alone, key=json.dumps)]

    def _alone(self, x: object, place: str) -> Described:
        # The order of a set differs: its items do not refer to each other.
        found = Description(self._written, self._key, dict(self._special))
        described = found.of(x, place)
        self.unknown |= found.unknown
        return [described, sorted(found.states.items())]

    def _mapping(self, x: Mapping[object, object], place: str) -> Described:
        found = [
            [self.of(k, f"{place} key"), self.of(v, f"{place}[{k!r:.40}]")]
            for k, v in x.items()
        ]
        return [self._kind(x, place), found]

    def _kind(self, x: object, place: str) -> Described:
        """Describes a class of containers; those of frameworks are plain."""
        own = release_of_class(type(x)) is None
        return self.of(type(x), place) if own else "container"

    def _module(self, x: types.ModuleType, place: str) -> Described:
        return ["module", release_of_module(x)]

    def _class(self, kind: type, place: str) -> Described:
        if release := release_of_class(kind):
            return [kind.__module__, kind.__qualname__, release]
        place = f"{kind.__module__}.{kind.__qualname__}"
        return [
            [self.of(base, place) for base in kind.__bases__],
            self.of(type(kind), place),
            self.attributes(_own_members(kind), place),
        ]

    def _function(self, x: types.FunctionType, place: str) -> Described:
        place = f"{x.__module__}.{x.__qualname__}"
        values = [x.__defaults__, x.__kwdefaults__]
        described = [self.of(value, f"{place}()") for value in values]
        described.append(self.attributes(cells(x), f"{place}()"))
        if release := release_of_function(x):
            return [place, release, described]
        code = read_code(x.__code__)
        return [
            code.digest,
            described,
            self.attributes(vars(x), place),
            self._globals(x, code),
        ]

    def _globals(self, x: types.FunctionType, code: Code) -> Described:
        known, module = x.__globals__, x.__globals__.get("__name__", "")
        found = [
            self._looked_up(known[name], f"{module}:{name}", code)
            for name in sorted(code.globals & known.keys())
        ]
        imported = {
            name: sys.modules.get(name)
            for each in sorted(code.imports)
            for name in _absolute(each, known.get("__package__"))
        }
        return found + [
            self._looked_up(m, name, code)
            for name, m in imported.items()
            if m is not None
        ]

    def _looked_up(self, x: object, place: str, code: Code) -> Described:
        if not isinstance(x, types.ModuleType) or release_of_module(x):
            return self.state(x, place)
        # Of a user's module that is all that the function names.
        members = vars(x)
        return [
            self._looked_up(members[name], f"{x.__name__}:{name}", code)
            for name in sorted(code.names & members.keys())
            if members[name] is not x
        ]

    def _method(self, x: types.MethodType, place: str) -> Described:
        return [self.of(x.__func__, place), self.of(x.__self__, place)]

    def _accessor(self, x: object, place: str) -> Described:
        function = getattr(x, "__func__", None) or getattr(x, "func", None)
        return [type(x).__name__, self.of(function, place)]

    def _property(self, x: property, place: str) -> Described:
        return [self.of(f, place) for f in (x.fget, x.fset, x.fdel)]

    def _partial(self, x: functools.partial, place: str) -> Described:
        parts = (x.func, x.args, x.keywords)
        return ["partial", *(self.of(part, place) for part in parts)]

    def _compiled(self, x: object, place: str) -> Described:
        """Describes a compiled function by its name and its file."""
        name = getattr(x, "__qualname__", None) or getattr(x, "__name__", "")
        owner = getattr(x, "__self__", None)
        if owner is not None and not isinstance(owner, types.ModuleType):
            return [name, self.of(owner, place)]
        where = getattr(x, "__objclass__", None) or x
        module = sys.modules.get(getattr(where, "__module__", None) or "")
        if module is None or isinstance(x, np.ufunc):
            return [name, type(x).__name__]
        if release := release_of_module(module):
            return [module.__name__, name, release]
        return [name, self._file(module, x, place)]

    def _file(
        self, module: types.ModuleType, x: object, place: str
    ) -> Described:
        file = getattr(module, "__file__", None)
        if file is not None and Path(file).is_file():
            return hashlib.sha256(Path(file).read_bytes()).hexdigest()
        if self._key is not None:
            return [module.__name__, self._key]
        return self._token(
            x,
            place,
            f"is compiled code without a file; {_BY_KEY}",
        )

    def _enum(self, x: enum.Enum, place: str) -> Described:
        return [self.of(type(x), place), x.name]

    def _object(self, x: object, place: str) -> Described:
        kind = self.of(type(x), place)
        get_config = getattr(x, "get_config", None)
        if get_config and release_of_class(type(x)):
            return [kind, self.of(get_config(), place)]
        try:
            # It says whether Python knows all that there is of the object.
            _, parts, state, *items = _reduced(x)
        except (TypeError, ValueError, RuntimeError, AttributeError):
            return self._token(x, place, "has a content that Python cannot see")
        if isinstance(state, tuple) and len(state) == 2:
            state = {**(state[0] or {}), **(state[1] or {})}
        if isinstance(state, dict) and all(isinstance(k, str) for k in state):
            described = self.attributes(state, place)
        else:
            described = self.of(state, place)
        rest = [list(part) for part in items if part is not None]
        return [kind, self.of(parts, place), described, self.of(rest, place)]

    def _token(self, x: object, place: str, reason: str) -> Described:
        # Code by its name alone: two values could be taken for each other.
        if callable(x) and _GLOBAL.fullmatch(place):
            if self._key is not None:
                return [place, self._key]
            reason = f"{reason}; {_BY_KEY}"
        self.unknown[place] = reason
        return unique_token(x)


def cells(function: types.FunctionType) -> dict[str, object]:
    """Returns the variables of a function's closure that have a value."""
    names, found = function.__code__.co_freevars, function.__closure__ or ()
    values = {}
    for name, cell in zip(names, found, strict=True):
        try:
            values[name] = cell.cell_contents
        except ValueError:  # it has none yet
            continue
    return values


_TOKENS: weakref.WeakKeyDictionary[object, str] = weakref.WeakKeyDictionary()
# Objects without weak references or hash, kept alive so that ids stay theirs.
_KEPT: dict[int, tuple[object, str]] = {}


def unique_token(x: object) -> str:
    """Returns a token for this object in this process, like no other's."""
    try:
        return _TOKENS.setdefault(x, uuid.uuid4().hex)
    except TypeError:
        return _KEPT.setdefault(id(x), (x, uuid.uuid4().hex))[1]


def _reduced(x: object) -> tuple:
    found = x.__reduce_ex__(2)
    if isinstance(found, str):
        return found, (), None
    return (*found[:2], *(found[2:] or (None,)))


def _own_members(kind: type) -> dict[str, object]:
    """Returns what a class defines, without what Python notes about it."""
    return {
        name: value
        for name, value in vars(kind).items()
        if name != "_abc_impl"
        and not isinstance(value, (types.GetSetDescriptorType, _MEMBER))
        and not (name.startswith("__") and not _is_code(value))
    }


_MEMBER = types.MemberDescriptorType


def _is_code(x: object) -> bool:
    kinds = (types.FunctionType, property, *_ACCESSORS, *_PARTIALS)
    return isinstance(x, kinds)


def _absolute(name: str, package: object) -> list[str]:
    """Returns the modules that an import in a package may mean."""
    parts = package.split(".") if isinstance(package, str) else []
    parents = [".".join(parts[:n]) for n in range(len(parts), 0, -1)]
    return [f"{parent}.{name}".rstrip(".") for parent in parents] + [name]


_DESCRIBERS: tuple[tuple[type | tuple[type, ...], Describer], ...] = (
    (_WITHOUT_CONTENT, lambda made, x, place: type(x).__name__),
    (enum.Enum, Description._enum),
    (types.FunctionType, Description._function),
    (types.MethodType, Description._method),
    (type, Description._class),
    (types.ModuleType, Description._module),
    (_PARTIALS, Description._partial),
    (_ACCESSORS, Description._accessor),
    (property, Description._property),
    (_BUILTIN, Description._compiled),
    ((np.ndarray, np.generic), Description._array),
    ((set, frozenset), Description._set),
    ((list, tuple, deque), Description._items),
    (Mapping, Description._mapping),
    ((slice, range, np.dtype), lambda made, x, place: repr(x)),
    (re.Pattern, lambda made, x, place: [x.pattern, x.flags]),
)
