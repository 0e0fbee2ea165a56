"""Probabilities, logits and labels: what adapters of classes share."""

import math
from typing import Any

import keras
import numpy as np

from keras_cascade.adapters.adapter import Adapter
from keras_cascade.data import to_numpy

Shape = tuple[int | None, ...]

# How far from 1 rounding may take a sum of probabilities.
_SUM_TOLERANCE = {"float16": 1e-2, "bfloat16": 3e-2}


class ClassAdapter(Adapter):
    """An adapter of scores of classes, which are the last axis.

    It computes in float32 at least, whatever comes in: probabilities need
    it. Keras casts nothing here for that reason.

    Args:
        from_probabilities: bool, whether the input is probabilities.
        trainable, dtype, name: as in `Adapter`.
    """

    def __init__(
        self,
        *,
        from_probabilities: bool,
        trainable: bool,
        dtype: Any,
        name: str | None,
    ):
        super().__init__(
            trainable=trainable, dtype=dtype, autocast=False, name=name
        )
        self.from_probabilities = from_probabilities
        self.supports_masking = True
        self._batches_seen = 0
        self._classes: int | None = None

    @property
    def floor(self) -> float:
        """What a probability counts for at least, before its logarithm."""
        return smallest_probability(self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "from_probabilities": self.from_probabilities,
        }

    def build(self, input_shape: Any) -> None:
        """Holds later inputs to the number of classes."""
        self._classes = self._classes_of(input_shape)
        self.input_spec = keras.layers.InputSpec(
            min_ndim=2, axes={-1: self._classes}
        )
        super().build(input_shape)

    def reset_state(self) -> None:
        """Starts a pass."""
        self._batches_seen = 0

    def to_plain(self) -> list[keras.layers.Layer]:
        """One small network of stock layers and operations.

        What is learned is constant in it, but for the layers that it has.
        """
        config = self.get_build_config()
        if config is None:
            raise ValueError(
                f"Adapter '{self.name}' is not built, and so has no weights "
                "to hand on. Call it on scores, or `build(shape)`, first."
            )
        shape = tuple(config["input_shape"])[1:]
        inputs = keras.Input(shape, dtype=self._work_dtype)
        return [keras.Model(inputs, self._plain(inputs), name=self.name)]

    def _plain(self, inputs: Any) -> Any:
        """What `call` computes, in stock layers and operations."""
        raise NotImplementedError

    @property
    def _work_dtype(self) -> str:
        return keras.backend.result_type(self.variable_dtype, "float32")

    @property
    def _where(self) -> str:
        return f"Adapter '{self.name}', batch {self._batches_seen}"

    def _add(self, name: str, shape: tuple, initializer: Any) -> Any:
        return self.add_weight(
            name=name,
            shape=shape,
            initializer=initializer,
            # The layer's own `autocast=False` does not reach its weights.
            autocast=False,
        )

    def _classes_of(self, input_shape: Any) -> int:
        shape = tuple(input_shape)
        if len(shape) < 2 or shape[-1] is None:
            raise ValueError(
                f"Adapter '{self.name}' ({type(self).__name__}) received an "
                f"input of shape {shape}: it needs a last axis of classes, of "
                "known size, behind the batch."
            )
        return shape[-1]

    def _rows(self, batch: Any) -> np.ndarray:
        """The scores of a batch, as they came, in the precision of work."""
        if not hasattr(batch, "shape"):
            raise ValueError(
                f"{self._where}: it learns from one array of scores, received "
                f"a {type(batch).__name__}."
            )
        self._build_on(batch)
        if self._classes not in (None, batch.shape[-1]):
            raise ValueError(
                f"{self._where}: {batch.shape[-1]} classes, but "
                f"{self._classes} before. All batches have the same classes."
            )
        tensor = keras.ops.convert_to_tensor(batch)
        return to_numpy(keras.ops.cast(tensor, self._work_dtype))

    def _counting(
        self, rows: np.ndarray, labels: Any, mask: Any
    ) -> tuple[np.ndarray, np.ndarray]:
        """Scores and labels of what is not masked; padding has any label."""
        labels = to_numpy(labels)
        if mask is None:
            return rows, labels
        mask = to_numpy(mask) != 0
        if labels.shape[: mask.ndim] != mask.shape:
            # They do not go with the scores, which will be said of them.
            return rows, labels
        return rows[mask], labels[mask]

    def _sum_tolerance(self, batch: Any) -> float:
        # NumPy has no bfloat16: a batch may be finer than its values.
        came = keras.backend.standardize_dtype(batch.dtype)
        names = (came, self.compute_dtype)
        return max(_SUM_TOLERANCE.get(name, 1e-3) for name in names)


def smallest_probability(dtype: str) -> float:
    """The floor under a probability whose logarithm is taken.

    In float16 the smallest number above zero. In the others far above that,
    `2**-63` with a logarithm of -43.7: the gradient of the logarithm, one by
    the probability, must not overflow when it is multiplied.
    """
    return 2.0**-24 if dtype == "float16" else 2.0**-63


