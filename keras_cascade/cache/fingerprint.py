"""Hashes the content of samples, and of the operations that compute features.

Two samples with the same content have the same id, whatever data they come
in, and two parts of networks that compute the same have the same key, in
whatever process. Anything that may compute something else has another key.
"""

import hashlib
import json
import os
import types
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np

from keras_cascade.cache.contents.operations import describe_code
from keras_cascade.cache.contents.origins import release_of_class
from keras_cascade.cache.contents.values import Description, unique_token
from keras_cascade.cache.storage.identifiers import IDS
from keras_cascade.data.arrays import is_text
from keras_cascade.graph.layer_copying import to_numpy_copy
from keras_cascade.graph.program import Program, Source, Step

# Raised whenever features are computed, checked or stored in another way, so
# that those of earlier versions are not found.
_FORMAT = 2
# From this many bytes a row, threads pay: hashlib releases Python's lock.
_FOR_THREADS = 2**14
_PIECES = 16


def row_ids(array: np.ndarray) -> np.ndarray:
    """Returns the hash of each row: 16 bytes of a SHA-256 of its values.

    Args:
        array: The rows, of any kind of number, or of strings.

    Example:
    >>> ids = row_ids(np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0]]))
    >>> bool(ids[0] == ids[2]), bool(ids[0] == ids[1])
    (True, False)
    """
    if array.nbytes < _FOR_THREADS * max(1, len(array)):
        return np.frombuffer(_digests(array), IDS)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        digests = pool.map(_digests, np.array_split(array, _PIECES))
    return np.frombuffer(b"".join(digests), IDS)


def _digests(rows: np.ndarray) -> bytes:
    if is_text(rows):
        return b"".join(map(_text_digest, rows))
    kind = hashlib.sha256(f"{rows.dtype.str} {rows.shape[1:]}".encode())
    found = []
    for row in rows:
        digest = kind.copy()
        digest.update(np.ascontiguousarray(row).data)
        found.append(digest.digest()[: IDS.itemsize])
    return b"".join(found)


def _text_digest(row: object) -> bytes:
    """Returns the id of a row of strings, whether as text or as UTF-8."""
    texts = np.asarray(row, object)
    found = hashlib.sha256(f"string {texts.shape}".encode())
    for text in texts.reshape(-1).tolist():
        content = text if isinstance(text, bytes) else str(text).encode()
        found.update(len(content).to_bytes(8, "big") + content)
    return found.digest()[: IDS.itemsize]


def joint_ids(several: Sequence[np.ndarray]) -> np.ndarray:
    """Returns the ids of samples that consist of rows of several arrays.

    Args:
        several: The ids of the rows of each array.
    """
    if len(several) == 1:
        return several[0]
    columns = [ids.view(np.uint8).reshape(-1, IDS.itemsize) for ids in several]
    return row_ids(np.concatenate(columns, axis=1))


def digest_of(*parts: object) -> str:
    """Returns the hash of values that JSON can have, in 32 characters."""
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def tensor_key(program: Program, output: str, key: str | None = None) -> str:
    """Returns the hash of everything that computes an output of a program.

    It depends on every operation that leads to the output, with arguments,
    weights, dtype policy and the user's code, on the shapes and dtypes of the
    inputs, and on backend and version of Keras. Names of layers do not count.

    Args:
        program: The program.
        output: The name of the output.
        key: A name by which the user says that compiled code is the same.
            Defaults to `None`.
    """
    part = program.pruned([output])
    # Tensors go by number, since names of layers differ between processes.
    numbers = {port.reference: n for n, port in enumerate(part.inputs)}
    steps = []
    for step in part.steps:
        steps.append([_arguments(step, numbers), _content(step.operation, key)])
        for reference in step.outputs:
            numbers[reference] = len(numbers)
    return digest_of(
        _FORMAT,
        [keras.config.backend(), keras.version(), keras.config.floatx()],
        [[port.shape, port.dtype] for port in part.inputs],
        steps,
        numbers[part.outputs[output]],
    )


def state_digest(operations: Sequence[object]) -> str:
    """Returns the hash of what operations compute with, as it is now.

    It depends on their weights, and on the user's code and what that reads.
    """
    return digest_of([[_weights(x), describe_code(x)[0]] for x in operations])


