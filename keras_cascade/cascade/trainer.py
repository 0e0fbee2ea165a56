"""How a cascade trains: its optimizer, its flags, and `fit`."""

from collections.abc import Mapping, Sequence
from typing import Any, Self

import keras

from keras_cascade import _keras_compat as compat
from keras_cascade.adapters.fitting import fit_adapters
from keras_cascade.cache.feature_cache import as_cache
from keras_cascade.cache.feeding import (
    Data,
    Validation,
    check_no_steps,
    open_feeds,
)
from keras_cascade.cache.fitting import FitArguments, fit_on_features
from keras_cascade.cascade.on_features import Caching
from keras_cascade.planning.spec import normalise_rates
from keras_cascade.training.fit_callbacks import (
    known_variables,
    prepare_callbacks,
    prepare_optimizer,
)
from keras_cascade.training.layer_lookup import LayerLookup
from keras_cascade.training.rates.block_rates import to_float
from keras_cascade.training.rates.blockwise_optimizer import (
    find_blockwise,
    is_multi_optimizer,
    with_block_rates,
)
from keras_cascade.training.rates.rate_groups import rate_groups
from keras_cascade.training.retention import Retention
from keras_cascade.training.retention.targets import normalise_retention
from keras_cascade.training.trainable_flags import covered_by, set_flags
from keras_cascade.training.unfreezing import Unfreeze


