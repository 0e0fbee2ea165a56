"""Copies single layers and operations, with their weights and flags.

Tested by `tests/graph/test_copying.py`.
"""

from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from tempfile import TemporaryDirectory
from typing import Any

import keras
import numpy as np

from keras_cascade import _keras_compat as compat
from keras_cascade.graph import low_rank
from keras_cascade.graph.layer_identity import make_copy

_WHAT_TO_DO = (
    "Give the class a get_config() with all its constructor arguments and a "
    "from_config() that takes them, or use the layers of the network itself: "
    "build with copy=False."
)
# Users' constructors and `from_config` may raise any of these.
_CANNOT_BE_MADE = (
    ArithmeticError,
    AttributeError,
    ImportError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
)


def copy_operation(operation: keras.Operation, name: str) -> keras.Operation:
    """Copies a layer or operation under another name, without weights.

    Raises:
        ValueError: If it cannot be made again from its config.
    """
    try:
        if type(operation) in _COPIED_BY_HAND:
            return _COPIED_BY_HAND[type(operation)](operation, name)
        return _make_copy(operation, name)
    except _CANNOT_BE_MADE as error:
        # Keras's errors go on for pages.
        reason = str(error).partition("\n")[0]
        if "safe_mode=False" in reason:
            reason = (
                "it holds Python or PyTorch code, which Keras writes into a "
                "config and makes again only outside its safe mode."
            )
        raise ValueError(
            f"Layer '{operation.name}' ({type(operation).__name__}) cannot be "
            f"copied from its config: {reason} {_WHAT_TO_DO}"
        ) from error


def copy_state(source: keras.Layer, target: keras.Layer) -> None:
    """Copies weights, seeds and flags of a layer, and of layers inside it.

    State outside variables is copied too, as far as the layers save it. Low-
    rank updates are merged into the copy.

    Raises:
        ValueError: If the layers have other weights or layers inside.
    """
    _check_same_weights(source, target)
    merged: set[int] = set()
    for old, new in _pairs(source, target):
        if low_rank.has_low_rank(old):
            low_rank.merge_into(old, new)
            merged |= {id(v) for v in (*old.variables, *new.variables)}
        else:
            _copy_own_state(old, new)
        _copy_assets(old, new)
        if new.trainable != old.trainable:
            new.trainable = old.trainable
    # Layers do not save seeds, and may save rounded values: these are exact.
    remaining = (
        _ordered(layer, (v for v in layer.variables if id(v) not in merged))
        for layer in (source, target)
    )
    for old, new in zip(*remaining, strict=True):
        new.assign(to_numpy_copy(old))


def copy_known_state(source: keras.Layer, target: keras.Layer) -> None:
    """Copies the state of a layer that may not have been built yet."""
    if source.built or _structure(source) == _structure(target):
        copy_state(source, target)
    else:
        copy_state_outside_variables(source, target)


def copy_state_outside_variables(
    source: keras.Layer, target: keras.Layer
) -> None:
    """Copies what layers save beside their variables, which stay as they are.

    Vocabularies are an example, which are files to Keras. Layers of another
    structure keep what they have.
    """
    (kinds, old_weights), (other_kinds, weights) = map(
        _structure, (source, target)
    )
    if kinds != other_kinds or (source.built and old_weights != weights):
        return
    for old, new in _pairs(source, target):
        if _saves_more_than_variables(old):
            values = [to_numpy_copy(v) for v in new.variables]
            _copy_own_state(old, new)
            for variable, value in zip(new.variables, values, strict=True):
                variable.assign(value)
        _copy_assets(old, new)


def to_numpy_copy(value: Any) -> np.ndarray:
    """Returns a tensor or variable as an array that shares no memory with it.

    JAX's training steps give arrays away: two variables with one array would
    lose it to whichever trains first.
    """
    if isinstance(value, keras.Variable):
        value = value.value
    if not keras.ops.is_tensor(value):
        return np.array(value)
    return np.array(keras.ops.convert_to_numpy(value))


def _make_copy(operation: keras.Operation, name: str) -> keras.Operation:
    """Makes the copy, without low-rank updates, which are merged."""
    if not isinstance(operation, keras.Layer):
        return make_copy(operation, name)
    updated = low_rank.low_rank_layers(operation)
    with compat.without_low_rank_configs(updated):
        return make_copy(operation, name)


