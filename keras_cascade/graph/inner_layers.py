"""Finds layers inside wrappers and composite layers, and sets their flags."""

from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase

import keras

from keras_cascade import _keras_compat as compat
from keras_cascade.graph.block import apply_flags, read_flags
from keras_cascade.graph.names import stable_names
from keras_cascade.graph.paths import LayerPath


def select_inside(
    layers: Mapping[LayerPath, keras.Layer], pattern: str
) -> Iterator[tuple[LayerPath, LayerPath, keras.Layer]]:
    """Yields the layers inside others that a path pattern selects.

    Args:
        layers: The layers to look into, by their paths.
        pattern: Globs, and `**` for any number of levels.

    Yields:
        The path of the layer, the path of the one that it is in, the layer.
    """
    segments = pattern.split("/")
    for path, layer in layers.items():
        for inside, inner in _layers_inside(layer):
            full = (*path, *inside)
            if _matches(full, segments):
                yield full, path, inner


def set_flag_inside(
    outer: keras.Layer, inner: keras.Layer, flag: bool, path: str
) -> None:
    """Sets the flag of a layer inside another one, and of those inside it.

    A layer trains only in layers that do: those around it are unfrozen, while
    the others inside them keep their flags.

    Raises:
        ValueError: If a frozen layer around it has weights of its own, which
            would train as well.
    """
    inside = list(compat.sublayers(outer))
    below = set(map(id, compat.sublayers(inner)))
    around = {
        id(x)
        for x in inside
        if id(x) not in below and any(y is inner for y in compat.sublayers(x))
    }
    for layer in inside:
        if flag and id(layer) in around and not layer.trainable:
            _check_no_own_weights(layer, path)
    flags = [
        flag if id(x) in below else own or (flag and id(x) in around)
        for x, own in zip(inside, read_flags(outer), strict=True)
    ]
    apply_flags(outer, flags)


def _layers_inside(
    layer: keras.Layer,
) -> Iterator[tuple[LayerPath, keras.Layer]]:
    own = [
        x
        for x in compat.children(layer)
        if not isinstance(x, keras.layers.InputLayer)
    ]
    names = stable_names(own) if own else {}
    for inner in own:
        name = names[id(inner)]
        yield (name,), inner
        for path, deeper in _layers_inside(inner):
            yield (name, *path), deeper


def _matches(path: Sequence[str], segments: Sequence[str]) -> bool:
    if not segments:
        return not path
    head, *rest = segments
    if head == "**":
        return any(_matches(path[n:], rest) for n in range(len(path) + 1))
    return (
        bool(path) and fnmatchcase(path[0], head) and _matches(path[1:], rest)
    )


def _check_no_own_weights(layer: keras.Layer, path: str) -> None:
    if weights := [x.name for x in compat.trainable_kind(layer)]:
        raise ValueError(
            f"'{path}' is inside '{layer.name}' ({type(layer).__name__}), "
            f"which is frozen and has weights of its own ({', '.join(weights)})"
            f": they would train as well. Unfreeze '{layer.name}' as a whole."
        )
