"""Gives one Keras 3.15.1 optimizer several learning rates.

Keras has no public way to do so: `MultiOptimizer` clips and accumulates per
optimizer, finds variables by name and does not reload. `update_step` is
public, but weight decay and torch's grouped update bypass it.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Protocol

import keras

from keras_cascade._keras_compat.graphs_and_layers import set_untracked


class GroupRates(Protocol):
    """The rates of groups of variables; group 0 has the optimizer's own."""

    def group_of(self, key: object) -> int: ...
    def rates_at(self, own_rate: object, step: object) -> list: ...
    def rate_at(self, group: int, own_rate: object, step: object) -> Any: ...


class RatedUpdates(keras.optimizers.Optimizer):
    """A mixin that gives each group of variables a rate and steps of its own.

    It comes before the optimizer's class. `update_step`, torch's
    `_parallel_update_step` and `_apply_weight_decay` get the group's rate, and
    `iterations`, which bias corrections read, counts the steps of the variable
    that is updated.
    """

    # Both are set from outside: the constructor is that of the user's class.
    block_rates: GroupRates
    began_at: Any = None  # for each variable the step at which it began
    _decaying_group: int | None = None
    _own_steps: object = None

    @property
    def iterations(self):
        own = self._own_steps
        return super().iterations if own is None else own

    def build(self, variables: Sequence[keras.Variable]) -> None:
        super().build(variables)
        set_untracked(self, "_built_on", list(variables))
        if self.use_ema:
            averages = list(self._model_variables_moving_average)
            set_untracked(self, "_every_average", averages)

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        # Once a step, not once a variable. Keras passes the list on as it
        # passes a rate; tf.distribute also maps it over its replicas.
        rates = self.block_rates.rates_at(learning_rate, self._iterations)
        steps = super().iterations - self.began_at
        super()._backend_update_step(
            grads, trainable_variables, [*rates, steps]
        )

    def update_step(self, gradient, variable, learning_rate):
        *rates, steps = learning_rate
        group = self.block_rates.group_of(self._var_key(variable))
        with self._during(
            "_own_steps", steps[self._get_variable_index(variable)]
        ):
            super().update_step(gradient, variable, rates[group])

    def _parallel_update_step(self, grads, variables, learning_rate):
        *rates, steps = learning_rate
        # Torch's Nadam advances a state of the whole step in each call.
        shared: Any = getattr(self, "_u_product", None)
        before = None if shared is None else keras.ops.copy(shared.value)
        gradient_of = dict(zip(map(id, variables), grads, strict=True))
        alike = self._by_group_and_steps(variables, steps)
        for (group, count), members in alike.items():
            if shared is not None:
                shared.assign(before)
            with self._during("_own_steps", count):
                super()._parallel_update_step(  # type: ignore[misc]
                    [gradient_of[id(v)] for v in members],
                    members,
                    rates[group],
                )

    def _apply_weight_decay(self, variables):
        decayed = [v for v in variables if self._use_weight_decay(v)]
        groups: dict[int, list[keras.Variable]] = {}
        for variable in decayed:
            group = self.block_rates.group_of(self._var_key(variable))
            groups.setdefault(group, []).append(variable)
        for group, members in groups.items():
            with self._during("_decaying_group", group):
                super()._apply_weight_decay(members)

    def _get_current_learning_rate(self):
        rate = super()._get_current_learning_rate()
        if self._decaying_group is None:
            return rate
        return self.block_rates.rate_at(
            self._decaying_group, rate, self._iterations
        )

    @contextmanager
    def _during(self, name: str, value: object) -> Iterator[None]:
        """Sets an attribute during a block, which is None otherwise."""
        try:
            try:
                setattr(self, name, value)
                yield
            finally:
                setattr(self, name, None)
        finally:
            # An interrupt above must not leave it: on JAX it is of a trace.
            # (`finally_twice` is of a folder that lies higher.)
            setattr(self, name, None)

    def _by_group_and_steps(
        self, variables: Iterable[keras.Variable], steps: object
    ) -> dict[tuple[int, int], list[keras.Variable]]:
        # One read for all: torch's variables are where Python can read them.
        own: Any = keras.ops.convert_to_numpy(steps)
        counts = own.tolist()
        alike: dict[tuple[int, int], list[keras.Variable]] = {}
        for variable in variables:
            key = self._var_key(variable)
            count = counts[self._trainable_variables_indices[key]]
            group = self.block_rates.group_of(key)
            alike.setdefault((group, count), []).append(variable)
        return alike

    # The wrapper saves these variables; Keras would write them a second time.
    def save_own_variables(self, store):
        del store

    def load_own_variables(self, store):
        del store


