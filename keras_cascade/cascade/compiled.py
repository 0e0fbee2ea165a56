"""Compiles a cascade: one optimizer in which each block has its own rate.

Tested by `tests/training/test_rates_of_cascades.py` and
`tests/training/test_continuing.py`.
"""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import keras

from keras_cascade import _keras_compat as compat
from keras_cascade._keras_compat import optimizers as optimizer_compat
from keras_cascade.cascade.on_features import OnFeatures
from keras_cascade.planning.normalization import normalise_rates
from keras_cascade.training.compile_checks import check_compile_arguments
from keras_cascade.training.fit_callbacks import (
    known_variables,
    prepare_optimizer,
)
from keras_cascade.training.layer_lookup import LayerLookup
from keras_cascade.training.rates.block_rates import to_float
from keras_cascade.training.rates.blockwise_optimizer import (
    find_blockwise,
    with_block_rates,
)
from keras_cascade.training.rates.rate_groups import group_rates
from keras_cascade.training.retention import Retention
from keras_cascade.training.retention.targets import normalise_retention
from keras_cascade.training.trainable_flags import LayerFlags


class Compiled(OnFeatures):
    """Keras's `compile`, with learning rates and retention by block."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self._rates: dict[str, Any] = {}
        self._flags: LayerFlags | None = None
        # The flags, and the generation of the optimizer, that the training
        # step was traced for.
        self._traced: tuple[list[bool], int] | None = None

    @property
    def rates(self) -> dict[str, Any]:
        """The rates that the cascade was compiled with, by path pattern."""
        return dict(self._rates)

    def learning_rates(self) -> dict[str, float]:
        """Returns the current learning rate of each trainable variable.

        Returns:
            Rates by the paths of variables; empty if it is not compiled.
        """
        if not self.compiled or self.optimizer is None:
            return {}
        own = to_float(self.optimizer.learning_rate)
        rates = {v.path: own for v in self.trainable_variables}
        blockwise = find_blockwise(self.optimizer)
        effective = blockwise.effective_rates() if blockwise else {}
        groups = group_rates(LayerLookup(self), self._rates)
        for name, variables in groups.variables.items():
            for variable in variables:
                if variable.path in rates:
                    rates[variable.path] = effective[name]
        return rates

    def compile(
        self,
        optimizer: Any = "adam",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: Any = "auto",
        auto_scale_loss: bool = True,
        *,
        learning_rates: Mapping[str, Any] | None = None,
        retention: Mapping[str, Retention] | None = None,
    ) -> None:
        """Compiles the cascade, with learning rates by path pattern.

        The optimizer is copied: the object that was passed in stays as it is,
        and `cascade.optimizer` is the one that trains.

        Args:
            optimizer: Name or object. Defaults to `"adam"`.
            loss: As Keras takes it. Defaults to `None`.
            loss_weights: As Keras takes them. Defaults to `None`.
            metrics: As Keras takes them. Defaults to `None`.
            weighted_metrics: As Keras takes them. Defaults to `None`.
            run_eagerly: As Keras takes it. Defaults to `False`.
            steps_per_execution: As Keras takes it. Defaults to `1`.
            jit_compile: As Keras takes it. Defaults to `"auto"`.
            auto_scale_loss: As Keras takes it. Defaults to `True`.
            learning_rates: Path pattern to a float or `LearningRateSchedule`;
                variables that no pattern matches have the optimizer's rate.
                `None` keeps the rates that the cascade was built with.
                Defaults to `None`.
            retention: Path pattern to `L2SP`, `EWC` or `LwF`, in place of the
                cascade's own. It needs the networks that the cascade was
                built from. `None` keeps the cascade's own, `{}` drops it.
                Defaults to `None`.

        Raises:
            ValueError: If a pattern matches nothing, a rate is negative,
                Keras has no loss, metric or optimizer of a name, an output
                does not exist, or a network that is to be retained no longer
                exists.
        """
        several = isinstance(self.output, Mapping)
        check_compile_arguments(
            list(self.output) if several else [],
            optimizer=optimizer,
            loss=loss,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
        )
        rates = self._spec.learning_rates
        if learning_rates is not None:
            rates = normalise_rates(learning_rates)
        self._rates = rates
        if retention is not None:
            self._replace_retention(normalise_retention(retention))
        super().compile(
            optimizer=self._own_optimizer(optimizer, rates),
            loss=loss,
            loss_weights=loss_weights,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile,
            auto_scale_loss=auto_scale_loss,
        )
        if isinstance(self.optimizer, keras.optimizers.LossScaleOptimizer):
            optimizer_compat.load_scale_alone(self.optimizer)
        self._flags = LayerFlags(self)
        self._traced = None

    def quantize(
        self,
        mode: Any = None,
        config: Any = None,
        filters: Any = None,
        **kwargs: Any,
    ) -> None:
        """Quantizes the weights as Keras does; their paths stay.

        The optimizer begins anew: the variables that it had slots for are no
        more. `rebuild` quantizes the layers that stay.

        Args:
            mode: `"int8"`, `"int4"` or `"float8"`, as Keras takes it.
                Defaults to `None`.
            config: As Keras takes it. Defaults to `None`.
            filters: As Keras takes it. Defaults to `None`.
            **kwargs: As Keras takes them.

        Example:
        >>> cascade = kc.build_cascade(kc.zoo.load("glyph_encoder"), head=10)
        >>> cascade.quantize("int8")
        """
        super().quantize(mode, config, filters, **kwargs)
        if self.compiled:
            arguments = compat.compile_arguments(self)
            self.compile(**arguments, learning_rates=self._rates)

    def get_compile_config(self) -> dict | None:
        """Returns the arguments of `compile`, for a `.keras` file."""
        config = super().get_compile_config()
        if config is not None and self.compiled:
            config["optimizer"] = (
                self.optimizer
                and optimizer_compat.serialize_optimizer(self.optimizer)
            )
            config["learning_rates"] = keras.saving.serialize_keras_object(
                self._rates
            )
            config["slots"] = [v.path for v in known_variables(self.optimizer)]
        return config

    def compile_from_config(self, config: dict) -> None:
        """Compiles as the saved cascade was, with slots to be loaded."""
        arguments = keras.saving.deserialize_keras_object(config)
        slots = set(arguments.pop("slots"))
        self.compile(**arguments)
        if slots:
            known = [v for v in self.variables if v.path in slots]
            prepare_optimizer(self, known)

    def flags(self) -> list[bool]:
        """Returns the `trainable` flags of all layers, also inner ones."""
        return [] if self._flags is None else self._flags.read()

    def restore_flags(self, flags: Sequence[bool]) -> None:
        """Sets the flags of all layers, as `flags` returned them."""
        if self._flags is not None:
            self._flags.restore(flags)

    def _retrace_if_stale(self) -> bool:
        if not self.compiled or self._traced == self._trace_key():
            return False
        # First: a training that is interrupted below has no step, whatever
        # flags the next one has.
        self._traced = self.train_function = None
        compat.drop_parallel_wrapper(self)
        prepare_optimizer(self)
        self._traced = self._trace_key()
        return True

    def _trace_key(self) -> tuple[list[bool], int]:
        """Returns the state on which a traced training step depends."""
        blockwise = find_blockwise(self.optimizer)
        generation = 0 if blockwise is None else blockwise.generation
        return self.flags(), generation

    def _own_optimizer(self, optimizer: Any, rates: Mapping[str, Any]) -> Any:
        """Returns a copy of the optimizer that knows each block's rate."""
        own = optimizer_compat.copy_optimizer(keras.optimizers.get(optimizer))
        if own is None or (
            isinstance(own, keras.optimizers.MultiOptimizer) and not rates
        ):
            return own
        groups = group_rates(LayerLookup(self), rates)
        known = find_blockwise(own)
        serialize = keras.saving.serialize_keras_object
        if known is None or serialize(known.rates) != serialize(groups.rates):
            own = with_block_rates(own, groups.rates)
        if (blockwise := find_blockwise(own)) is not None:
            blockwise.route(groups.variables)
            blockwise.before_loading = self._know
        return own

    def _know(self, paths: Collection[str]) -> None:
        """Makes the optimizer know the variables of some paths."""
        prepare_optimizer(self, [v for v in self.variables if v.path in paths])