def _pairs(
    source: keras.Layer, target: keras.Layer
) -> Iterator[tuple[keras.Layer, keras.Layer]]:
    inside = (compat.sublayers(source), compat.sublayers(target))
    return zip(*inside, strict=True)


def _ordered(
    layer: keras.Layer, variables: Iterable[keras.Variable]
) -> list[keras.Variable]:
    """Returns variables as a layer has them that is made of its config.

    Those of a layer that was quantized later are in another order.
    """
    modes = (
        getattr(inner, "quantization_mode", None)
        for inner in compat.sublayers(layer)
    )
    found = list(variables)
    return sorted(found, key=lambda v: v.name) if any(modes) else found


def _structure(layer: keras.Layer) -> tuple[list[type], list[tuple]]:
    """Returns the classes of the layers inside, and the shapes of weights."""
    weights = _ordered(layer, low_rank.plain_variables(layer))
    return (
        [type(x) for x in compat.sublayers(layer)],
        [tuple(v.shape) for v in weights],
    )


def _check_same_weights(source: keras.Layer, target: keras.Layer) -> None:
    (kinds, old), (other_kinds, new) = _structure(source), _structure(target)
    if old == new and kinds == other_kinds:
        return
    differing = "weights" if kinds == other_kinds else "layers inside"
    raise ValueError(
        f"Layer '{source.name}' ({type(source).__name__}) cannot be copied "
        f"from its config: a layer made of it has other {differing}, weights "
        f"of {new} instead of {old}. {_WHAT_TO_DO}"
    )


def _saves_more_than_variables(layer: keras.Layer) -> bool:
    """Whether a class may load what no variable holds."""
    # Keras's layers with kernels only save them otherwise after LoRA.
    own = type(layer).load_own_variables
    is_default = own is keras.layers.Layer.load_own_variables
    return not is_default and not hasattr(layer, "enable_lora")


def _copy_own_state(old: keras.Layer, new: keras.Layer) -> None:
    """Copies the variables that a layer saves, and what else it saves."""
    save: Callable[..., None] = type(old).save_own_variables
    is_keras = save.__module__.startswith("keras.")
    before = [] if is_keras else [to_numpy_copy(v) for v in old.variables]
    store: dict[str, Any] = {}
    old.save_own_variables(store)
    if store:
        copies = {key: to_numpy_copy(x) for key, x in store.items()}
        new.load_own_variables(copies)
    # Saving may change a layer: KerasHub's DINOv2 updates its position
    # embeddings. The original gets its values back.
    for variable, value in zip(old.variables, before, strict=False):
        if not (to_numpy_copy(variable) == value).all():
            variable.assign(value)


def _copy_assets(old: keras.Layer, new: keras.Layer) -> None:
    """Copies what a layer saves as files, such as a vocabulary."""
    if not hasattr(old, "save_assets"):
        return
    with TemporaryDirectory() as folder:
        old.save_assets(folder)
        new.load_assets(folder)


def _copy_lambda(layer: keras.layers.Lambda, name: str) -> keras.layers.Lambda:
    return keras.layers.Lambda(
        layer.function,
        output_shape=compat.lambda_output_shape(layer),
        mask=layer.mask,
        arguments=layer.arguments,
        name=name,
        dtype=layer.dtype_policy,
        trainable=layer.trainable,
    )


def _copy_torch_module(
    layer: keras.layers.TorchModuleWrapper, name: str
) -> keras.layers.TorchModuleWrapper:
    return keras.layers.TorchModuleWrapper(
        deepcopy(layer.module),
        name=name,
        output_shape=layer.output_shape,
        dtype=layer.dtype_policy,
        trainable=layer.trainable,
    )


def _copy_saved_model(
    layer: keras.layers.TFSMLayer, name: str
) -> keras.layers.TFSMLayer:
    return keras.layers.TFSMLayer(**{**layer.get_config(), "name": name})


# `from_config` refuses code from files; here the code is at hand.
_COPIED_BY_HAND: dict[type, Callable[..., keras.Operation]] = {
    keras.layers.Lambda: _copy_lambda,
    keras.layers.TorchModuleWrapper: _copy_torch_module,
    keras.layers.TFSMLayer: _copy_saved_model,
}
