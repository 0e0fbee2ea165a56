"""Prepares the callbacks and the optimizer of a cascade's fit.

One optimizer serves the whole fit. It knows every variable that will ever
train, so that nothing is created during training and checkpoints of all epochs
have the same shape; each stage sets which variables the next steps update.
"""

import warnings
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import ExitStack, nullcontext
from typing import Any

import keras

from keras_cascade._cascade_view import CascadeView
from keras_cascade._keras_compat import optimizers as compat
from keras_cascade.training.flag_changes import FlagChanges, PutOff
from keras_cascade.training.layer_lookup import LayerLookup
from keras_cascade.training.progress_bar import with_progress_bar
from keras_cascade.training.rates.blockwise_optimizer import find_blockwise
from keras_cascade.training.rates.rate_groups import (
    group_rates,
    variables_by_name,
)
from keras_cascade.training.trainable_flags import set_flags
from keras_cascade.training.unfreezing import (
    Stage,
    Unfreeze,
    find_trainable_by_stage,
    plan_stages,
)

# CallbackList is a Callback as well.
Callbacks = keras.callbacks.Callback | Sequence[keras.callbacks.Callback] | None


def prepare_callbacks(
    cascade: CascadeView,
    unfreeze: Unfreeze,
    initial_epoch: int,
    epochs: int,
    callbacks: Callbacks,
    verbose: object = 0,
) -> Callbacks:
    """Returns the callbacks of a fit: those of its stages and the user's.

    The arguments are those of `Cascade.fit`. The optimizer is extended by the
    variables of later stages here, before any callback loads its slots.
    """
    lookup = LayerLookup(cascade)
    stages = plan_stages(lookup, unfreeze, epochs)
    if not cascade.compiled or cascade.optimizer is None:
        return callbacks  # Keras says what is missing.
    _check_one_rate(cascade.optimizer, stages)
    # Freezing and unfreezing are planned before training: Keras's optimizers
    # cannot be built on further variables later.
    by_stage = find_trainable_by_stage(lookup, stages)
    if isinstance(unfreeze, Mapping):
        _warn_of_empty_stages(stages, by_stage, initial_epoch)
    ever = {id(v): v for variables in by_stage for v in variables}
    _warn_of_idle_rates(lookup, ever)
    ours: list[keras.callbacks.Callback] = [Stages(lookup, stages)]
    if stages:
        prepare_optimizer(cascade, ever.values())
    if stages or cascade.rates:
        named = variables_by_name(lookup, cascade.rates)
        logged = {
            name: variables
            for name, variables in named.items()
            if any(id(variable) in ever for variable in variables)
        }
        ours.append(_RateLog(logged))
    found = _with_ours(ours, callbacks)
    if isinstance(found, keras.callbacks.CallbackList):
        return found  # Keras adds no progress bar to a list of its own kind.
    return with_progress_bar(as_list(found), verbose)


def prepare_optimizer(
    cascade: CascadeView, later: Iterable[keras.Variable] = ()
) -> None:
    """Makes the optimizer update the variables that train now.

    It is extended by variables that train `later`. Raises a ValueError if it
    cannot be extended.
    """
    optimizer = cascade.optimizer
    blockwise = find_blockwise(optimizer)
    trainable = list(cascade.trainable_variables)
    if blockwise is None:
        _check_built_on(optimizer, trainable)
        return
    wanted = {id(v) for v in (*trainable, *later, *blockwise.known_variables)}
    # In the order of the graph, whichever joined first: slots have no names.
    order = [v for v in cascade.variables if id(v) in wanted]
    strategy = getattr(cascade, "distribute_strategy", None)  # TensorFlow
    with nullcontext() if strategy is None else strategy.scope():
        blockwise.extend(order).activate(trainable)
        if optimizer is not blockwise:  # LossScaleOptimizer
            if not optimizer.built:
                compat.build_whole(optimizer, order)
            compat.use_variables(optimizer, trainable)


def known_variables(
    optimizer: keras.optimizers.Optimizer | None,
) -> list[keras.Variable]:
    """Returns the variables that an optimizer has slots for, in their order."""
    blockwise = find_blockwise(optimizer)
    return [] if blockwise is None else blockwise.known_variables


