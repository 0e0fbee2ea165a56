"""Defines the base class of the methods of retention.

Tested by `tests/training/retention/test_retention_of_cascades.py`.
"""

import math
import numbers
from typing import Any, Self


class Retention:
    """A method of retention: a penalty on what a block forgets.

    Args:
        strength: The factor of the penalty; a finite number of at least 0.

    Raises:
        ValueError: If the strength is another value.
    """

    # The name of its loss in the logs.
    loss_name = "retention_loss"
    # The arguments in its config: all but data.
    arguments: tuple[str, ...] = ("strength",)

    def __init__(self, strength: float):
        self.strength = finite_number(
            strength, f"The strength of {type(self).__name__}", zero=True
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments without data."""
        return {name: getattr(self, name) for name in self.arguments}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Returns the method of a config."""
        return cls(**config)

    def __repr__(self) -> str:
        arguments = ", ".join(
            f"{k}={v!r}" for k, v in self.get_config().items()
        )
        return f"{type(self).__name__}({arguments})"


def finite_number(value: object, what: str, zero: bool) -> float:
    """Returns a positive number, or 0 if that is allowed, as a float.

    Any other value raises a ValueError that says `what` it was passed as.
    """
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        number = float(value)
        if math.isfinite(number) and (number > 0 or (zero and number == 0)):
            return number
    bound = "not negative" if zero else "positive"
    raise ValueError(
        f"{what} is {value!r}. It must be a finite number that is {bound}."
    )
