"""Small cascades that tests of pictures draw."""

import keras
from keras import layers

import keras_cascade as kc


def encoder(name="encoder", width=4, classes=5):
    x = inputs = keras.Input((8, 8, 1), name="inputs")
    x = layers.Conv2D(width, 3, name="conv1")(x)
    x = layers.Conv2D(classes, 3, name="conv2")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, x, name=name)


def residual(blocks=3):
    x = inputs = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(4, 3, padding="same", name="stem")(x)
    for number in range(1, blocks + 1):
        name = f"block{number}"
        y = layers.Conv2D(4, 3, padding="same", name=f"{name}_conv")(x)
        x = layers.Add(name=f"{name}_add")([x, y])
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, layers.Dense(3, name="top")(x), name="resnet")


def expert(width, name="expert"):
    x = inputs = keras.Input((width,), name="features")
    x = layers.Dense(6, activation="relu", name="hidden")(x)
    return keras.Model(inputs, layers.Dense(3, name="kind")(x), name=name)


def two_blocks():
    return kc.build_cascade(encoder(), adapters=None, head=3)


def plain():
    """Returns a cascade of taps, adapters, a side input and a downstream."""
    return kc.build_cascade(
        encoder(),
        expert(9),
        taps={"map": "conv1", "vector": "pool"},
        adapters={"map": kc.adapters.PCAAdapter(3), "vector": 4},
        extra_inputs={"side": (2,)},
        learning_rates={"downstream": 1e-4},
        loss="mse",
    )


def three_blocks():
    return kc.build_cascade(encoder(), expert(5), taps="pool", adapters=5)


def injected():
    """Returns a cascade whose downstream is entered at three layers."""
    return kc.build_cascade(
        encoder(),
        residual(),
        taps={"edges": "conv1", "parts": "conv2"},
        inject={
            "edges": "block1_add",
            "parts": [
                kc.Injection("pool", "multiply"),
                kc.Injection("block2_add", "film"),
            ],
        },
        inputs={"upstream": "image", "downstream": "image"},
        trainable={"downstream/block2_*": kc.LoRA(2)},
    )


def six_blocks():
    """Returns a cascade of all blocks, with names of forty characters."""
    long = "an_encoder_whose_name_has_forty_letters_"
    return kc.build_cascade(
        {long: encoder(), "other": encoder("second", 3, 2)},
        expert(20, "an_expert_whose_name_has_many_letters_in"),
        taps={
            "the_tap_of_a_map_whose_name_is_very_long": f"{long}/conv1",
            "vector": f"{long}/pool",
            "small": "other/pool",
        },
        extra_inputs={"a_side_input_with_a_name_that_is_as_long": (2,)},
        preprocess={"other": layers.Rescaling(0.5, name="halve")},
        trainable={"other/conv2": True},
        learning_rates={"other": kc.LayerwiseDecay(1e-3, 0.5)},
        head={"kind": 3, "vector": 1},
        loss={"kind": "mse", "vector": "mse"},
    )


DRAWN = (two_blocks, three_blocks, plain, injected, six_blocks)
