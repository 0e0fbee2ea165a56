"""Reads labels of every kind as the targets that the scores compare with."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np


@dataclass(frozen=True, eq=False)
class Labels:
    """The labels of some samples.

    Attributes:
        kind: `"classes"`, `"labels"` (several of which each may hold) or
            `"numbers"`.
        targets: `(samples, targets)`: a column of zeros and ones for each
            class or label, or the numbers.
    """

    kind: str
    targets: np.ndarray

    @cached_property
    def signs(self) -> np.ndarray:
        """The targets of a regression: plus and minus one, or the numbers."""
        if self.kind == "numbers":
            return self.targets
        # Two classes are told apart by one number.
        two = self.kind == "classes" and self.targets.shape[1] == 2
        return 2.0 * (self.targets[:, 1:] if two else self.targets) - 1.0

    @property
    def measure(self) -> str:
        """The measure of predictions."""
        return "R²" if self.kind == "numbers" else "accuracy"

    def parts_of(self, predictions: np.ndarray) -> np.ndarray:
        """Returns for each sample what the measure is the mean of.

        Args:
            predictions: Those of `signs`, or of `targets` for classes.

        Returns:
            `(samples, 1)`: whether the class, or the share of labels, is
            right; `(samples, targets)`: squared errors over the variance.
        """
        if self.kind == "numbers":
            deviations = self.targets - self.targets.mean(axis=0)
            variance = np.maximum((deviations**2).mean(axis=0), 1e-300)
            errors = (self.targets - predictions) ** 2 / variance
            return 1.0 - errors.mean(axis=1, keepdims=True)
        if self.kind == "labels":
            right = (predictions > 0) == (self.signs > 0)
            return right.mean(axis=1, keepdims=True)
        true = self.targets.argmax(axis=1)
        found = predictions.argmax(axis=1)
        if predictions.shape[1] == 1:
            found = (predictions[:, 0] > 0).astype(int)
        return (found == true).astype("float64")[:, None]


def read_labels(batches: Sequence[object]) -> Labels | None:
    """Returns the labels of batches, or None if they have none.

    Whole numbers, booleans and texts are classes, as are rows of zeros with a
    single one. Other rows of zeros and ones are several labels of a sample;
    everything else is numbers.

    Raises:
        ValueError: If the labels are of several outputs, not finite, or too
            few to tell taps apart.
    """
    if any(y is None for y in batches):
        return None
    for y in batches:
        if isinstance(y, Mapping | list | tuple):
            raise ValueError(
                "rank_taps takes the labels of one output, received those of "
                f"{len(y)}. Pass the one to rank for, or a column for each "
                "number in one array."
            )
    return as_labels(np.concatenate([np.asarray(y) for y in batches]))


def as_labels(y: np.ndarray) -> Labels:
    """Returns the labels in an array, as in `read_labels`."""
    y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
    if y.dtype.kind in "fc" and not np.isfinite(y).all():
        count = int((~np.isfinite(y)).reshape(len(y), -1).any(axis=1).sum())
        raise ValueError(
            f"{count} of {len(y)} labels are NaN or infinity. Leave those "
            "samples out: np.isfinite(y) finds them."
        )
    if y.ndim > 1:
        return _of_rows(y.reshape(len(y), -1))
    if y.dtype.kind == "f" and np.any(y != np.floor(y)):
        return _numbers(y[:, None])
    classes, numbers = np.unique(y, return_inverse=True)
    return _classes(np.eye(len(classes))[numbers], classes)


def _of_rows(y: np.ndarray) -> Labels:
    if not np.isin(y, (0, 1)).all():
        return _numbers(y)
    if (y.sum(axis=1) == 1).all():
        present = y.any(axis=0)
        return _classes(
            y[:, present].astype("float64"), np.flatnonzero(present)
        )
    return Labels("labels", y.astype("float64"))


def _numbers(y: np.ndarray) -> Labels:
    y = y.astype("float64")
    if not np.ptp(y, axis=0).all():
        raise ValueError(
            f"The labels are numbers that are equal in all {len(y)} samples: "
            "there is nothing to rank taps by."
        )
    return Labels("numbers", y)


def _classes(targets: np.ndarray, classes: np.ndarray) -> Labels:
    counts = targets.sum(axis=0)
    if len(classes) < 2:
        raise ValueError(
            f"All {len(targets)} labels are of one class, {classes[0]!s}: "
            "there is nothing to rank taps by. If the data are sorted by "
            "class and max_samples ends too early, shuffle them."
        )
    if len(targets) < 2 * len(classes):
        raise ValueError(
            f"{len(targets)} samples have {len(classes)} classes; leaving one "
            "out needs two of each at least. Pass more samples. Whole numbers "
            "are classes: if these are quantities, pass y / y.std()."
        )
    if counts.min() < 2:
        alone = [str(x) for x in classes[counts < 2][:5]]
        raise ValueError(
            f"Class {', '.join(alone)} has a single sample, which can never be "
            "told from the others. Pass at least two of each class, or leave "
            "it out."
        )
    return Labels("classes", targets)
