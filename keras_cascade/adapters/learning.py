"""The base of adapters that learn from a stream of batches.

Tested by `tests/adapters/test_pca.py` and `tests/adapters/test_logits.py`.
"""

from typing import Any

import numpy as np

from keras_cascade._keras_compat.annotations import Shape, Tensor
from keras_cascade.adapters.adapter import Adapter


class LearningAdapter(Adapter):
    """An adapter that sums up batches and sets its weights after the last.

    It is built with `autocast=False`: what it learns is more precise than
    the compute dtype. A subclass gathers in `_gathered` and overrides
    `_set_weights_from`.
    """

    _gathered: Any = None
    _batches_seen = 0

    def reset_state(self) -> None:
        """Forgets the batches seen; the weights stay until a pass ends."""
        self._gathered, self._batches_seen = None, 0

    def finalize_state(self) -> None:
        """Sets the weights from the batches seen; ends a pass."""
        if not self.needs_data:
            return
        if self._gathered is None:
            raise ValueError(
                f"Adapter '{self.name}' has seen no data to learn from."
            )
        try:
            self._set_weights_from(self._gathered)
        except ValueError as error:
            raise ValueError(f"Adapter '{self.name}': {error}") from error
        self._gathered = None
        super().finalize_state()

    def _set_weights_from(self, gathered: Any) -> None:
        """Sets the weights from what the batches added up to."""
        raise NotImplementedError

    @property
    def _where(self) -> str:
        """The beginning of an error about a batch."""
        return f"Adapter '{self.name}', batch {self._batches_seen}"

    def _add_uncast_weight(
        self,
        name: str,
        shape: Shape,
        initializer: Any = "zeros",
        trainable: bool = True,
    ) -> Any:
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=initializer,
            trainable=trainable,
            # The layer's own `autocast=False` does not reach its weights.
            autocast=False,
        )

    def _check_array(self, batch: object) -> None:
        if not isinstance(batch, Tensor):
            raise ValueError(
                f"{self._where}: it learns from one array of features, "
                f"received a {type(batch).__name__}. Pass the features of one "
                "tap."
            )

    def _check_width(self, width: int, expected: int | None, of: str) -> None:
        if expected not in (None, width):
            raise ValueError(
                f"{self._where}: {width} {of}, but {expected} before. All "
                f"batches have the same {of}."
            )


def check_finite(rows: np.ndarray, where: str) -> None:
    """Raises a ValueError if rows contain NaN or infinity.

    Args:
        rows: Array `(rows, features)`.
        where: The beginning of the error.
    """
    bad = len(rows) - int(np.isfinite(rows).all(axis=-1).sum())
    if bad:
        raise ValueError(
            f"{where}: {bad} of {len(rows)} rows hold NaN or infinity. Look "
            "at the data, or at what the network computes from it."
        )
