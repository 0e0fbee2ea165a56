"""LogitsAdapter: probabilities as logits, as sure as they are right."""

import math
from typing import Any

import keras
import numpy as np

from keras_cascade.adapters.calibration import TemperatureFit
from keras_cascade.adapters.classes import (
    ClassAdapter,
    check_distributions,
    check_finite,
    label_rows,
    unit_targets,
)
from keras_cascade.data import to_numpy

# The distance from 1 to the float32 below it.
_SMALLEST_REST = 2.0**-24
_NO_PROBABILITIES = (
    "If the network gives logits, say from_probabilities=False; if each unit "
    "is a sigmoid of its own, activation='sigmoid'."
)


@keras.saving.register_keras_serializable(package="keras_cascade")
class LogitsAdapter(ClassAdapter):
    """Turns probabilities into logits, and divides them by a temperature.

    The adapter for a network that ends in softmax or sigmoid, before one that
    is to take its scores as features: logits spread where probabilities
    crowd at 0 and 1. The softmax of the logits at temperature 1 is the
    probabilities; a higher temperature makes them less sure.

    With `temperature=None`, `adapt` (or `Cascade.adapt`) fits the temperature
    on labelled data that the network was not trained on, in one pass, in
    memory that does not depend on the number of rows.

    A probability counts for `2**-63` at least (a logit of -43.7; with a
    float16 policy `2**-24`, -16.6), so that none gives infinity. Of a sigmoid
    unit, what is left to 1 counts for `2**-24` at least, which is what float32
    tells apart there (a logit of 16.6). It computes in float32 under every
    policy, and gives the policy's compute dtype.

    Args:
        temperature: float above 0 by which logits are divided, or None, which
            leaves it to `adapt`: from 1/32 to 32. Defaults to `1.0`.
        from_probabilities: bool, whether the input is probabilities; False
            for logits, which are only divided. Defaults to `True`.
        activation: `"softmax"`, one distribution over the classes, the last
            axis; or `"sigmoid"`, one probability for each unit, whose logit
            is `log(p) - log(1 - p)`. Defaults to `None`: `"sigmoid"` for an
            input of one unit, else `"softmax"`.
        trainable: bool, whether training moves the temperature, of which the
            weight is the logarithm. Defaults to `False`.
        dtype: dtype name or policy. Defaults to `None`, the global policy.
        name: str, name of the layer. Defaults to `None`.

    Raises:
        ValueError: an argument is out of range; in `adapt`, labels are
            missing or outside the classes, or what is to be probabilities is
            negative or does not sum to one, or no temperature fits.

    Example:
    >>> import numpy as np
    >>> probabilities = np.array([[0.9, 0.1]] * 4, "float32")
    >>> tuple(LogitsAdapter()(probabilities).shape)
    (4, 2)
    >>> labels = np.array([0, 0, 0, 1])
    >>> adapter = LogitsAdapter(temperature=None)
    >>> round(adapter.adapt((probabilities, labels)).temperature_, 4)
    2.0

    Source: Guo, Pleiss, Sun, Weinberger, "On Calibration of Modern Neural
    Networks", ICML 2017, section 4.2 (temperature scaling).
    """

    def __init__(
        self,
        temperature: float | None = 1.0,
        from_probabilities: bool = True,
        activation: str | None = None,
        trainable: bool = False,
        dtype: Any = None,
        name: str | None = None,
    ):
        super().__init__(
            from_probabilities=from_probabilities,
            trainable=trainable,
            dtype=dtype,
            name=name,
        )
        self.temperature = _checked_temperature(temperature, self.name)
        self.activation = _checked_activation(activation, self.name)
        self._fit: TemperatureFit | None = None

    @property
    def needs_data(self) -> bool:
        """Whether the temperature is left to `adapt`."""
        return self.temperature is None

    @property
    def temperature_(self) -> float:
        """The temperature that it divides by, given, fitted or trained."""
        if not self.fitted:
            raise ValueError(
                f"Adapter '{self.name}' is not fitted: call `adapt((scores, "
                "labels))`, or `adapt((x, y))` of its cascade."
            )
        if self.temperature is not None and not self.built:
            return self.temperature
        return math.exp(float(to_numpy(self.log_temperature)))

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {
            **super().get_config(),
            "temperature": self.temperature,
            "activation": self.activation,
        }

    def build(self, input_shape: Any) -> None:
        """Adds the temperature's logarithm, 0 until it is fitted."""
        if self._classes_of(input_shape) == 1 and self.activation == "softmax":
            raise ValueError(
                f"Adapter '{self.name}' received an input of shape "
                f"{tuple(input_shape)}: the softmax of one class is always 1. "
                "One unit is a sigmoid: leave `activation` out."
            )
        super().build(input_shape)
        given = math.log(self.temperature or 1.0)
        self.log_temperature = self._add(
            "log_temperature", (), keras.initializers.Constant(given)
        )

    def call(self, inputs: Any) -> Any:
        """The logits, by the temperature."""
        # Not the temperature itself: it stays above 0 when it is trained.
        return self._divided(inputs, keras.ops.exp(-self.log_temperature))

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """The input's shape."""
        return tuple(input_shape)

    def reset_state(self) -> None:
        """Forgets the rows seen; the temperature stays until a pass ends."""
        super().reset_state()
        self._fit = None

    def update_state(self, batch: Any, labels: Any, mask: Any = None) -> None:
        """Adds the scores of one batch to the likelihoods.

        Args:
            batch: array or tensor of scores, as `call` takes them.
            labels: class ids of shape `batch.shape[:-1]`, with or without a
                last axis of 1, or one-hot or probability rows of the batch's
                shape. Of sigmoid units, 0 or 1 for each.
            mask: boolean array `batch.shape[:-1]` of the positions that
                count. Defaults to `None`: all.
        """
        rows, labels = self._counting(self._rows(batch), labels, mask)
        shape, classes = rows.shape, rows.shape[-1]
        sigmoid = self._is_sigmoid(classes)
        if sigmoid:
            targets = unit_targets(labels, shape, self._where)
        else:
            targets = label_rows(labels, shape[:-1], classes, self._where)
        rows, targets = rows.reshape(-1, classes), targets.reshape(-1, classes)
        self._check_scores(rows, sigmoid, self._sum_tolerance(batch))
        self._learn_from(rows, targets, sigmoid)
        self._batches_seen += 1

    def finalize_state(self) -> None:
        """Sets the temperature to that of the highest likelihood."""
        if not self.needs_data:
            return
        if self._fit is None or not self._fit.count:
            raise ValueError(
                f"Adapter '{self.name}' has seen no data to learn from."
            )
        try:
            found = self._fit.temperature()
        except ValueError as error:
            raise ValueError(f"Adapter '{self.name}': {error}") from error
        self.log_temperature.assign(math.log(found))
        self._fit = None
        super().finalize_state()

    def _plain(self, inputs: Any) -> Any:
        return self._divided(inputs, 1 / self.temperature_)

    def _divided(self, inputs: Any, inverse_temperature: Any) -> Any:
        x = keras.ops.multiply(self._logits(inputs), inverse_temperature)
        return keras.ops.cast(x, self.compute_dtype)

    def _logits(self, inputs: Any) -> Any:
        x = keras.ops.cast(inputs, self._work_dtype)
        if not self.from_probabilities:
            return x
        logits = keras.ops.log(keras.ops.maximum(x, self.floor))
        if not self._is_sigmoid(inputs.shape[-1]):
            return logits
        rest = keras.ops.maximum(1.0 - x, _SMALLEST_REST)
        return keras.ops.subtract(logits, keras.ops.log(rest))

    def _is_sigmoid(self, classes: int | None) -> bool:
        return self.activation == "sigmoid" or (
            self.activation is None and classes == 1
        )

    def _check_scores(
        self, rows: np.ndarray, sigmoid: bool, tolerance: float
    ) -> None:
        if not self.from_probabilities:
            check_finite(rows, self._where)
        elif not sigmoid:
            check_distributions(rows, tolerance, self._where, _NO_PROBABILITIES)
        elif not ((rows >= 0) & (rows <= 1)).all():
            raise ValueError(
                f"{self._where}: probabilities of sigmoid units lie between 0 "
                f"and 1, received {rows.min():.6g} to {rows.max():.6g}. If "
                "the network gives logits, say from_probabilities=False."
            )

    def _learn_from(
        self, rows: np.ndarray, targets: np.ndarray, sigmoid: bool
    ) -> None:
        logits = to_numpy(self._logits(keras.ops.convert_to_tensor(rows)))
        if sigmoid:
            # A unit is two classes, of which the first has a logit of 0.
            logits, targets = logits.reshape(-1), targets.reshape(-1)
            logits = np.stack([np.zeros_like(logits), logits], axis=1)
            targets = np.stack([1 - targets, targets], axis=1)
        fit = TemperatureFit() if self._fit is None else self._fit
        fit.update(logits, targets)
        self._fit = fit


def _checked_temperature(temperature: Any, name: str) -> float | None:
    if temperature is None:
        return None
    number = isinstance(temperature, (int, float, np.integer, np.floating))
    # A bool is an int, but a temperature of True is a mistake.
    if number and not isinstance(temperature, bool):
        value = float(temperature)
        if math.isfinite(value) and value > 0:
            return value
    raise ValueError(
        f"Adapter '{name}': `temperature` is a number above 0, or None to be "
        f"fitted on labelled data; received {temperature!r}."
    )


def _checked_activation(activation: Any, name: str) -> str | None:
    if activation not in (None, "softmax", "sigmoid"):
        raise ValueError(
            f"Adapter '{name}': `activation` is 'softmax', 'sigmoid' or None, "
            f"received {activation!r}."
        )
    return activation
