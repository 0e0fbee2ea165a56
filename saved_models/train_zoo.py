"""Trains and measures the networks of the zoo, from rendered characters only.

python saved_models/train_zoo.py                       # both, 10 minutes
python saved_models/train_zoo.py --only digits_expert
python saved_models/train_zoo.py --evaluate            # only the figures
"""

import argparse
import pathlib

import glyphs
import keras
import numpy as np
from keras import layers
from rich import print
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn

from keras_cascade import zoo

FOLDER = pathlib.Path(__file__).parent
NAMES = ("glyph_encoder", "digits_expert")
FEATURES = 128
BATCH_SIZE = 256
STEPS = 160  # batches of an epoch
EPOCHS = {"glyph_encoder": 12, "digits_expert": 8}
# Streams of random numbers that must not overlap.
TRAINING, READOUT, HELD_OUT = 0, 1, 2


def main() -> None:
    """Trains and evaluates as the command line asks."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--only", choices=NAMES, help="train this one")
    parser.add_argument("--seed", type=int, default=0, help="defaults to 0")
    parser.add_argument("--evaluate", action="store_true", help="train nothing")
    arguments = parser.parse_args()
    for name in NAMES if not arguments.evaluate else ():
        if arguments.only in (None, name):
            TRAIN[name](arguments.seed)
    evaluate(arguments.seed)


class Glyphs(keras.utils.PyDataset):
    """Batches of rendered characters, new ones in every epoch."""

    def __init__(
        self, faces: list[glyphs.Face], seed: tuple[int, ...], classes: list
    ) -> None:
        super().__init__()
        self.source = glyphs.atlas(faces)
        self.seed = seed
        self.classes = np.array(classes)
        self.epoch = 0

    def __len__(self) -> int:
        return STEPS

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng((*self.seed, self.epoch, index))
        labels = rng.integers(len(self.classes), size=BATCH_SIZE)
        return glyphs.render(self.source, self.classes[labels], rng), labels

    def on_epoch_end(self) -> None:
        """Counts epochs, so that the next one has other renderings."""
        self.epoch += 1


def rendered(
    faces: list[glyphs.Face], seed: tuple[int, ...], classes: list, batches: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns batches of `Glyphs` as two arrays: images, labels."""
    source = Glyphs(faces, seed, classes)
    images, labels = zip(*map(source.__getitem__, range(batches)), strict=True)
    return np.concatenate(images), np.concatenate(labels)


def build_encoder() -> keras.Model:
    """Builds four stages of convolutions, the last three with a residual."""
    inputs = keras.Input((zoo.SIDE, zoo.SIDE, 1), name="image")
    x = layers.Rescaling(1 / 255, name="rescaling")(inputs)
    x = _convolution(x, "stage1_conv", "stage1_norm", 16)
    x = layers.ReLU(name="stage1_out")(x)
    for stage, width in ((2, 32), (3, 64), (4, 96)):
        x = _stage(x, f"stage{stage}", width)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dropout(0.1, name="dropout")(x)
    x = layers.Dense(FEATURES, activation="relu", name="features")(x)
    return keras.Model(inputs, x, name="glyph_encoder")


def _stage(x: keras.KerasTensor, name: str, width: int) -> keras.KerasTensor:
    """Halves the sides of a map, then adds a residual to it."""
    x = _convolution(x, f"{name}_conv", f"{name}_norm", width, strides=2)
    x = layers.ReLU(name=f"{name}_relu")(x)
    y = _convolution(x, f"{name}_conv_2", f"{name}_norm_2", width)
    x = layers.Add(name=f"{name}_add")([x, y])
    return layers.ReLU(name=f"{name}_out")(x)


def _convolution(
    x: keras.KerasTensor, name: str, norm: str, width: int, strides: int = 1
) -> keras.KerasTensor:
    x = layers.Conv2D(
        width, 3, strides, padding="same", use_bias=False, name=name
    )(x)
    return layers.BatchNormalization(momentum=0.95, name=norm)(x)


def build_expert() -> keras.Model:
    """Builds a small classifier of 128 features and two side features."""
    return keras.Sequential(
        [
            keras.Input((FEATURES + 2,), name="evidence"),
            layers.BatchNormalization(momentum=0.95, name="norm"),
            layers.Dense(96, activation="relu", name="hidden1"),
            layers.Dropout(0.3, name="dropout1"),
            layers.Dense(48, activation="relu", name="hidden2"),
            layers.Dropout(0.2, name="dropout2"),
            layers.Dense(10, activation="softmax", name="digits"),
        ],
        name="digits_expert",
    )


def train_encoder(seed: int) -> None:
    """Trains the encoder on characters, with a head that is dropped later."""
    keras.utils.set_random_seed(seed)
    encoder = build_encoder()
    head = layers.Dense(len(glyphs.CLASSES), activation="softmax")
    model = keras.Sequential([encoder, layers.Dropout(0.2), head])
    fit(
        model,
        Glyphs(glyphs.TRAIN_FACES, (seed, TRAINING), glyphs.CLASSES),
        rendered(glyphs.TEST_FACES, (seed, HELD_OUT), glyphs.CLASSES, 16),
        encoder.name,
    )
    encoder.save(FOLDER / "glyph_encoder.keras")


