"""What features are of: the content of samples, and of what computes them.

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

# Raised whenever features are computed, checked or stored in another way.
_FORMAT = 2
# Python's lock is let go of while so many bytes are digested, and for a few
# less it does not pay.
_FOR_THREADS = 2**14
_PIECES = 16


def row_ids(array: np.ndarray) -> np.ndarray:
    """The content of each row: 16 bytes of a SHA-256 of its values.

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
    """The ids of samples that consist of several arrays.

    Args:
        several: The ids of the rows of each.
    """
    if len(several) == 1:
        return several[0]
    columns = [ids.view(np.uint8).reshape(-1, IDS.itemsize) for ids in several]
    return row_ids(np.concatenate(columns, axis=1))


def digest_of(*parts: Any) -> str:
    """A name for what JSON can hold, in 32 characters."""
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def tensor_key(program: Program, output: str) -> str:
    """A name for what computes one of the outputs of a program.

    It depends on every operation that leads to it, with arguments, weights and
    dtype policy, on the shapes and dtypes of the inputs, and on backend and
    version of Keras. Names of layers do not count.

    Args:
        program: The program.
        output: The name of the output.
    """
    part = program.pruned([output])
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


def weights_content(operations: Sequence[Any]) -> str:
    """A name for the values of the weights of operations."""
    return digest_of([_weights(operation) for operation in operations])


def _arguments(step: Step, numbers: Mapping) -> Any:
    def number(x: Any) -> Any:
        if isinstance(x, Source):
            return f"tensor {numbers.get(x.reference)}"
        return _plain(x)

    return [
        [repr(key), x]
        for key, x in keras.tree.flatten_with_path(
            keras.tree.map_structure(number, (step.args, step.kwargs))
        )
    ]


def _content(operation: Any) -> list[Any]:
    kind = type(operation)
    return [
        f"{kind.__module__}.{kind.__qualname__}",
        _source(kind),
        _settings(operation),
        _weights(operation),
    ]


def _settings(operation: Any) -> Any:
    """The arguments of an operation; what tells none is like no other."""
    try:
        config = operation.get_config()
    except (NotImplementedError, AttributeError, TypeError):
        # Some of KerasHub's (0.32) fail where they are asked for.
        return _unlike_any_other(operation)
    if not isinstance(config, Mapping):
        return _unlike_any_other(operation)
    return _plain({k: v for k, v in config.items() if k not in _NO_CONTENT})


def _weights(operation: Any) -> list[Any]:
    return [
        [list(v.shape), v.dtype, hashlib.sha256(_bytes(v)).hexdigest()]
        for v in getattr(operation, "variables", ())
        if not v.path.endswith("seed_generator_state")
    ]


def _bytes(variable: keras.Variable) -> memoryview:
    # A scalar has no other view of its bytes.
    return (
        np.ascontiguousarray(to_numpy_copy(variable))
        .reshape(-1)
        .view(np.uint8)
        .data
    )


def _source(kind: type) -> str | None:
    """The code of a class of the user's, which has no version."""
    if kind.__module__.partition(".")[0] in ("keras", "keras_cascade"):
        return None
    try:
        code = inspect.getsource(kind)
    except (OSError, TypeError):
        return _unlike_any_other(kind)
    return hashlib.sha256(code.encode()).hexdigest()


# Of a layer's config, what does not change what it computes in inference.
_NO_CONTENT = ("name", "trainable", "shared_object_id")


def _plain(x: Any) -> Any:
    """As JSON; what has no content that could be told is like no other."""
    if x is None or isinstance(x, (bool, int, float, str)):
        return x
    if isinstance(x, Mapping):
        # Layers have both in their configs; policies are known by their name.
        drop = _NO_CONTENT if {"name", "trainable"} <= set(x) else ()
        return {str(k): _plain(v) for k, v in x.items() if k not in drop}
    if isinstance(x, (list, tuple, set, frozenset)):
        items = sorted(x, key=repr) if isinstance(x, (set, frozenset)) else x
        return [_plain(item) for item in items]
    if isinstance(x, (bytes, np.ndarray, np.generic, np.dtype, slice, type)):
        return _of_a_value(x)
    if keras.ops.is_tensor(x) or isinstance(x, keras.Variable):
        return _of_a_value(to_numpy_copy(x))
    if isinstance(x, types.FunctionType):
        return _of_a_function(x)
    if hasattr(x, "get_config"):
        return [type(x).__module__, type(x).__qualname__, _settings(x)]
    return _unlike_any_other(x)


def _of_a_value(x: Any) -> Any:
    if isinstance(x, (np.ndarray, np.generic)):
        array = np.ascontiguousarray(x)
        content = hashlib.sha256(array.tobytes()).hexdigest()
        return [str(array.dtype), list(array.shape), content]
    return repr(x)


def _of_a_function(function: types.FunctionType) -> list[Any]:
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


def _unlike_any_other(x: Any) -> str:
    """Good for this object in this process: never reused by mistake."""
    try:
        return _TOKENS.setdefault(x, uuid.uuid4().hex)
    except TypeError:  # no weak references, or no hash
        return uuid.uuid4().hex
