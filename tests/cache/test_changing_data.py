"""Data that changes between epochs ends the caching, and trains live.

The cascade answers with the sum of a sample and its rate is 0, so that the
loss of an epoch is the mean of the samples that it trained on.
"""

import keras
import numpy as np
import pytest

import keras_cascade as kc

ROWS, EPOCHS = 24, 4
X = np.random.default_rng(0).uniform(size=(ROWS, 3)).astype("float32")
MEAN = X.sum(axis=1).mean()


@pytest.fixture
def fit():
    """Function: the losses of a training on cached features."""

    def fit(data, cache=True, **arguments):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((3,), name="inputs")
        layer = keras.layers.Dense(1, kernel_initializer="ones", name="sum")
        head = keras.layers.Dense(1, kernel_initializer="ones", name="same")
        cascade = kc.build_cascade(
            keras.Model(inputs, layer(inputs)),
            head=head,
            optimizer=keras.optimizers.SGD(0.0),
            loss="mae",
        )
        arguments = {"epochs": EPOCHS, "verbose": 0, **arguments}
        if isinstance(data, np.ndarray):
            arguments |= {"y": np.zeros((len(data), 1)), "batch_size": 6}
        return cascade.fit(data, cache_features=cache, **arguments).history

    return fit


class ByIndex(keras.utils.PyDataset):
    """Batches of two, of which one may be changed."""

    num_batches = ROWS // 2

    def __init__(self):
        super().__init__()
        self.added, self.draws_at = 0.0, None

    def __getitem__(self, index):
        x = X[2 * index : 2 * index + 2] + self.added
        if index == self.draws_at:
            x += np.random.uniform(1.0, 2.0)
        return x, np.zeros((2, 1))

    def change(self, epoch):
        self.added = float(epoch)


def loader(**arguments):
    """A DataLoader of a torch data set that can be changed."""
    data = pytest.importorskip("torch").utils.data

    class Samples(data.Dataset):
        added = 0.0

        def __len__(self):
            return ROWS

        def __getitem__(self, index):
            return X[index] + np.float32(self.added), np.zeros(1, "float32")

        def change(self, epoch):
            self.added = float(epoch)

    return data.DataLoader(Samples(), batch_size=6, **arguments)


class Changes(keras.callbacks.Callback):
    """Changes the data from an epoch on, in one of the hooks."""

    def __init__(self, data, hook):
        super().__init__()
        self.data, self.begun = data, []
        self.when = {"on_epoch_begin": 0, "on_epoch_end": 1}
        self.hook = hook

    def on_epoch_begin(self, epoch, logs=None):
        self.begun.append(epoch)
        self._change("on_epoch_begin", epoch)

    def on_epoch_end(self, epoch, logs=None):
        self._change("on_epoch_end", epoch)

    def _change(self, hook, epoch):
        epoch += self.when[hook]
        if hook != self.hook or epoch < 2:
            return
        if isinstance(self.data, np.ndarray):
            self.data += 1 if epoch == 2 else 0
        else:
            getattr(self.data, "dataset", self.data).change(1)


@pytest.mark.parametrize("hook", ["on_epoch_begin", "on_epoch_end"])
@pytest.mark.parametrize("make", [ByIndex, loader, X.copy])
def test_what_a_callback_changes_is_trained_on(fit, make, hook):
    data = make()
    changes = Changes(data, hook)
    with pytest.warns(UserWarning, match="other samples than before"):
        losses = fit(data, callbacks=[changes], shuffle=False)["loss"]
    expected = [MEAN] * 2 + [MEAN + 3] * 2
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    # The epoch in which it was noticed began once.
    assert changes.begun == list(range(EPOCHS))


def test_changed_validation_data_is_validated_on(fit):
    data = ByIndex()
    with pytest.warns(UserWarning, match="other samples than before"):
        history = fit(
            X.copy(),
            validation_data=data,
            callbacks=[Changes(data, "on_epoch_end")],
        )
    expected = [MEAN] * 2 + [MEAN + 3] * 2
    np.testing.assert_allclose(history["val_loss"], expected, rtol=1e-5)
    np.testing.assert_allclose(history["loss"], [MEAN] * 4, rtol=1e-5)


def test_one_random_entry_among_many_is_noticed_in_the_first_epoch(fit):
    data = ByIndex()
    data.draws_at = 5  # which is none of those that are read beforehand
    with pytest.warns(UserWarning, match="random numbers were drawn"):
        losses = fit(data)["loss"]
    assert len(set(np.round(losses, 6))) == EPOCHS
    assert all(MEAN + 3 / 12 <= x <= MEAN + 6 / 12 for x in losses)


def test_a_key_is_the_word_that_data_repeats(fit):
    data = ByIndex()
    cache = kc.FeatureCache(key="as it is")
    changes = Changes(data, "on_epoch_end")
    losses = fit(data, cache, callbacks=[changes])["loss"]
    np.testing.assert_allclose(losses, [MEAN] * 4, rtol=1e-5)


def test_samplers_that_draw_other_samples_are_refused(fit):
    data = pytest.importorskip("torch").utils.data
    drawn = data.RandomSampler(range(ROWS), num_samples=12)
    with pytest.raises(ValueError, match=r"draws 12 of 24.*FeatureCache\(key"):
        fit(loader(sampler=drawn))
    with pytest.raises(ValueError, match=r"the evaluation data .* collate_fn"):
        fit(
            X.copy(),
            validation_data=loader(collate_fn=lambda x: x),
        )
    shuffled = fit(loader(shuffle=True), shuffle=False)["loss"]
    np.testing.assert_allclose(shuffled, [MEAN] * 4, rtol=1e-5)


class Sequences(keras.utils.PyDataset):
    """Batches of sequences, of which some are longer."""

    num_batches = 12

    def __init__(self, longer):
        super().__init__()
        self.longer = longer

    def __getitem__(self, index):
        x = np.ones((2, 4 if index in self.longer else 3), "int32")
        return x * (1 + index % 3), np.zeros((2, 1))


ONLY_LATE = pytest.param(
    [5],
    marks=pytest.mark.skipif(
        keras.config.backend() == "tensorflow",
        reason="stock Keras takes the shapes of the first two batches there",
    ),
)


@pytest.mark.parametrize("longer", [range(0, 12, 3), ONLY_LATE])
def test_sequences_of_several_lengths_train_live(longer):
    def fit(**arguments):
        keras.utils.set_random_seed(0)
        x = inputs = keras.Input((None,), dtype="int32")
        x = keras.layers.Embedding(9, 64, name="embedding")(x)
        x = keras.layers.Dense(16, name="dense")(x)
        x = keras.layers.Conv1D(4, 2, name="conv")(x)
        x = keras.layers.GlobalAveragePooling1D()(x)
        cascade = kc.build_cascade(
            keras.Model(inputs, x),
            head=1,
            optimizer=keras.optimizers.SGD(0.1),
            loss="mse",
            trainable={"upstream/conv": True},
        )
        data = Sequences(longer)
        arguments |= {"epochs": 2, "shuffle": False, "verbose": 0}
        return cascade.fit(data, **arguments).history["loss"]

    with pytest.warns(UserWarning, match="several shapes"):
        losses = fit(cache_features=True)
    np.testing.assert_allclose(losses, fit(), rtol=1e-5)
