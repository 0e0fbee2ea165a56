"""Compiles the frozen part of a cascade: from inputs to features.

Tested by `tests/cache/test_distributed.py` and `tests/cache/test_segments.py`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_cascade._keras_compat import never_wrap_parallel
from keras_cascade.data import to_numpy
from keras_cascade.data.arrays import to_trainable

Arrays = dict[str, np.ndarray]
Function = Callable[[dict[str, Any]], dict[str, Any]]


class CompiledModel:
    """Runs a model from arrays to arrays, in inference mode.

    Args:
        model: The model, from a dict to a dict.
        strategy: The `tf.distribute` strategy of the cascade. Defaults to
            `None`.

    Attributes:
        changed: The paths of variables that a run changes, as far as the
            backend finds them while it traces.
        adds_losses: Whether a run adds losses, as far as is found likewise.
    """

    def __init__(self, model: keras.Model, strategy: Any = None):
        self.changed: list[str] = []
        self.adds_losses = False
        never_wrap_parallel(model)
        self._run: Function = model.predict_on_batch
        if keras.config.backend() == "jax":
            self._run = self._compiled_by_jax(model)
        elif strategy is not None and strategy.num_replicas_in_sync > 1:
            self._run = _on_replicas(model, strategy)

    def __call__(self, inputs: Mapping[str, Any]) -> Arrays:
        """Returns the features of a batch."""
        given = {name: to_trainable(x) for name, x in inputs.items()}
        return {k: to_numpy(x) for k, x in self._run(given).items()}

    def _compiled_by_jax(self, model: keras.Model) -> Function:
        import jax

        # While a cascade trains, its step owns the values of all variables,
        # the frozen ones included, and donates their memory.
        def copies(variables: list[keras.Variable]) -> list[Any]:
            return [jax.numpy.array(v.value, copy=True) for v in variables]

        trained = copies(model.trainable_variables)
        fixed = copies(model.non_trainable_variables)

        @jax.jit
        def run(trained: list, fixed: list, inputs: dict) -> dict:
            found: Any = model.stateless_call(
                trained, fixed, inputs, training=False, return_losses=True
            )
            outputs, states, losses = found
            # A variable that is not assigned is the same tracer afterwards.
            self.changed = [
                variable.path
                for variable, old, new in zip(
                    model.non_trainable_variables, fixed, states, strict=True
                )
                if new is not old
            ]
            self.adds_losses = bool(losses)
            return outputs

        return lambda inputs: run(trained, fixed, inputs)


def _on_replicas(model: keras.Model, strategy: Any) -> Function:
    """Runs a model on all replicas at once, each on its share of the rows."""
    import tensorflow as tf

    @tf.function(reduce_retracing=True)
    def run(inputs: dict) -> dict:
        return strategy.run(model, args=(inputs,), kwargs={"training": False})

    # Keras's `predict_on_batch` would have each replica run all rows.
    def call(inputs: dict[str, Any]) -> dict[str, Any]:
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
    """Returns the rows in as many parts as there are replicas."""
    split = {
        name: np.array_split(to_numpy(x), count) for name, x in inputs.items()
    }
    return [{name: x[i] for name, x in split.items()} for i in range(count)]
