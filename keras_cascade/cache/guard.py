"""Ends a training on features that are no longer those of the cascade."""

from typing import Any

import keras

from keras_cascade.cache.part import FrozenPart


class StillFrozen(keras.callbacks.Callback):
    """Holds that no callback changes what the cached features are of.

    Stages of `unfreeze=` are known to the cache; flags and weights that a
    callback of the user's changes on its own are not.
    """

    def __init__(self) -> None:
        super().__init__()
        self._part: FrozenPart | None = None
        self._flags: Any = None
        self._weights = ""

    def watch(self, part: FrozenPart) -> None:
        """The frozen part that features are of from now on."""
        self._part, self._weights = part, part.weights()
        self._flags = self.model.flags()  # type: ignore[attr-defined]

    def rest(self) -> None:
        """The cascade trains without features."""
        self._part = None

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Compares the flags with those at the beginning."""
        flags = self.model.flags()  # type: ignore[attr-defined]
        if self._part is not None and flags != self._flags:
            raise RuntimeError(_changed("flags", f"before epoch {epoch}"))

    def check_weights(self) -> None:
        """Compares the weights with those at the beginning.

        It reads them all: at the end of a segment, not in every epoch.

        Raises:
            RuntimeError: If they differ.
        """
        if self._part is not None and self._part.weights() != self._weights:
            raise RuntimeError(_changed("weights", "so its training is void"))


def _changed(what: str, when: str) -> str:
    return (
        f"A callback changed {what} of frozen layers while the cascade trained "
        f"on cached features, {when}. Name what is to train from an epoch on "
        "with fit(unfreeze=...), load weights in on_train_begin, or train "
        "without cache_features."
    )
