"""Measures how well a model's outputs fit labels: loss and accuracy.

Tested by `tests/ranking/test_stitching.py`.
"""

from dataclasses import dataclass

import numpy as np

_TINY = 1e-7


@dataclass(frozen=True)
class Quality:
    """How well outputs fit labels.

    Attributes:
        loss: The mean cross-entropy for classes, else the squared error.
        accuracy: The share of right classes; None for numbers.
    """

    loss: float
    accuracy: float | None


class QualityMeter:
    """Measures outputs batch by batch, in memory that does not grow.

    Whole numbers and one-hot rows are classes; other labels are numbers.

    Args:
        probabilities: Whether outputs are probabilities, else logits.
            Defaults to `None`: the first batch tells.
    """

    def __init__(self, probabilities: bool | None = None):
        self._probabilities = probabilities
        self._losses, self._right, self.count = 0.0, 0.0, 0
        self._are_classes = True

    @property
    def are_probabilities(self) -> bool:
        """Whether outputs are probabilities."""
        return bool(self._probabilities)

    @property
    def quality(self) -> Quality:
        """The mean loss and accuracy so far."""
        accuracy = self._right / self.count if self._are_classes else None
        return Quality(self._losses / self.count, accuracy)

    def add(self, outputs: np.ndarray, labels: np.ndarray) -> None:
        """Adds a batch.

        Raises:
            ValueError: If labels and outputs do not fit.
        """
        x = outputs.astype("float64")
        if self._probabilities is None:
            self._probabilities = _are_probabilities(x)
        classes = _classes(x, labels)
        self.count += len(x)
        if classes is None:
            self._are_classes = False
            self._losses += float(_squared_errors(x, labels).sum())
            return
        logs = _log_probabilities(x, self._probabilities)
        self._losses -= float(logs[np.arange(len(x)), classes].sum())
        self._right += float((logs.argmax(axis=1) == classes).sum())


def _are_probabilities(x: np.ndarray) -> bool:
    """Returns whether all are between 0 and 1 and, if several, sum to 1."""
    inside = bool((x >= 0).all() and (x <= 1).all())
    alone = x.shape[-1] == 1
    return inside and (alone or bool(np.abs(x.sum(-1) - 1).max() < 1e-3))


def _squared_errors(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if x.size != y.size:
        raise ValueError(
            f"The downstream's outputs have shape {x.shape}, and the labels "
            f"{y.shape}: give labels of its task, or none."
        )
    squares = (x.reshape(y.shape) - y) ** 2
    return squares.reshape(len(x), -1).mean(axis=1)


def _classes(x: np.ndarray, y: np.ndarray) -> np.ndarray | None:
    """Returns the class of each sample; None where labels are numbers."""
    if x.ndim != 2:
        return None
    count = max(x.shape[1], 2)
    if y.shape == x.shape and x.shape[1] > 1:
        is_one_hot = np.isin(y, (0, 1)).all() and (y.sum(axis=1) == 1).all()
        return y.argmax(axis=1) if is_one_hot else None
    if y.size != len(x) or y.dtype.kind not in "iub":
        return None
    flat = y.reshape(-1).astype("int64")
    if flat.min(initial=0) < 0 or flat.max(initial=0) >= count:
        raise ValueError(
            f"The labels are classes from {flat.min()} to {flat.max()}, and "
            f"the downstream tells {count}: give labels of its task, or none."
        )
    return flat


def _log_probabilities(x: np.ndarray, probabilities: bool) -> np.ndarray:
    if probabilities:
        both = np.hstack([1 - x, x]) if x.shape[1] == 1 else x
        return np.log(np.clip(both, _TINY, 1.0))
    both = np.hstack([np.zeros_like(x), x]) if x.shape[1] == 1 else x
    shifted = both - both.max(axis=1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
