"""Fails where Keras orders arrays in another way than `ArrayOrder` draws."""

import keras
import numpy as np
import pytest

from keras_cascade import _keras_compat

ROWS, SIZE = 10, 4


class Reads(keras.callbacks.Callback):
    """Notes the mean of each batch, which tells its rows."""

    def __init__(self):
        super().__init__()
        self.found = []

    def on_train_batch_begin(self, batch, logs=None):
        self.model.reset_metrics()

    def on_train_batch_end(self, batch, logs=None):
        self.found.append(float(logs["loss"]))


@pytest.mark.parametrize("shuffle", [True, False])
def test_rows_come_as_fit_reads_them(shuffle):
    inputs = keras.Input((1,))
    same = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")
    model = keras.Model(inputs, same(inputs))
    model.compile(keras.optimizers.SGD(0.0), "mae")
    # Powers of two: a sum tells which of them are in it.
    x, y, reads = 2.0 ** np.arange(ROWS)[:, None], np.zeros(ROWS), Reads()
    model.fit(x, y, epochs=0)  # builds the loss
    keras.utils.set_random_seed(1)
    model.fit(
        x,
        y,
        SIZE,
        epochs=2,
        verbose=0,
        shuffle=shuffle,
        callbacks=[reads],
    )
    keras.utils.set_random_seed(1)
    order = _keras_compat.ArrayOrder(ROWS, SIZE, shuffle)
    if keras.config.backend() == "torch":
        # For each epoch `fit` starts a DataLoader before, and one after.
        found = []
        for _ in range(2):
            _draw_seed()
            found += order.draw()
            _draw_seed()
    else:
        found = order.draw() + order.draw()
    assert [len(rows) for rows in found] == [4, 4, 2] * 2
    expected = [float(x[rows].mean()) for rows in found]
    np.testing.assert_allclose(reads.found, expected)


def _draw_seed():
    import torch

    torch.empty((), dtype=torch.int64).random_()
