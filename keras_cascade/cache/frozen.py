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
    has those of all its layers, and gives new ones back. On TensorFlow each
    replica of a strategy gets its share of the rows; Keras would have each of
    them run all.

    Args:
        part: The model; takes and gives dicts.
        strategy: How the cascade is distributed by TensorFlow. Defaults to
            `None`.

    Attributes:
        moved: The paths of variables that a run changes, as far as the
            backend tells while it traces.
        adds_losses: Whether a run adds losses, likewise.
    """

    def __init__(self, part: keras.Model, strategy: Any = None):
        self.moved: list[str] = []
        self.adds_losses = False
        self._run: Callable[[dict], dict] = part.predict_on_batch
        if keras.config.backend() == "jax":
            self._run = self._compiled_by_jax(part)
        elif strategy is not None and strategy.num_replicas_in_sync > 1:
            self._run = _on_replicas(part, strategy)

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


def _on_replicas(part: keras.Model, strategy: Any) -> Callable[[dict], dict]:
    """Runs a model on all replicas at once, each on its share of the rows."""
    import tensorflow as tf

    @tf.function(reduce_retracing=True)
    def run(inputs: dict) -> dict:
        return strategy.run(part, args=(inputs,), kwargs={"training": False})

    def call(inputs: dict) -> dict:
        shares = _shares(inputs, strategy.num_replicas_in_sync)
        given = strategy.experimental_distribute_values_from_function(
            lambda context: shares[context.replica_id_in_sync_group]
        )
        return {
            name: tf.concat(strategy.experimental_local_results(x), 0)
            for name, x in run(given).items()
        }

    return call


def _shares(inputs: Mapping[str, Any], count: int) -> list[Arrays]:
    """The rows in as many parts as there are replicas."""
    split = {
        name: np.array_split(to_numpy(x), count) for name, x in inputs.items()
    }
    return [{name: x[i] for name, x in split.items()} for i in range(count)]
