"""Hashes the content of samples, and of the operations that compute features.

Two samples with the same content have the same id, whatever data they come
in, and two parts of networks that compute the same have the same key, in
whatever process. Anything that may compute something else has another key.
"""

import hashlib
import inspect
import json
import os
import types
import uuid
import weakref
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import keras
import numpy as np

from keras_cascade.cache.storage.identifiers import IDS
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
        array: The rows, of any kind of number.

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
    kind = hashlib.sha256(f"{rows.dtype.str} {rows.shape[1:]}".encode())
    found = []
    for row in rows:
        digest = kind.copy()
        digest.update(np.ascontiguousarray(row).data)
        found.append(digest.digest()[: IDS.itemsize])
    return b"".join(found)


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


def tensor_key(program: Program, output: str) -> str:
    """Returns the hash of everything that computes an output of a program.

    It depends on every operation that leads to the output, with arguments,
    weights and dtype policy, on the shapes and dtypes of the inputs, and on
    backend and version of Keras. Names of layers do not count.

    Args:
        program: The program.
        output: The name of the output.
    """
    part = program.pruned([output])
    # Tensors go by number, since names of layers differ between processes.
    numbers = {port.reference: n for n, port in enumerate(part.inputs)}
    steps = []
    for step in part.steps:
        steps.append([_arguments(step, numbers), _content(step.operation)])
        for reference in step.outputs:
            numbers[reference] = len(numbers)
    return digest_of(
        _FORMAT,
        [keras.config.backend(), keras.version(), keras.config.floatx()],
        [[port.shape, port.dtype] for port in part.inputs],
        steps,
        numbers[part.outputs[output]],
    )


def weights_digest(operations: Sequence[object]) -> str:
    """Returns the hash of the values of the weights of operations."""
    return digest_of([_weights(operation) for operation in operations])


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


def _content(operation: object) -> list[Any]:
    kind = type(operation)
    # Classes of this package that move or are renamed would get other keys:
    # a test says which of their names are in use.
    return [
        f"{kind.__module__}.{kind.__qualname__}",
        _source(kind),
        _settings(operation),
        _weights(operation),
    ]


def _settings(operation: Any) -> Any:
    """Returns the config of an operation, or a unique token without one."""
    try:
        config = operation.get_config()
    except (NotImplementedError, AttributeError, TypeError):
        # `get_config` of some layers of KerasHub (0.32) fails.
        return _unique_token(operation)
    if not isinstance(config, Mapping):
        return _unique_token(operation)
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


def _source(kind: type) -> str | None:
    """Returns the hash of the code of a user's class, which has no version."""
    if kind.__module__.partition(".")[0] in ("keras", "keras_cascade"):
        return None
    try:
        code = inspect.getsource(kind)
    except (OSError, TypeError):
        return _unique_token(kind)
    return hashlib.sha256(code.encode()).hexdigest()


# The keys of a layer's config that do not change its inference.
_NO_CONTENT = ("name", "trainable", "shared_object_id")


def _plain(x: Any) -> Any:
    """Returns a value as JSON, with a unique token for one without content."""
    if x is None or isinstance(x, (bool, int, float, str)):
        return x
    if isinstance(x, Mapping):
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
        return _of_function(x)
    if hasattr(x, "get_config"):
        return [type(x).__module__, type(x).__qualname__, _settings(x)]
    return _unique_token(x)


def _of_value(x: object) -> Any:
    if isinstance(x, (np.ndarray, np.generic)):
        array = np.ascontiguousarray(x)
        content = hashlib.sha256(array.tobytes()).hexdigest()
        return [str(array.dtype), list(array.shape), content]
    return repr(x)


def _of_function(function: types.FunctionType) -> list[Any]:
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    return [
        [function.__module__, function.__qualname__],
        *_code(function.__code__),
        _plain([function.__defaults__, function.__kwdefaults__, cells]),
    ]


def _code(code: types.CodeType) -> Iterator[Any]:
    yield hashlib.sha256(code.co_code).hexdigest()
    yield list(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _code(constant)
        else:
            yield repr(constant)


_TOKENS: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()


def _unique_token(x: object) -> str:
    """Returns a token for this object in this process, like no other's."""
    try:
        return _TOKENS.setdefault(x, uuid.uuid4().hex)
    except TypeError:  # no weak references, or no hash
        return uuid.uuid4().hex
