"""Four ways to read handwriting, with few labels or none.

Rates and epochs were chosen on the labels of the training part that are not
among the few; the test part only gives the figures.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
from rich.console import Console
from rich.progress import Progress

import keras_cascade as kc

LABELS_PER_DIGIT = 10
BATCH_SIZE = 20

FROZEN = {"upstream": False, "downstream": False}
UNFROZEN = {"upstream": True, "downstream": True}

Inputs = dict[str, np.ndarray]


class Way(NamedTuple):
    """A way to read handwriting.

    Attributes:
        learns: what learns from the few labels.
        epochs: how often it sees them.
        rate: the optimizer's learning rate, which falls to zero on the way.
    """

    learns: str
    epochs: int = 0
    rate: float = 0.0


WAYS = {
    "as they are": Way("nothing"),
    "adapted": Way("the adapters", 40, 3e-3),
    "jointly fine-tuned": Way("everything, from there", 40, 3e-3),
    "from scratch": Way("everything, from random weights", 100, 3e-3),
}


class Task(NamedTuple):
    """Images to learn from and to test on.

    Attributes:
        images: inputs of all training images, whose labels are not used.
        few: inputs and labels of the labelled images.
        test: inputs and labels of images that training does not see.
    """

    images: Inputs
    few: tuple[Inputs, np.ndarray]
    test: tuple[Inputs, np.ndarray]


def draw_task(seed: int) -> Task:
    """Draws the few labels from scikit-learn's handwritten digits."""
    train, test = kc.zoo.digits()
    rng = np.random.default_rng(seed)
    chosen = np.concatenate(
        [
            rng.choice(
                np.flatnonzero(train.labels == digit),
                LABELS_PER_DIGIT,
                replace=False,
            )
            for digit in range(10)
        ]
    )
    images = _inputs(train)
    few = {name: x[chosen] for name, x in images.items()}
    return Task(
        images, (few, train.labels[chosen]), (_inputs(test), test.labels)
    )


def make_cascades(
    task: Task, console: Console, ways: Mapping[str, Way] = WAYS
) -> dict[str, kc.Cascade]:
    """Builds a cascade for each way, and trains what there is to train."""
    networks = kc.zoo.load("glyph_encoder"), kc.zoo.load("digits_expert")
    with Progress(console=console) as progress:

        def learn(way: str, cascade: kc.Cascade) -> kc.Cascade:
            bar = _Bar(progress, way, ways[way].epochs)
            return _train(cascade, task, ways[way], bar)

        adapted = learn("adapted", adapt(*networks, task))
        tuned = learn("jointly fine-tuned", unfreeze(adapted))
        scratch = learn("from scratch", start_anew(*networks, task))
    made = chain(*networks), adapted, tuned, scratch
    return dict(zip(WAYS, made, strict=True))


def chain(upstream: keras.Model, downstream: keras.Model) -> kc.Cascade:
    """The networks one behind the other: 128 + 2 = 130, nothing to train."""
    return kc.build_cascade(
        upstream,
        downstream,
        taps={"shape": "-1"},
        adapters=None,
        extra_inputs={"metadata": (2,)},
    )


def adapt(
    upstream: keras.Model,
    downstream: keras.Model,
    task: Task,
    trainable: Mapping[str, bool] = FROZEN,
) -> kc.Cascade:
    """A second tap and an adapter for each; by default, they alone train.

    The PCA is fitted here, on all images: it needs no labels.
    """
    cascade = kc.build_cascade(
        upstream,
        downstream,
        taps={"texture": "stage2_out", "shape": "-1"},
        adapters={
            "texture": kc.adapters.PCAAdapter(32),
            "shape": kc.adapters.DenseAdapter(96),
        },
        extra_inputs={"metadata": (2,)},  # 32 + 96 + 2 = 130
        trainable=trainable,
    )
    return cascade.adapt(task.images, verbose=False)


def unfreeze(adapted: kc.Cascade) -> kc.Cascade:
    """What the adapters have learned, in a cascade that trains as a whole."""
    return adapted.rebuild(
        trainable=UNFROZEN,
        # What was learned before moves slower than the adapters.
        learning_rates={"upstream": 1e-3, "downstream": 1e-3},
    )


def start_anew(
    upstream: keras.Model, downstream: keras.Model, task: Task
) -> kc.Cascade:
    """The same architecture with nothing learned, all of it to train."""
    # clone_model copies layers, not weights.
    fresh_upstream = keras.models.clone_model(upstream)
    fresh_downstream = keras.models.clone_model(downstream)
    return adapt(fresh_upstream, fresh_downstream, task, trainable=UNFROZEN)


def accuracy(cascade: kc.Cascade, task: Task) -> float:
    """The share of the test images that are read right."""
    inputs, labels = task.test
    answers = predictions(cascade, inputs)
    return float((answers.argmax(1) == labels).mean())


def predictions(model: Any, inputs: Inputs) -> np.ndarray:
    """What a Keras model answers, without a progress bar."""
    return model.predict(inputs, verbose=0)


def _inputs(part: kc.zoo.Digits) -> Inputs:
    return {"inputs": part.images, "metadata": part.side}


def _train(
    cascade: kc.Cascade, task: Task, way: Way, bar: keras.callbacks.Callback
) -> kc.Cascade:
    inputs, labels = task.few
    steps = way.epochs * math.ceil(len(labels) / BATCH_SIZE)
    rate: Any = keras.optimizers.schedules.CosineDecay(way.rate, steps)
    cascade.compile(
        keras.optimizers.AdamW(rate), loss="sparse_categorical_crossentropy"
    )
    cascade.fit(
        inputs,
        labels,
        batch_size=BATCH_SIZE,
        epochs=way.epochs,
        verbose=0,
        callbacks=[bar],
    )
    return cascade


class _Bar(keras.callbacks.Callback):
    """Moves a bar on with each epoch."""

    def __init__(self, progress: Progress, title: str, epochs: int):
        super().__init__()
        self._progress = progress
        self._task = progress.add_task(title, total=epochs)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Keras's hook."""
        self._progress.advance(self._task)