def check_distributions(
    rows: np.ndarray, tolerance: float, where: str, instead: str
) -> None:
    """Raises an error where rows are no probabilities that sum to one.

    Args:
        rows: array `(rows, classes)`.
        tolerance: how far a sum may be from 1.
        where: beginning of the message.
        instead: end of the message: what to do.
    """
    sums = rows.sum(axis=-1, dtype="float64")
    # Written so that NaN is wrong.
    right = (np.abs(sums - 1) <= tolerance) & (rows >= 0).all(axis=-1)
    if right.all():
        return
    wrong = rows[~right]
    shown = ", ".join(f"{value:.6g}" for value in sums[~right][:5])
    raise ValueError(
        f"{where}: {len(wrong)} of {len(rows)} rows are no probabilities over "
        f"the {rows.shape[-1]} classes, which sum to 1 and are not negative. "
        f"Their sums are {shown}{', …' * (len(wrong) > 5)}, their smallest "
        f"entry is {wrong.min():.6g}. {instead}"
    )


def check_finite(rows: np.ndarray, where: str) -> None:
    """Raises an error where rows hold NaN or infinity."""
    bad = len(rows) - int(np.isfinite(rows).all(axis=-1).sum())
    if bad:
        raise ValueError(
            f"{where}: {bad} of {len(rows)} rows hold NaN or infinity. Look "
            "at the data, or at what the network computes from it."
        )


def label_rows(
    labels: Any, leading: tuple[int, ...], classes: int, where: str
) -> np.ndarray:
    """Labels as a distribution over classes a row.

    Args:
        labels: class ids of shape `leading` or `(*leading, 1)`, or one-hot
            or probability rows `(*leading, classes)`.
        leading: shape of the scores without their classes.
        classes: int, how many classes there are.
        where: beginning of an error's message.

    Returns:
        Array `(rows, classes)` in float64.

    Raises:
        ValueError: labels are of another shape, or outside the classes.
    """
    labels = to_numpy(labels)
    if labels.shape == (*leading, classes) and classes > 1:
        rows = labels.reshape(-1, classes).astype("float64")
        check_distributions(
            rows, 1e-3, f"{where}, labels", "Pass class ids, or such rows."
        )
        return rows / rows.sum(axis=-1, keepdims=True)
    if labels.shape not in (leading, (*leading, 1)):
        raise ValueError(
            f"{where}: labels of shape {labels.shape} for scores of shape "
            f"{(*leading, classes)}. Labels are class ids of shape {leading} "
            f"or {(*leading, 1)}, or rows of shape {(*leading, classes)}."
        )
    ids = _class_ids(labels, classes, where)
    rows = np.zeros((len(ids), classes))
    rows[np.arange(len(ids)), ids] = 1.0
    return rows


def unit_targets(labels: Any, shape: tuple[int, ...], where: str) -> np.ndarray:
    """Labels of independent units: 0, 1, or a probability, one a unit.

    Args:
        labels: array of the scores' shape; of a single unit also without its
            axis.
        shape: shape of the scores.
        where: beginning of an error's message.

    Returns:
        Array of `shape` in float64.

    Raises:
        ValueError: labels are of another shape, or not within 0 and 1.
    """
    labels = to_numpy(labels)
    possible = {shape, shape[:-1]} if shape[-1] == 1 else {shape}
    if labels.shape not in possible:
        listed = " or ".join(map(str, sorted(possible)))
        raise ValueError(
            f"{where}: labels of shape {labels.shape} for sigmoid units of "
            f"shape {shape}. Labels are 0 or 1 for each, of shape {listed}."
        )
    targets = labels.reshape(shape).astype("float64")
    wrong = targets[~((targets >= 0) & (targets <= 1))]
    if wrong.size:
        raise ValueError(
            f"{where}: labels of a sigmoid unit are 0 or 1, received "
            f"{_some(wrong)}."
        )
    return targets


def _class_ids(labels: np.ndarray, classes: int, where: str) -> np.ndarray:
    ids = labels.reshape(-1)
    if ids.dtype.kind not in "biuf":
        raise ValueError(
            f"{where}: labels are class ids, received values of type "
            f"{ids.dtype}."
        )
    numbers = ids.astype("float64")
    wrong = numbers[
        ~((numbers >= 0) & (numbers < classes) & (numbers % 1 == 0))
    ]
    if wrong.size:
        raise ValueError(
            f"{where}: {wrong.size} of {ids.size} labels are outside the "
            f"{classes} classes, whose ids are 0 to {classes - 1}: "
            f"{_some(wrong)}."
        )
    return numbers.astype("int64")


def _some(values: np.ndarray) -> str:
    """The first few different values."""
    found = np.unique(values[~np.isnan(values)])[:5].tolist()
    found += [math.nan] * bool(np.isnan(values).any())
    return ", ".join(f"{value:g}" for value in found)