def use_variables(
    optimizer: keras.optimizers.Optimizer, variables: Iterable[keras.Variable]
) -> None:
    """Makes the steps of an optimizer update these variables.

    `stateless_apply` expects a value for each of `_trainable_variables`, and
    averaging goes through them; the slots of all variables stay in place.
    """
    variables = list(variables)
    set_untracked(optimizer, "_trainable_variables", variables)
    averages = getattr(optimizer, "_every_average", None)
    if averages is not None:
        indices = map(optimizer._get_variable_index, variables)
        own = [averages[index] for index in indices]
        set_untracked(optimizer, "_model_variables_moving_average", own)


def built_on(
    optimizer: keras.optimizers.Optimizer,
) -> list[keras.Variable]:
    """Returns the variables that any built optimizer has slots for."""
    return list(optimizer._trainable_variables)


def zero_accumulators(
    optimizer: keras.optimizers.Optimizer, indices: Iterable[int]
) -> None:
    """Drops gradients that were accumulated before variables were frozen."""
    for index in indices:
        accumulated = optimizer._accumulated_gradients[index]  # type: ignore[attr-defined]
        if accumulated is not None:
            zeros = keras.ops.zeros(accumulated.shape, accumulated.dtype)
            accumulated.assign(zeros)


def start_averages(
    optimizer: keras.optimizers.Optimizer, indices: Iterable[int]
) -> None:
    """Starts moving averages from the variables' current values.

    Keras starts them at the optimizer's first step, which may be long past.
    """
    variables = optimizer._built_on  # type: ignore[attr-defined]
    for index in indices:
        average = optimizer._every_average[index]  # type: ignore[attr-defined]
        if average is not None:
            # A copy: JAX's step donates both arrays.
            average.assign(keras.ops.copy(variables[index]))


def separate_averages(optimizer: keras.optimizers.Optimizer) -> None:
    """Gives averages arrays of their own after they were put in their place.

    On JAX Keras assigns one array to both, which its next step would donate
    twice: an error that leaves the model without values.
    """
    if keras.config.backend() == "jax":
        for average in getattr(optimizer, "_every_average", ()):
            if average is not None:
                average.assign(keras.ops.copy(average))


def built_for(
    optimizer: keras.optimizers.Optimizer,
) -> list[keras.Variable]:
    """Returns the variables that a `RatedUpdates` has slots for, in order."""
    return list(getattr(optimizer, "_built_on", ()))


def slots(
    optimizer: keras.optimizers.Optimizer,
) -> dict[tuple[str, int | None], keras.Variable]:
    """Returns the state of a built optimizer by attribute and variable.

    Every optimizer keeps its slots in lists in the order of the variables
    that it was built on, and state that all variables share in attributes.
    Keys have the `id` of a variable, and None for what is shared.
    """
    found: dict[tuple[str, int | None], keras.Variable] = {}
    variables = built_for(optimizer)
    for name, value in list(vars(optimizer).items()):
        if name in _NO_SLOTS:
            continue
        if isinstance(value, keras.Variable):
            found[name, None] = value
        elif isinstance(value, list):  # Muon's and Adafactor's have gaps
            for variable, slot in zip(variables, value, strict=False):
                if isinstance(slot, keras.Variable):
                    found[name, id(variable)] = slot
    return found


def build_whole(
    optimizer: keras.optimizers.LossScaleOptimizer,
    variables: list[keras.Variable],
) -> None:
    """Builds a loss scale optimizer, or leaves it as it was.

    Keras adds the variables of its scale again if it was interrupted after.
    """
    before = list(optimizer._variables)
    try:
        optimizer.build(variables)
    finally:
        if not optimizer.built:
            optimizer._variables[:] = before


