"""Sees that code draws random numbers, by the states of random generators.

Tested by `tests/data/test_repetition.py`.
"""

import functools
import itertools
import random
import sys
import types
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keras_cascade import _keras_compat as compat

# How far generators are searched for: in attributes of attributes, and so on.
_DEPTH, _ITEMS, _OBJECTS = 6, 100, 10_000
# Code that draws, if at all, from generators of the process.
_INSTALLED = {"jax", "keras", "numpy", "tensorflow", "torch", "torchvision"}
_INSTALLED |= sys.stdlib_module_names - {"__main__"}


class Generators:
    """The random generators that some objects can draw from.

    These are the generators of the process (Python's, NumPy's, torch's and
    Keras's), and others that the objects reach: through attributes,
    collections, and the globals and closures of functions.

    Args:
        *owners: The objects.
    """

    def __init__(self, *owners: object):
        self._found = list(_find(owners))

    def states(self) -> list[object]:
        """Returns values that change with each random number drawn."""
        torch = sys.modules.get("torch")
        return [
            random.getstate(),
            _bytes_of(np.random.get_state()),
            *([] if torch is None else _torch_states(torch)),
            str(compat.global_seed()),
            *map(_state, self._found),
        ]


def _torch_states(torch: Any) -> list[bytes]:
    """Returns the states of torch's generators, a GPU's too if it is in use."""
    states = [torch.get_rng_state()]
    if torch.cuda.is_initialized():
        states += torch.cuda.get_rng_state_all()
    return [state.numpy().tobytes() for state in states]


def _bytes_of(state: Any) -> object:
    """Returns the state of a RandomState in values that can be compared."""
    return [x.tobytes() if isinstance(x, np.ndarray) else x for x in state]


def _state(generator: Any) -> object:
    if isinstance(generator, random.Random):
        return generator.getstate()
    if isinstance(generator, np.random.Generator):
        return str(generator.bit_generator.state)
    if isinstance(generator, keras.random.SeedGenerator):
        return str(keras.ops.convert_to_numpy(generator.state))
    if isinstance(generator, np.random.RandomState):
        return _bytes_of(generator.get_state())
    return generator.get_state().numpy().tobytes()  # torch's


def _find(owners: Iterable[object]) -> Iterator[object]:
    kinds = _kinds()
    waiting, seen = [(owner, 0) for owner in owners], set()
    while waiting and len(seen) < _OBJECTS:
        x, depth = waiting.pop()
        if id(x) in seen:
            continue
        seen.add(id(x))
        if isinstance(x, kinds):
            yield x
        elif depth < _DEPTH:
            waiting += [(part, depth + 1) for part in _parts(x)]


def _kinds() -> tuple[type, ...]:
    torch = sys.modules.get("torch")
    return (
        random.Random,
        np.random.Generator,
        np.random.RandomState,
        keras.random.SeedGenerator,
        *([] if torch is None else [torch.Generator]),
    )


def _parts(x: Any) -> list[object]:
    """Returns the objects that an object holds, or that its code names."""
    if isinstance(x, (types.ModuleType, type, str, bytes, np.ndarray)):
        return []
    if isinstance(x, Mapping):
        x = x.values()
    if isinstance(x, (list, tuple, set, frozenset, type({}.values()))):
        return list(itertools.islice(x, _ITEMS))
    if isinstance(x, types.FunctionType):
        return _parts_of_function(x)
    if isinstance(x, types.MethodType):
        return [x.__self__, x.__func__]
    if isinstance(x, functools.partial):
        return [x.func, x.args, x.keywords]
    methods = [
        value
        for kind in type(x).__mro__
        if not _is_installed(kind.__module__)
        for value in vars(kind).values()
        if isinstance(value, types.FunctionType)
    ]
    return [*getattr(x, "__dict__", {}).values(), *methods]


def _parts_of_function(function: types.FunctionType) -> list[object]:
    if _is_installed(function.__module__):
        return []
    names = function.__code__.co_names
    known = function.__globals__
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    defaults = [function.__defaults__, function.__kwdefaults__]
    return [*(known[n] for n in names if n in known), *cells, *defaults]


def _is_installed(module: str | None) -> bool:
    return (module or "").partition(".")[0] in _INSTALLED
