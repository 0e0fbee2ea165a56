"""The learning rate of a range test: it rises from update to update."""

from typing import Any

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable(package="keras_cascade")
class Sweep(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises exponentially from update to update.

    Args:
        minimum: The rate of the first update.
        maximum: The rate of the last.
        updates: How many updates.
        every: Steps to an update, with gradient accumulation. Defaults to
            `1`.
    """

    def __init__(
        self, minimum: float, maximum: float, updates: int, every: int = 1
    ):
        self.minimum, self.maximum = minimum, maximum
        self.updates, self.every = updates, every
        # A table, so that the rate that is reported is the rate that was used.
        self.rates = np.geomspace(minimum, maximum, updates).astype(
            keras.config.floatx()
        )

    def __call__(self, step: Any) -> Any:
        """The rate at a step."""
        update = ops.floor_divide(ops.cast(step, "int32"), self.every)
        update = ops.minimum(update, self.updates - 1)
        return ops.take(ops.convert_to_tensor(self.rates), update)

    def get_config(self) -> dict[str, Any]:
        """The arguments."""
        return {
            "minimum": self.minimum,
            "maximum": self.maximum,
            "updates": self.updates,
            "every": self.every,
        }
