"""Shuffled data comes in the order of live training with the same seed."""

import keras
import numpy as np
import pytest

import keras_cascade as kc


class ByIndex(keras.utils.PyDataset):
    """Batches by index."""

    def __init__(self, x, y, size=11):
        super().__init__()
        self.x, self.y, self.size = x, y, size

    @property
    def num_batches(self):
        return -(-len(self.x) // self.size)

    def __getitem__(self, index):
        rows = slice(self.size * index, self.size * (index + 1))
        return self.x[rows], self.y[rows]


@pytest.mark.parametrize("shuffle", [True, "batch"])
def test_arrays_in_memory(compiled, same_training, images, labels, shuffle):
    # Live, torch draws `"batch"` orders and dropout in turns.
    drops = {"downstream/drop": shuffle is True}
    same_training(
        lambda: compiled(trainable=drops),
        images,
        labels,
        batch_size=11,
        shuffle=shuffle,
        validation_split=0.25,
    )


@pytest.mark.large
def test_arrays_in_a_folder_where_some_features_are_known(
    compiled, same_training, images, labels, tmp_path
):
    compiled().fit(
        images[:30], labels[:30], verbose=0, cache_features=str(tmp_path)
    )
    same_training(
        compiled,
        images,
        labels,
        batch_size=11,
        shuffle=True,
        cache=str(tmp_path),
    )


@pytest.mark.large
def test_stages(compiled, same_training, images, labels):
    same_training(
        compiled,
        images,
        labels,
        epochs=4,
        batch_size=11,
        shuffle=True,
        unfreeze={1: "upstream/conv2..", 3: "upstream"},
    )


def test_batches_by_index(compiled, same_training, images, labels):
    same_training(
        compiled,
        ByIndex(images, labels),
        shuffle=True,
        validation_data=ByIndex(images[:11], labels[:11]),
    )


def test_a_record_of_shuffled_batches_has_their_numbers(
    compiled, images, labels, tmp_path
):
    """Read by another process it gives the batches in their own order."""

    def fit(**arguments):
        cache = kc.FeatureCache(tmp_path, key="by index")
        cascade = compiled(trainable={"downstream/drop": False})
        return cascade.fit(
            ByIndex(images, labels),
            verbose=0,
            cache_features=cache,
            **arguments,
        ).history["loss"]

    fit(epochs=1)
    found = fit(epochs=2, shuffle=False)
    expected = compiled(trainable={"downstream/drop": False}).fit(
        images, labels, batch_size=11, epochs=2, shuffle=False, verbose=0
    )
    np.testing.assert_allclose(found, expected.history["loss"], rtol=1e-5)
