"""The frozen part of a cascade, compiled: from inputs to features."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_cascade.data import to_numpy

Arrays = dict[str, np.ndarray]


class Compiled:
    """A function from arrays to arrays, which runs a model in inference mode.

    On JAX it works on copies of the weights: while a cascade trains, its step
    has those of all its layers, and gives new ones back.

    Args:
        part: The model; takes and gives dicts.

    Attributes:
        moved: The paths of variables that a run changes, as far as the
            backend tells while it traces.
        adds_losses: Whether a run adds losses, likewise.
    """

    def __init__(self, part: keras.Model):
        self.moved: list[str] = []
        self.adds_losses = False
        self._run: Callable[[dict], dict] = part.predict_on_batch
        if keras.config.backend() == "jax":
            self._run = self._compiled_by_jax(part)

    def __call__(self, inputs: Mapping[str, Any]) -> Arrays:
        """The features of a batch."""
        return {k: to_numpy(x) for k, x in self._run(dict(inputs)).items()}

    def _compiled_by_jax(self, part: keras.Model) -> Callable[[dict], dict]:
        import jax

        def copies(variables: list[keras.Variable]) -> list[Any]:
            return [jax.numpy.array(v.value, copy=True) for v in variables]

        trained = copies(part.trainable_variables)
        fixed = copies(part.non_trainable_variables)

        @jax.jit
        def run(trained: list, fixed: list, inputs: dict) -> dict:
            found: Any = part.stateless_call(
                trained, fixed, inputs, training=False, return_losses=True
            )
            outputs, states, losses = found
            self.moved = [
                variable.path
                for variable, old, new in zip(
                    part.non_trainable_variables, fixed, states, strict=True
                )
                if new is not old
            ]
            self.adds_losses = bool(losses)
            return outputs

        return lambda inputs: run(trained, fixed, inputs)
