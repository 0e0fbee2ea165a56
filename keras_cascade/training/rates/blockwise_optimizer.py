"""Wraps an optimizer so that each group of variables has its own rate.

The user's optimizer class still does everything (slots, decay, clipping,
accumulation, averaging); only the rate that it sees for a variable changes, and
the steps that it counts. Variables are identified by `id`, never by name.
"""

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Self

import keras
import numpy as np
from keras.optimizers.schedules import LearningRateSchedule

from keras_cascade._interrupts.cleanup import finally_twice
from keras_cascade._keras_compat import optimizers as compat
from keras_cascade.training.rates.block_rates import (
    BlockRates,
    Rate,
    resolve_reference_rate,
    to_float,
)
from keras_cascade.training.rates.saved_slots import (
    load_slots,
    read_layout,
    write_layout,
)
from keras_cascade.training.rates.step_counts import AT_REST, began_at

_NOT_BUILT = (
    "The optimizer's slots are not loaded, as it has none yet. To continue a "
    "training, call cascade.optimizer.build(cascade.trainable_variables) "
    "before load_weights."
)


def with_block_rates(
    optimizer: str | dict | keras.optimizers.Optimizer,
    rates: Mapping[str, Rate],
) -> keras.optimizers.Optimizer:
    """Returns a copy of an optimizer with a learning rate per group.

    It is a `BlockwiseOptimizer`, inside a `LossScaleOptimizer` where one was
    passed. Of a `BlockwiseOptimizer` the rates are replaced.
    """
    found: Any = keras.optimizers.get(optimizer)
    if isinstance(found, keras.optimizers.LossScaleOptimizer):
        inner = with_block_rates(found.inner_optimizer, rates)
        return type(found)(**(found.get_config() | {"inner_optimizer": inner}))
    if isinstance(found, BlockwiseOptimizer):
        found = found.to_plain()
    return BlockwiseOptimizer(found, rates)


def find_blockwise(
    optimizer: keras.optimizers.Optimizer | None,
) -> "BlockwiseOptimizer | None":
    """Returns the `BlockwiseOptimizer` in a model's optimizer, or None."""
    # Under mixed_float16 Keras puts optimizers into a LossScaleOptimizer; a
    # BlockwiseOptimizer has an inner_optimizer as well.
    for one in (optimizer, getattr(optimizer, "inner_optimizer", None)):
        if isinstance(one, BlockwiseOptimizer):
            return one
    return None