class Stages(keras.callbacks.Callback):
    """Sets the flags of each stage when its epoch begins.

    Attributes:
        changes: The flags that the user's callbacks set.
        segmented: Whether a training on cached features calls Keras's `fit`
            again where flags change.
    """

    def __init__(self, lookup: LayerLookup, stages: Sequence[Stage]):
        super().__init__()
        self._lookup, self._waiting = lookup, list(stages)
        self.changes = FlagChanges(lookup.cascade)
        self.segmented = False

    @property
    def epochs(self) -> list[int]:
        """The epochs of the stages that are still to come."""
        return [stage.epoch for stage in self._waiting]

    def apply(self, epoch: int) -> None:
        """Sets the flags that wait, and those of all stages up to an epoch."""
        self.changes.apply()
        # BackupAndRestore may have skipped epochs.
        due = [stage for stage in self._waiting if stage.epoch <= epoch]
        for stage in due:
            set_flags(self._lookup, stage.flags)
        self._waiting = self._waiting[len(due) :]

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        """Sets the flags of the epoch, for callbacks to see them."""
        self.apply(epoch)
        self.retrace()

    def retrace(self) -> None:
        """Has the next step train what the flags of now say."""
        model: Any = self.model
        if self.segmented:
            return
        with ExitStack() as failed:
            # Keras ends a training with the variables that train.
            failed.callback(self.changes.undo)
            model.make_train_function()
            failed.pop_all()


def find_stages(callbacks: Callbacks) -> Stages | None:
    """Returns the `Stages` among the callbacks of a fit, if there is one."""
    return next((x for x in as_list(callbacks) if isinstance(x, Stages)), None)


def as_list(callbacks: Callbacks) -> list[keras.callbacks.Callback]:
    """Returns the single callbacks of what `fit` takes as callbacks."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return list(callbacks.callbacks)
    return [] if callbacks is None else keras.tree.flatten(callbacks)


class _RateLog(keras.callbacks.Callback):
    """Adds each block's rate to the logs: the epoch's rate, or 0 if frozen."""

    def __init__(self, named: Mapping[str, Sequence[keras.Variable]]):
        super().__init__()
        self._paths = {name: [v.path for v in vs] for name, vs in named.items()}

    def on_epoch_end(
        self, epoch: int, logs: dict[str, float] | None = None
    ) -> None:
        """Adds the rates before the user's callbacks change them."""
        if logs is None:
            return
        model: Any = self.model
        rates = model.learning_rates()  # of variables that train
        for name, paths in self._paths.items():
            training = [rates[path] for path in paths if path in rates]
            logs[f"learning_rate/{name}"] = max(training, default=0.0)


def _with_ours(
    ours: list[keras.callbacks.Callback], given: Callbacks
) -> Callbacks:
    """Returns our callbacks, then the user's, then the one that looks last."""
    # All callbacks after ours see what we add to the logs: the user's, and
    # History and the progress bar, which Keras appends.
    stages: Any = ours[0]
    last = PutOff(stages.changes, stages.retrace)
    kinds = (Stages, _RateLog, PutOff)  # of an earlier fit
    rest = [c for c in as_list(given) if not isinstance(c, kinds)]
    found = [*ours, *rest, last]
    if not isinstance(given, keras.callbacks.CallbackList):
        return found
    for callback in (*ours, last):
        callback.set_model(given.model)
    given.callbacks[:] = found
    return given


def _check_one_rate(
    optimizer: keras.optimizers.Optimizer, stages: Sequence[Stage]
) -> None:
    if stages and find_blockwise(optimizer) is None:
        raise ValueError(
            "unfreeze needs an optimizer with one learning rate, not a "
            f"{type(optimizer).__name__}. Compile with the optimizer that it "
            "wraps, and learning_rates={path pattern: rate}."
        )


def _check_built_on(
    optimizer: keras.optimizers.Optimizer | None,
    trainable: Sequence[keras.Variable],
) -> None:
    if optimizer is None or not optimizer.built:
        return
    known = {id(v) for v in compat.built_on(optimizer)}
    if {id(v) for v in trainable} != known:
        raise ValueError(
            "Other weights train now than when the cascade was compiled, and "
            f"a {type(optimizer).__name__} can take up none. Compile again, "
            "or use an optimizer with one learning rate and learning_rates."
        )


def _warn_of_empty_stages(
    stages: Sequence[Stage],
    by_stage: Sequence[Sequence[keras.Variable]],
    initial_epoch: int,
) -> None:
    sets = [{id(variable) for variable in some} for some in by_stage]
    for stage, before, after in zip(stages, sets, sets[1:], strict=False):
        if stage.epoch >= initial_epoch and before == after:
            warnings.warn(
                f"{stage.argument} changes nothing: all of it trains already, "
                "or it has no weights. Freeze it first, with trainable= or "
                "cascade.freeze().",
                stacklevel=4,
            )


def _warn_of_idle_rates(lookup: LayerLookup, ever: Collection[int]) -> None:
    """Warns of rates of variables that never train in this fit."""
    rates = lookup.cascade.rates
    groups = group_rates(lookup, rates).variables if rates else {}
    for pattern in rates:
        members = [
            id(variable)
            for name, variables in groups.items()
            if name == pattern or name.startswith(f"{pattern} (")
            for variable in variables
        ]
        if members and not any(member in ever for member in members):
            warnings.warn(
                f"learning_rates gives '{pattern}' a rate, and nothing of it "
                "trains in this fit. Unfreeze it (trainable=, unfreeze=), or "
                "leave out the rate.",
                stacklevel=4,
            )
