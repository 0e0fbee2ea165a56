"""The base of adapters of classes: their probabilities, logits and labels.

Tested by `tests/adapters/test_logits.py` and
`tests/adapters/test_label_map.py`.
"""

import math
from typing import Any, Unpack

import keras
import numpy as np

from keras_cascade._keras_compat.annotations import Shape, Tensor
from keras_cascade.adapters.adapter import LayerArguments
from keras_cascade.adapters.learning import (
    LearningAdapter,
    check_finite,
    check_width,
)
from keras_cascade.adapters.plain import Layers
from keras_cascade.data import to_numpy

# How far from 1 rounding may take a sum of probabilities.
_SUM_TOLERANCE = {"float16": 1e-2, "bfloat16": 3e-2}


class ClassAdapter(LearningAdapter):
    """An adapter of scores of classes, which are the last axis.

    It computes in float32 at least, whatever comes in: probabilities need
    it. Keras casts nothing here for that reason.
    """

    needs_labels = True

    def __init__(
        self, *, from_probabilities: bool, **arguments: Unpack[LayerArguments]
    ):
        super().__init__(**{**arguments, "autocast": False})
        self.from_probabilities = from_probabilities
        self.supports_masking = True
        self._classes: int | None = None

    @property
    def floor(self) -> float:
        """The smallest probability of which a logarithm is taken.

        In float16 it is the smallest number above zero. In the others it is
        far above that, `2**-63` with a logarithm of -43.7: the gradient of the
        logarithm, one by the probability, must not overflow when multiplied.
        """
        return 2.0**-24 if self.compute_dtype == "float16" else 2.0**-63

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "from_probabilities": self.from_probabilities,
        }

    def build(self, input_shape: Shape) -> None:
        """Fixes the number of classes of later inputs."""
        self._classes = self._classes_of(input_shape)
        self.input_spec = keras.layers.InputSpec(
            min_ndim=2, axes={-1: self._classes}
        )
        super().build(input_shape)

    def to_plain(self) -> Layers:
        """Returns one small network of stock layers and operations.

        Learned numbers are constants of it, but for those of its layers.
        """
        shape = self._built_shape()[1:]
        inputs: Any = keras.Input(shape, dtype=self._work_dtype)
        return [keras.Model(inputs, self._plain(inputs), name=self.name)]

    def _plain(self, inputs: Tensor) -> Any:
        """Computes the same as `call`, in stock layers and operations."""
        raise NotImplementedError

    @property
    def _work_dtype(self) -> str:
        return keras.backend.result_type(self.variable_dtype, "float32")

    def _classes_of(self, input_shape: Shape) -> int:
        shape = tuple(input_shape)
        if len(shape) < 2 or shape[-1] is None:
            raise ValueError(
                f"Adapter '{self.name}' ({type(self).__name__}) received an "
                f"input of shape {shape}: it needs a last axis of classes, of "
                "known size, after the batch."
            )
        return shape[-1]

    def _read(
        self, batch: Tensor, labels: Tensor | None, mask: Tensor | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns scores, in the precision of work, and labels as arrays.

        Masked positions are left out: padding may have any label.
        """
        if labels is None:
            raise ValueError("it learns from labels, and there are none.")
        check_width(batch.shape[-1], self._classes, "classes")
        tensor = keras.ops.convert_to_tensor(batch)
        scores = to_numpy(keras.ops.cast(tensor, self._work_dtype))
        given = to_numpy(labels)
        counts = None if mask is None else to_numpy(mask) != 0
        # Labels of another shape are an error that is found when they are
        # compared with the scores.
        if counts is None or given.shape[: counts.ndim] != counts.shape:
            return scores, given
        return scores[counts], given[counts]

    def _check_scores(
        self, rows: np.ndarray, batch: Tensor, instead: str
    ) -> None:
        """Raises a ValueError if rows are not finite or no probabilities."""
        if not self.from_probabilities:
            check_finite(rows)
            return
        # NumPy has no bfloat16: a batch may be finer than its values.
        given = keras.backend.standardize_dtype(batch.dtype)
        names = (given, self.compute_dtype)
        tolerance = max(_SUM_TOLERANCE.get(name, 1e-3) for name in names)
        check_distributions(rows, tolerance, instead)


def check_distributions(
    rows: np.ndarray, tolerance: float, instead: str, what: str = ""
) -> None:
    """Raises a ValueError if rows are not probabilities that sum to one.

    The error ends with `instead`: what to do.
    """
    sums = rows.sum(axis=-1, dtype="float64")
    # Comparisons with NaN are false, so that it counts as wrong.
    right = (np.abs(sums - 1) <= tolerance) & (rows >= 0).all(axis=-1)
    if right.all():
        return
    wrong = rows[~right]
    shown = ", ".join(f"{value:.6g}" for value in sums[~right][:5])
    raise ValueError(
        f"{what}{len(wrong)} of {len(rows)} rows are no probabilities over "
        f"the {rows.shape[-1]} classes, which sum to 1 and are not negative. "
        f"Their sums are {shown}{', …' * (len(wrong) > 5)}, their smallest "
        f"entry is {wrong.min():.6g}. {instead}"
    )


def label_rows(
    labels: np.ndarray, leading: tuple[int, ...], classes: int
) -> np.ndarray:
    """Returns labels as a distribution over classes for each row, in float64.

    Labels are class ids of shape `leading`, that of the scores without their
    classes, or `(*leading, 1)`; or one-hot or probability rows.
    """
    if labels.shape == (*leading, classes) and classes > 1:
        rows = labels.reshape(-1, classes).astype("float64")
        check_distributions(
            rows, 1e-3, "Pass class ids, or such rows.", "labels: "
        )
        return rows / rows.sum(axis=-1, keepdims=True)
    if labels.shape not in (leading, (*leading, 1)):
        raise ValueError(
            f"labels of shape {labels.shape} for scores of shape "
            f"{(*leading, classes)}. Labels are class ids of shape {leading} "
            f"or {(*leading, 1)}, or rows of shape {(*leading, classes)}."
        )
    ids = _class_ids(labels.reshape(-1), classes)
    rows = np.zeros((len(ids), classes))
    rows[np.arange(len(ids)), ids] = 1.0
    return rows


def unit_targets(labels: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns labels of sigmoid units, from 0 to 1, in `shape` and float64."""
    possible = {shape, shape[:-1]} if shape[-1] == 1 else {shape}
    if labels.shape not in possible:
        listed = " or ".join(map(str, sorted(possible)))
        raise ValueError(
            f"labels of shape {labels.shape} for sigmoid units of shape "
            f"{shape}. Labels are 0 or 1 for each, of shape {listed}."
        )
    targets = labels.reshape(shape).astype("float64")
    wrong = targets[~((targets >= 0) & (targets <= 1))]
    if wrong.size:
        raise ValueError(
            f"labels of a sigmoid unit are 0 or 1, received {_some(wrong)}."
        )
    return targets


def _class_ids(ids: np.ndarray, classes: int) -> np.ndarray:
    if ids.dtype.kind not in "biuf":
        raise ValueError(
            f"labels are class ids, received values of type {ids.dtype}."
        )
    numbers = ids.astype("float64")
    right = (numbers >= 0) & (numbers < classes) & (numbers % 1 == 0)
    if not right.all():
        wrong = numbers[~right]
        raise ValueError(
            f"{wrong.size} of {ids.size} labels are outside the {classes} "
            f"classes, whose ids are 0 to {classes - 1}: {_some(wrong)}."
        )
    return numbers.astype("int64")


def _some(values: np.ndarray) -> str:
    """Lists the first few distinct values."""
    found = np.unique(values[~np.isnan(values)])[:5].tolist()
    found += [math.nan] * bool(np.isnan(values).any())
    return ", ".join(f"{value:g}" for value in found)