def load_scale_alone(optimizer: keras.optimizers.LossScaleOptimizer) -> None:
    """Makes a loss scale optimizer load nothing of the one inside it.

    Keras writes the variables of both with the outer one, and those of the
    inner one a second time; it skips both if their number has changed.
    """
    set_untracked(
        optimizer, "load_own_variables", partial(_load_scale, optimizer)
    )


def _load_scale(
    optimizer: keras.optimizers.LossScaleOptimizer, store: Mapping[str, Any]
) -> None:
    for index, variable in enumerate(optimizer._variables):
        if str(index) in store.keys():  # noqa: SIM118 - of Keras's stores
            variable.assign(store[str(index)])


def copy_slots(
    source: keras.optimizers.Optimizer, target: keras.optimizers.Optimizer
) -> None:
    """Copies the state of an optimizer into one of more variables."""
    known = slots(target)
    for key, slot in slots(source).items():
        known[key].assign(slot)


# Attributes that are no state of the optimizer's own, or only part of it.
_NO_SLOTS = (
    "_variables",
    "_trainable_variables",
    "_built_on",
    "_model_variables_moving_average",
    "began_at",
)


def copy_with_rates(
    optimizer: keras.optimizers.Optimizer, block_rates: GroupRates
) -> keras.optimizers.Optimizer:
    """Returns an unbuilt copy of an optimizer that updates at block rates.

    The copy's class is a subclass of the user's, whose overrides stay.
    """
    plain_class = type(optimizer)
    rated_class = type(
        f"Rated{plain_class.__name__}", (RatedUpdates, plain_class), {}
    )
    copy = rated_class.from_config(optimizer.get_config())
    copy.block_rates = block_rates
    copy_decay_exclusions(optimizer, copy)
    return copy


def copy_optimizer(
    optimizer: keras.optimizers.Optimizer | None,
) -> keras.optimizers.Optimizer | None:
    """Returns an unbuilt copy of an optimizer, decay exclusions included."""
    if optimizer is None:
        return None
    copy = type(optimizer).from_config(optimizer.get_config())
    copy_decay_exclusions(optimizer, copy)
    return copy


def copy_decay_exclusions(
    source: keras.optimizers.Optimizer, target: keras.optimizers.Optimizer
) -> None:
    """Copies `exclude_from_weight_decay`, which is in no config."""
    for name in (
        "_exclude_from_weight_decay",
        "_exclude_from_weight_decay_pattern",
    ):
        if hasattr(source, name):
            setattr(target, name, getattr(source, name))


def undecayed(
    optimizer: keras.optimizers.Optimizer, variables: list[keras.Variable]
) -> tuple[int, ...]:
    """Returns the indices of variables that are excluded from weight decay."""
    return tuple(
        index
        for index, variable in enumerate(variables)
        if not optimizer._use_weight_decay(variable)
    )


def undecayed_names(optimizer: keras.optimizers.Optimizer) -> str | None:
    """Returns the pattern of names that are excluded from weight decay."""
    pattern = getattr(optimizer, "_exclude_from_weight_decay_pattern", None)
    return None if pattern is None else pattern.pattern


def learning_rate_source(optimizer: keras.optimizers.Optimizer) -> Any:
    """Returns the schedule, callable or variable that the property hides."""
    return optimizer._learning_rate


def schedule_step(optimizer: keras.optimizers.Optimizer) -> keras.Variable:
    """Returns the step that schedules see, which counts every batch.

    `iterations` counts updates: fewer, with gradient accumulation.
    """
    return optimizer._iterations


def serialize_optimizer(optimizer: keras.optimizers.Optimizer) -> dict:
    """Serializes an optimizer so that it loads on every backend.

    On torch Keras writes `keras.src.backend.torch.optimizers…`, which other
    backends cannot import; the public class is one of its bases.
    """
    config: Any = keras.saving.serialize_keras_object(optimizer)
    if config["module"].startswith("keras.src.backend.torch.optimizers."):
        config |= {"module": "keras.optimizers", "registered_name": None}
    return config
