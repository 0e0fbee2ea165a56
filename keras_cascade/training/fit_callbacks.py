"""What a fit of a cascade needs beside Keras's: stages, and rates in the logs.

One optimizer serves the whole fit. It knows every variable that will ever
train, so nothing is made on the way and a checkpoint of any epoch has the same
shape; which of them a step works on is settled anew with each stage.
"""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import keras

from keras_cascade import _keras_compat as compat
from keras_cascade._cascade_view import CascadeView
from keras_cascade.training.layer_lookup import LayerLookup
from keras_cascade.training.rates.blockwise_optimizer import find_blockwise
from keras_cascade.training.rates.rate_groups import (
    named_variables,
    rate_groups,
)
from keras_cascade.training.trainable_flags import set_flags
from keras_cascade.training.unfreezing import (
    Stage,
    Unfreeze,
    plan_stages,
    variables_that_train,
)

# What a rate is called in the logs, before the block.
RATE = "learning_rate/"


def prepare_callbacks(
    cascade: CascadeView,
    unfreeze: Unfreeze,
    initial_epoch: int,
    epochs: int,
    callbacks: Any,
) -> Any:
    """Checks what `fit` was asked for, and gives the callbacks that do it.

    The optimizer takes up what later stages train, before any callback loads
    its slots.

    Args:
        cascade: The cascade.
        unfreeze: As in `Cascade.fit`.
        initial_epoch: The epoch to start with.
        epochs: The epoch to stop before.
        callbacks: The user's.

    Raises:
        ValueError: If the stages make no sense.
    """
    lookup = LayerLookup(cascade)
    stages = plan_stages(lookup, cascade, unfreeze, epochs)
    if not cascade.compiled or cascade.optimizer is None:
        return callbacks  # Keras says what is missing.
    _check_one_optimizer(cascade, stages)
    trains = variables_that_train(lookup, cascade, stages)
    if isinstance(unfreeze, Mapping):
        _warn_of_empty_stages(stages, trains, initial_epoch)
    ever = {id(v): v for some in trains for v in some}
    rates = cascade.rates
    _warn_of_idle_rates(cascade, rates, ever)
    if not stages and not rates:
        return callbacks
    if stages:
        prepare_optimizer(cascade, ever.values())
    named = named_variables(cascade, rates)
    shown = {n: vs for n, vs in named.items() if any(id(v) in ever for v in vs)}
    return _in_front([Stages(lookup, stages), _RateLog(shown)], callbacks)


def prepare_optimizer(
    cascade: CascadeView, later: Iterable[keras.Variable] = ()
) -> None:
    """Has the optimizer know what trains now, and work on that.

    Args:
        cascade: The cascade, compiled.
        later: What trains later on.

    Raises:
        ValueError: If it is an optimizer that can take up nothing.
    """
    optimizer = cascade.optimizer
    blockwise = find_blockwise(optimizer)
    trains = list(cascade.trainable_variables)
    if blockwise is None:
        _check_knows(optimizer, trains)
        return
    wanted = {id(v) for v in (*trains, *later, *blockwise.known_variables)}
    # In the order of the graph, whatever joined when: slots have no names.
    order = [v for v in cascade.variables if id(v) in wanted]
    strategy = getattr(cascade, "distribute_strategy", None)  # TensorFlow
    with nullcontext() if strategy is None else strategy.scope():
        blockwise.extend(order).activate(trains)
        if optimizer is not blockwise:  # LossScaleOptimizer
            if not optimizer.built:
                optimizer.build(order)
            compat.use_variables(optimizer, trains)


def known_variables(optimizer: Any) -> list[keras.Variable]:
    """The variables that an optimizer has slots for, in their order."""
    blockwise = find_blockwise(optimizer)
    return [] if blockwise is None else blockwise.known_variables