@keras.saving.register_keras_serializable(package="keras_cascade")
class BlockwiseOptimizer(keras.optimizers.Optimizer):
    """A copy of an optimizer with a learning rate per group of variables.

    A float rate is the group's rate while the optimizer is at its initial
    one: schedules and callbacks that change the optimizer's rate scale all
    groups alike. A group's own schedule follows the global step, scaled alike
    where the optimizer's own rate is a number. Decoupled weight decay uses
    the group's rate as well; clipping, accumulation and averaging see all
    variables together. `learning_rate` is the optimizer's own rate.

    `extend` adds variables, and `activate` sets which train from now on. Each
    variable counts its own steps, so that an Adam whose block begins late
    corrects the bias of its moments from there, and takes its first steps at
    its rate. The groups of variables are not in the config: call `route` again
    after loading, before the optimizer is used.

    Args:
        inner_optimizer: The optimizer to copy, decay exclusions included.
        rates: Group name to float or `LearningRateSchedule`.
        reference_rate: The initial rate, saved in the config as callbacks
            change the current one. Defaults to `None`: that of the optimizer.
        undecayed: The indices of variables that weight decay leaves out, as
            Keras numbers slots; a plain optimizer forgets them when saved.
            Defaults to `()`.
        undecayed_names: A regular expression for the names of further
            variables, such as join later. Defaults to `None`.
        name: Defaults to `None`: the name of the optimizer.

    Raises:
        ValueError: If a rate is invalid, or the optimizer has not exactly one
            positive initial learning rate.
    """

    def __init__(
        self,
        inner_optimizer: keras.optimizers.Optimizer,
        rates: Mapping[str, Rate],
        reference_rate: float | None = None,
        undecayed: Iterable[int] = (),
        undecayed_names: str | None = None,
        name: str | None = None,
    ) -> None:
        _check_single_rate(inner_optimizer)
        # The base class needs a rate of its own; nothing reads it.
        super().__init__(
            learning_rate=0.0,
            loss_scale_factor=inner_optimizer.loss_scale_factor,
            name=name or inner_optimizer.name,
        )
        source = compat.learning_rate_source(inner_optimizer)
        if reference_rate is None:
            reference_rate = resolve_reference_rate(source)
        self._rates = BlockRates(
            rates, reference_rate, isinstance(source, LearningRateSchedule)
        )
        self._plain_class = type(inner_optimizer)
        self._undecayed = tuple(undecayed)  # until it is built
        # The steps at which variables were put to rest, by their ids.
        self._rested_at: dict[int, int] = {}
        # Told, when slots are loaded, the paths of the variables that have
        # some, to `extend` this optimizer by those.
        self.before_loading: Callable[[Collection[str]], None] | None = None
        # Keras's callbacks look for the optimizer under this name.
        self.inner_optimizer = compat.copy_with_rates(
            inner_optimizer, self._rates
        )
        if undecayed_names is not None:
            self.inner_optimizer.exclude_from_weight_decay(
                var_names=[undecayed_names]
            )

    # --- Groups and their rates --------------------------------------------

    @property
    def rates(self) -> dict[str, Rate]:
        """Group name to its given rate."""
        return dict(self._rates.rates)

    @property
    def reference_rate(self) -> float:
        """The optimizer's initial rate, to which float rates are relative."""
        return self._rates.reference

    def route(self, groups: Mapping[str, Iterable[keras.Variable]]) -> Self:
        """Sets which variables have which rate, and returns the optimizer.

        Of several groups of a variable the last counts; without a group it
        has the optimizer's own rate. Groups of earlier calls are replaced.
        """
        key = self._var_key
        self._rates.route({n: [key(v) for v in vs] for n, vs in groups.items()})
        return self

    def effective_rates(self) -> dict[str, float]:
        """Returns the current learning rate of every group."""
        step = compat.schedule_step(self.inner_optimizer)
        rates = self._rates.rates_at(self.learning_rate, step)
        return dict(zip(self.rates, map(to_float, rates[1:]), strict=True))

    def to_plain(self) -> keras.optimizers.Optimizer:
        """Returns an unbuilt copy of the optimizer without rates per block."""
        plain = self._plain_class.from_config(self.inner_optimizer.get_config())
        compat.copy_decay_exclusions(self.inner_optimizer, plain)
        return plain

    # --- Which variables are known, and which train ------------------------

    def extend(self, variables: Iterable[keras.Variable]) -> Self:
        """Adds slots for variables, and returns the optimizer itself.

        Slots are stored in the order of `variables`, those of missing ones
        last. Known variables keep theirs; new ones do not train before
        `activate` names them. Call it between steps.
        """
        # Each once, and by identity: variables compare value by value.
        every = {id(v): v for v in (*variables, *self.known_variables)}
        order = list(every.values())
        if not self.built:
            self._exclude_undecayed(order)
            self._grow(order)
            super().build(order)
        elif len(order) > len(self.known_variables):
            self._grow(order)
        return self

    def activate(self, variables: Iterable[keras.Variable]) -> Self:
        """Sets which variables train from now on, and returns the optimizer.

        `apply(gradients)` takes gradients in this order. The other variables
        keep their slots and step counts. Call it between steps.
        """
        variables = list(variables)
        active = {id(variable) for variable in variables}
        trains = [id(v) in active for v in self.known_variables]
        before: Any = keras.ops.convert_to_numpy(self._began_at)
        step = int(to_float(self.iterations))
        after = began_at(before, step, trains)
        if (before != after).any():
            # On JAX Keras keeps gradients that were accumulated before a
            # variable was frozen, and it starts averages at the first step.
            self._join(self._missed_steps(before, step))
            self._rest(before, after, step)
            self._began_at.assign(after)
        for optimizer in (self.inner_optimizer, self):
            compat.use_variables(optimizer, variables)
        return self

    @property
    def known_variables(self) -> list[keras.Variable]:
        """The variables with slots, in the order of these."""
        return compat.built_for(self.inner_optimizer)

    @property
    def generation(self) -> int:
        """Counts inner optimizers, and what was loaded into them.

        A step that was traced with the slots of an earlier one must be traced
        again, and the flags of now need not be those of a loaded file.
        """
        return getattr(self.inner_optimizer, "generation", 0)

    @property
    def _began_at(self) -> Any:
        """For each variable the step at which it began; see `step_counts`."""
        inner: Any = self.inner_optimizer
        return inner.began_at

    def _grow(self, variables: list[keras.Variable]) -> None:
        """Replaces the inner optimizer by one on more variables."""
        new = self._built_anew(variables)
        compat.copy_slots(self.inner_optimizer, new)
        if self._began_at is not None:
            began = np.full(len(variables), AT_REST)
            before: Any = keras.ops.convert_to_numpy(self._began_at)
            place = {id(variable): i for i, variable in enumerate(variables)}
            for variable, old in zip(self.known_variables, before, strict=True):
                began[place[id(variable)]] = old
            new.__dict__["began_at"].assign(began.astype("int32"))
        new.__dict__["generation"] = self.generation + 1
        # At once: a training that is interrupted has the old one or this one.
        self.inner_optimizer = new

    def _built_anew(
        self, variables: list[keras.Variable]
    ) -> keras.optimizers.Optimizer:
        """Returns an inner optimizer on variables, before the first step."""
        new = compat.copy_with_rates(self.to_plain(), self._rates)
        new.build(variables)
        return self._count_steps(new, len(variables))

    def _count_steps(
        self, inner: keras.optimizers.Optimizer, count: int
    ) -> keras.optimizers.Optimizer:
        steps = self.add_variable(shape=(count,), dtype="int", name="began_at")
        # Untracked: it is among the variables of this optimizer already.
        inner.__dict__["began_at"] = steps
        return inner

    def _missed_steps(self, before: np.ndarray, step: int) -> list[int]:
        """Returns the indices of variables that rested while others trained."""
        known = zip(self.known_variables, before, strict=True)
        return [
            index
            for index, (variable, began) in enumerate(known)
            if began < 0 and self._rested_at.get(id(variable)) != step
        ]

    def _rest(self, before: np.ndarray, after: np.ndarray, step: int) -> None:
        for index, variable in enumerate(self.known_variables):
            if before[index] >= 0 > after[index]:
                self._rested_at[id(variable)] = step

    def _join(self, indices: list[int]) -> None:
        """Resets what variables accumulated before they were frozen."""
        if self.inner_optimizer.gradient_accumulation_steps:
            compat.zero_accumulators(self.inner_optimizer, indices)
        if self.inner_optimizer.use_ema:
            compat.start_averages(self.inner_optimizer, indices)

    # --- Keras's optimizer, delegated to the inner one ---------------------

    def build(self, variables: list[keras.Variable]) -> None:
        if self.built:
            return
        # In place: TensorFlow may be tracing a step.
        self._exclude_undecayed(variables)
        self.inner_optimizer.build(variables)
        self._count_steps(self.inner_optimizer, len(variables))
        super().build(variables)

    def _exclude_undecayed(self, variables: Sequence[keras.Variable]) -> None:
        if self._undecayed:  # Keras forgets exclusions when saving
            names = compat.undecayed_names(self.inner_optimizer)
            self.inner_optimizer.exclude_from_weight_decay(
                [variables[index] for index in self._undecayed],
                None if names is None else [names],
            )

    @property
    def variables(self) -> list[keras.Variable]:
        own = [] if self._began_at is None else [self._began_at]
        return [*self.inner_optimizer.variables, *own]

    @property
    def iterations(self):
        return self.inner_optimizer.iterations

    @property
    def learning_rate(self):
        return self.inner_optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate) -> None:
        self.inner_optimizer.learning_rate = learning_rate
        source = compat.learning_rate_source(self.inner_optimizer)
        self._rates.own_is_schedule = isinstance(source, LearningRateSchedule)

    def apply(self, grads, trainable_variables=None) -> None:
        if trainable_variables is None:
            trainable_variables = self._trainable_variables
        trainable_variables = list(trainable_variables)
        self.build(trainable_variables)
        # LossScaleOptimizer sets it to None on this one, which it wraps, as
        # gradients would be scaled twice.
        self.inner_optimizer.loss_scale_factor = self.loss_scale_factor
        self.inner_optimizer.apply(grads, trainable_variables)

    def apply_gradients(self, grads_and_vars):
        super().apply_gradients(grads_and_vars)
        return self.iterations

    # Set while one training consists of several calls of `fit`, at the end of
    # each of which Keras would overwrite the variables with their averages.
    holds_averages = False

    def finalize_variable_values(self, var_list) -> None:
        if self.holds_averages:
            return
        # An interrupted training may have set flags of the next stage already.
        trained = compat.built_on(self.inner_optimizer)
        # Nor may there be an average for each of its variables yet.
        compat.use_variables(self.inner_optimizer, trained)
        with finally_twice(self._separate_averages):
            self.inner_optimizer.finalize_variable_values(trained)

    def _separate_averages(self) -> None:
        compat.separate_averages(self.inner_optimizer)

    def exclude_from_weight_decay(self, var_list=None, var_names=None) -> None:
        self.inner_optimizer.exclude_from_weight_decay(var_list, var_names)

    def set_weights(self, weights) -> None:
        *of_inner, began = weights
        self.inner_optimizer.set_weights(of_inner)
        self._began_at.assign(began)

    # --- Saving and loading ------------------------------------------------

    def get_config(self) -> dict:
        serialize = keras.saving.serialize_keras_object
        return {
            "inner_optimizer": compat.serialize_optimizer(self.to_plain()),
            "rates": {n: serialize(rate) for n, rate in self.rates.items()},
            "reference_rate": self.reference_rate,
            "undecayed": self._undecayed_now(),
            "undecayed_names": compat.undecayed_names(self.inner_optimizer),
            "name": self.name,
        }

    def _undecayed_now(self) -> list[int]:
        known = self.known_variables
        if not known:
            return list(self._undecayed)
        return list(compat.undecayed(self.inner_optimizer, known))

    def save_own_variables(self, store: Any) -> None:
        super().save_own_variables(store)
        if self.built and self.before_loading is not None:
            write_layout(store, self.inner_optimizer, self.variables)

    def load_own_variables(self, store: Any) -> None:
        layout, prepare = read_layout(store), self.before_loading
        if layout is None or prepare is None:  # by their number
            super().load_own_variables(store)
            return
        if not self.built:
            warnings.warn(_NOT_BUILT, stacklevel=2)
            return
        prepare(layout.variables)
        load_slots(store, layout, self.inner_optimizer, self._built_anew)
        self._rested_at.clear()
        began: Any = keras.ops.convert_to_numpy(self._began_at)
        active = {id(variable) for variable in self._trainable_variables}
        trains = [id(variable) in active for variable in self.known_variables]
        if list(began >= 0) != trains:
            inner: Any = self.inner_optimizer
            inner.__dict__["generation"] = self.generation + 1

    @classmethod
    def from_config(cls, config, custom_objects=None) -> Self:
        def load(value):
            return keras.saving.deserialize_keras_object(value, custom_objects)

        inner = load(config["inner_optimizer"])
        rates = {name: load(rate) for name, rate in config["rates"].items()}
        return cls(**{**config, "inner_optimizer": inner, "rates": rates})


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
