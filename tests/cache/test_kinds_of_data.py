"""All kinds of data can be cached; data that may change needs a key."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc

AS_IT_COMES = {"epochs": 3, "shuffle": False, "verbose": 0}


@pytest.fixture
def still(compiled):
    """Function: a cascade in which nothing is random."""
    return lambda: compiled(trainable={"downstream/drop": False})


def agree(found, expected):
    assert found.history.keys() == expected.history.keys()
    for name, values in expected.history.items():
        np.testing.assert_allclose(
            found.history[name], values, rtol=1e-5, atol=1e-5, err_msg=name
        )


class ByIndex(keras.utils.PyDataset):
    """Batches by index, which counts how often it is read."""

    def __init__(self, x, y, size=8):
        super().__init__()
        self.x, self.y, self.size, self.reads = x, y, size, 0

    @property
    def num_batches(self):
        return -(-len(self.x) // self.size)

    def __getitem__(self, index):
        self.reads += 1
        rows = slice(self.size * index, self.size * (index + 1))
        return self.x[rows], self.y[rows]


class Random(ByIndex):
    """Gives something else each time."""

    def __getitem__(self, index):
        x, y = super().__getitem__(index)
        return x + np.random.normal(size=x.shape).astype("float32"), y


class Reordered(ByIndex):
    """May change between epochs."""

    def on_epoch_end(self):
        self.x = self.x[::-1]


def tf_dataset(x, y):
    tf = pytest.importorskip("tensorflow")
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(8)


def torch_loader(x, y):
    torch = pytest.importorskip("torch")
    data = torch.utils.data.TensorDataset(
        torch.from_numpy(x.copy()), torch.from_numpy(y.copy())
    )
    return torch.utils.data.DataLoader(data, batch_size=8)


def grain_dataset(x, y):
    grain = pytest.importorskip("grain")
    pairs = list(zip(x, y, strict=True))
    return grain.MapDataset.source(pairs).batch(8)


@pytest.mark.parametrize(
    "kind", [tf_dataset, torch_loader, grain_dataset, ByIndex]
)
def test_it_trains_as_live(still, images, labels, computed, kind):
    cache = kc.FeatureCache(key="pictures")
    found = still().fit(
        kind(images, labels),
        validation_data=kind(images[:20], labels[:20]),
        cache_features=cache,
        **AS_IT_COMES,
    )
    expected = still().fit(
        images,
        labels,
        batch_size=8,
        validation_data=(images[:20], labels[:20]),
        **AS_IT_COMES,
    )
    agree(found, expected)
    # The validation's samples are among those of the training.
    assert sum(computed) == len(images)


def test_a_generator_is_read_once(still, images, labels, computed):
    def batches():
        for start in range(0, len(images), 8):
            rows = slice(start, start + 8)
            yield images[rows], labels[rows]

    cache = kc.FeatureCache(key="generator")
    # As Keras says of every generator.
    with pytest.warns(UserWarning, match="ran out of data"):
        found = still().fit(batches(), cache_features=cache, **AS_IT_COMES)
    agree(found, still().fit(images, labels, batch_size=8, **AS_IT_COMES))
    assert sum(computed) == len(images)


def test_data_by_index_is_read_in_the_first_epoch_only(
    compiled, images, labels
):
    data = ByIndex(images, labels, size=1)
    compiled().fit(data, epochs=5, verbose=0, cache_features=True)
    # Twice eight batches, to see that they repeat, two of them again before
    # each epoch, and the first to look at it. Keras itself reads two on
    # TensorFlow, for their shapes.
    keras_reads = 2 if keras.config.backend() == "tensorflow" else 0
    assert data.reads <= data.num_batches + 16 + 5 * 2 + 1 + keras_reads


def test_a_stream_is_shuffled_by_samples(compiled, images, labels):
    tf = pytest.importorskip("tensorflow")
    data = tf.data.Dataset.from_tensor_slices((images, labels)).batch(8)
    losses = losses_of(compiled, data, kc.FeatureCache(key="stream"))
    assert not np.allclose(losses[1], losses[2])
    assert not np.allclose(np.sort(losses[0]), np.sort(losses[1]))


def test_data_by_index_is_shuffled_by_batches(compiled, images, labels):
    losses = losses_of(compiled, ByIndex(images, labels), True)
    assert not np.allclose(losses[1], losses[2])
    np.testing.assert_allclose(
        np.sort(losses[1]), np.sort(losses[2]), rtol=1e-5
    )


def losses_of(compiled, data, cache):
    """The loss of each batch in three epochs in which nothing moves."""
    seen = []

    class Spy(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            self.model.reset_metrics()

        def on_train_batch_end(self, batch, logs=None):
            seen.append(float(logs["loss"]))

    cascade = compiled(
        trainable={"downstream/drop": False},
        optimizer=keras.optimizers.SGD(0.0),
    )
    cascade.fit(
        data, epochs=3, verbose=0, cache_features=cache, callbacks=[Spy()]
    )
    return np.split(np.array(seen), 3)


@pytest.mark.parametrize("kind", [tf_dataset, Random, Reordered])
def test_data_that_may_change_needs_a_key(compiled, images, labels, kind):
    with pytest.raises(ValueError, match="FeatureCache\\(key="):
        compiled().fit(kind(images, labels), verbose=0, cache_features=True)


def test_dicts_of_inputs_and_labels(compiled, network, same_training):
    draw = np.random.default_rng(5)
    x = {
        "inputs": draw.normal(size=(20, 8, 8, 1)).astype("float32"),
        "side": draw.normal(size=(20, 2)).astype("float32"),
    }
    y = {
        "kind": draw.integers(0, 3, 20),
        "age": draw.normal(size=(20, 1)).astype("float32"),
    }

    def build():
        built = kc.build_cascade(
            network(),
            extra_inputs={"side": (2,)},
            head={"kind": 3, "age": 1},
            optimizer=keras.optimizers.SGD(0.05),
            loss={"kind": "sparse_categorical_crossentropy", "age": "mse"},
        )
        keras.utils.set_random_seed(2)
        return built

    same_training(build, x, y, batch_size=8)
    weights = {"kind": np.ones(20), "age": np.linspace(0, 1, 20)}
    same_training(build, x, y, batch_size=8, sample_weight=weights)


def test_whole_passes_only(compiled, images, labels):
    with pytest.raises(ValueError, match="steps_per_epoch=2 with cache"):
        compiled().fit(images, labels, steps_per_epoch=2, cache_features=True)


def test_bytes_are_inputs_too(compiled, network, same_training, labels):
    draw = np.random.default_rng(6)
    images = draw.integers(0, 255, (44, 8, 8, 1), "uint8")
    same_training(compiled, images, labels, batch_size=8)


def test_under_a_key_data_is_not_read_again(
    still, images, labels, computed, tmp_path
):
    def train(data):
        cache = kc.FeatureCache(tmp_path / "features", key="pictures")
        return still().fit(data, cache_features=cache, **AS_IT_COMES)

    found = train(ByIndex(images, labels))
    again = ByIndex(images, labels)
    agree(train(again), found)
    # The first batch alone, to see that it is the same data.
    assert again.reads == 1
    assert sum(computed) == len(images)


def test_a_key_that_was_used_for_other_data_is_not_read(
    still, images, labels, computed, tmp_path
):
    for x in (images, images + 1):
        cache = kc.FeatureCache(tmp_path / "features", key="pictures")
        found = still().fit(
            ByIndex(x, labels), cache_features=cache, **AS_IT_COMES
        )
        agree(found, still().fit(ByIndex(x, labels), **AS_IT_COMES))
    assert sum(computed) == 2 * len(images)


def test_live_training_keeps_the_order_of_the_data(compiled, images, labels):
    seen = []

    class InOrder(ByIndex):
        def __getitem__(self, index):
            seen.append(index)
            return super().__getitem__(index)

    with pytest.warns(UserWarning, match="all of it trains"):
        compiled(trainable=True).fit(
            InOrder(images, labels),
            shuffle=False,
            verbose=0,
            cache_features=True,
        )
    assert seen[-6:] == [0, 1, 2, 3, 4, 5]


@keras.saving.register_keras_serializable(package="tests")
class AddIfThere(keras.layers.Layer):
    """Adds an input that may be None."""

    def call(self, x, other=None):
        return x if other is None else x + other

    def compute_output_shape(self, x_shape=None, *others, **more):
        return x_shape


@pytest.mark.parametrize(
    "kind",
    [
        "arrays",
        pytest.param(
            "by index",
            marks=pytest.mark.skipif(
                keras.config.backend() == "tensorflow",
                reason="stock Keras fails on TensorFlow",
            ),
        ),
    ],
)
@pytest.mark.parametrize("frozen", [True, False])
def test_optional_inputs_may_be_none(same_training, computed, kind, frozen):
    draw = np.random.default_rng(0)
    x, side = draw.normal(size=(2, 24, 8)).astype("float32")
    y = draw.integers(0, 3, 24)

    def build():
        keras.utils.set_random_seed(0)
        image = keras.Input((8,), name="image")
        other = keras.Input((8,), name="other", optional=True)
        found = keras.layers.Dense(64, name="wide")(image)
        found = keras.layers.Dense(8, name="wider")(found)
        found = AddIfThere(name="add")(found, other)
        found = keras.layers.Dense(16, name="last")(found)
        return kc.build_cascade(
            keras.Model({"image": image, "other": other}, found),
            head=3,
            # Then the optional input is passed on to what trains.
            trainable=None if frozen else {"upstream/wider": True},
            optimizer=keras.optimizers.SGD(0.05),
            loss="sparse_categorical_crossentropy",
        )

    losses = []
    for given in (None, side):
        data = {"image": x, "other": given}, y
        if kind == "by index":
            data = (OfDicts(*data),)
        _, _, history = same_training(build, *data, epochs=2)
        losses.append(history["loss"])
    assert not np.allclose(*losses)
    assert sum(computed) == 2 * len(x)


class OfDicts(ByIndex):
    """Batches of dicts, in which some inputs are None."""

    @property
    def num_batches(self):
        return 3

    def __getitem__(self, index):
        rows = slice(8 * index, 8 * index + 8)
        x = {k: v if v is None else v[rows] for k, v in self.x.items()}
        return x, self.y[rows]


TEXTS = [["a b"], ["b"], ["ü c a"], [""], ["a a"], ["c b"]] * 4
FORMS = {
    "objects": lambda tf: np.array(TEXTS, object),
    "text": lambda tf: np.array(TEXTS, str),
    "bytes": lambda tf: np.char.encode(np.array(TEXTS, str), "utf-8"),
    "tensor": lambda tf: tf.constant(TEXTS),
}


@pytest.mark.skipif(
    keras.config.backend() != "tensorflow", reason="strings are TensorFlow's"
)
@pytest.mark.parametrize("side", [False, True])
@pytest.mark.parametrize("form", [*FORMS, "tf.data"])
def test_strings(computed, form, side):
    import tensorflow as tf

    def build():
        keras.utils.set_random_seed(0)
        x = inputs = keras.Input((1,), dtype="string", name="words")
        x = layers.StringLookup(vocabulary=["a b", "b", "c b"])(x)
        x = layers.Flatten()(layers.Embedding(5, 4)(x))
        extra = {"side": (2,)} if side else None
        network = keras.Model(inputs, x, name="network")
        return kc.build_cascade(
            network,
            head=3,
            extra_inputs=extra,
            loss="sparse_categorical_crossentropy",
            optimizer=keras.optimizers.SGD(0.1),
        )

    def data(form):
        x = {"inputs": FORMS.get(form, FORMS["tensor"])(tf)}
        if side:
            x["side"] = tf.ones((24, 2))
        else:
            x = x["inputs"]
        y = tf.range(24) % 3
        if form != "tf.data":
            return x, y
        return (tf.data.Dataset.from_tensor_slices((x, y)).batch(4),)

    still = {"epochs": 3, "verbose": 0, "shuffle": False}
    sizes = {} if form == "tf.data" else {"batch_size": 4}
    live = build().fit(*data("tf.data"), **still).history["loss"]
    cache = kc.FeatureCache(key="texts")
    for _ in range(2):
        found = build().fit(*data(form), cache_features=cache, **still, **sizes)
        np.testing.assert_allclose(found.history["loss"], live, rtol=1e-5)
    # Equal texts are one sample.
    assert sum(computed) == 6
