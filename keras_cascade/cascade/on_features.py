"""Lets a cascade take cached features where Keras passes its inputs.

Tested by `tests/cache/test_callbacks.py`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import keras

from keras_cascade import _keras_compat as compat
from keras_cascade._interrupts.cleanup import finally_twice
from keras_cascade.cache.cached_names import are_cached, from_cached_names
from keras_cascade.cascade.composition import Composition


class _Feeding:
    """The part of a cascade that takes features, and Keras's lists of it.

    A plain object: Keras would track a layer or a list that is an attribute
    of the cascade.
    """

    def __init__(self, part: keras.Model):
        self.part = part
        self._lists: dict[str, list] = {}

    def once(self, name: str, read: Callable[[], list]) -> list:
        """Returns a list that is read at the first call and then copied."""
        if name not in self._lists:
            self._lists[name] = read()
        return [*self._lists[name]]


class OnFeatures(Composition):
    """Takes the features of its frozen part where inputs are expected.

    Features have names that no input has. Whatever else is done with the
    cascade meanwhile, by callbacks or by hand, is done on inputs as ever.
    """

    # In the class: Keras reads the lists below before `__init__` is through.
    _feeding: _Feeding | None = None

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns the outputs for inputs, or for features."""
        if are_cached(inputs):
            return self._tail()(from_cached_names(inputs), *args, **kwargs)
        return super().__call__(inputs, *args, **kwargs)

    def call(
        self, inputs: Any, training: bool | None = None, mask: Any = None
    ) -> Any:
        """Implements Keras's hook, which JAX calls without `__call__`."""
        if are_cached(inputs):
            features = from_cached_names(inputs)
            return self._tail()(features, training=bool(training))
        return super().call(inputs, training=training, mask=mask)

    @contextmanager
    def taking_features(self, part: keras.Model) -> Iterator[None]:
        """Has the trainable part of the cascade answer to features.

        Args:
            part: That part, for the flags that the cascade has now.
        """
        with finally_twice(self._stop_feeding):
            self._feeding = _Feeding(part)
            yield

    def _stop_feeding(self) -> None:
        self._feeding = None

    def _tail(self) -> keras.Model:
        if self._feeding is None:
            raise ValueError(
                "The cascade was given cached features outside a training on "
                "them. Pass its inputs."
            )
        return self._feeding.part

    # Keras does the following in every step for all layers and variables,
    # which takes long where little trains. No flag changes while the cascade
    # takes features, so what Keras reads off the layers can be kept.

    def __setattr__(self, name: str, value: Any) -> None:
        """Implements Keras's hook: JAX's arrays between steps are no layers."""
        if compat.is_passed_on(name):
            compat.set_untracked(self, name, value)
        else:
            super().__setattr__(name, value)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Implements torch's hook: only variables that train have gradients.

        Args:
            set_to_none: As torch takes it. Defaults to `True`.
        """
        if self._feeding is None or not set_to_none:
            super().zero_grad(set_to_none)
            return
        for variable in self.trainable_variables:
            variable.value.grad = None

    @property
    def trainable_weights(self) -> list[keras.Variable]:
        """Keras's list of the weights that train."""
        return self._once(
            "trainable_weights",
            lambda: super(OnFeatures, self).trainable_weights,
        )

    @property
    def trainable_variables(self) -> list[keras.Variable]:
        """Keras's list of the variables that train."""
        return self._once(
            "trainable_variables",
            lambda: super(OnFeatures, self).trainable_variables,
        )

    @property
    def losses(self) -> list:
        """Keras's list of losses that layers add."""
        if self._feeding is None:
            return super().losses
        return compat.losses_of_step(self) or self._tail().losses

    def _once(self, name: str, read: Callable[[], list]) -> list:
        feeding = self._feeding
        return read() if feeding is None else feeding.once(name, read)
