"""Measures the accuracy that stitched networks keep, without training."""

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import keras

TITLE = "Digits read right, in percent; each block stitched to the same one"
COLUMNS = {
    "R²": "{r2:.3f}",
    "accuracy": "{accuracy:.1f}",
    "kept": "{kept:.1f} %",
    "untrained R²": "{untrained_r2:.3f}",
    "untrained": "{untrained:.1f}",
    "bound": "{bound}",
}
BOUND = "kept >= 95 % at the best"
SEEDS = (0, 1)
BLOCKS = ("block1", "block2", "block3", "block4")
WIDTH = 24
EPOCHS = 25


def run(seeds: tuple[int, int] = SEEDS, epochs: int = EPOCHS) -> list[dict]:
    """Returns a row for each block at which two networks are stitched.

    Both have one architecture and are trained on the 1,000 digits of the
    training part, from different seeds. The map is fitted to these, without
    labels, and nothing is trained after it. Accuracies are of the 797 others.

    Args:
        seeds: The seeds of the upstream and the downstream. Defaults to
            `SEEDS`.
        epochs: The epochs of their training. Defaults to `EPOCHS`.

    Returns:
        Rows with `name`, `r2`, `accuracy` in percent, the part of the
        downstream's accuracy that is `kept`, the same for an untrained
        upstream, `bound` as text, and whether it `holds`: at the best block.
    """
    import keras_cascade as kc

    train, test = digits()
    upstream, downstream = (trained(seed, train, epochs) for seed in seeds)
    found = kc.stitchability(
        upstream,
        downstream,
        (train.images, train.labels),
        list(BLOCKS),
        list(BLOCKS),
        validation_data=(test.images, test.labels),
        best=0,
    )
    alone = accuracy(downstream, test)
    rows = []
    for block in BLOCKS:
        (pair,) = [x for x in found.rows if (x.tap, x.entry) == (block, block)]
        measured = [
            stitched(network, downstream, block, train, test)
            for network in (upstream, untrained(train))
        ]
        rows.append(row(block, pair, measured, alone))
    best = max(x["kept"] for x in rows)
    for x in rows:
        x["holds"] = best >= 95.0
    alone_row = {"r2": 1.0, "accuracy": alone, "kept": 100.0}
    control = {"untrained_r2": 1.0, "untrained": alone, "bound": ""}
    first = {"name": "downstream alone", **alone_row, **control, "holds": True}
    return [first, *rows]


class Part(NamedTuple):
    """Images of digits and their labels."""

    images: np.ndarray
    labels: np.ndarray


def digits() -> tuple[Part, Part]:
    """Returns scikit-learn's digits as they are, for training and test."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = found.images[..., None].astype("float32")
    parts = slice(1000), slice(1000, None)
    train, test = (Part(images[x], found.target[x]) for x in parts)
    return train, test


def network(seed: int) -> "keras.Model":
    """Returns four blocks of a convolution each, and a classifier."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(seed)
    x = inputs = keras.Input((8, 8, 1), name="images")
    x = layers.Rescaling(1 / 16)(x)
    for number, block in enumerate(BLOCKS):
        # 8 x 8, 4 x 4, 4 x 4 and 2 x 2 positions.
        strides = 1 + number % 2
        x = layers.Conv2D(WIDTH, 3, strides, "same", use_bias=False)(x)
        x = layers.BatchNormalization(momentum=0.9)(x)
        x = layers.ReLU(name=block)(x)
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(10, "softmax")(x), name="digits")


def trained(seed: int, train, epochs: int) -> "keras.Model":
    """Returns a network that has learned to read digits."""
    import keras

    model = network(seed)
    model.compile(
        keras.optimizers.Adam(3e-3), "sparse_categorical_crossentropy"
    )
    model.fit(
        train.images, train.labels, batch_size=64, epochs=epochs, verbose=0
    )
    return model


def untrained(train) -> "keras.Model":
    """Returns a network of random weights, with the statistics of the data."""
    from keras import layers

    model = network(2)
    norms = [
        x for x in model.layers if isinstance(x, layers.BatchNormalization)
    ]
    for layer in norms:
        layer.momentum = 0.0
    model(train.images[:256], training=True)
    return model


def stitched(upstream, downstream, block: str, train, test) -> float:
    """Returns the accuracy of a stitched cascade that was not trained."""
    import keras_cascade as kc

    cascade = kc.build_cascade(
        upstream,
        downstream,
        taps={"block": block},
        adapters=kc.adapters.StitchAdapter(),
        inject={"block": kc.Injection(block, merge="replace")},
    )
    return accuracy(cascade.adapt(train.images, verbose=False), test)


def accuracy(model: "keras.Model", test) -> float:
    """Returns the share of digits that are read right, in percent."""
    found = model.predict(test.images, verbose=0).argmax(axis=1)
    return 100.0 * float(np.mean(found == test.labels))


def row(block: str, pair, measured: list[float], alone: float) -> dict:
    """Returns the row of a block."""
    return {
        "name": block,
        "r2": pair.r2,
        "accuracy": measured[0],
        "kept": 100.0 * measured[0] / alone,
        "untrained_r2": pair.control_r2,
        "untrained": measured[1],
        "bound": BOUND,
    }
