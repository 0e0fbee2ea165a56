"""Copies single layers and operations, and what they hold."""

from typing import Any

import keras
import numpy as np

from keras_cascade import _keras_compat as compat
from keras_cascade.graph import low_rank


def copy_operation(operation: keras.Operation, name: str) -> keras.Operation:
    """A copy of a layer or operation under another name, without weights."""
    if isinstance(operation, keras.layers.Lambda):
        return _copy_lambda(operation, name)
    try:
        config = _config(operation)
        return type(operation).from_config({**config, "name": name})
    except (NotImplementedError, TypeError) as error:
        raise ValueError(
            f"Layer '{operation.name}' ({type(operation).__name__}) cannot be "
            f"copied from its config: {_first_line(error)} Give the class a "
            "get_config() with all its constructor arguments, or build with "
            "copy=False."
        ) from error


def _config(operation: keras.Operation) -> dict:
    """Its config; what has low-rank updates is copied without, and merged."""
    if not isinstance(operation, keras.Layer):
        return operation.get_config()
    updated = low_rank.low_rank_layers(operation)
    with compat.without_low_rank_configs(updated):
        return operation.get_config()


def _first_line(error: Exception) -> str:
    """Keras's errors go on over pages."""
    return str(error).partition("\n")[0]


def copy_state(source: keras.Layer, target: keras.Layer) -> None:
    """Copies weights, seeds and flags of a layer, and of layers inside it.

    Low-rank updates are merged into the copy.
    """
    done: list[set[int]] = [set(), set()]
    for old, new in zip(
        compat.sublayers(source), compat.sublayers(target), strict=True
    ):
        if low_rank.has_low_rank(old):
            low_rank.merge_into(old, new)
            for ids, layer in zip(done, (old, new), strict=True):
                ids |= set(map(id, layer.variables))
        else:
            _copy_own_state(old, new)
        if new.trainable != old.trainable:
            new.trainable = old.trainable
    # Seeds are in no store, and what a layer writes may be rounded: exactly.
    remaining = (
        [v for v in layer.variables if id(v) not in ids]
        for ids, layer in zip(done, (source, target), strict=True)
    )
    for old, new in zip(*remaining, strict=True):
        new.assign(to_numpy_copy(old))


def _copy_own_state(old: keras.Layer, new: keras.Layer) -> None:
    """What a layer writes into a file: variables, and more if it is its own.

    Writing may change a layer: KerasHub's DINOv2 brings its position
    embeddings up to date. The original gets its values back.
    """
    writer: Any = type(old).save_own_variables
    is_keras = writer.__module__.startswith("keras.")
    before = [] if is_keras else [to_numpy_copy(v) for v in old.variables]
    store: dict[str, Any] = {}
    old.save_own_variables(store)
    if store:
        new.load_own_variables({k: to_numpy_copy(v) for k, v in store.items()})
    for variable, value in zip(old.variables, before, strict=False):
        if not (to_numpy_copy(variable) == value).all():
            variable.assign(value)


def to_numpy_copy(value: keras.Variable | Any) -> np.ndarray:
    """Returns a value as a NumPy array that shares no memory with it."""
    if isinstance(value, keras.Variable):
        value = value.value
    # JAX's training steps give arrays away: two variables with one array would
    # lose it to whichever trains first.
    return np.array(keras.ops.convert_to_numpy(value))


def _copy_lambda(layer: keras.layers.Lambda, name: str) -> keras.layers.Lambda:
    """`from_config` refuses Python functions; the function is at hand."""
    config = layer.get_config()
    return keras.layers.Lambda(
        layer.function,
        output_shape=config.get("output_shape"),
        mask=layer.mask,
        arguments=layer.arguments,
        name=name,
        dtype=layer.dtype_policy,
        trainable=layer.trainable,
    )