class Trainer(Caching):
    """Keras's `compile` and `fit`, block by block."""

    @property
    def rates(self) -> dict[str, Any]:
        """Path pattern to the rate that it was compiled with."""
        return dict(self._learning_rates)

    def learning_rates(self) -> dict[str, float]:
        """The current learning rate of each trainable variable, by its path.

        Returns:
            Nothing where the cascade is not compiled.
        """
        if not self.compiled or self.optimizer is None:
            return {}
        own = to_float(self.optimizer.learning_rate)
        rates = {v.path: own for v in self.trainable_variables}
        blockwise = find_blockwise(self.optimizer)
        effective = blockwise.effective_rates() if blockwise else {}
        groups = rate_groups(self, self._learning_rates)
        for name, variables in groups.variables.items():
            for variable in variables:
                if variable.path in rates:
                    rates[variable.path] = effective[name]
        return rates

    def adapt(
        self, data: Any, batch_size: int = 32, verbose: bool = True
    ) -> Self:
        """Fits the adapters that learn from data, such as `PCAAdapter`.

        One pass over the data serves all of them; only an adapter that sees
        what another gives waits for a pass of its own. Call it before `fit`.

        Args:
            data: What `fit` takes: arrays, `tf.data`, `PyDataset`, a torch
                `DataLoader` or a generator, with or without labels. Adapters
                that learn from labels need `(x, y)`.
            batch_size: Rows at a time where the data are arrays. Defaults to
                `32`.
            verbose: Whether to show a progress bar. Defaults to `True`.

        Returns:
            The cascade itself.

        Raises:
            ValueError: If a tap gives what cannot be learned from (not
                finite, too few rows), labels that an adapter learns from are
                missing, or a generator would have to be read twice.

        Example:
        >>> cascade = cascade.adapt(images, verbose=False)
        >>> history = cascade.fit(images, labels, verbose=0)
        """
        fit_adapters(self, data, batch_size, verbose)
        # What was traced may hold the old state as constants.
        self.train_function = None
        self.test_function = None
        self.predict_function = None
        return self

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
        """Keras's `compile`, with learning rates by path pattern.

        The optimizer is copied: what was passed in stays as it is, and
        `cascade.optimizer` is what trains.

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
                what none matches has the optimizer's rate. `None` keeps the
                rates that the cascade was built with. Defaults to `None`.
            retention: Path pattern to `L2SP`, `EWC` or `LwF`, in the place of
                what the cascade has. It needs the networks that the cascade
                was built from. `None` keeps what the cascade has, `{}` drops
                it. Defaults to `None`.

        Raises:
            ValueError: If a pattern matches nothing, a rate is negative, or
                a network that is to be retained is not there any more.
        """
        rates = self._spec.learning_rates
        if learning_rates is not None:
            rates = normalise_rates(learning_rates)
        self._learning_rates = rates
        if retention is not None:
            self._retain_anew(normalise_retention(retention))
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
        # Keras would track layers that are kept in an attribute.
        layers = list(compat.sublayers(self))
        self._read_flags = lambda: [layer.trainable for layer in layers]
        self._traced = None

    def get_compile_config(self) -> dict | None:
        """What `compile` was called with, for a `.keras` file."""
        config = super().get_compile_config()
        if config is not None and self.compiled:
            config["optimizer"] = self.optimizer and compat.serialize_optimizer(
                self.optimizer
            )
            config["learning_rates"] = keras.saving.serialize_keras_object(
                self._learning_rates
            )
            config["slots"] = [v.path for v in known_variables(self.optimizer)]
        return config

    def compile_from_config(self, config: dict) -> None:
        """Compiles as the saved cascade was, slots ready to be loaded."""
        arguments = keras.saving.deserialize_keras_object(config)
        slots = set(arguments.pop("slots"))
        self.compile(**arguments)
        if slots:
            known = [v for v in self.variables if v.path in slots]
            prepare_optimizer(self, known)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: Any = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int = 1,
        *,
        unfreeze: Unfreeze = None,
        cache_features: Any = False,
    ) -> Any:
        """Keras's `fit`, in which blocks may start to train on the way.

        The logs hold the rate of each block, `learning_rate/<block>`, where
        there are rates or stages; 0 while it is frozen.

        Args:
            x: As Keras takes it, like all arguments up to `unfreeze`.
            y: Labels.
            batch_size: Rows at a time. Defaults to `None`: 32.
            epochs: The epoch to stop before. Defaults to `1`.
            verbose: As Keras takes it. Defaults to `"auto"`.
            callbacks: Keras callbacks. Defaults to `None`.
            validation_split: As Keras takes it. Defaults to `0.0`.
            validation_data: As Keras takes it. Defaults to `None`.
            shuffle: As Keras takes it. Defaults to `True`.
            class_weight: As Keras takes it. Defaults to `None`.
            sample_weight: As Keras takes it. Defaults to `None`.
            initial_epoch: The epoch to start with. Defaults to `0`.
            steps_per_epoch: As Keras takes it. Defaults to `None`.
            validation_steps: As Keras takes it. Defaults to `None`.
            validation_batch_size: As Keras takes it. Defaults to `None`.
            validation_freq: As Keras takes it. Defaults to `1`.
            unfreeze: `{epoch: path pattern or list of them}`: what starts to
                train with that epoch, counted from 0 as `initial_epoch`
                counts. Stages before the first epoch of this call apply at
                once. Or a recipe: `"lp-ft"` trains what is new (adapters,
                fusion, head) for the first half of the epochs, then
                everything; `"gradual"` what is new in the first epoch, and
                with each further one the next layers from the top. The
                optimizer goes on: slots of what was training are kept, and
                what joins counts its own steps. Flags stay as the last stage
                left them. Defaults to `None`.
            cache_features: Whether what frozen layers compute is computed
                once, in the first epoch: `True` (in memory), a folder, or a
                `FeatureCache`. The training is the same as without. What
                cannot be cached (behind augmentation, say) is computed in
                every epoch, with a warning. Defaults to `False`.

        Returns:
            Keras's `History`.

        Raises:
            ValueError: If an adapter that learns from data has not been
                fitted (call `adapt` first), a stage's epoch is none of this
                call's, a pattern matches nothing, a stage would freeze, or
                data with `cache_features` may give other samples each time.

        Example:
        >>> history = cascade.fit(
        ...     images, labels, epochs=2, unfreeze={1: "upstream"}, verbose=0
        ... )

        Source: Kumar et al., Fine-Tuning can Distort Pretrained Features
        (2022), for `"lp-ft"`; Howard and Ruder, Universal Language Model
        Fine-tuning (2018), for `"gradual"`.
        """
        self._check_fitted("training")
        callbacks = prepare_callbacks(
            self, unfreeze, initial_epoch, epochs, callbacks
        )
        cache = as_cache(cache_features)
        if cache is not None:
            check_no_steps(
                steps_per_epoch=steps_per_epoch,
                validation_steps=validation_steps,
            )
            data = Data(x, y, sample_weight, batch_size, shuffle)
            held = Validation(
                validation_data, validation_split, validation_batch_size
            )
            return fit_on_features(
                self,
                super().fit,
                cache,
                *open_feeds(self, cache, data, held),
                FitArguments(
                    epochs=epochs,
                    initial_epoch=initial_epoch,
                    verbose=verbose,
                    callbacks=callbacks,
                    class_weight=class_weight,
                    validation_freq=validation_freq,
                ),
            )
        return super().fit(
            x=x,
            y=y,
            batch_size=batch_size,
            epochs=epochs,
            verbose=verbose,
            callbacks=callbacks,
            validation_split=validation_split,
            validation_data=validation_data,
            shuffle=shuffle,
            class_weight=class_weight,
            sample_weight=sample_weight,
            initial_epoch=initial_epoch,
            steps_per_epoch=steps_per_epoch,
            validation_steps=validation_steps,
            validation_batch_size=validation_batch_size,
            validation_freq=validation_freq,
        )

    def freeze(self, pattern: str | Sequence[str]) -> Self:
        """Stops the training of what a path pattern covers.

        The optimizer keeps its slots for when it is unfrozen again. Call it
        between fits.

        Args:
            pattern: A path pattern, such as `"upstream/conv5_*"`, or a list.

        Returns:
            The cascade itself.

        Raises:
            ValueError: If a pattern matches nothing.

        Example:
        >>> cascade = cascade.freeze("head")
        """
        return self._set_flags(pattern, False)

    def unfreeze(self, pattern: str | Sequence[str]) -> Self:
        """Has what a path pattern covers train from the next fit on.

        What was training before goes on where it was, slots included; what is
        new counts its own steps.

        Args:
            pattern: A path pattern, such as `"upstream/conv5_*"`, or a list.

        Returns:
            The cascade itself.

        Raises:
            ValueError: If a pattern matches nothing.

        Example:
        >>> cascade = cascade.unfreeze("upstream")
        """
        return self._set_flags(pattern, True)

    def make_train_function(self, force: bool = False) -> Any:
        """Keras's hook before training; the adapters must be fitted.

        Flags that were changed since the last step, by hand or by `unfreeze`,
        take effect here: the step is traced again, and the optimizer takes up
        what trains now. So does an optimizer that knows more than it did.
        """
        self._check_fitted("training")
        return super().make_train_function(self._is_stale() or force)

    def _is_stale(self) -> bool:
        if not self.compiled or self._traced == self._traced_now():
            return False
        prepare_optimizer(self)
        self._traced = self._traced_now()
        return True

    def _traced_now(self) -> tuple[list[bool], int]:
        """What a step that is traced now would be traced for."""
        blockwise = find_blockwise(self.optimizer)
        generation = 0 if blockwise is None else blockwise.generation
        return self.flags(), generation

    def _set_flags(self, patterns: str | Sequence[str], flag: bool) -> Self:
        call = "unfreeze()" if flag else "freeze()"
        lookup = LayerLookup(self)
        covered = covered_by(lookup, patterns, call)
        set_flags(lookup, dict.fromkeys(covered, flag))
        # At once, for training loops that never ask for a train function.
        if self.compiled and known_variables(self.optimizer):
            self.train_function = None
            self._is_stale()
        return self

    def _own_optimizer(self, optimizer: Any, rates: Mapping[str, Any]) -> Any:
        """A copy of the user's optimizer that knows each block's rate."""
        own = compat.copy_optimizer(keras.optimizers.get(optimizer))
        if own is None or (is_multi_optimizer(own) and not rates):
            return own
        groups = rate_groups(self, rates)
        known = find_blockwise(own)
        serialize = keras.saving.serialize_keras_object
        if known is None or serialize(known.rates) != serialize(groups.rates):
            own = with_block_rates(own, groups.rates)
        if (blockwise := find_blockwise(own)) is not None:
            blockwise.route(groups.variables)
        return own
