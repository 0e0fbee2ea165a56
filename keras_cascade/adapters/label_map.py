"""LabelMapAdapter: the classes of one network as those of another."""

from typing import Any, Self

import keras
import numpy as np
from keras import ops

from keras_cascade._keras_compat.annotations import DType, Shape, Tensor
from keras_cascade.adapters.class_mapping import (
    Classes,
    ClassMapping,
    class_index,
    normalised_rows,
)
from keras_cascade.adapters.class_scores import ClassAdapter, label_rows
from keras_cascade.adapters.learning import is_finite
from keras_cascade.adapters.plain import with_weights
from keras_cascade.data import to_numpy

OUTPUTS = ("probabilities", "log_probabilities", "logits")


@keras.saving.register_keras_serializable(package="keras_cascade")
class LabelMapAdapter(ClassAdapter):
    """Turns scores of source classes into scores of target classes.

    The adapter between networks of different classes: each source class gives
    its probability to the target classes that it is mapped to. The output is
    a distribution over the target classes.

    Without a mapping, `adapt` (or `Cascade.adapt`) learns one from labelled
    data in one pass: `P(target | source)` from the probabilities of the
    source classes under each label. Labels are class ids, or one-hot or
    probability rows.

    A probability of a target class is at least `2**-63` (logarithm -43.7;
    with a float16 policy `2**-24`, -16.6), so that none gives infinity. The
    adapter computes in float32 under every policy, and returns the policy's
    compute dtype.

    Args:
        mapping: the target classes of each source class: `{source: target}`,
            `{source: [targets]}` for equal shares, `{source: {target:
            weight}}`, or a matrix `(source classes, target classes)` of
            weights. Weights of a source class are divided by their sum.
            Classes are given by index, or by name where the classes have
            names. None leaves it to `adapt`. Defaults to `None`.
        target_classes: int, how many there are, or list of their names; needed
            without a mapping. Defaults to `None`: the columns of a matrix, or
            the highest target index.
        source_classes: list of names, or their number, for a check. Defaults
            to `None`: the classes of the input.
        unmapped: the use of the probability of source classes without a
            target: `"renormalize"` leaves it out and divides the rest by its
            sum (if nothing is left, all target classes are equally likely);
            `"spread"` gives it to all target classes evenly; or the target
            class that gets it. Defaults to `"renormalize"`.
        output: `"probabilities"`; `"log_probabilities"`; or `"logits"`, which
            are log probabilities less their mean. Defaults to
            `"probabilities"`.
        from_probabilities: bool, whether the input is probabilities; False
            for logits, of which the softmax is taken. Defaults to `True`.
        smoothing: float, the number of samples, spread evenly over the target
            classes, that each source class starts with. Defaults to `1.0`.
        trainable: bool, whether training moves the shares. Defaults to
            `False`.
        dtype: dtype name or policy. Defaults to `None`, the global policy.
        name: str, name of the layer. Defaults to `None`.

    Raises:
        ValueError: a mapping is empty, negative, names an unknown class, or
            does not fit the number of classes; in `adapt`, labels are missing
            or outside the target classes, or probabilities do not sum to one.

    Example:
    >>> import numpy as np
    >>> breeds = np.array([[0.5, 0.25, 0.25, 0.0]], "float32")
    >>> species = LabelMapAdapter({0: 0, 1: 0, 2: 1, 3: 1})
    >>> print(keras.ops.convert_to_numpy(species(breeds)))
    [[0.75 0.25]]
    >>> named = LabelMapAdapter(
    ...     {"pug": "dog", "siamese": "cat"},
    ...     source_classes=["pug", "siamese"],
    ...     target_classes=["cat", "dog"],
    ... )

    Source: the learned mapping is the empirical conditional distribution of
    Nguyen, Hassner, Seeger, Archambeau, "LEEP: A New Measure to Evaluate
    Transferability of Learned Representations", ICML 2020, section 3, and the
    output their expected empirical predictor; smoothing is added to it.
    """

    def __init__(
        self,
        mapping: object = None,
        target_classes: Classes = None,
        source_classes: Classes = None,
        unmapped: str | int = "renormalize",
        output: str = "probabilities",
        from_probabilities: bool = True,
        smoothing: float = 1.0,
        trainable: bool = False,
        dtype: DType = None,
        name: str | None = None,
    ):
        super().__init__(
            from_probabilities=from_probabilities,
            trainable=trainable,
            dtype=dtype,
            name=name,
        )
        with self._named_errors():
            self.class_mapping = ClassMapping.of(
                mapping, source_classes, target_classes
            )
            targets = self.class_mapping.targets
            self.unmapped = _checked_unmapped(unmapped, targets)
            self.smoothing = _checked_smoothing(smoothing)
        # Not `output`: Keras's layers have that, a symbolic tensor.
        self.output_kind = self._one_of("output", output, OUTPUTS)

    @property
    def needs_data(self) -> bool:
        """Whether the mapping is left to `adapt`."""
        return self.class_mapping.shares is None

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        shares = self.class_mapping.shares
        return {
            **super().get_config(),
            # Neither integers as keys nor tuples pass through a file.
            "mapping": None if shares is None else [list(s) for s in shares],
            "target_classes": self.class_mapping.targets,
            "source_classes": self.class_mapping.sources,
            "unmapped": self.unmapped,
            "output": self.output_kind,
            "smoothing": self.smoothing,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Returns the adapter of a config; not its weights."""
        config = dict(config)
        if config["mapping"] is not None:
            mapping: dict[int, dict[int, float]] = {}
            for source, target, weight in config["mapping"]:
                mapping.setdefault(source, {})[target] = weight
            config["mapping"] = mapping
        return cls(**config)

    def build(self, input_shape: Shape) -> None:
        """Adds the matrix of shares, zero until it is fitted."""
        sources = self._classes_of(input_shape)
        with self._named_errors():
            weights = self.class_mapping.weights(sources)
        if not self.needs_data:
            weights = normalised_rows(weights, self.unmapped)
        super().build(input_shape)
        self.shares = self._add_uncast_weight(
            "shares",
            weights.shape,
            initializer=lambda shape, dtype: ops.convert_to_tensor(
                weights, dtype
            ),
        )

    def call(self, inputs: Tensor) -> Any:
        """Returns the target classes' scores."""
        shares = ops.cast(self.shares, self._work_dtype)
        return self._scores(ops.matmul(self._probabilities(inputs), shares))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the input's shape with the target classes last."""
        return (*tuple(input_shape)[:-1], self.class_mapping.target_count)

    def _gather(
        self, batch: Tensor, labels: Tensor | None, mask: Tensor | None
    ) -> np.ndarray | None:
        scores, given = self._read(batch, labels, mask)
        targets = label_rows(
            given, scores.shape[:-1], self.class_mapping.target_count
        )
        rows = scores.reshape(-1, scores.shape[-1])
        self._check_scores(rows, batch, _NO_PROBABILITIES)
        if not len(rows):
            return self._gathered
        probabilities = to_numpy(self._probabilities(rows)).astype("float64")
        before = 0.0 if self._gathered is None else self._gathered
        return before + probabilities.T @ targets

    def _set_weights_from(self, gathered: np.ndarray) -> None:
        weights = gathered + self.smoothing / self.class_mapping.target_count
        self.shares.assign(normalised_rows(weights, self.unmapped))

    def _plain(self, inputs: Tensor) -> Any:
        dense = keras.layers.Dense(
            self.class_mapping.target_count,
            use_bias=False,
            trainable=self.trainable,
            dtype=self._work_dtype,
            name=f"{self.name}_shares",
        )
        with_weights(dense, inputs.shape, [self.shares])
        return self._scores(dense(self._probabilities(inputs)))

    def _probabilities(self, inputs: Tensor) -> Any:
        x = ops.cast(inputs, self._work_dtype)
        return x if self.from_probabilities else ops.softmax(x)

    def _scores(self, x: Any) -> Any:
        """Returns the shares of the target classes in the kind of `output`."""
        x = ops.maximum(x, self.floor)
        if self.output_kind == "logits":
            x = ops.log(x)
            x = x - ops.mean(x, axis=-1, keepdims=True)
        else:
            # Classes that are mapped nowhere are missing from the sum.
            x = x / ops.sum(x, axis=-1, keepdims=True)
        if self.output_kind == "log_probabilities":
            x = ops.log(x)
        return ops.cast(x, self.compute_dtype)


_NO_PROBABILITIES = "If the network gives logits, say from_probabilities=False."


def _checked_unmapped(unmapped: object, targets: Classes) -> str | int:
    if isinstance(unmapped, str) and unmapped in ("renormalize", "spread"):
        return unmapped
    try:
        return class_index(unmapped, targets, "target_classes")
    except ValueError as error:
        raise ValueError(
            "`unmapped` is 'renormalize', 'spread' or a target class, "
            f"received {unmapped!r}."
        ) from error


def _checked_smoothing(smoothing: object) -> float:
    if is_finite(smoothing) and smoothing >= 0:
        return float(smoothing)
    raise ValueError(
        "`smoothing` is a number of samples, at least 0, received "
        f"{smoothing!r}."
    )