def train_expert(seed: int) -> None:
    """Trains the expert on the encoder's features of rendered digits."""
    keras.utils.set_random_seed(seed)
    encoder = zoo.load("glyph_encoder")
    expert = build_expert()
    digits = glyphs.CLASSES[:10]
    images, labels = rendered(
        glyphs.TRAIN_FACES, (seed, TRAINING), digits, STEPS
    )
    held_out, truth = rendered(glyphs.TEST_FACES, (seed, HELD_OUT), digits, 16)
    fit(
        expert,
        (evidence(encoder, images), labels),
        (evidence(encoder, held_out), truth),
        expert.name,
    )
    # A fresh model has no optimizer state, which would double the file.
    clean = build_expert()
    clean.set_weights(expert.get_weights())
    clean.save(FOLDER / "digits_expert.keras")


TRAIN = {"glyph_encoder": train_encoder, "digits_expert": train_expert}


def evidence(encoder: keras.Model, images: np.ndarray) -> np.ndarray:
    """Returns the input of `digits_expert`: all features of images."""
    features = encoder.predict(images, batch_size=BATCH_SIZE, verbose=0)
    return np.concatenate([features, zoo.side_features(images)], axis=1)


def fit(
    model: keras.Model,
    training: Glyphs | tuple[np.ndarray, np.ndarray],
    held_out: tuple[np.ndarray, np.ndarray],
    name: str,
) -> None:
    """Trains with AdamW; its rate follows a warm-up and a cosine."""
    steps = STEPS * EPOCHS[name]
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, steps, warmup_target=3e-3, warmup_steps=steps // 10
    )
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=0.01),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    x, y = training if isinstance(training, tuple) else (training, None)
    with Progress(
        *Progress.get_default_columns(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    ) as progress:
        history = model.fit(
            x,
            y,
            batch_size=BATCH_SIZE if y is not None else None,
            epochs=EPOCHS[name],
            verbose=0,
            callbacks=[ProgressBar(progress, name, steps)],
        )
    _, accuracy = model.evaluate(*held_out, verbose=0)
    print(f"{name} training accuracy: {history.history['accuracy'][-1]:.3f}")
    print(f"{name} accuracy on held-out fonts, own head: {accuracy:.3f}")


class ProgressBar(keras.callbacks.Callback):
    """Advances one of rich's progress bars by a step for each batch."""

    def __init__(self, progress: Progress, name: str, steps: int) -> None:
        super().__init__()
        self.progress = progress
        self.task = progress.add_task(name, total=steps)

    def on_train_batch_end(self, batch: int, logs: dict | None = None) -> None:
        """Advances the bar."""
        self.progress.advance(self.task)


def evaluate(seed: int) -> None:
    """Prints the figures of the cards, measured on the saved files."""
    encoder, expert = map(zoo.load, NAMES)
    for model in (encoder, expert):
        size = (FOLDER / f"{model.name}.keras").stat().st_size
        print(f"{model.name}: {model.count_params():,} parameters, {size:,} B")
    print(f"characters, held-out fonts: {readout(encoder, seed):.3f}")
    images, labels = rendered(
        glyphs.TEST_FACES, (seed, HELD_OUT), glyphs.CLASSES[:10], 16
    )
    chain = accuracy(expert, evidence(encoder, images), labels)
    print(f"digits, held-out fonts: {chain:.3f}")
    _, test = zoo.digits()
    chain = accuracy(expert, evidence(encoder, test.images), test.labels)
    print(f"handwritten digits, test part, chain as it is: {chain:.3f}")


def accuracy(model: keras.Model, x: np.ndarray, labels: np.ndarray) -> float:
    """Returns the share of rows whose most probable class is their label."""
    return float((model.predict(x, verbose=0).argmax(1) == labels).mean())


def readout(encoder: keras.Model, seed: int) -> float:
    """Returns the accuracy of ridge regression on the encoder's features.

    The head that the encoder was trained with is not saved; this readout is
    solved in closed form on the training fonts, and tested on held-out ones.
    """
    parts = []
    for faces, stream, batches in (
        (glyphs.TRAIN_FACES, READOUT, 80),
        (glyphs.TEST_FACES, HELD_OUT, 16),
    ):
        images, labels = rendered(
            faces, (seed, stream), glyphs.CLASSES, batches
        )
        x = encoder.predict(images, batch_size=BATCH_SIZE, verbose=0)
        parts.append((np.pad(x, ((0, 0), (0, 1)), constant_values=1), labels))
    (x, labels), (held_out, truth) = parts
    targets = np.eye(len(glyphs.CLASSES))[labels]
    weights = np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ targets)
    return float(((held_out @ weights).argmax(1) == truth).mean())


if __name__ == "__main__":
    main()
