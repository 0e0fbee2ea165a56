"""Trains a cascade on cached features, segment by segment.

In a segment the same layers are frozen and the data has the same form: the
first epoch, which computes features and stores them, or epochs that read them.
Keras sees one `fit` of the cascade for each segment, callbacks see one
training.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from keras_cascade import _keras_compat as compat
from keras_cascade._cascade_view import CascadeView, as_model
from keras_cascade.cache.callbacks import (
    DataCheck,
    EndOfSegmentError,
    FrozenCheck,
    SegmentedCallbacks,
    delay_averages,
)
from keras_cascade.cache.datasets import Dataset
from keras_cascade.cache.feature_cache import FeatureCache
from keras_cascade.cache.features import Features
from keras_cascade.cache.session import Session
from keras_cascade.training.fit_callbacks import find_stages

KerasFit = Callable[..., keras.callbacks.History]


@dataclass(frozen=True)
class FitArguments:
    """The arguments of `fit` other than data, as Keras takes them."""

    epochs: int
    initial_epoch: int
    verbose: Any
    callbacks: Any
    class_weight: Any
    validation_freq: Any


def fit_on_features(
    cascade: CascadeView,
    keras_fit: KerasFit,
    cache: FeatureCache,
    training: Dataset,
    validation: Dataset | None,
    arguments: FitArguments,
) -> keras.callbacks.History:
    """Trains with Keras's `fit`, on features of the layers that are frozen."""
    run = _Run(cascade, keras_fit, cache, training, validation, arguments)
    # Without an optimizer Keras says what is missing.
    optimizer = cascade.optimizer if cascade.compiled else None
    with delay_averages(optimizer, lambda: cascade.trainable_weights):
        run.begin()
        while run.epoch < run.epochs and not cascade.stop_training:
            run.train_segment()
    run.callbacks.end_training()
    return cascade.history


class _Run:
    """The state of one training."""

    def __init__(
        self,
        cascade: CascadeView,
        keras_fit: KerasFit,
        cache: FeatureCache,
        training: Dataset,
        validation: Dataset | None,
        arguments: FitArguments,
    ):
        self._cascade, self._keras_fit = cascade, keras_fit
        self._training, self._validation = training, validation
        self._datasets = [x for x in (training, validation) if x is not None]
        self._arguments = arguments
        self._session = Session(cascade, cache, arguments.verbose != 0)
        self._stages = find_stages(arguments.callbacks)
        if self._stages is not None:
            self._stages.segmented = True
        self.epoch, self.epochs = arguments.initial_epoch, _last(arguments)
        self.callbacks = SegmentedCallbacks(
            arguments.callbacks,
            add_progbar=arguments.verbose != 0,
            verbose=arguments.verbose,
            epochs=self.epochs,
            steps=training.steps,
            model=cascade,
        )
        # Last, to see what the user's callbacks did.
        self._check = FrozenCheck()
        self._check.set_model(cascade)
        self._data_check = DataCheck()
        self.callbacks.callbacks += [self._check, self._data_check]

    def begin(self) -> None:
        """Lets callbacks begin: weights that they load count for the cache."""
        self._keras_fit(
            **self._training.opening_arguments(),
            epochs=0,
            callbacks=self.callbacks,
        )
        self.epoch = (
            compat.take_resumed_epoch(as_model(self._cascade)) or self.epoch
        )

    def train_segment(self) -> None:
        """Trains until the frozen layers or the form of the data change."""
        if self._stages is not None:
            self._stages.apply(self.epoch)
        features = self._session.features(self._datasets)
        until = self._end_of_segment(features)
        try:
            self._train(features, until)
            self.epoch = until
        except EndOfSegmentError as end:
            self.epoch = end.epoch
        self._check.check_weights()

    def _train(self, features: Features | None, until: int) -> None:
        self._data_check.watch(self._datasets if features else [])
        if features is None:
            self._check.watch(None)
            self._fit(until, lambda x: x.live_arguments())
            return
        self._check.watch(features.part)
        with self._session.using(features, self._datasets):
            in_memory = self._session.in_memory
            self._fit(until, lambda x: x.arguments(features, in_memory))

    def _end_of_segment(self, features: Features | None) -> int:
        ends = [self.epochs]
        if self._stages is not None:
            ends += [e for e in self._stages.epochs if e > self.epoch]
        # The epoch that computes features has data of another form.
        if features is not None and not all(
            data.is_complete(features) for data in self._datasets
        ):
            ends.append(self.epoch + 1)
        return min(ends)

    def _fit(
        self, until: int, arguments_of: Callable[[Dataset], dict[str, Any]]
    ) -> None:
        training, validation = arguments_of(self._training), {}
        if self._validation is not None:
            validation = _as_validation(arguments_of(self._validation))
        self._keras_fit(
            **training,
            **validation,
            epochs=until,
            initial_epoch=self.epoch,
            callbacks=self.callbacks,
            class_weight=self._arguments.class_weight,
            validation_freq=self._arguments.validation_freq,
        )


def _as_validation(arguments: Mapping[str, Any]) -> dict[str, Any]:
    if "y" not in arguments:
        return {"validation_data": arguments["x"]}
    x, y, weights = (arguments[k] for k in ("x", "y", "sample_weight"))
    return {
        "validation_data": (x, y) if weights is None else (x, y, weights),
        "validation_batch_size": arguments["batch_size"],
    }


def _last(arguments: FitArguments) -> int:
    # Keras's setting for debugging may end a training early.
    most = keras.config.max_epochs()
    if most and most < arguments.epochs:
        warnings.warn(f"Limiting epochs to {most}", stacklevel=5)
        return most
    return arguments.epochs
