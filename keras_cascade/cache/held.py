"""One training in several calls of Keras's `fit`, as callbacks see it."""

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

from keras_cascade.training.rates.blockwise_optimizer import find_blockwise

# JAX runs up to 32 steps behind Python, each of which holds its batch: of large
# features a gigabyte. It is as fast with a few.
_STEPS_BEHIND = 4


class HeldCallbacks(keras.callbacks.CallbackList):
    """Callbacks whose training begins once and ends once.

    Args:
        callbacks: The user's: a list, one, or a `CallbackList`.
        **arguments: Of Keras's `CallbackList`.
    """

    def __init__(self, callbacks: Any, **arguments: Any):
        if isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = callbacks.callbacks
        self._has_begun, self._logs = False, None
        self._behind: deque[Any] = deque()
        super().__init__(callbacks, add_history=True, **arguments)

    def on_train_begin(self, logs: Any = None) -> None:
        """Keras's hook: passed on the first time."""
        if not self._has_begun:
            self._has_begun = True
            super().on_train_begin(logs)

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Keras's hook: waits for a step that was begun some steps before."""
        super().on_train_batch_end(batch, logs)
        if keras.config.backend() != "jax":
            return
        import jax

        self._behind.append(logs)
        if len(self._behind) > _STEPS_BEHIND:
            jax.block_until_ready(self._behind.popleft())

    def on_train_end(self, logs: Any = None) -> None:
        """Keras's hook: kept until the training ends."""
        self._logs = logs or self._logs

    def end_training(self) -> None:
        """The training has ended."""
        super().on_train_end(self._logs)


@contextmanager
def averages_held(
    optimizer: Any, variables: Callable[[], list]
) -> Iterator[None]:
    """Has moving averages of weights wait for the end of the training.

    Keras puts them in the place of the weights at the end of each `fit`.

    Args:
        optimizer: The optimizer of a cascade.
        variables: Gives what trains at the end.
    """
    blockwise = None if optimizer is None else find_blockwise(optimizer)
    if optimizer is None or blockwise is None:
        yield
        return
    blockwise.holds_averages = True
    try:
        yield
    finally:
        blockwise.holds_averages = False
    optimizer.finalize_variable_values(variables())
