"""Keeps the identity of users' layers, whatever their own configs leave out.

The config of a user's layer may have no name, no dtype and no flag, and its
`from_config` may ignore them. So a user's layer stands in a config as an
`Identified`: what the layer writes itself, and beside it what Keras knows of
every layer.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import keras

from keras_cascade import _keras_compat as compat
from keras_cascade.graph.names import rename

_KEY = "keras_cascade>identity"
_REGISTERED = "keras_cascade>Identified"
# The arguments that every layer has.
_OF_EVERY_LAYER = ("name", "trainable", "dtype", "activity_regularizer")


def identified_config(
    operations: Iterable[keras.Operation], get_config: Callable[[], Any]
) -> Any:
    """Returns a config in which `Identified` stands for users' operations.

    Args:
        operations: The operations that the config is of. Layers inside them
            count as well.
        get_config: Returns the config.
    """
    users = list(users_operations(operations))
    if not users:
        return get_config()
    with compat.with_configs((x, _with_identity(x)) for x in users):
        return _as_identified(get_config())


def users_operations(
    operations: Iterable[keras.Operation],
) -> Iterator[keras.Operation]:
    """Yields the operations of users, and the users' layers inside them."""
    for operation in operations:
        is_layer = isinstance(operation, keras.Layer)
        inside = compat.sublayers(operation) if is_layer else [operation]
        yield from (x for x in inside if is_users(x))


def is_users(operation: keras.Operation) -> bool:
    """Whether the class is neither of Keras nor of this package."""
    package = type(operation).__module__.partition(".")[0]
    return package not in ("keras", "keras_cascade")


@keras.saving.register_keras_serializable(package="keras_cascade")
class Identified:
    """Stands in a file for a user's operation.

    Args:
        operation: The operation, as Keras serialises it.
        identity: Its name; and its dtype, flag and regulariser if it is a
            layer.
    """

    def __init__(self, operation: dict, identity: dict):
        self.operation = operation
        self.identity = identity

    def get_config(self) -> dict:
        """Returns the constructor's arguments."""
        return vars(self)

    @classmethod
    def from_config(cls, config: dict) -> keras.Operation:
        """Returns the operation itself, under its name and of its dtype."""
        entry = dict(config["operation"])
        # Weights are made when it is built, so under its own name.
        build_config = entry.pop("build_config", None)
        operation: Any = keras.saving.deserialize_keras_object(entry)
        identify(operation, config["identity"])
        if build_config and not operation.built:
            operation.build_from_config(build_config)
            operation.built = True
        return operation


def identify(operation: keras.Operation, identity: Mapping[str, Any]) -> None:
    """Gives an operation the name, and a layer the dtype, of an identity."""
    if operation.name != identity["name"]:
        rename(operation, identity["name"])
    if not isinstance(operation, keras.Layer):
        return
    policy: Any = keras.dtype_policies.deserialize(identity["dtype"])
    if operation.dtype_policy != policy:
        operation.dtype_policy = policy
    if operation.trainable != identity["trainable"]:
        operation.trainable = identity["trainable"]
    regularizer = identity.get("activity_regularizer")
    if operation.activity_regularizer is None and regularizer:
        made = keras.regularizers.deserialize(regularizer)
        operation.activity_regularizer = made


def make_copy(operation: keras.Operation, name: str) -> keras.Operation:
    """Makes an operation again from its config, under another name."""
    users = list(users_operations([operation]))
    config = identified_config([operation], operation.get_config)
    if is_users(operation):
        config = _accepted(operation, config)
    # Classes that are registered nowhere are at hand, too.
    kinds = {keras.saving.get_registered_name(type(x)): type(x) for x in users}
    with keras.saving.custom_object_scope(kinds):
        if "name" in config:
            config = {**config, "name": name}
        copy = type(operation).from_config(config)
    identify(copy, {**_identity(operation), "name": name})
    return copy


def _with_identity(operation: keras.Operation) -> Callable[[], dict]:
    own = operation.get_config

    def get_config() -> dict:
        config = _accepted(operation, own())
        return {**config, _KEY: _identity(operation)}

    return get_config


def _identity(operation: keras.Operation) -> dict:
    identity: dict[str, Any] = {"name": operation.name}
    if isinstance(operation, keras.Layer):
        policy = keras.dtype_policies.serialize(operation.dtype_policy)
        identity |= {"dtype": policy, "trainable": operation.trainable}
        if operation.activity_regularizer is not None:
            regularizer = operation.activity_regularizer
            written = keras.regularizers.serialize(regularizer)
            identity["activity_regularizer"] = written
    return identity


def _accepted(operation: keras.Operation, config: dict) -> dict:
    """Returns a config that the constructor takes, with the dtype if it may.

    Layers that a layer makes inside itself get their dtype from its own.
    """
    kind = type(operation)
    parameters = inspect.signature(kind.__init__).parameters
    open_ended = inspect.Parameter.VAR_KEYWORD
    takes_all = any(x.kind == open_ended for x in parameters.values())
    if isinstance(operation, keras.Layer) and (
        takes_all or "dtype" in parameters
    ):
        policy = keras.dtype_policies.serialize(operation.dtype_policy)
        config = {"dtype": policy, **config}
    if takes_all or not kind.from_config.__module__.startswith("keras."):
        return config
    return {
        key: value
        for key, value in config.items()
        if key in parameters or key not in _OF_EVERY_LAYER
    }


def _as_identified(config: Any) -> Any:
    if isinstance(config, list):
        return [_as_identified(x) for x in config]
    if not isinstance(config, dict):
        return config
    inner = config.get("config")
    found = {key: _as_identified(x) for key, x in config.items()}
    # One that is written without its class stays as it is.
    found.pop(_KEY, None)
    if not isinstance(inner, dict) or _KEY not in inner:
        return found
    in_graph = {
        k: found.pop(k) for k in ("name", "inbound_nodes") if k in found
    }
    return {
        "module": Identified.__module__,
        "class_name": Identified.__name__,
        "registered_name": _REGISTERED,
        "config": {"operation": found, "identity": inner[_KEY]},
        **in_graph,
    }
