"""Shows the first batch of a training as Keras reads it.

A data set is read once and in its own order: reading a batch beforehand would
draw from its generators, and a generator has no second first batch.

Tested by `tests/behaviour/test_first_batches.py`.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from typing import Any

import keras

Look = Callable[[Any], None]


def look_at_first_batch(model: Any, attribute: str, look: Look) -> None:
    """Has the next step of a compiled function show its batch before it runs.

    Keras 3.15.1 calls `train_function` with a list of the batches of a step on
    torch, and with the iterator of the epoch on JAX and TensorFlow.

    Args:
        model: The model.
        attribute: `"train_function"`.
        look: Called with the batch, once.
    """
    step = getattr(model, attribute)
    if hasattr(step, "shows_batch"):
        return

    def run(*arguments: Any) -> Any:
        setattr(model, attribute, step)
        *state, batches = arguments
        first, batches = _first_of(batches, model.steps_per_execution)
        if first is not None:
            look(first)
        return step(*state, batches)

    vars(run)["shows_batch"] = step
    if hasattr(step, "keeps_arrays"):
        vars(run)["keeps_arrays"] = True
    setattr(model, attribute, run)


@contextmanager
def without_look(model: Any, attribute: str) -> Iterator[None]:
    """Takes the look back in the end, if no step was done."""
    try:
        yield
    finally:
        step = getattr(model, attribute)
        if hasattr(step, "shows_batch"):
            setattr(model, attribute, step.shows_batch)


def _first_of(batches: Any, count: int) -> tuple[Any, Any]:
    """Returns the first batch if it can be had, and all of a step's batches."""
    if keras.config.backend() == "torch":
        return batches[0], batches
    if keras.config.backend() == "jax":
        # If there is none, the step says so.
        read = list(islice(batches, 1))
        return (*read, None)[0], chain(read, batches)
    import tensorflow as tf

    # Those of tf.distribute give a value for each replica.
    if not isinstance(batches, tf.data.Iterator):
        return None, batches
    spec = batches.element_spec
    known = (tf.TensorSpec, tf.RaggedTensorSpec, tf.SparseTensorSpec)
    if not all(isinstance(x, known) for x in tf.nest.flatten(spec)):
        return None, batches
    # The batches of one step, which is all that the step would have read.
    read = list(islice(batches, count))
    if not read:
        return None, batches
    again = tf.data.Dataset.from_generator(lambda: read, output_signature=spec)
    return read[0], iter(again)
