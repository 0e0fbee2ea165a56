"""Gives one Keras optimizer several learning rates (seen on Keras 3.15.1).

Keras has no public way to give one optimizer several learning rates: the
public `MultiOptimizer` clips and accumulates per optimizer, finds variables
by name and does not reload. `update_step` is public, but decay and torch's
grouped update go past it.
"""

from collections.abc import Iterable, Mapping
from contextlib import contextmanager
from typing import Any

import keras

from keras_cascade._keras_compat.graphs_and_layers import set_untracked


class RatedUpdates(keras.optimizers.Optimizer):
    """Mixin that gives each group of variables a rate and steps of its own.

    It stands before the optimizer's class. What reaches `update_step`,
    torch's `_parallel_update_step` and `_apply_weight_decay` is the group's
    rate, and `iterations`, which bias corrections go by, counts the steps of
    the variable that is updated.
    """

    block_rates: Any  # rates_at(), rate_at() and group_of(), set by its maker
    # For each variable the step at which it began to train, set as well.
    began_at: Any = None
    _decaying_group: int | None = None
    _own_steps: Any = None

    @property
    def iterations(self):
        own = self._own_steps
        return super().iterations if own is None else own

    def build(self, variables):
        super().build(variables)
        set_untracked(self, "_built_on", list(variables))
        if self.use_ema:
            averages = list(self._model_variables_moving_average)
            set_untracked(self, "_every_average", averages)

    def use_variables(self, variables):
        """Has steps without a list of variables work on these.

        `stateless_apply` and averaging read `_trainable_variables`, the
        slots of all variables stay where they are.
        """
        set_untracked(self, "_trainable_variables", list(variables))
        if self.use_ema:
            indices = map(self._get_variable_index, variables)
            averages = [self._every_average[i] for i in indices]
            set_untracked(self, "_model_variables_moving_average", averages)

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        # Once a step, not once a variable. Keras hands the list on as it
        # hands on a rate; tf.distribute also maps it over its replicas.
        rates = self.block_rates.rates_at(learning_rate, self._iterations)
        steps = super().iterations - self.began_at
        super()._backend_update_step(
            grads, trainable_variables, [*rates, steps]
        )

    def update_step(self, gradient, variable, learning_rate):
        *rates, steps = learning_rate
        group = self.block_rates.group_of(self._var_key(variable))
        with self._counting(steps[self._get_variable_index(variable)]):
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
            with self._counting(count):
                super()._parallel_update_step(  # type: ignore[misc]
                    [gradient_of[id(v)] for v in members],
                    members,
                    rates[group],
                )

    def _apply_weight_decay(self, variables):
        decayed = [v for v in variables if self._use_weight_decay(v)]
        for group, members in self._by_group(decayed).items():
            self._decaying_group = group
            try:
                super()._apply_weight_decay(members)
            finally:
                self._decaying_group = None

    def _get_current_learning_rate(self):
        rate = super()._get_current_learning_rate()
        if self._decaying_group is None:
            return rate
        return self.block_rates.rate_at(
            self._decaying_group, rate, self._iterations
        )

    @contextmanager
    def _counting(self, steps):
        self._own_steps = steps
        try:
            yield
        finally:
            self._own_steps = None

    def _by_group(self, variables):
        groups: dict[int, list] = {}
        for variable in variables:
            group = self.block_rates.group_of(self._var_key(variable))
            groups.setdefault(group, []).append(variable)
        return groups

    def _by_group_and_steps(self, variables, steps):
        # One read for all: torch's variables are where Python can read them.
        own: Any = keras.ops.convert_to_numpy(steps)
        counts = own.tolist()
        alike: dict[tuple[int, int], list] = {}
        for variable in variables:
            key = self._var_key(variable)
            count = counts[self._trainable_variables_indices[key]]
            group = self.block_rates.group_of(key)
            alike.setdefault((group, count), []).append(variable)
        return alike

    # What wraps it saves its variables; Keras would write them a second time.
    def save_own_variables(self, store):
        del store

    def load_own_variables(self, store):
        del store


def use_variables(
    optimizer: keras.optimizers.Optimizer, variables: Iterable[keras.Variable]
) -> None:
    """Has a wrapper around optimizers work on these variables.

    `stateless_apply` expects a value for each of `_trainable_variables`, the
    variables that the optimizer was built on.
    """
    set_untracked(optimizer, "_trainable_variables", list(variables))


