"""Trains cascades in four ways to read handwriting, with few labels or none.

Rates and epochs were chosen on the labels of the training part that are not
among the few; the test part only gives the figures.

Tested by `tests/cli/demo/test_run.py`.
"""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
from rich.console import Console
from rich.progress import Progress

from keras_cascade import zoo
from keras_cascade.adapters import DenseAdapter, PCAAdapter
from keras_cascade.build import build_cascade
from keras_cascade.cascade.cascade import Cascade

LABELS_PER_DIGIT = 10
BATCH_SIZE = 20

FROZEN = {"upstream": False, "downstream": False}
UNFROZEN = {"upstream": True, "downstream": True}

Inputs = dict[str, np.ndarray]


class Strategy(NamedTuple):
    """A way to read handwriting.

    Attributes:
        learns: The parts that learn from the few labels.
        epochs: The epochs of training on them.
        rate: The optimizer's initial learning rate, which falls to zero.
    """

    learns: str
    epochs: int = 0
    rate: float = 0.0


STRATEGIES = {
    "as they are": Strategy("nothing"),
    "adapted": Strategy("the adapters", 40, 3e-3),
    "jointly fine-tuned": Strategy("everything, from there", 40, 3e-3),
    "from scratch": Strategy("everything, from random weights", 100, 3e-3),
}


class Task(NamedTuple):
    """Images to learn from and to test on.

    Attributes:
        images: The inputs of all training images, without their labels.
        few: The inputs and labels of the labelled images.
        test: The inputs and labels of images that training does not see.
    """

    images: Inputs
    few: tuple[Inputs, np.ndarray]
    test: tuple[Inputs, np.ndarray]


def draw_task(seed: int) -> Task:
    """Draws the few labels from scikit-learn's handwritten digits."""
    train, test = zoo.digits()
    rng = np.random.default_rng(seed)
    places = (np.flatnonzero(train.labels == digit) for digit in range(10))
    chosen = np.concatenate(
        [rng.choice(x, LABELS_PER_DIGIT, replace=False) for x in places]
    )
    images = _inputs(train)
    few = {name: x[chosen] for name, x in images.items()}
    return Task(
        images, (few, train.labels[chosen]), (_inputs(test), test.labels)
    )


def make_cascades(
    task: Task,
    console: Console,
    strategies: Mapping[str, Strategy] = STRATEGIES,
) -> dict[str, Cascade]:
    """Builds and trains a cascade for each strategy."""
    networks = zoo.load("glyph_encoder"), zoo.load("digits_expert")
    with Progress(console=console) as progress:

        def learn(name: str, cascade: Cascade) -> Cascade:
            strategy = strategies[name]
            bar = progress.add_task(name, total=strategy.epochs)
            callback = keras.callbacks.LambdaCallback(
                on_epoch_end=lambda epoch, logs: progress.advance(bar)
            )
            return _train(cascade, task, strategy, callback)

        adapted = learn("adapted", adapt(*networks, task))
        tuned = learn("jointly fine-tuned", unfreeze(adapted))
        scratch = learn("from scratch", reinitialize(*networks, task))
    made = chain(*networks), adapted, tuned, scratch
    return dict(zip(STRATEGIES, made, strict=True))


def chain(upstream: keras.Model, downstream: keras.Model) -> Cascade:
    """Chains the networks: 128 + 2 = 130 features, nothing to train."""
    return build_cascade(
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
) -> Cascade:
    """Adds a second tap, and an adapter for each; by default only they train.

    The PCA is fitted here, on all images: it needs no labels.
    """
    cascade = build_cascade(
        upstream,
        downstream,
        taps={"texture": "stage2_out", "shape": "-1"},
        adapters={
            "texture": PCAAdapter(32),
            "shape": DenseAdapter(96),
        },
        extra_inputs={"metadata": (2,)},  # 32 + 96 + 2 = 130
        trainable=trainable,
    )
    return cascade.adapt(task.images, verbose=False)


def unfreeze(adapted: Cascade) -> Cascade:
    """Returns a copy of an adapted cascade that trains as a whole."""
    return adapted.rebuild(
        trainable=UNFROZEN,
        # Pretrained weights are to move slower than the adapters.
        learning_rates={"upstream": 1e-3, "downstream": 1e-3},
    )


def reinitialize(
    upstream: keras.Model, downstream: keras.Model, task: Task
) -> Cascade:
    """Returns the same architecture, randomly initialised and unfrozen."""
    # clone_model copies layers, not weights.
    fresh_upstream = keras.models.clone_model(upstream)
    fresh_downstream = keras.models.clone_model(downstream)
    return adapt(fresh_upstream, fresh_downstream, task, trainable=UNFROZEN)


def accuracy(cascade: Cascade, task: Task) -> float:
    """Returns the share of the test images that are read right."""
    inputs, labels = task.test
    answers = cascade.predict(inputs, verbose=0)
    return float((answers.argmax(1) == labels).mean())


def _inputs(part: zoo.Digits) -> Inputs:
    return {"inputs": part.images, "metadata": part.side}


def _train(
    cascade: Cascade,
    task: Task,
    strategy: Strategy,
    callback: keras.callbacks.Callback,
) -> Cascade:
    inputs, labels = task.few
    steps = strategy.epochs * math.ceil(len(labels) / BATCH_SIZE)
    rate: Any = keras.optimizers.schedules.CosineDecay(strategy.rate, steps)
    cascade.compile(
        keras.optimizers.AdamW(rate), loss="sparse_categorical_crossentropy"
    )
    cascade.fit(
        inputs,
        labels,
        batch_size=BATCH_SIZE,
        epochs=strategy.epochs,
        verbose=0,
        callbacks=[callback],
    )
    return cascade
