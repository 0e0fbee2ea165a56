"""Callbacks that are held over several calls of Keras's `fit`."""

import keras
import pytest

from keras_cascade.cache.held import HeldCallbacks

ON_JAX = keras.config.backend() == "jax"


class Loss:
    """Stands for what a step of JAX gives: it tells if it was waited for."""

    def __init__(self) -> None:
        self.waited_for = False

    def block_until_ready(self) -> "Loss":
        self.waited_for = True
        return self


@pytest.mark.skipif(not ON_JAX, reason="the others run no step behind Python")
def test_a_step_is_waited_for_when_four_have_begun_after_it():
    held = HeldCallbacks([], model=keras.Sequential())
    losses = [Loss() for _ in range(10)]

    held.on_train_begin()
    for step, loss in enumerate(losses):
        held.on_train_batch_end(step, {"loss": loss})
    held.end_training()

    assert [loss.waited_for for loss in losses] == [True] * 6 + [False] * 4
