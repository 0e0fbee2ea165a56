"""Computes the learning rate of each block at a step.

Tested by `tests/training/rates/test_blockwise_optimizer.py`.
"""

import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

Rate = float | LearningRateSchedule


def validate_rate(pattern: str, rate: object) -> Rate:
    """Returns the learning rate of a path pattern as a float or schedule.

    Raises a ValueError if the rate is anything else.
    """
    if isinstance(rate, LearningRateSchedule):
        return rate
    if (
        isinstance(rate, numbers.Real)
        and not isinstance(rate, bool)
        and 0 <= float(rate) < math.inf
    ):
        return float(rate)
    raise ValueError(
        f"The learning rate of {pattern!r} is {rate!r}. It must be a finite "
        "number that is not negative, a "
        "keras.optimizers.schedules.LearningRateSchedule, or a LayerwiseDecay."
    )


def resolve_reference_rate(learning_rate: object) -> float:
    """Returns the initial rate, which the float rates of blocks relate to.

    Of a schedule it is the target of the warm-up, else the initial rate.
    """
    if not isinstance(learning_rate, LearningRateSchedule):
        value = learning_rate() if callable(learning_rate) else learning_rate
        return to_float(value)
    # Keras's schedules have their arguments as attributes.
    for name in ("warmup_target", "initial_learning_rate"):
        value = getattr(learning_rate, name, None)
        if value is not None:
            return to_float(value)
    steps = getattr(learning_rate, "values", None)  # PiecewiseConstantDecay
    return to_float(steps[0] if steps else learning_rate(0))


class BlockRates:
    """The rates of groups of variables, and the group of each variable.

    Group 0 has the optimizer's own rate. The reference is the initial rate of
    the optimizer. If its own rate is a schedule, groups with a schedule of
    their own do not follow it.
    """

    def __init__(
        self,
        rates: Mapping[str, Rate],
        reference: float,
        own_is_schedule: bool,
    ) -> None:
        self.rates = {name: validate_rate(name, r) for name, r in rates.items()}
        self.reference = reference
        self.own_is_schedule = own_is_schedule
        self._group_of: dict[object, int] = {}
        self._check_reference()

    def route(self, groups: Mapping[str, Iterable[object]]) -> None:
        """Sets which variables are in which group, by their identity keys."""
        unknown = [name for name in groups if name not in self.rates]
        if unknown:
            raise ValueError(
                f"No learning rate for {unknown}. There are rates for "
                f"{list(self.rates)}."
            )
        numbers_by_name = {name: i for i, name in enumerate(self.rates, 1)}
        self._group_of = {
            key: numbers_by_name[name]
            for name, keys in groups.items()
            for key in keys
        }

    def group_of(self, key: object) -> int:
        """Returns the group of the variable with this identity key."""
        return self._group_of.get(key, 0)

    def rates_at(self, own_rate: object, step: object) -> list:
        """Returns the rate of each group, given the optimizer's own rate."""
        return [
            self.rate_at(group, own_rate, step)
            for group in range(len(self.rates) + 1)
        ]

    def rate_at(self, group: int, own_rate: object, step: object) -> Any:
        """Returns the rate of one group."""
        if group == 0:
            return own_rate
        rate: Any = list(self.rates.values())[group - 1]
        if not isinstance(rate, LearningRateSchedule):
            scale = _exact_ratio(rate, self.reference)
            return own_rate if scale == 1 else ops.multiply(own_rate, scale)
        if self.own_is_schedule:
            return rate(step)
        return ops.multiply(rate(step), ops.divide(own_rate, self.reference))

    def _check_reference(self) -> None:
        scaled = [
            name
            for name, rate in self.rates.items()
            if not (
                self.own_is_schedule and isinstance(rate, LearningRateSchedule)
            )
        ]
        if scaled and not (math.isfinite(self.reference) and self.reference):
            raise ValueError(
                f"The optimizer starts at a learning rate of {self.reference}, "
                f"and the rates of {scaled} are relative to it. Give the "
                "optimizer an initial rate above 0, and freeze what should "
                "not learn."
            )


def _exact_ratio(rate: float, reference: float) -> float:
    """Divides two rates in the dtype of the optimizer's own rate."""
    # Rounded like that variable, an equal rate has the ratio 1 and trains bit
    # for bit like the optimizer.
    double = keras.config.floatx() == "float64"
    dtype = np.float64 if double else np.float32
    return float(dtype(rate) / dtype(reference))


def to_float(value: object) -> float:
    """Returns a number, variable or tensor as a float."""
    if isinstance(value, numbers.Real):
        return float(value)
    array: Any = ops.convert_to_numpy(value)
    return float(array)
