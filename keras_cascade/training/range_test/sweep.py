"""Raises the learning rate of a range test from update to update."""

from typing import Any

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="keras_cascade")
class Sweep(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises exponentially from update to update.

    An update takes `every` steps, with gradient accumulation.
    """

    def __init__(
        self, minimum: float, maximum: float, updates: int, every: int = 1
    ):
        self.minimum, self.maximum = minimum, maximum
        self.updates, self.every = updates, every
        # A table, so that the reported rates are those that were used.
        self.rates = np.geomspace(minimum, maximum, updates).astype(
            keras.config.floatx()
        )

    def __call__(self, step: object) -> Any:
        """Returns the rate at a step."""
        update = ops.floor_divide(ops.cast(step, "int32"), self.every)
        update = ops.minimum(update, self.updates - 1)
        return ops.take(ops.convert_to_tensor(self.rates), update)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments."""
        return {
            "minimum": self.minimum,
            "maximum": self.maximum,
            "updates": self.updates,
            "every": self.every,
        }