def built_on(
    optimizer: keras.optimizers.Optimizer,
) -> list[keras.Variable]:
    """The variables that any built optimizer has slots for."""
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
    """Has moving averages start from the variables' values.

    Keras starts them at the first step of all, which may be long past.
    """
    variables = optimizer._built_on  # type: ignore[attr-defined]
    for index in indices:
        average = optimizer._every_average[index]  # type: ignore[attr-defined]
        if average is not None:
            # A copy: JAX's step gives both arrays away.
            average.assign(keras.ops.copy(variables[index]))


def copy_slots(
    source: keras.optimizers.Optimizer,
    target: keras.optimizers.Optimizer,
    positions: Mapping[int, int],
) -> None:
    """Copies the state of a built optimizer into one of more variables.

    Optimizers keep slots in lists in the order of the variables that they
    were built on, whatever they call them, and what all variables share in
    attributes of its own.

    Args:
        source: The optimizer.
        target: One of the same class, built.
        positions: Where in the source a variable stands to where in the
            target.
    """
    for name, own in list(vars(source).items()):
        other: Any = vars(target).get(name)
        if name in _NO_SLOTS:
            continue
        if isinstance(own, keras.Variable):
            other.assign(own)
        elif _holds_slots(own):
            for old, new in positions.items():
                if own[old] is not None:
                    other[new].assign(own[old])


# Variables that are no state of the optimizer's own, or only some of it.
_NO_SLOTS = (
    "_variables",
    "_trainable_variables",
    "_built_on",
    "_model_variables_moving_average",
    "began_at",
)


def _holds_slots(value: Any) -> bool:
    return isinstance(value, list) and any(
        isinstance(slot, keras.Variable) for slot in value
    )


def copy_with_rates(
    optimizer: keras.optimizers.Optimizer, block_rates: Any
) -> keras.optimizers.Optimizer:
    """Copy an optimizer, unbuilt, so that its updates ask for block rates.

    The copy's class is one of the user's class: what it overrides holds.
    """
    plain_class = type(optimizer)
    rated_class = type(
        f"Rated{plain_class.__name__}", (RatedUpdates, plain_class), {}
    )
    copy = rated_class.from_config(optimizer.get_config())
    copy.block_rates = block_rates
    copy_decay_exclusions(optimizer, copy)
    return copy


def copy_optimizer(optimizer: Any) -> Any:
    """Copy an optimizer, unbuilt, with what its config leaves out."""
    if optimizer is None:
        return None
    copy = type(optimizer).from_config(optimizer.get_config())
    copy_decay_exclusions(optimizer, copy)
    return copy


def copy_decay_exclusions(
    source: keras.optimizers.Optimizer, target: keras.optimizers.Optimizer
) -> None:
    """Carry over `exclude_from_weight_decay`, which no config holds."""
    for name in (
        "_exclude_from_weight_decay",
        "_exclude_from_weight_decay_pattern",
    ):
        if hasattr(source, name):
            setattr(target, name, getattr(source, name))


def undecayed(
    optimizer: keras.optimizers.Optimizer, variables: list[keras.Variable]
) -> tuple[int, ...]:
    """The indices of the variables that are excluded from weight decay."""
    return tuple(
        index
        for index, variable in enumerate(variables)
        if not optimizer._use_weight_decay(variable)
    )


def undecayed_names(optimizer: keras.optimizers.Optimizer) -> str | None:
    """The pattern of the names that are excluded from weight decay."""
    pattern = getattr(optimizer, "_exclude_from_weight_decay_pattern", None)
    return None if pattern is None else pattern.pattern


def learning_rate_source(optimizer: keras.optimizers.Optimizer) -> Any:
    """An optimizer's schedule, callable or variable: the property hides it."""
    return optimizer._learning_rate


def schedule_step(optimizer: keras.optimizers.Optimizer) -> keras.Variable:
    """The step that schedules see; `iterations` counts accumulated ones."""
    return optimizer._iterations


def serialize_optimizer(optimizer: keras.optimizers.Optimizer) -> dict:
    """Serialize an optimizer so that it loads on every backend.

    On torch Keras writes `keras.src.backend.torch.optimizers…`, which other
    backends cannot import; the public class is one of its bases.
    """
    config: Any = keras.saving.serialize_keras_object(optimizer)
    if config["module"].startswith("keras.src.backend.torch.optimizers."):
        config = {
            **config,
            "module": "keras.optimizers",
            "registered_name": None,
        }
    return config