class Stages(keras.callbacks.Callback):
    """Sets the flags of the stages that are due, and keeps training going."""

    def __init__(self, lookup: LayerLookup, stages: Sequence[Stage]):
        super().__init__()
        self._lookup, self._waiting = lookup, list(stages)

    @property
    def epochs(self) -> list[int]:
        """The epochs of the stages that are to come."""
        return [stage.epoch for stage in self._waiting]

    def apply(self, epoch: int) -> None:
        """Sets the flags that are due; BackupAndRestore may have gone ahead."""
        due = [stage for stage in self._waiting if stage.epoch <= epoch]
        for stage in due:
            set_flags(self._lookup, stage.flags)
        self._waiting = self._waiting[len(due) :]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Keras's hook: the flags of the epoch."""
        self.apply(epoch)
        # Which also takes up flags that a callback of the user's changed.
        model: Any = self.model
        model.make_train_function()


def find_stages(callbacks: Any) -> Stages | None:
    """The stages of a fit, among the callbacks that `prepare_callbacks` gave.

    Args:
        callbacks: The callbacks.
    """
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = callbacks.callbacks
    found = [x for x in callbacks or () if isinstance(x, Stages)]
    return found[0] if found else None


class _RateLog(keras.callbacks.Callback):
    """Adds each block's rate to the logs: what it trained at, or 0."""

    def __init__(self, named: Mapping[str, Sequence[keras.Variable]]):
        super().__init__()
        paths = {name: [v.path for v in vs] for name, vs in named.items()}
        self._paths = paths

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Other callbacks change the rate after this one, for what follows."""
        if logs is None:
            return
        model: Any = self.model
        rates = model.learning_rates()
        for name, paths in self._paths.items():
            training = [rates[path] for path in paths if path in rates]
            logs[RATE + name] = max(training, default=0.0)


def _in_front(ours: list[keras.callbacks.Callback], given: Any) -> Any:
    """Our callbacks, then the user's: Keras's History comes last."""
    if isinstance(given, keras.callbacks.CallbackList):
        kinds = (Stages, _RateLog)  # those of an earlier fit
        rest = [c for c in given.callbacks if not isinstance(c, kinds)]
        for callback in ours:
            callback.set_model(given.model)
        given.callbacks[:] = [*ours, *rest]
        return given
    if given is None:
        return ours
    return [*ours, *(given if isinstance(given, list | tuple) else [given])]


def _check_one_optimizer(cascade: CascadeView, stages: Sequence[Stage]) -> None:
    if stages and find_blockwise(cascade.optimizer) is None:
        raise ValueError(
            "unfreeze needs an optimizer with one learning rate, not a "
            f"{type(cascade.optimizer).__name__}. Compile with the optimizer "
            "that it wraps, and learning_rates={path pattern: rate}."
        )


def _check_knows(optimizer: Any, trains: Sequence[keras.Variable]) -> None:
    if optimizer is None or not optimizer.built:
        return
    known = {id(v) for v in compat.built_on(optimizer)}
    if {id(v) for v in trains} != known:
        raise ValueError(
            "Other weights train now than when the cascade was compiled, and "
            f"a {type(optimizer).__name__} can take up none. Compile again, "
            "or use an optimizer with one learning rate and learning_rates."
        )


def _warn_of_empty_stages(
    stages: Sequence[Stage],
    trains: Sequence[Sequence[keras.Variable]],
    initial_epoch: int,
) -> None:
    sets = [{id(variable) for variable in some} for some in trains]
    for stage, before, after in zip(stages, sets, sets[1:], strict=False):
        if stage.epoch >= initial_epoch and before == after:
            warnings.warn(
                f"{stage.said} changes nothing: all of it trains already, or "
                "it has no weights. Freeze it first, with trainable= or "
                "cascade.freeze().",
                stacklevel=4,
            )


def _warn_of_idle_rates(
    cascade: CascadeView, rates: Mapping[str, Any], ever: Mapping[int, Any]
) -> None:
    """A rate of what never trains is a mistake in one of the two."""
    if not rates:
        return
    groups = rate_groups(cascade, rates).variables
    for pattern in rates:
        members = [
            variable
            for name, variables in groups.items()
            if name == pattern or name.startswith(f"{pattern} (")
            for variable in variables
        ]
        if members and not any(id(v) in ever for v in members):
            warnings.warn(
                f"learning_rates gives '{pattern}' a rate, and nothing of it "
                "trains in this fit. Unfreeze it (trainable=, unfreeze=), or "
                "leave out the rate.",
                stacklevel=4,
            )
