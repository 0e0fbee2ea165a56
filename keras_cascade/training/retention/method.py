"""What all methods of retention have in common."""

import math
import numbers
from typing import Any


class Retention:
    """A method of retention: a penalty on what a block forgets.

    Args:
        strength: The factor of the penalty; a finite number of at least 0.

    Raises:
        ValueError: If the strength is none.
    """

    # What its loss is called in the logs: `l2sp_loss`.
    loss_name = "retention_loss"

    def __init__(self, strength: float):
        self.strength = finite_number(
            strength, f"The strength of {type(self).__name__}", zero=True
        )

    def get_config(self) -> dict[str, Any]:
        """Its arguments, but for data."""
        return {"strength": self.strength}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Retention":
        """The method that `get_config` wrote."""
        return cls(**config)

    def __repr__(self) -> str:
        arguments = ", ".join(
            f"{k}={v!r}" for k, v in self.get_config().items()
        )
        return f"{type(self).__name__}({arguments})"


def finite_number(value: Any, what: str, zero: bool) -> float:
    """A number as a float, or an error that says what it is not.

    Args:
        value: What was received.
        what: What it is, for the message.
        zero: Whether it may be 0.
    """
    if isinstance(value, numbers.Real) and not isinstance(value, bool):
        number = float(value)
        if math.isfinite(number) and (number > 0 or (zero and number == 0)):
            return number
    bound = "not negative" if zero else "positive"
    raise ValueError(
        f"{what} is {value!r}. It must be a finite number that is {bound}."
    )
