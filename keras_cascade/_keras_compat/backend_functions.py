"""Replaces functions of the backend where Keras 3.15.1 has no public way to."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from keras.src import backend

# Keras's layers and operations look a function up in its module at each call.
_HOMES: dict[str, Any] = {
    "resize": backend.image,
    "rnn": backend,
    "lstm": backend,
    "gru": backend,
    "average_pool": backend.nn,
    # Torch alone has it.
    "_apply_same_padding": backend.nn,
}


@contextmanager
def backend_functions(**functions: Callable[..., Any]) -> Iterator[None]:
    """Has all layers and operations compute with other functions.

    Converters do not know some functions of the backend. Subclasses of layers
    would not reach the layers that are inside of others, or users' own.

    Args:
        **functions: Functions by the name of the one that they replace. Each
            is called with that function and its arguments.
    """
    with ExitStack() as stack:
        for name, function in functions.items():
            stack.enter_context(_replaced(name, function))
        yield


@contextmanager
def _replaced(name: str, function: Callable[..., Any]) -> Iterator[None]:
    home = _HOMES[name]
    original = getattr(home, name)

    def replacement(*args: Any, **kwargs: Any) -> Any:
        return function(original, *args, **kwargs)

    setattr(home, name, replacement)
    try:
        yield
    finally:
        setattr(home, name, original)
