"""Learning rates per block: one optimizer that gives each block its own rate.

Everything an optimizer does (slots, decay, clipping, accumulation, averaging)
stays the work of the user's optimizer class; only the rate that it sees for a
variable changes. Variables are told apart by identity, never by name.
"""

import math
import numbers
from collections.abc import Iterable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from keras_cascade import _keras_compat

Rate = float | LearningRateSchedule


def with_block_rates(
    optimizer: str | dict | keras.optimizers.Optimizer,
    rates: Mapping[str, Rate],
) -> keras.optimizers.Optimizer:
    """Give a copy of an optimizer a learning rate per block.

    Use it where an optimizer comes from a user: names, configs and an
    optimizer that is wrapped already are understood, and what is passed in
    stays as it is.

    Args:
        optimizer: Anything that `keras.optimizers.get` takes, a
            `LossScaleOptimizer` or a `BlockwiseOptimizer` included; rates
            that the latter had are replaced.
        rates: Group name (a path pattern) to rate.

    Returns:
        A `BlockwiseOptimizer`, inside a `LossScaleOptimizer` where one was
        passed. `find_blockwise` takes it out again.

    Raises:
        ValueError: If a rate is no rate, or the optimizer has no one learning
            rate to scale.

    Example:
    ```python
    optimizer = with_block_rates("adam", {"upstream": 1e-5})
    find_blockwise(optimizer).route({"upstream": upstream.variables})
    ```
    """
    found: Any = keras.optimizers.get(optimizer)
    if isinstance(found, keras.optimizers.LossScaleOptimizer):
        inner = with_block_rates(found.inner_optimizer, rates)
        config = _without(found.get_config(), "inner_optimizer")
        return type(found)(inner, **config)
    if isinstance(found, BlockwiseOptimizer):
        found = found.to_plain()
    return BlockwiseOptimizer(found, rates)


def find_blockwise(
    optimizer: keras.optimizers.Optimizer | None,
) -> "BlockwiseOptimizer | None":
    """Return the `BlockwiseOptimizer` in an optimizer, or None.

    Keras puts optimizers into a `LossScaleOptimizer` under `mixed_float16`.

    Args:
        optimizer: A model's optimizer.

    Returns:
        The `BlockwiseOptimizer`, or None where there is none.
    """
    inner = getattr(optimizer, "inner_optimizer", None)
    candidates = (optimizer, inner)  # BlockwiseOptimizer has one as well
    return next(
        (o for o in candidates if isinstance(o, BlockwiseOptimizer)), None
    )


def validate_rate(pattern: str, rate: object) -> Rate:
    """Return a learning rate as a float or schedule, or explain.

    Args:
        pattern: The path pattern that the rate belongs to, for the message.
        rate: A finite number of at least 0, or a `LearningRateSchedule`.

    Returns:
        The rate; numbers of any kind as a float.

    Raises:
        ValueError: If it is anything else.
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
        "number that is not negative, or a "
        "keras.optimizers.schedules.LearningRateSchedule."
    )


def resolve_reference_rate(learning_rate: Any) -> float:
    """Return the rate that an optimizer's learning rate starts from.

    It is what the float rates of blocks are relative to: of a number itself,
    of a schedule its warm-up's target, else its initial rate.

    Args:
        learning_rate: A number, a `LearningRateSchedule`, or a callable
            without arguments, as optimizers take them.

    Returns:
        The rate as a float.

    Example:
    ```python
    schedule = keras.optimizers.schedules.CosineDecay(
        0.0, 1000, warmup_target=1e-3, warmup_steps=100
    )
    resolve_reference_rate(schedule)  # 0.001
    ```
    """
    if not isinstance(learning_rate, LearningRateSchedule):
        value = learning_rate() if callable(learning_rate) else learning_rate
        return _to_float(value)
    # Keras's schedules keep their arguments under their names.
    for name in ("warmup_target", "initial_learning_rate"):
        value = getattr(learning_rate, name, None)
        if value is not None:
            return _to_float(value)
    steps = getattr(learning_rate, "values", None)  # PiecewiseConstantDecay
    return _to_float(steps[0] if steps else learning_rate(0))


class BlockRates:
    """The rates of groups of variables, and which variable is in which group.

    Group 0 has the optimizer's own rate. Plain arithmetic: what calls it is
    an optimizer's update.

    Args:
        rates: Group name to rate.
        reference: The optimizer's initial rate.
        own_is_schedule: Whether the optimizer's own rate is a schedule, which
            blocks with a schedule of their own then do not follow.
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
        """Say which variables are in which group, by their identity keys."""
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
        """Return the group of the variable with this identity key."""
        return self._group_of.get(key, 0)

    def rates_at(self, own_rate, step) -> list:
        """Return the rate of each group, given the optimizer's and the step."""
        return [
            self.rate_at(group, own_rate, step)
            for group in range(len(self.rates) + 1)
        ]

    def rate_at(self, group: int, own_rate, step):
        """Return the rate of one group."""
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
                f"and the rates of {scaled} hold relative to it. Give the "
                "optimizer an initial rate above 0, and freeze what should "
                "not learn."
            )


