"""Copies single layers and operations, and what they hold."""

from typing import Any

import keras

from keras_cascade import _keras_compat as compat


def copy_operation(operation: keras.Operation, name: str) -> keras.Operation:
    """A copy of a layer or operation under another name, without weights."""
    if isinstance(operation, keras.layers.Lambda):
        return _copy_lambda(operation, name)
    try:
        config = operation.get_config()
        return type(operation).from_config({**config, "name": name})
    except (NotImplementedError, TypeError) as error:
        raise ValueError(
            f"Layer '{operation.name}' ({type(operation).__name__}) cannot be "
            f"copied from its config: {_first_line(error)} Give the class a "
            "get_config() with all its constructor arguments, or build with "
            "copy=False."
        ) from error


def _first_line(error: Exception) -> str:
    """Keras's errors go on over pages."""
    return str(error).partition("\n")[0]


def copy_state(source: keras.Layer, target: keras.Layer) -> None:
    """Copies weights, seeds and flags of a layer, and of layers inside it."""
    for old, new in zip(
        compat.sublayers(source), compat.sublayers(target), strict=True
    ):
        store: dict[str, Any] = {}
        old.save_own_variables(store)
        if store:
            new.load_own_variables({k: own(v) for k, v in store.items()})
        if new.trainable != old.trainable:
            new.trainable = old.trainable
    for old, new in zip(source.variables, target.variables, strict=True):
        if old.path.endswith("seed_generator_state"):
            new.assign(own(old))


def own(value: Any) -> Any:
    """A value that nobody else holds.

    JAX's training gives arrays away: two variables with one array would lose
    it to whichever trains first.
    """
    if isinstance(value, keras.Variable):
        value = value.value
    return keras.ops.convert_to_numpy(value)


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
