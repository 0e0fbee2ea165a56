"""The base of adapters that learn from a stream of batches.

Tested by `tests/adapters/test_pca.py` and `tests/adapters/test_logits.py`.
"""

import math
from typing import Any, TypeGuard

import numpy as np

from keras_cascade._keras_compat.annotations import Shape, Tensor
from keras_cascade.adapters.adapter import Adapter


class LearningAdapter(Adapter):
    """An adapter that sums up batches and sets its weights after the last.

    It is built with `autocast=False`: its weights are more precise than the
    compute dtype.
    """

    # On the class, as `update_state` may come without `reset_state`.
    _gathered: Any = None
    _batches_seen = 0

    def reset_state(self) -> None:
        """Forgets the batches seen; the weights stay until a pass ends."""
        self._gathered, self._batches_seen = None, 0

    def update_state(
        self,
        batch: Tensor,
        labels: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> None:
        """Learns from one batch, as in `Adapter.update_state`."""
        where = f", batch {self._batches_seen}"
        with self._named_errors(where):
            if not isinstance(batch, Tensor):
                raise ValueError(
                    "it learns from one array of features, received a "
                    f"{type(batch).__name__}. Pass the features of one tap."
                )
        # Errors of `build` have the adapter's name already.
        self._build_for(batch)
        with self._named_errors(where):
            self._gathered = self._gather(batch, labels, mask)
        self._batches_seen += 1

    def finalize_state(self) -> None:
        """Sets the weights from the batches seen; ends a pass."""
        if not self.needs_data:
            return
        if self._gathered is None:
            raise ValueError(
                f"Adapter '{self.name}' has seen no data to learn from."
            )
        with self._named_errors():
            self._set_weights_from(self._gathered)
        self._gathered = None
        super().finalize_state()

    def _gather(
        self, batch: Tensor, labels: Tensor | None, mask: Tensor | None
    ) -> Any:
        """Returns the sums over the batches so far, `_gathered`, and this."""
        raise NotImplementedError

    def _set_weights_from(self, gathered: Any) -> None:
        raise NotImplementedError

    def _add_uncast_weight(self, name: str, shape: Shape, **rest: Any) -> Any:
        # The layer's own `autocast=False` does not reach its weights.
        given = {"initializer": "zeros", "autocast": False, **rest}
        return self.add_weight(name=name, shape=shape, **given)


def check_width(width: int, expected: int | None, of: str) -> None:
    """Raises a ValueError if a batch has another width than those before."""
    if expected not in (None, width):
        raise ValueError(
            f"{width} {of}, but {expected} before. All batches have the same "
            f"{of}."
        )


def check_finite(rows: np.ndarray) -> None:
    """Raises a ValueError if rows `(rows, features)` have NaN or infinity."""
    bad = len(rows) - int(np.isfinite(rows).all(axis=-1).sum())
    if bad:
        raise ValueError(
            f"{bad} of {len(rows)} rows hold NaN or infinity. Look at the "
            "data, or at what the network computes from it."
        )


def is_int(value: object) -> TypeGuard[int]:
    """Whether a value is an int; a bool is none, as it is a mistake."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_finite(value: object) -> TypeGuard[float]:
    """Whether a value is a finite number."""
    number = isinstance(value, int | float | np.integer | np.floating)
    return number and math.isfinite(value)