@keras.saving.register_keras_serializable(package="keras_cascade")
class BlockwiseOptimizer(keras.optimizers.Optimizer):
    """A copy of an optimizer with a learning rate per group of variables.

    A float rate is the group's rate while the optimizer is at its initial
    one: schedules and callbacks that change the optimizer's rate scale all
    groups alike. A group's own schedule follows the global step, scaled alike
    where the optimizer's own rate is a number. Decoupled weight decay uses
    the group's rate as well; clipping, accumulation and averaging see all
    variables together. `learning_rate` is the optimizer's own rate.

    The routing of variables is no part of the config: call `route` again
    after loading, before the optimizer is used.

    Args:
        inner_optimizer: The optimizer to copy, decay exclusions included. It
            stays as it is.
        rates: Group name to float or `LearningRateSchedule`.
        reference_rate: The initial rate of the optimizer, kept by the config
            as callbacks change the current one. Defaults to `None`, which
            reads it from the optimizer.
        undecayed: Which of the variables it is built on decay leaves out, by
            index like Keras's slots; a plain optimizer forgets them when
            saved. Defaults to `()`.
        name: Defaults to `None`, the name of the optimizer copied.

    Raises:
        ValueError: If a rate is no rate, or the optimizer has no one positive
            initial learning rate.

    Example:
    ```python
    optimizer = BlockwiseOptimizer(
        keras.optimizers.AdamW(1e-3), {"upstream": 1e-5}
    )
    optimizer.route({"upstream": upstream.variables})
    model.compile(optimizer, loss="mse")
    ```
    """

    def __init__(
        self,
        inner_optimizer: keras.optimizers.Optimizer,
        rates: Mapping[str, Rate],
        reference_rate: float | None = None,
        undecayed: Iterable[int] = (),
        name: str | None = None,
    ) -> None:
        _check_single_rate(inner_optimizer)
        # The base class wants a rate of its own; nothing reads it.
        super().__init__(
            learning_rate=0.0,
            loss_scale_factor=inner_optimizer.loss_scale_factor,
            name=name or inner_optimizer.name,
        )
        source = _keras_compat.learning_rate_source(inner_optimizer)
        if reference_rate is None:
            reference_rate = resolve_reference_rate(source)
        self._rates = BlockRates(
            rates, reference_rate, isinstance(source, LearningRateSchedule)
        )
        self._plain_class = type(inner_optimizer)
        self._undecayed = tuple(undecayed)
        # Under this name Keras's callbacks find what LossScaleOptimizer wraps.
        self.inner_optimizer = _keras_compat.copy_with_rates(
            inner_optimizer, self._rates
        )

    @property
    def rates(self) -> dict[str, Rate]:
        """Group name to the rate it was given."""
        return dict(self._rates.rates)

    @property
    def reference_rate(self) -> float:
        """The optimizer's initial rate, to which float rates are relative."""
        return self._rates.reference

    def route(
        self, groups: Mapping[str, Iterable[keras.Variable]]
    ) -> "BlockwiseOptimizer":
        """Say which variables have which rate, before training.

        Args:
            groups: Group name to variables, frozen ones welcome. In several
                groups, the later counts; in none, the optimizer's own rate.
                It replaces what an earlier call said.

        Returns:
            The optimizer itself.

        Raises:
            ValueError: If a group has no rate.
        """
        key = self._var_key
        self._rates.route({n: [key(v) for v in vs] for n, vs in groups.items()})
        return self

    def effective_rates(self) -> dict[str, float]:
        """Return the current learning rate of every group."""
        step = _keras_compat.schedule_step(self.inner_optimizer)
        rates = self._rates.rates_at(self.learning_rate, step)
        return dict(zip(self.rates, map(_to_float, rates[1:]), strict=True))

    def to_plain(self) -> keras.optimizers.Optimizer:
        """Return an unbuilt copy of the optimizer without rates per block."""
        plain = self._plain_class.from_config(self.inner_optimizer.get_config())
        _keras_compat.copy_decay_exclusions(self.inner_optimizer, plain)
        return plain

    def build(self, variables: list[keras.Variable]) -> None:
        if self.built:
            return
        inner = self.inner_optimizer
        if self._undecayed:
            inner.exclude_from_weight_decay(
                [variables[index] for index in self._undecayed]
            )
        inner.build(variables)
        super().build(variables)
        self._undecayed = _keras_compat.undecayed(inner, variables)

    @property
    def variables(self) -> list[keras.Variable]:
        return self.inner_optimizer.variables

    @property
    def iterations(self):
        return self.inner_optimizer.iterations

    @property
    def learning_rate(self):
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate) -> None:
        self.inner_optimizer.learning_rate = learning_rate
        source = _keras_compat.learning_rate_source(self.inner_optimizer)
        self._rates.own_is_schedule = isinstance(source, LearningRateSchedule)

    def apply(self, grads, trainable_variables=None) -> None:
        if trainable_variables is not None:
            trainable_variables = list(trainable_variables)
            self.build(trainable_variables)
        # LossScaleOptimizer switches it off on what it wraps.
        self.inner_optimizer.loss_scale_factor = self.loss_scale_factor
        self.inner_optimizer.apply(grads, trainable_variables)

    def apply_gradients(self, grads_and_vars):
        super().apply_gradients(grads_and_vars)
        return self.iterations

    def finalize_variable_values(self, var_list) -> None:
        self.inner_optimizer.finalize_variable_values(var_list)

    def exclude_from_weight_decay(self, var_list=None, var_names=None) -> None:
        self.inner_optimizer.exclude_from_weight_decay(var_list, var_names)

    def set_weights(self, weights) -> None:
        self.inner_optimizer.set_weights(weights)

    def get_config(self) -> dict:
        serialize = keras.saving.serialize_keras_object
        return {
            "inner_optimizer": _keras_compat.serialize_optimizer(
                self.to_plain()
            ),
            "rates": {n: serialize(rate) for n, rate in self.rates.items()},
            "reference_rate": self.reference_rate,
            "undecayed": list(self._undecayed),
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None) -> "BlockwiseOptimizer":
        def load(value):
            return keras.saving.deserialize_keras_object(value, custom_objects)

        inner = load(config["inner_optimizer"])
        rates = {name: load(rate) for name, rate in config["rates"].items()}
        rest = _without(config, "inner_optimizer", "rates")
        return cls(inner, rates, **rest)


def _check_single_rate(optimizer: keras.optimizers.Optimizer) -> None:
    wrappers = (
        keras.optimizers.MultiOptimizer,
        keras.optimizers.LossScaleOptimizer,
        BlockwiseOptimizer,
    )
    if isinstance(optimizer, wrappers):
        raise ValueError(
            "Learning rates per block need an optimizer with one learning "
            f"rate, not a {type(optimizer).__name__} ({optimizer.name!r}). "
            "Pass the optimizer that it wraps."
        )


def _exact_ratio(rate: float, reference: float) -> float:
    """Divide two rates as the optimizer's own variable would hold them.

    Rounded like that variable, a rate equal to the optimizer's has the ratio
    1 and trains bit for bit like it.
    """
    double = keras.config.floatx() == "float64"
    dtype = np.float64 if double else np.float32
    return float(dtype(rate) / dtype(reference))


def _to_float(value) -> float:
    if isinstance(value, numbers.Real):
        return float(value)
    return float(ops.convert_to_tensor(value))  # type: ignore[arg-type]


def _without(config: Mapping, *names: str) -> dict:
    return {key: value for key, value in config.items() if key not in names}
