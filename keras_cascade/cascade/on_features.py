"""How a cascade answers on cached features, in the place of its inputs."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras

from keras_cascade import _keras_compat as compat
from keras_cascade.adapters.fitting import unfitted
from keras_cascade.cache.feature_cache import as_cache
from keras_cascade.cache.feeding import Data, check_no_steps, on_features
from keras_cascade.cache.marks import is_marked, unmark
from keras_cascade.cascade.retaining import Retaining


def _as_it_is(name: str, read: Callable[[], list]) -> list:
    return read()


def _no_part() -> Any:
    raise ValueError(
        "The cascade was given cached features and trains on none now. Pass "
        "its inputs."
    )


class Caching(Retaining):
    """Takes the features of its frozen part where inputs are expected.

    They come under names that no input has. So whatever else is done with the
    cascade meanwhile, by callbacks or by hand, is done on inputs, as ever.
    """

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """The cascade's answer to inputs, or to features."""
        if is_marked(inputs):
            return self._trainable_part()(unmark(inputs), *args, **kwargs)
        return super().__call__(inputs, *args, **kwargs)

    def call(
        self, inputs: Any, training: bool | None = None, mask: Any = None
    ) -> Any:
        """Keras's hook; JAX comes here without `__call__`."""
        if is_marked(inputs):
            part = self._trainable_part()
            return part(unmark(inputs), training=bool(training))
        return super().call(inputs, training=training, mask=mask)

    @contextmanager
    def taking_features(self, part: keras.Model) -> Iterator[None]:
        """Has features answered by the trainable part of the cascade.

        Args:
            part: That part, for the flags that the cascade has now.
        """
        known: dict[str, list] = {}

        def fixed(name: str, read: Callable[[], list]) -> list:
            if name not in known:
                known[name] = read()
            return [*known[name]]

        # In closures: Keras would track what is an attribute.
        self._trainable_part, self._listed = lambda: part, fixed
        try:
            yield
        finally:
            self._trainable_part, self._listed = _no_part, _as_it_is

    # What Keras does in every step for all layers and variables, which are many
    # where little trains.

    def __setattr__(self, name: str, value: Any) -> None:
        """Keras's hook; arrays on their way to the next step are no layers."""
        if compat.is_passed_on(name):
            compat.set_untracked(self, name, value)
        else:
            super().__setattr__(name, value)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Torch's hook: forgets gradients, which only what trains has.

        Args:
            set_to_none: As torch takes it. Defaults to `True`.
        """
        if self._trainable_part is _no_part or not set_to_none:
            super().zero_grad(set_to_none)
            return
        for variable in self.trainable_variables:
            variable.value.grad = None

    # Keras asks for these in every step, and reads them off all layers. While
    # the cascade takes features no flag changes.

    @property
    def trainable_weights(self) -> list:
        """Keras's list of what trains."""
        return self._listed(
            "trainable_weights", lambda: super(Caching, self).trainable_weights
        )

    @property
    def trainable_variables(self) -> list:
        """Keras's list of what trains."""
        return self._listed(
            "trainable_variables",
            lambda: super(Caching, self).trainable_variables,
        )

    @property
    def losses(self) -> list:
        """Keras's list of losses that layers add."""
        if self._trainable_part is _no_part:
            return super().losses
        return self._trainable_part().losses

    def flags(self) -> list[bool]:
        """The `trainable` flags of all its layers, the innermost included."""
        return self._read_flags()

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
        cache_features: Any = False,
        **kwargs: Any,
    ) -> Any:
        """Keras's `evaluate`, on cached features if asked for.

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
            **kwargs: What Keras hands on to itself.
        """
        self._check_fitted("evaluation")
        data = Data(x, y, sample_weight, batch_size, shuffle=False)
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
        cache_features: Any = False,
    ) -> Any:
        """Keras's `predict`, on cached features if asked for.

        Args:
            x: As Keras takes it, like all arguments up to `cache_features`.
            batch_size: Rows at a time. Defaults to `None`: 32.
            verbose: As Keras takes it. Defaults to `"auto"`.
            steps: As Keras takes it. Defaults to `None`.
            callbacks: Keras callbacks. Defaults to `None`.
            cache_features: As in `fit`. Defaults to `False`.
        """
        self._check_fitted("prediction")
        data = Data(x, None, None, batch_size, shuffle=False)
        with self._given(data, cache_features, steps, verbose) as given:
            return super().predict(
                given["x"],
                batch_size=given.get("batch_size"),
                verbose=verbose,
                steps=steps,
                callbacks=callbacks,
            )

    def make_test_function(self, force: bool = False) -> Any:
        """Keras's hook before `evaluate`; the adapters must be fitted."""
        self._check_fitted("evaluation")
        return super().make_test_function(force)

    def make_predict_function(self, force: bool = False) -> Any:
        """Keras's hook before `predict`; the adapters must be fitted."""
        self._check_fitted("prediction")
        return super().make_predict_function(force)

    @contextmanager
    def _given(
        self, data: Data, cache_features: Any, steps: Any, verbose: Any
    ) -> Iterator[Mapping[str, Any]]:
        """What Keras is given in the place of some data, if anything."""
        cache = as_cache(cache_features)
        if cache is None:
            yield data.as_arguments()
            return
        check_no_steps(steps=steps)
        with on_features(self, cache, data, bool(verbose)) as given:
            yield given

    def _check_fitted(self, before: str) -> None:
        if self._all_fitted:
            return
        waiting = unfitted(self)
        self._all_fitted = not waiting
        if waiting:
            paths = ", ".join(f"'{'/'.join(path)}'" for path in waiting)
            raise ValueError(
                f"Adapters that learn from data have not been fitted: {paths}."
                f" Call cascade.adapt(data) before {before}."
            )

    _trainable_part: Any = staticmethod(_no_part)
    _listed: Any = staticmethod(_as_it_is)
