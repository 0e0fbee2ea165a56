"""Names that do not depend on what else was built in the process."""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence

import keras

from keras_cascade import _keras_compat as compat


def stable_names(operations: Sequence[keras.Operation]) -> dict[int, str]:
    """The name of each operation within its network, by the operation's id.

    Keras numbers what the user leaves unnamed by the process: the first
    convolution of a network may be `conv2d` or `conv2d_94`. Here it is
    `conv2d` always: of the names that Keras could have made, those of one
    base are numbered anew in the order of their numbers.
    """
    names = {id(operation): operation.name for operation in operations}
    numbered = defaultdict(list)
    for operation in operations:
        if (base := _automatic_base(operation)) is not None:
            numbered[base].append(operation)
    fixed = set(names.values()) - {
        operation.name for group in numbered.values() for operation in group
    }
    for base, group in numbered.items():
        names |= _numbered_anew(base, group, fixed)
    return names


def name_variables(network: keras.Model, prefix: str) -> None:
    """Gives every variable of a network a path that begins with `prefix`.

    The rest is the layers' names, a segment a level of nesting, and what the
    layer calls the variable; what it leaves unnamed is numbered within the
    layer (`variable`, `variable_1`).
    """
    for operation in network.layers:
        path = f"{prefix}/{operation.name}" if prefix else operation.name
        if compat.is_functional(operation):
            name_variables(operation, path)
        else:
            _name_layer_variables(operation, path)


def rename(operation: keras.Operation, name: str) -> None:
    """Gives an operation of ours another name.

    The paths of its variables then begin with that name, without the networks
    that it was made in.
    """
    old, operation.name = operation.name, name
    variables = (
        operation.variables if isinstance(operation, keras.Layer) else []
    )
    for variable in variables:
        segments = variable.path.split("/")
        if old in segments[:-1]:
            inside = segments[segments.index(old) + 1 :]
            compat.set_variable_path(variable, "/".join((name, *inside)))


def is_numbered_by_keras(operation: keras.Operation) -> bool:
    """Whether a name is one that Keras could have made."""
    return _automatic_base(operation) is not None


def _automatic_base(operation: keras.Operation) -> str | None:
    """`conv2d` for a Conv2D named `conv2d_94`; None where a user chose."""
    base = _snake_case(type(operation).__name__)
    if re.fullmatch(rf"{re.escape(base)}(_\d+)?", operation.name):
        return base
    return None


def _snake_case(name: str) -> str:
    """A class's name as Keras turns it into a layer's."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()


def _number(name: str, base: str) -> int:
    return int(name[len(base) + 1 :] or 0)


def _numbered_anew(
    base: str, group: list[keras.Operation], taken: set[str]
) -> dict[int, str]:
    names, number = {}, 0
    for operation in sorted(group, key=lambda op: _number(op.name, base)):
        while (name := f"{base}_{number}" if number else base) in taken:
            number += 1
        names[id(operation)] = name
        number += 1
    return names


def _name_layer_variables(layer: keras.Layer, path: str) -> None:
    bases = {"variable", "seed_generator"} | {
        _snake_case(type(inner).__name__) for inner in compat.sublayers(layer)
    }
    prefix = path.split("/")
    own = [
        _inside(variable.path.split("/"), prefix)
        for variable in layer.variables
    ]
    stable = _unique(_renumbered(own, bases))
    for variable, segments in zip(layer.variables, stable, strict=True):
        compat.set_variable_path(variable, "/".join((path, *segments)))


def _inside(segments: list[str], prefix: list[str]) -> tuple[str, ...]:
    """What of a variable's path lies within its layer.

    Ahead of it stands as much of the layer's path as was known when the
    variable was made: nothing, the layer's name, or some networks as well.
    """
    for length in range(min(len(prefix), len(segments) - 1), 0, -1):
        if segments[:length] == prefix[-length:]:
            return tuple(segments[length:])
    return tuple(segments)


def _renumbered(
    paths: list[tuple[str, ...]], bases: Iterable[str]
) -> list[tuple[str, ...]]:
    """Numbers the automatic segments anew, beneath each parent apart."""
    pattern = re.compile(rf"({'|'.join(map(re.escape, bases))})(?:_(\d+))?")
    found: dict[tuple, set[int]] = defaultdict(set)
    parsed = [[pattern.fullmatch(segment) for segment in p] for p in paths]
    for path, matches in zip(paths, parsed, strict=True):
        for depth, match in enumerate(matches):
            if match:
                key = (path[:depth], match[1])
                found[key].add(int(match[2] or 0))
    order = {
        (*key, number): rank
        for key, numbers in found.items()
        for rank, number in enumerate(sorted(numbers))
    }
    return [
        tuple(
            _join(match[1], order[path[:depth], match[1], int(match[2] or 0)])
            if match
            else path[depth]
            for depth, match in enumerate(matches)
        )
        for path, matches in zip(paths, parsed, strict=True)
    ]


def _join(base: str, number: int) -> str:
    return f"{base}_{number}" if number else base


def _unique(paths: list[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """Numbers the last segment where two paths are equal."""
    seen: set[tuple[str, ...]] = set()
    result = []
    for path in paths:
        candidate, number = path, 0
        while candidate in seen:
            number += 1
            candidate = (*path[:-1], f"{path[-1]}_{number}")
        seen.add(candidate)
        result.append(candidate)
    return result
