"""Cached training is live training on networks as people use them."""

import keras
import numpy as np
import pytest

from tests.applications import images_for, make, settle, spread

pytestmark = pytest.mark.large

ROWS = 24
LABELS = np.random.default_rng(1).integers(0, 3, ROWS)


@pytest.mark.parametrize(
    ("name", "trains"),
    [
        ("EfficientNetV2B0", {"upstream/block6b_add..": True}),
        ("MobileNetV3Small", {"upstream/-20..": True}),
        ("MobileNetV3Small", None),
        ("ConvNeXtTiny", None),
    ],
)
def test_partly_frozen_applications(compiled, same_training, name, trains):
    images = images_for(name, ROWS)
    keras.utils.set_random_seed(0)
    network = make(name, include_top=False, pooling="avg")
    settle(network, images)
    assert spread(network.predict(images, verbose=0)) > 1e-2

    def build():
        keras.utils.set_random_seed(1)
        return compiled(
            network,
            keras.Sequential(
                [
                    keras.layers.Input((network.output_shape[-1],)),
                    keras.layers.Dense(3, activation="softmax", name="out"),
                ],
                name="head",
            ),
            trainable=trains,
            optimizer=keras.optimizers.SGD(1e-3, momentum=0.9),
            preprocess=None,
        )

    _, _, history = same_training(build, images, LABELS, batch_size=8)
    assert history["loss"][-1] != history["loss"][0]
