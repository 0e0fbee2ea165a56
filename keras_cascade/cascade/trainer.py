"""Trains a cascade: `adapt`, `fit`, `evaluate`, `predict`, and its flags.

Tested by `tests/cascade/test_cascade.py` and `tests/cache/test_segments.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from os import PathLike
from typing import Any, Self

from keras_cascade._interrupts.cleanup import finally_twice, put_off_and_finally
from keras_cascade._keras_compat import give_arrays_back, keep_arrays_of_steps
from keras_cascade.adapters.fitting import fit_adapters
from keras_cascade.cache.feature_cache import FeatureCache, as_cache
from keras_cascade.cache.fit_data import (
    FitData,
    Validation,
    check_no_steps,
    evaluation_arguments,
    open_datasets,
)
from keras_cascade.cache.segments import FitArguments, fit_on_features
from keras_cascade.cascade.checked import Checked
from keras_cascade.cascade.model_paths import check_checkpoints
from keras_cascade.data.arrays import strings_as_tensors
from keras_cascade.data.sources import is_shuffled_by_fit
from keras_cascade.training.fit_callbacks import (
    Callbacks,
    find_stages,
    known_variables,
    prepare_callbacks,
)
from keras_cascade.training.flag_changes import FlagChanges
from keras_cascade.training.layer_lookup import LayerLookup
from keras_cascade.training.trainable_flags import set_flags
from keras_cascade.training.unfreezing import Unfreeze

# True is a cache in memory, a path a folder.
CacheFeatures = bool | str | PathLike[str] | FeatureCache


class Trainer(Checked):
    """Keras's `fit`, `evaluate` and `predict`, on cached features too."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # Of the fit that is running.
        self._changes: FlagChanges | None = None

    def adapt(
        self,
        data: Any,
        y: Any = None,
        batch_size: int = 32,
        verbose: bool = True,
        *,
        check_values: bool = True,
    ) -> Self:
        """Fits the adapters that learn from data, such as `PCAAdapter`.

        One pass over the data serves all of them; only an adapter that sees
        what another gives waits for a pass of its own. Call it before `fit`.

        Args:
            data: What `fit` takes: arrays, `tf.data`, `PyDataset`, a torch
                `DataLoader` or a generator, with or without labels.
            y: Labels, where the data are arrays; only adapters that learn
                from labels read them. They may come with the data as well, as
                `(x, y)`. Defaults to `None`.
            batch_size: Rows at a time where the data are arrays. Defaults to
                `32`.
            verbose: Whether to show a progress bar, and how well stitched
                taps fit. Defaults to `True`.
            check_values: As in `fit`. Defaults to `True`.

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
        if isinstance(y, int):
            raise TypeError(
                f"adapt: y are labels; received {y}. A size is passed by its "
                f"name: adapt(data, batch_size={y})."
            )
        given = data if y is None else (data, y)
        look = self._look_at_inputs if check_values else None
        fit_adapters(self, given, batch_size, verbose, look, self.targets)
        # Traced functions may contain the old state as constants.
        self.train_function = None
        self.test_function = None
        self.predict_function = None
        return self

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
        cache_features: CacheFeatures = False,
        check_values: bool = True,
    ) -> Any:
        """Trains the cascade as Keras does, block by block if asked to.

        If there are rates or stages, the logs contain the rate of each block
        as `learning_rate/<block>`; it is 0 while the block is frozen.

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
            unfreeze: `{epoch: path pattern or list of them}`: the layers that
                start to train with that epoch, counted from 0 as
                `initial_epoch` counts. Stages before the first epoch of this
                call apply at once. Or a recipe: `"lp-ft"` trains the new
                blocks (adapters, fusion, head) for the first half of the
                epochs, then everything; `"gradual"` trains the new blocks in
                the first epoch, and with each further one the next layers
                from the top. The optimizer keeps the slots of layers that
                trained before, and layers that join count their own steps.
                Flags stay as the last stage left them. Defaults to `None`.
            cache_features: Whether to compute the outputs of frozen layers
                only once, in the first epoch: `True` (in memory), a folder, or
                a `FeatureCache`. The training is the same as without. Layers
                that cannot be cached (after augmentation, say) are computed in
                every epoch, with a warning. Defaults to `False`.
            check_values: Whether to look at the values of the first batch, and
                warn of inputs that are not as the networks expect them (pixels
                in [0, 1] in place of [0, 255], say, preprocessing done twice,
                NaN), each once. Labels that the loss cannot take are an error.
                The batch is looked at when Keras reads it: no data are read
                twice. Defaults to `True`.

        Returns:
            Keras's `History`.

        Raises:
            ValueError: If an adapter that learns from data has not been
                fitted (call `adapt` first), a stage's epoch is none of this
                call's, a pattern matches nothing, a stage would freeze, data
                with `cache_features` may give other samples each time, or
                inputs or labels do not fit the cascade and its loss.

        Example:
        >>> history = cascade.fit(
        ...     images, labels, epochs=2, unfreeze={1: "upstream"}, verbose=0
        ... )

        Source: Kumar et al., Fine-Tuning can Distort Pretrained Features
        (2022), for `"lp-ft"`; Howard and Ruder, Universal Language Model
        Fine-tuning (2018), for `"gradual"`.
        """
        self._check_fitted("training")
        check_checkpoints(callbacks)
        callbacks = prepare_callbacks(
            self, unfreeze, initial_epoch, epochs, callbacks, verbose
        )
        looking = nullcontext()
        self._check_data(x, y, "fit", check_values)
        self._check_validation(validation_data, batch_size or 32, check_values)
        if check_values:
            looking = self._looking(x, batch_size or 32)
        with looking, self._taking_changes(callbacks):
            cache = as_cache(cache_features)
            if cache is not None:
                check_no_steps(
                    steps_per_epoch=steps_per_epoch,
                    validation_steps=validation_steps,
                )
                data = FitData(x, y, sample_weight, batch_size, shuffle)
                held = Validation(
                    validation_data, validation_split, validation_batch_size
                )
                datasets = open_datasets(self, cache, data, held)
                self._check_dataset(datasets[0])
                return fit_on_features(
                    self,
                    super().fit,
                    cache,
                    *datasets,
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
                x=strings_as_tensors(x),
                y=y,
                batch_size=batch_size,
                epochs=epochs,
                verbose=verbose,
                callbacks=callbacks,
                validation_split=validation_split,
                validation_data=strings_as_tensors(validation_data),
                shuffle=is_shuffled_by_fit(x) and shuffle,
                class_weight=class_weight,
                sample_weight=sample_weight,
                initial_epoch=initial_epoch,
                steps_per_epoch=steps_per_epoch,
                validation_steps=validation_steps,
                validation_batch_size=validation_batch_size,
                validation_freq=validation_freq,
            )

    def evaluate(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        verbose: Any = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Any = None,
        return_dict: bool = False,
        *,
        cache_features: CacheFeatures = False,
        **kwargs: Any,
    ) -> Any:
        """Evaluates as Keras does, on cached features if asked to.

        Args:
            x: As Keras takes it, like all arguments up to `cache_features`.
            y: Labels.
            batch_size: Rows at a time. Defaults to `None`: 32.
            verbose: As Keras takes it. Defaults to `"auto"`.
            sample_weight: As Keras takes it. Defaults to `None`.
            steps: As Keras takes it. Defaults to `None`.
            callbacks: Keras callbacks. Defaults to `None`.
            return_dict: As Keras takes it. Defaults to `False`.
            cache_features: As in `fit`. Defaults to `False`.
            **kwargs: Arguments that Keras passes to itself.
        """
        self._check_fitted("evaluation")
        # Keras's `fit` evaluates the same data after each epoch.
        if not kwargs:
            self._check_data(x, y, "evaluate", values=True)
        data = FitData(x, y, sample_weight, batch_size, shuffle=False)
        with self._given(data, cache_features, steps, verbose) as given:
            return super().evaluate(
                **given,
                verbose=verbose,
                steps=steps,
                callbacks=callbacks,
                return_dict=return_dict,
                **kwargs,
            )

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Any = "auto",
        steps: int | None = None,
        callbacks: Any = None,
        *,
        cache_features: CacheFeatures = False,
    ) -> Any:
        """Predicts as Keras does, on cached features if asked to.

        Args:
            x: As Keras takes it, like all arguments up to `cache_features`.
            batch_size: Rows at a time. Defaults to `None`: 32.
            verbose: As Keras takes it. Defaults to `"auto"`.
            steps: As Keras takes it. Defaults to `None`.
            callbacks: Keras callbacks. Defaults to `None`.
            cache_features: As in `fit`. Defaults to `False`.
        """
        self._check_fitted("prediction")
        self._check_data(x, None, "predict", values=False)
        data = FitData(x, None, None, batch_size, shuffle=False)
        with self._given(data, cache_features, steps, verbose) as given:
            return super().predict(
                given["x"],
                batch_size=given.get("batch_size"),
                verbose=verbose,
                steps=steps,
                callbacks=callbacks,
            )

    def freeze(self, pattern: str | Sequence[str]) -> Self:
        """Freezes the layers that a path pattern covers.

        The optimizer keeps their slots for when they are unfrozen again.
        Called by a callback, it counts for the running epoch before its first
        batch, and from the next epoch on after that.

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
        """Unfreezes the layers that a path pattern covers.

        Layers that trained before keep their slots; the others count steps
        of their own. In a callback it counts from when `freeze` does;
        `fit(unfreeze=...)` needs no callback.

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

    def make_train_function(self, force: bool = False) -> None:
        """Implements Keras's hook: changed flags take effect here.

        If flags or the optimizer's groups were changed since the last step,
        the step is traced again with the variables that train now.
        """
        self._check_fitted("training")
        super().make_train_function(self._retrace_if_stale() or force)
        keep_arrays_of_steps(self, "train_function", put_off_and_finally)
        self._await_first_batch()

    def make_test_function(self, force: bool = False) -> None:
        """Implements Keras's hook: `evaluate` needs fitted adapters."""
        self._check_fitted("evaluation")
        super().make_test_function(force)
        keep_arrays_of_steps(self, "test_function", put_off_and_finally)

    def make_predict_function(self, force: bool = False) -> Any:
        """Implements Keras's hook: `predict` needs fitted adapters."""
        self._check_fitted("prediction")
        super().make_predict_function(force)
        keep_arrays_of_steps(self, "predict_function", put_off_and_finally)
        return self.predict_function

    def _set_flags(self, patterns: str | Sequence[str], flag: bool) -> Self:
        call = "unfreeze()" if flag else "freeze()"
        lookup = LayerLookup(self)
        covered = lookup.covered_by_any(patterns, call)
        flags = dict.fromkeys(covered, flag)
        if self._changes is not None:
            self._changes.change(lambda: set_flags(lookup, flags))
            return self
        set_flags(lookup, flags)
        # At once, for training loops that never ask for a train function.
        if self.compiled and known_variables(self.optimizer):
            self._retrace_if_stale()
        return self

    @contextmanager
    def _taking_changes(self, callbacks: Callbacks) -> Iterator[None]:
        """Has flags that callbacks set wait for the next epoch."""
        stages = find_stages(callbacks)
        changes = None if stages is None else stages.changes
        with finally_twice(lambda: self._end_changes(changes)):
            self._changes = changes
            yield

    def _end_changes(self, changes: FlagChanges | None) -> None:
        self._changes = None
        if changes is not None:
            changes.end()

    @contextmanager
    def _given(
        self, data: FitData, cache_features: Any, steps: Any, verbose: Any
    ) -> Iterator[Mapping[str, Any]]:
        """Yields the data for Keras: features if there is a cache."""
        cache = as_cache(cache_features)
        with finally_twice(lambda: give_arrays_back(self)):
            if cache is None:
                yield data.as_arguments()
                return
            check_no_steps(steps=steps)
            verbose = bool(verbose)
            with evaluation_arguments(self, cache, data, verbose) as given:
                yield given
