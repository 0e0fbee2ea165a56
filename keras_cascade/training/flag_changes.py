"""Keeps flags that callbacks set until a training can take them up.

Tested by `tests/training/test_callbacks_set_flags.py`.
"""

from collections.abc import Callable

import keras

from keras_cascade._cascade_view import CascadeView
from keras_cascade._interrupts.cleanup import finally_twice


class FlagChanges:
    """The flags that are set while a cascade trains, other than by stages.

    A step is traced for the variables that train. So flags that are set
    before the first batch of an epoch count for it, and later ones for the
    next epoch: until then the layers have those that the step was traced for.

    Args:
        cascade: The cascade.
    """

    def __init__(self, cascade: CascadeView):
        self._cascade = cascade
        # While batches are trained on: the flags of the step.
        self._running: list[bool] | None = None
        self._waiting: list[bool] | None = None
        self._trained: list[bool] | None = None  # of the last step

    def change(self, set_flags: Callable[[], None]) -> None:
        """Calls a function that sets flags."""
        running = self._running
        if running is None:
            set_flags()
            return
        with finally_twice(lambda: self._cascade.restore_flags(running)):
            self._cascade.restore_flags(self._waiting or running)
            set_flags()
            self._waiting = self._cascade.flags()

    def apply(self) -> None:
        """Sets the flags that wait, between two epochs."""
        waiting = self._waiting
        self._running = None
        if waiting is not None:
            self._cascade.restore_flags(waiting)
            self._waiting = None

    def end(self) -> None:
        """Sets the flags that wait when the training ends."""
        # An interrupted change may have left some flags of each.
        if self._waiting is None:
            self._waiting = self._running
        self.apply()

    def begin(self) -> None:
        """Begins with the batches of an epoch, for the flags of now."""
        self._running = self._trained = self._cascade.flags()

    def undo(self) -> None:
        """Sets the flags of the last step."""
        if self._trained is not None:
            self._cascade.restore_flags(self._trained)

    def put_off(self) -> None:
        """Keeps the flags that were set since the epoch began."""
        running, now = self._running, self._cascade.flags()
        if running is None or running == now:
            return
        earlier = self._waiting or running
        kept = zip(running, now, earlier, strict=True)
        self._waiting = [old if a == b else b for a, b, old in kept]
        self._cascade.restore_flags(running)


class PutOff(keras.callbacks.Callback):
    """Looks, after all callbacks of the user's, for flags that they set."""

    # It hands nothing to the logs, so that Keras need not wait for steps.
    async_safe = True

    def __init__(self, changes: FlagChanges, retrace: Callable[[], object]):
        super().__init__()
        self._changes, self._retrace = changes, retrace

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        """Traces the step again if flags were set since the last epoch."""
        self._retrace()
        self._changes.begin()

    def on_train_batch_begin(self, batch: int, logs: object = None) -> None:
        """Keeps flags that were set before the batch."""
        self._changes.put_off()

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        """Keeps flags that were set after the batch."""
        self._changes.put_off()

    def on_epoch_end(self, epoch: int, logs: object = None) -> None:
        """Keeps flags that were set during validation, and now."""
        self._changes.put_off()
