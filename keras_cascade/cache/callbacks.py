"""Callbacks that see one training in several calls of Keras's `fit`."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import keras

from keras_cascade._interrupts.cleanup import finally_twice
from keras_cascade.cache.datasets import Dataset
from keras_cascade.cache.frozen_part import FrozenPart
from keras_cascade.training.rates.blockwise_optimizer import find_blockwise

# JAX runs up to 32 steps ahead of Python's wait for them, each of which keeps
# its batch: of large features a gigabyte. It is as fast with a few.
_STEPS_AHEAD = 4
Logs = dict[str, Any] | None


class EndOfSegmentError(Exception):
    """Ends a call of Keras's `fit` before an epoch, to go on with another.

    Attributes:
        epoch: The epoch, for which callbacks have begun.
    """

    def __init__(self, epoch: int):
        super().__init__()
        self.epoch = epoch


class SegmentedCallbacks(keras.callbacks.CallbackList):
    """Callbacks whose training begins once and ends once.

    The arguments are those of Keras's `CallbackList`, or such a list.
    """

    def __init__(self, callbacks: Any, **arguments: Any):
        if isinstance(callbacks, keras.callbacks.CallbackList):
            callbacks = callbacks.callbacks
        self._has_begun = False
        self._begun_epoch: int | None = None
        self._logs: Logs = None
        self._running: deque[Logs] = deque()
        super().__init__(callbacks, add_history=True, **arguments)

    def on_train_begin(self, logs: Logs = None) -> None:
        """Keras's hook: passed on the first time."""
        if not self._has_begun:
            self._has_begun = True
            super().on_train_begin(logs)

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Keras's hook: passed on once, if a segment ended at the epoch."""
        if epoch != self._begun_epoch:
            self._begun_epoch = epoch
            super().on_epoch_begin(epoch, logs)

    def on_train_batch_end(self, batch: int, logs: Logs = None) -> None:
        """Keras's hook: waits for a step that began some steps before."""
        super().on_train_batch_end(batch, logs)
        if keras.config.backend() != "jax":
            return
        import jax

        # A step is done when its loss, which is in the logs, is computed.
        self._running.append(logs)
        if len(self._running) > _STEPS_AHEAD:
            jax.block_until_ready(self._running.popleft())

    def on_train_end(self, logs: Logs = None) -> None:
        """Keras's hook: put off until the training ends."""
        self._logs = logs or self._logs

    def end_training(self) -> None:
        """Ends the training for the callbacks."""
        super().on_train_end(self._logs)


class FrozenCheck(keras.callbacks.Callback):
    """Ends the segment if flags changed, and raises an error for weights.

    Features are of the layers that were frozen when the segment began, with
    their weights.
    """

    def __init__(self) -> None:
        super().__init__()
        self._part: FrozenPart | None = None
        self._flags: list[bool] = []
        self._weights = ""

    def watch(self, part: FrozenPart | None) -> None:
        """Sets the part whose features are in use from now on, if any."""
        self._part, self._flags = part, self._now()
        if part is not None:
            self._weights = part.state_digest()

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Compares the flags with those at the beginning of the segment."""
        if self._now() != self._flags:
            raise EndOfSegmentError(epoch)

    def check_weights(self) -> None:
        """Raises an error if weights are not those at the beginning.

        It reads them all: at the end of a segment, not in every epoch.
        """
        part = self._part
        if part is not None and part.state_digest() != self._weights:
            raise RuntimeError(
                "A callback changed attributes or weights of frozen layers "
                "while the cascade trained on cached features, so its "
                "training is void. Name what is to train from an epoch on "
                "with fit(unfreeze=...), load weights in on_train_begin, or "
                "train without cache_features."
            )

    def _now(self) -> list[bool]:
        cascade: Any = self.model
        return cascade.flags()


class DataCheck(keras.callbacks.Callback):
    """Ends the segment if data changed: by a callback, or by its own code."""

    def __init__(self) -> None:
        super().__init__()
        self._datasets: Sequence[Dataset] = ()

    def watch(self, datasets: Sequence[Dataset]) -> None:
        """Sets the data whose features are in use from now on."""
        self._datasets = datasets

    def on_epoch_begin(self, epoch: int, logs: Logs = None) -> None:
        """Looks at some samples of the data again."""
        for data in self._datasets:
            data.look_again()
        if any(data.varies_because for data in self._datasets):
            raise EndOfSegmentError(epoch)


@contextmanager
def delay_averages(
    optimizer: Any, variables: Callable[[], list[keras.Variable]]
) -> Iterator[None]:
    """Puts moving averages in the place of weights when the training ends.

    Keras does so at the end of each `fit`, for the variables that train then.
    """
    blockwise = None if optimizer is None else find_blockwise(optimizer)
    if optimizer is None or blockwise is None:
        yield
        return

    def release() -> None:
        blockwise.holds_averages = False

    with finally_twice(release):
        blockwise.holds_averages = True
        yield
    optimizer.finalize_variable_values(variables())
