"""Checks that rates, stages, retention and LoRA together survive a file."""

import keras
import numpy as np
from keras import layers, ops, optimizers

import keras_cascade as kc

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 6)).astype("float32")
Y = RNG.integers(0, 3, 32)


def classifier():
    """Returns a network that ends in probabilities, which LwF keeps."""
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((6,), name="x")
    x = layers.Dense(8, activation="tanh", name="low")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Dense(5, activation="tanh", name="high")(x)
    x = layers.Dropout(0.2, seed=3, name="drop")(x)
    x = layers.Dense(4, activation="softmax", name="letters")(x)
    return keras.Model(inputs, x, name="reader")


def built():
    return kc.build_cascade(
        classifier(),
        taps="drop",
        head=3,
        trainable={"upstream/drop": True},
        learning_rates={"upstream": kc.LayerwiseDecay(1e-2, 0.5)},
        retention={
            "upstream/high": kc.L2SP(0.1),
            "upstream/low": kc.EWC(1.0, X),
            "upstream": kc.LwF(0.5, temperature=2.0),
        },
        optimizer=optimizers.AdamW(2e-2, global_clipnorm=1.0),
        loss="sparse_categorical_crossentropy",
    )


STAGES = {
    1: "upstream/high",
    2: ["upstream/norm", "upstream/low"],
}


def fit(cascade, epochs, initial_epoch=0, stages=STAGES):
    return cascade.fit(
        X,
        Y,
        epochs=epochs,
        initial_epoch=initial_epoch,
        unfreeze={e: p for e, p in stages.items() if e < epochs},
        shuffle=False,
        verbose=0,
    ).history


def state_of(cascade):
    variables = [*cascade.variables, *cascade.optimizer.variables]
    return [np.array(ops.convert_to_numpy(v)) for v in variables]


def test_training_after_load_is_bit_equal_to_training_without_a_stop(
    tmp_path,
):
    cascade = built()
    fit(cascade, 2)
    cascade.save(tmp_path / "cascade.keras")
    loaded = keras.saving.load_model(tmp_path / "cascade.keras")
    histories = [fit(model, 4, 2) for model in (cascade, loaded)]
    assert histories[0] == histories[1]
    names = {"l2sp_loss", "ewc_loss", "lwf_loss", "learning_rate/upstream"}
    assert names < set(histories[0])
    # What EWC keeps joined in the first of these epochs, of one step each.
    assert histories[0]["ewc_loss"][0] == 0 < histories[0]["ewc_loss"][1]
    for one, other in zip(state_of(cascade), state_of(loaded), strict=True):
        np.testing.assert_array_equal(one, other)


def test_low_rank_updates_join_in_a_stage_and_survive_a_file(tmp_path):
    """A and B join; the kernel does not move by a bit."""
    cascade = kc.build_cascade(
        classifier(),
        taps="high",
        head=3,
        trainable={"upstream/high": kc.LoRA(2, alpha=8)},
        loss="sparse_categorical_crossentropy",
        optimizer=optimizers.Adam(1e-2),
    )
    cascade.freeze("upstream")
    kernel = next(
        v for v in cascade.variables if v.path == "upstream/high/kernel"
    )
    before = np.array(ops.convert_to_numpy(kernel))
    fit(cascade, 2, stages={1: "upstream/high"})
    trained = {v.path for v in cascade.trainable_variables}
    assert trained == {
        "upstream/high/lora_kernel_a",
        "upstream/high/lora_kernel_b",
        "head/dense/kernel",
        "head/dense/bias",
    }
    cascade.save(tmp_path / "cascade.keras")
    loaded = keras.saving.load_model(tmp_path / "cascade.keras")
    for model in (cascade, loaded):
        fit(model, 4, 2, stages={})
    for one, other in zip(state_of(cascade), state_of(loaded), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(ops.convert_to_numpy(kernel), before)