def unknown_contents(
    program: Program, key: str | None = None
) -> dict[str, str]:
    """Returns the steps whose features serve this process alone.

    Returns:
        The name of each step, and the reason.
    """
    found = {}
    for step in program.steps:
        for place, reason in describe_code(step.operation, key)[
            1
        ].unknown.items():
            found[step.name] = f"'{place.lstrip('.')}' {reason}"
        if isinstance(_settings(step.operation), str):
            kind = type(step.operation).__qualname__
            found[step.name] = f"{kind} has no get_config() that works"
    return found


def _arguments(step: Step, numbers: Mapping[Any, int]) -> list[Any]:
    def number(x: object) -> object:
        if isinstance(x, Source):
            return f"tensor {numbers.get(x.reference)}"
        return _plain(x)

    return [
        [repr(key), x]
        for key, x in keras.tree.flatten_with_path(
            keras.tree.map_structure(number, (step.args, step.kwargs))
        )
    ]


def _content(operation: object, key: str | None) -> list[Any]:
    kind = type(operation)
    release = release_of_class(kind)
    # Classes of this package that move or are renamed would get other keys:
    # a test says which of their names are in use.
    content = [
        f"{kind.__module__}.{kind.__qualname__}",
        None if release in ("keras", "keras_cascade") else release,
        _settings(operation),
        _weights(operation),
    ]
    code, _ = describe_code(operation, key)
    # Of Keras's layers alone, the keys of earlier versions stay valid.
    return content if code is None else [*content, code]


def _settings(operation: Any) -> Any:
    """Returns the config of an operation, or a unique token without one."""
    try:
        config = operation.get_config()
    except (NotImplementedError, AttributeError, TypeError, OSError):
        # `get_config` of some layers of KerasHub (0.32) fails; Keras's own
        # reads the source of a lambda, which may have none.
        return unique_token(operation)
    if not isinstance(config, Mapping):
        return unique_token(operation)
    return _plain({k: v for k, v in config.items() if k not in _NO_CONTENT})


def _weights(operation: object) -> list[Any]:
    return [
        [list(v.shape), v.dtype, hashlib.sha256(_bytes(v)).hexdigest()]
        for v in getattr(operation, "variables", ())
        # Inference draws no random numbers, or the layer is excluded.
        if not v.path.endswith("seed_generator_state")
    ]


def _bytes(variable: keras.Variable) -> memoryview:
    # A view as bytes takes an axis, which a scalar has not.
    return (
        np.ascontiguousarray(to_numpy_copy(variable))
        .reshape(-1)
        .view(np.uint8)
        .data
    )


# The keys of a layer's config that do not change its inference.
_NO_CONTENT = ("name", "trainable", "shared_object_id")


def _plain(x: Any) -> Any:
    """Returns a value as JSON, with a unique token for one without content."""
    if x is None or isinstance(x, (bool, int, float, str)):
        return x
    if isinstance(x, Mapping):
        if x.get("class_name") == "__lambda__":
            # With line numbers and more; described as an attribute.
            return "__lambda__"
        # The config of a layer. That of a dtype policy has a name that counts.
        drop = _NO_CONTENT if {"name", "trainable"} <= set(x) else ()
        return {str(k): _plain(v) for k, v in x.items() if k not in drop}
    if isinstance(x, (list, tuple, set, frozenset)):
        items = sorted(x, key=repr) if isinstance(x, (set, frozenset)) else x
        return [_plain(item) for item in items]
    if isinstance(x, (bytes, np.ndarray, np.generic, np.dtype, slice, type)):
        return _of_value(x)
    if keras.ops.is_tensor(x) or isinstance(x, keras.Variable):
        return _of_value(to_numpy_copy(x))
    if isinstance(x, types.FunctionType):
        made = Description()
        return [made.of(x, ""), sorted(made.states.items())]
    if hasattr(x, "get_config"):
        return [type(x).__module__, type(x).__qualname__, _settings(x)]
    return unique_token(x)


def _of_value(x: object) -> Any:
    if isinstance(x, (np.ndarray, np.generic)):
        array = np.ascontiguousarray(x)
        content = hashlib.sha256(array.tobytes()).hexdigest()
        return [str(array.dtype), list(array.shape), content]
    return repr(x)
