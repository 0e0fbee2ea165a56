"""Tests stages and cached features in two processes of torch.

Keras 3.16 reduces gradients between processes; earlier ones do not.
"""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_cascade as kc
from keras_cascade import _keras_compat as compat

VERSION = tuple(int(x) for x in keras.__version__.split(".")[:2])
TORCH = pytest.mark.skipif(
    keras.config.backend() != "torch", reason="torch's data parallelism"
)
RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 5)).astype("float32")
Y = RNG.normal(size=(16, 3)).astype("float32")


def trained(x, y, batch_size, cache):
    """Returns a cascade after three epochs, of which two unfreeze layers."""
    keras.utils.set_random_seed(0)
    h = inputs = keras.Input((5,), name="f")
    for name in ("low", "high"):
        h = layers.Dense(4, "tanh", name=name)(h)
    cascade = kc.build_cascade(
        keras.Model(inputs, h),
        head=layers.Dense(3, name="out"),
        optimizer=keras.optimizers.SGD(0.1),
        loss="mse",
    )
    cascade.fit(
        *(x, y, batch_size, 3, 0),
        shuffle=False,
        unfreeze={1: "upstream/high", 2: "upstream/low"},
        cache_features=cache,
    )
    return cascade


def weights(cascade):
    return [ops.convert_to_numpy(v) for v in cascade.variables]


def test_a_wrapper_of_earlier_flags_is_dropped():
    """What Keras 3.16 keeps in `ddp_model` is of the weights of then."""
    cascade = trained(X, Y, 8, False).freeze("upstream")
    vars(cascade)["ddp_model"] = wrapper = object()
    compat.drop_parallel_wrapper(keras.Sequential())  # which has none
    cascade.make_train_function()
    assert vars(cascade)["ddp_model"] is wrapper  # no flag has changed
    cascade.unfreeze("upstream")
    assert vars(cascade)["ddp_model"] is None


@TORCH
@pytest.mark.skipif(VERSION < (3, 16), reason="Keras wraps from 3.16 on")
@pytest.mark.parametrize("cache", [False, True])
def test_two_processes_train_as_one_on_both_their_batches(tmp_path, cache):
    command = [sys.executable, __file__, str(tmp_path), str(int(cache))]
    processes = [subprocess.Popen([*command, rank]) for rank in "01"]
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    wanted = weights(trained(X, Y, 8, cache))
    for rank in "01":
        with np.load(tmp_path / f"{rank}.npz") as found:
            for value, name in zip(wanted, found.files, strict=True):
                np.testing.assert_allclose(found[name], value, atol=1e-6)


def main(folder, cache, rank):
    """Trains on the half of each batch that this process has."""
    import torch

    torch.distributed.init_process_group(
        "gloo",
        init_method=f"file://{folder}/processes",
        rank=int(rank),
        world_size=2,
    )
    mine = np.arange(len(X)) // 4 % 2 == int(rank)
    cascade = trained(X[mine], Y[mine], 4, cache == "1")
    np.savez(os.path.join(folder, f"{rank}.npz"), *weights(cascade))  # noqa: PTH118
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
