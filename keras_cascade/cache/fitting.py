"""Trains a cascade on cached features: `fit(cache_features=...)`.

A training is a number of segments, in each of which the same layers are
frozen and the data has the same form: the first epoch, which computes
features and keeps them, and those that read them. Keras sees one `fit` of the
cascade a segment, callbacks see one training.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import keras

from keras_cascade import _keras_compat as compat
from keras_cascade._cascade_view import CascadeView
from keras_cascade.cache.feature_cache import FeatureCache
from keras_cascade.cache.features import Features
from keras_cascade.cache.feeding import Feed
from keras_cascade.cache.guard import StillFrozen
from keras_cascade.cache.held import HeldCallbacks, averages_held
from keras_cascade.cache.session import Session
from keras_cascade.training.fit_callbacks import find_stages


@dataclass(frozen=True)
class FitArguments:
    """The arguments of `fit` that are no data.

    Attributes:
        epochs: As Keras takes them, and so on.
        initial_epoch: The epoch to start with.
        verbose: As Keras takes it.
        callbacks: With those of the cascade.
        class_weight: As Keras takes it.
        validation_freq: As Keras takes it.
    """

    epochs: int
    initial_epoch: int
    verbose: Any
    callbacks: Any
    class_weight: Any
    validation_freq: Any


def fit_on_features(
    cascade: CascadeView,
    keras_fit: Callable[..., Any],
    cache: FeatureCache,
    training: Feed,
    validation: Feed | None,
    arguments: FitArguments,
) -> Any:
    """Trains with `keras_fit`, on features wherever the cascade is frozen.

    Args:
        cascade: The cascade, compiled.
        keras_fit: Keras's `fit` of it.
        cache: Where features are kept.
        training: The training data.
        validation: The validation data, or None.
        arguments: The other arguments.

    Returns:
        Keras's `History`.
    """
    run = _Run(cascade, keras_fit, cache, training, validation, arguments)
    # Without an optimizer Keras says what is missing.
    optimizer = cascade.optimizer if cascade.compiled else None
    with averages_held(optimizer, lambda: cascade.trainable_weights):
        run.begin()
        while run.epoch < run.epochs and not cascade.stop_training:
            run.segment()
    run.held.end_training()
    return cascade.history


class _Run:
    """The state of one training."""

    def __init__(
        self,
        cascade: CascadeView,
        keras_fit: Callable[..., Any],
        cache: FeatureCache,
        training: Feed,
        validation: Feed | None,
        arguments: FitArguments,
    ):
        self._cascade, self._keras_fit = cascade, keras_fit
        self._training, self._validation = training, validation
        self._arguments = arguments
        self._session = Session(cascade, cache, arguments.verbose != 0)
        self._stages = find_stages(arguments.callbacks)
        self.epoch, self.epochs = arguments.initial_epoch, _last(arguments)
        self.held = HeldCallbacks(
            arguments.callbacks,
            add_progbar=arguments.verbose != 0,
            verbose=arguments.verbose,
            epochs=self.epochs,
            steps=training.steps,
            model=cascade,
        )
        self._guard = StillFrozen()
        self._guard.set_model(cascade)
        self.held.callbacks.append(self._guard)

    def begin(self) -> None:
        """Has callbacks begin: what they load counts for the cache."""
        x, y, weights = self._training.first_batch()
        self._keras_fit(
            x=x,
            y=y,
            sample_weight=weights,
            epochs=0,
            shuffle=False,  # which would draw random numbers
            callbacks=self.held,
        )
        self.epoch = compat.take_resumed_epoch(self._cascade) or self.epoch

    def segment(self) -> None:
        """Trains until what is frozen or the form of the data changes."""
        if self._stages is not None:
            self._stages.apply(self.epoch)
        both = (self._training, self._validation)
        feeds = [feed for feed in both if feed is not None]
        features = self._session.features(feeds)
        until = self._until(features)
        if features is None:
            self._guard.rest()
            self._fit(until, self._training.live(), self._live_validation())
        else:
            self._guard.watch(features.part)
            with self._session.using(features, feeds):
                self._fit(
                    until,
                    self._session.arguments(self._training, features),
                    self._validation_on(features),
                )
            self._guard.check_weights()
        self.epoch = until

    def _until(self, features: Features | None) -> int:
        """The epoch before which the segment ends."""
        ends = [self.epochs]
        if self._stages is not None:
            ends += [e for e in self._stages.epochs if e > self.epoch]
        if features is not None and not self._is_complete(features):
            ends.append(self.epoch + 1)
        return min(ends)

    def _is_complete(self, features: Features) -> bool:
        feeds = (self._training, self._validation)
        return all(f is None or f.is_complete(features) for f in feeds)

    def _fit(
        self, until: int, data: Mapping[str, Any], validation: Mapping
    ) -> None:
        self._keras_fit(
            **data,
            **validation,
            epochs=until,
            initial_epoch=self.epoch,
            callbacks=self.held,
            class_weight=self._arguments.class_weight,
            validation_freq=self._arguments.validation_freq,
        )

    def _validation_on(self, features: Features) -> dict[str, Any]:
        if self._validation is None:
            return {}
        data = self._session.arguments(self._validation, features)
        return self._as_validation(data)

    def _live_validation(self) -> dict[str, Any]:
        if self._validation is None:
            return {}
        return self._as_validation(self._validation.live())

    @staticmethod
    def _as_validation(data: Mapping[str, Any]) -> dict[str, Any]:
        if "y" not in data:
            return {"validation_data": data["x"]}
        parts = (data["x"], data["y"], data["sample_weight"])
        return {
            "validation_data": parts if parts[2] is not None else parts[:2],
            "validation_batch_size": data["batch_size"],
        }


def _last(arguments: FitArguments) -> int:
    """Keras's setting for debugging may end a training early."""
    most = keras.config.max_epochs()
    if most and most < arguments.epochs:
        warnings.warn(f"Limiting epochs to {most}", stacklevel=5)
        return most
    return arguments.epochs
