"""LogitsAdapter: probabilities as logits, as sure as they are right."""

import math
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_cascade._keras_compat.annotations import DType, Shape, Tensor
from keras_cascade.adapters.calibration import TemperatureFit
from keras_cascade.adapters.class_scores import (
    ClassAdapter,
    label_rows,
    unit_targets,
)
from keras_cascade.adapters.learning import check_finite, is_finite
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

    The adapter after a network that ends in softmax or sigmoid, if its scores
    are to be features: logits spread where probabilities crowd at 0 and 1.
    The softmax of the logits at temperature 1 is the probabilities; a higher
    temperature makes them less sure.

    With `temperature=None`, `adapt` (or `Cascade.adapt`) fits the temperature
    on labelled data that the network was not trained on, in one pass, in
    memory that does not depend on the number of rows. Labels are class ids,
    or one-hot or probability rows; of sigmoid units, 0 or 1 for each.

    A probability is at least `2**-63` (a logit of -43.7; with a float16 policy
    `2**-24`, -16.6), so that none gives infinity. The probability of a sigmoid
    unit is at most `1 - 2**-24`, the largest float32 below 1 (a logit of
    16.6). The adapter computes in float32 under every policy, and returns the
    policy's compute dtype.

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
            missing or outside the classes, or probabilities are negative or
            do not sum to one, or no temperature fits.

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
        dtype: DType = None,
        name: str | None = None,
    ):
        super().__init__(
            from_probabilities=from_probabilities,
            trainable=trainable,
            dtype=dtype,
            name=name,
        )
        self.temperature = _checked_temperature(temperature, self.name)
        self.activation = self._one_of(
            "activation", activation, ("softmax", "sigmoid", None)
        )

    @property
    def needs_data(self) -> bool:
        """Whether the temperature is left to `adapt`."""
        return self.temperature is None

    @property
    def temperature_(self) -> float:
        """The temperature in use: given, fitted or trained."""
        if not self.fitted:
            raise ValueError(
                f"Adapter '{self.name}' is not fitted: call `adapt((scores, "
                "labels))`, or `adapt((x, y))` of its cascade."
            )
        if self.temperature is not None and not self.built:
            return self.temperature
        return math.exp(float(to_numpy(self.log_temperature)))

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            **super().get_config(),
            "temperature": self.temperature,
            "activation": self.activation,
        }

    def build(self, input_shape: Shape) -> None:
        """Adds the temperature's logarithm, 0 until it is fitted."""
        if self._classes_of(input_shape) == 1 and self.activation == "softmax":
            raise ValueError(
                f"Adapter '{self.name}' received an input of shape "
                f"{tuple(input_shape)}: the softmax of one class is always 1. "
                "One unit is a sigmoid: leave `activation` out."
            )
        super().build(input_shape)
        given = math.log(self.temperature or 1.0)
        self.log_temperature = self._add_uncast_weight(
            "log_temperature",
            (),
            initializer=keras.initializers.Constant(given),
        )

    def call(self, inputs: Tensor) -> Any:
        """Returns the logits, divided by the temperature."""
        # Not the temperature itself: it stays above 0 when it is trained.
        return self._divided(inputs, ops.exp(-self.log_temperature))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the input's shape."""
        return tuple(input_shape)

    def _gather(
        self, batch: Tensor, labels: Tensor | None, mask: Tensor | None
    ) -> TemperatureFit | None:
        scores, given = self._read(batch, labels, mask)
        shape, classes = scores.shape, scores.shape[-1]
        rows = scores.reshape(-1, classes)
        tensor: Any = ops.convert_to_tensor(rows)
        logits = to_numpy(self._logits(tensor))
        if self._is_sigmoid(classes):
            targets = unit_targets(given, shape).reshape(-1)
            self._check_units(rows)
            # A unit is two classes, of which the first has a logit of 0.
            logits = logits.reshape(-1)
            logits = np.stack([np.zeros_like(logits), logits], axis=1)
            targets = np.stack([1 - targets, targets], axis=1)
        else:
            targets = label_rows(given, shape[:-1], classes)
            self._check_scores(rows, batch, _NO_PROBABILITIES)
        if not len(logits):
            return self._gathered
        fit = self._gathered or TemperatureFit()
        fit.update(logits, targets)
        return fit

    def _set_weights_from(self, gathered: TemperatureFit) -> None:
        self.log_temperature.assign(math.log(gathered.temperature()))

    def _plain(self, inputs: Tensor) -> Any:
        return self._divided(inputs, 1 / self.temperature_)

    def _divided(
        self, inputs: Tensor, inverse_temperature: float | Tensor
    ) -> Any:
        x = ops.multiply(self._logits(inputs), inverse_temperature)
        return ops.cast(x, self.compute_dtype)

    def _logits(self, inputs: Tensor) -> Any:
        x: Any = ops.cast(inputs, self._work_dtype)
        if not self.from_probabilities:
            return x
        logits = ops.log(ops.maximum(x, self.floor))
        if not self._is_sigmoid(inputs.shape[-1]):
            return logits
        rest = ops.maximum(1.0 - x, _SMALLEST_REST)
        return ops.subtract(logits, ops.log(rest))

    def _is_sigmoid(self, classes: int) -> bool:
        return self.activation == "sigmoid" or (
            self.activation is None and classes == 1
        )

    def _check_units(self, rows: np.ndarray) -> None:
        if not self.from_probabilities:
            check_finite(rows)
        elif not ((rows >= 0) & (rows <= 1)).all():
            raise ValueError(
                "probabilities of sigmoid units lie between 0 and 1, received "
                f"{rows.min():.6g} to {rows.max():.6g}. If the network gives "
                "logits, say from_probabilities=False."
            )


def _checked_temperature(temperature: object, name: str) -> float | None:
    if temperature is None:
        return None
    # True is a number, but a mistake.
    if is_finite(temperature) and temperature is not True and temperature > 0:
        return float(temperature)
    raise ValueError(
        f"Adapter '{name}': `temperature` is a number above 0, or None to be "
        f"fitted on labelled data; received {temperature!r}."
    )
