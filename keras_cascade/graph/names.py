"""Gives names that do not depend on what else was built in the process."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from weakref import WeakKeyDictionary

import keras

from keras_cascade import _keras_compat as compat

# The segments of a variable's path.
_Segments = tuple[str, ...]
_NO_NAMES: Mapping[int, str] = MappingProxyType({})
# The path that a layer's variables were last named by.
_paths: WeakKeyDictionary[keras.Layer, str] = WeakKeyDictionary()
# The path of the layer that a layer is inside of.
_outer: WeakKeyDictionary[keras.Layer, str] = WeakKeyDictionary()


def stable_names(
    operations: Sequence[keras.Operation], named: Mapping[int, str] = _NO_NAMES
) -> dict[int, str]:
    """Returns the name of each operation within its network, by its id.

    Keras numbers unnamed operations by the process: the first convolution of
    a network may be `conv2d` or `conv2d_94`. Here it is always `conv2d`: names
    that Keras could have made are numbered again, in the same order. `named`
    are the names that operations of other networks have already, by their ids.
    """
    names = {id(x): named.get(id(x), x.name) for x in operations}
    numbered: dict[str, list[keras.Operation]] = defaultdict(list)
    for operation in operations:
        base = _automatic_base(operation)
        if base is not None and id(operation) not in named:
            numbered[base].append(operation)
    automatic = {id(x) for group in numbered.values() for x in group}
    taken = {name for key, name in names.items() if key not in automatic}
    for base, group in numbered.items():
        # `conv2d` has the number 0.
        start = len(base) + 1
        group.sort(key=lambda x: int(x.name[start:] or 0))
        for operation in group:
            name = numbered_name(base, taken)
            names[id(operation)] = name
            taken.add(name)
    return names


def numbered_name(base: str, taken: Iterable[str]) -> str:
    """Returns `base`, or `base_1`, `base_2` ... if that is taken."""
    name, number = base, 0
    while name in taken:
        number += 1
        name = f"{base}_{number}"
    return name


def make_identifiers(names: Iterable[str]) -> list[str]:
    """Turns names into identifiers, numbered where two are equal."""
    found: dict[str, None] = {}
    for name in names:
        base = re.sub(r"\W", "_", name)
        base = base if base.isidentifier() else f"tap_{base}"
        found[numbered_name(base, found)] = None
    return list(found)


def name_variables(network: keras.Model, prefix: str) -> None:
    """Gives every variable of a network a path that begins with `prefix`.

    The rest is the layers' names, a segment for each level of nesting, and
    the variable's name in its layer; variables without a name are numbered
    within the layer (`variable`, `variable_1`). A layer that several networks
    share is named in the first of them.
    """
    _name_level(network, prefix, set())


def _name_level(network: keras.Model, prefix: str, named: set[int]) -> None:
    for operation in network.layers:
        if id(operation) in named:
            continue
        named.add(id(operation))
        path = f"{prefix}/{operation.name}" if prefix else operation.name
        if compat.is_functional(operation):
            _name_level(operation, path, named)
        else:
            _name_layer_variables(operation, path, named)


def restore_paths(network: keras.Model) -> None:
    """Gives new variables of a network's layers the paths that others had.

    Layers of the user's own networks, which were never named, stay.
    """
    for layer in network.layers:
        if compat.is_functional(layer):
            restore_paths(layer)
        elif (path := _paths.get(layer)) is not None:
            _name_layer_variables(layer, path, set())


def rename(operation: keras.Operation, name: str) -> None:
    """Renames an operation that belongs to a copy.

    The paths of its variables then begin with the new name, without the
    networks that the operation was made in.
    """
    old, operation.name = operation.name, name
    if not isinstance(operation, keras.Layer):
        return
    for variable in operation.variables:
        segments = variable.path.split("/")
        if old in segments[:-1]:
            inside = segments[segments.index(old) + 1 :]
            compat.set_variable_path(variable, "/".join((name, *inside)))


def is_numbered_by_keras(operation: keras.Operation) -> bool:
    """Whether a name is one that Keras could have made."""
    return _automatic_base(operation) is not None


def _automatic_base(operation: keras.Operation) -> str | None:
    """Returns `conv2d` for a Conv2D named `conv2d_94`; else None."""
    base = _snake_case(type(operation).__name__)
    pattern = rf"{re.escape(base)}(_\d+)?"
    return base if re.fullmatch(pattern, operation.name) else None


def _snake_case(name: str) -> str:
    """Returns a class's name as Keras turns it into a layer's."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _name_layer_variables(
    layer: keras.Layer, path: str, named: set[int]
) -> None:
    """Names the variables of a layer, but those that were `named` already."""
    bases = {"variable", "seed_generator"} | {
        _snake_case(type(inner).__name__) for inner in compat.sublayers(layer)
    }
    _, *layers = compat.sublayers(layer)
    # Those inside may be in another layer as well.
    others = dict.fromkeys(_outer[x] for x in layers if x in _outer)
    known = (_paths.get(layer, path), *others, path)
    prefixes = [x.split("/") for x in known]
    _paths[layer] = path
    _outer.update(dict.fromkeys(layers, path))
    inside = [_inside(v.path.split("/"), prefixes) for v in layer.variables]
    taken: dict[_Segments, set[str]] = defaultdict(set)
    numbered = _number_again(inside, bases)
    for variable, (*parents, last) in zip(
        layer.variables, numbered, strict=True
    ):
        siblings = taken[tuple(parents)]
        name = numbered_name(last, siblings)
        siblings.add(name)
        if id(variable) not in named:
            named.add(id(variable))
            whole = "/".join((path, *parents, name))
            compat.set_variable_path(variable, whole)


def _inside(
    segments: Sequence[str], prefixes: Iterable[Sequence[str]]
) -> _Segments:
    """Returns the part of a variable's path that lies within its layer.

    The prefixes are the paths that the layer had before, and has now.
    """
    # Before it stands as much of the layer's path as was known when the
    # variable was made: nothing, the layer's name, or some networks as well.
    for prefix in prefixes:
        for length in range(min(len(prefix), len(segments) - 1), 0, -1):
            if segments[:length] == prefix[-length:]:
                return tuple(segments[length:])
    return tuple(segments)


def _number_again(
    paths: Sequence[_Segments], bases: Iterable[str]
) -> list[_Segments]:
    """Numbers the automatic segments from 0, for each parent separately."""
    pattern = re.compile(rf"({'|'.join(map(re.escape, bases))})(?:_(\d+))?")
    # The numbers in use, by the parents and the base.
    used: dict[tuple[_Segments, str], set[int]] = defaultdict(set)
    for path in paths:
        for depth, segment in enumerate(path):
            if match := pattern.fullmatch(segment):
                used[path[:depth], match[1]].add(int(match[2] or 0))
    ordered = {key: sorted(numbers) for key, numbers in used.items()}

    def renamed(path: _Segments, depth: int) -> str:
        match = pattern.fullmatch(path[depth])
        if match is None:
            return path[depth]
        numbers = ordered[path[:depth], match[1]]
        number = numbers.index(int(match[2] or 0))
        return f"{match[1]}_{number}" if number else match[1]

    return [tuple(renamed(p, i) for i in range(len(p))) for p in paths]
