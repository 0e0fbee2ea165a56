"""Tests values that look wrong: said once, early, and without reading twice."""

import importlib.util
import warnings

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc
from keras_cascade.values.first_batch import FirstBatches, find_requirements

RNG = np.random.default_rng(0)
PIXELS = RNG.uniform(0, 255, size=(24, 8, 8, 3)).astype("float32")
Y = (np.arange(24) % 3).astype("int32")
BACKEND = keras.config.backend()


def scaling(scale=1 / 255):
    """Returns a network that scales its pixels itself."""
    images = keras.Input((8, 8, 3), name="image")
    x = layers.Rescaling(scale, name="scale")(images)
    x = layers.Conv2D(4, 3, name="conv")(x)
    return keras.Model(images, layers.GlobalMaxPooling2D()(x), name="eye")


def build(network=None, **arguments):
    return kc.build_cascade(
        scaling() if network is None else network,
        head=3,
        loss="sparse_categorical_crossentropy",
        optimizer=keras.optimizers.SGD(0.01),
        **arguments,
    )


def said(run):
    """Returns the warnings about values, in their order."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run()
    texts = [str(x.message) for x in caught]
    return [x for x in texts if x.startswith(("fit: ", "adapt: ", "valid"))]


class Counting(keras.utils.PyDataset):
    """Batches of 8, which counts how often each is read."""

    def __init__(self, x):
        super().__init__()
        self.x, self.reads = x, []

    def __len__(self):
        return 3

    def __getitem__(self, index):
        self.reads.append(index)
        rows = slice(8 * index, 8 * index + 8)
        return self.x[rows], Y[rows]


def torch_loader(x):
    from torch import from_numpy
    from torch.utils.data import DataLoader, TensorDataset

    return DataLoader(TensorDataset(from_numpy(x), from_numpy(Y)), 8)


def tf_dataset(x):
    import tensorflow as tf

    return tf.data.Dataset.from_tensor_slices((x, Y)).batch(8)


def generator(x):
    for start in range(0, 24, 8):
        yield x[start : start + 8], Y[start : start + 8]


KINDS = {
    "arrays": lambda x: (x, Y),
    "PyDataset": lambda x: (Counting(x),),
    "generator": lambda x: (generator(x),),
}
if importlib.util.find_spec("tensorflow"):
    KINDS["tf.data"] = lambda x: (tf_dataset(x),)
if BACKEND == "torch":
    KINDS["DataLoader"] = lambda x: (torch_loader(x),)


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_scaled_pixels_are_said_once_by_fit(kind, cached):
    if kind == "generator" and cached:
        pytest.skip("a generator cannot be seen to repeat itself")
    cascade = build()

    def train():
        data = KINDS[kind](PIXELS / 255)
        cache = kc.FeatureCache(key=kind) if cached else False
        cascade.fit(*data, epochs=2, cache_features=cache, verbose=0)

    (text,) = said(train)
    assert "The data lie in [" in text
    assert "upstream 'eye' expects values in [0, 255] (pixels, for" in text
    assert "Feed pixels in [0, 255]" in text
    assert said(train) == []


@pytest.mark.parametrize("kind", KINDS)
def test_pixels_as_they_should_be_are_not_spoken_of(kind):
    cascade = build()
    data = KINDS[kind](PIXELS)
    assert said(lambda: cascade.fit(*data, verbose=0)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_the_look_changes_nothing_of_a_training(kind):
    losses = []
    start = build()
    weights = start.get_weights()
    for checks in (True, False):
        start.set_weights(weights)
        start.compile(keras.optimizers.SGD(0.01), start.loss)
        data = KINDS[kind](PIXELS)
        history = start.fit(
            *data,
            check_values=checks,
            shuffle=False,
            steps_per_epoch=3 if kind == "generator" else None,
            verbose=0,
        )
        losses.append(history.history["loss"])
    assert losses[0] == losses[1]


def test_batches_are_read_as_often_as_without_the_look():
    reads = []
    for checks in (True, False):
        data, cascade = Counting(PIXELS), build()
        for epochs in (2, 1):
            cascade.fit(
                data,
                epochs=epochs,
                check_values=checks,
                shuffle=False,
                verbose=0,
            )
        reads.append(sorted(data.reads))
    assert reads[0] == reads[1]


@pytest.mark.skipif(BACKEND == "torch", reason="torch has single steps only")
def test_several_steps_at_once_lose_no_batch():
    losses = []
    cascade = build()
    weights = cascade.get_weights()
    for checks in (True, False):
        cascade.set_weights(weights)
        cascade.compile("sgd", cascade.loss, steps_per_execution=2)
        history = cascade.fit(
            Counting(PIXELS), check_values=checks, shuffle=False, verbose=0
        )
        losses.append(history.history["loss"])
    assert losses[0] == losses[1]


@pytest.mark.skipif(BACKEND != "tensorflow", reason="of TensorFlow's tracing")
def test_the_look_compiles_nothing_a_second_time():
    cascade, traces = build(), []
    call = type(cascade).compute_loss

    class Traced(type(cascade)):
        def compute_loss(self, *args, **kwargs):
            traces.append(1)
            return call(self, *args, **kwargs)

    cascade.__class__ = Traced
    counts = []
    for checks in (False, True):
        traces.clear()
        cascade.compile("sgd", cascade.loss)
        data = tf_dataset(PIXELS)
        cascade.fit(data, check_values=checks, shuffle=False, verbose=0)
        counts.append(len(traces))
    assert counts[0] == counts[1]


def test_adapt_looks_and_fit_does_not_repeat_it():
    cascade = build(adapters=kc.adapters.PCAAdapter(2))
    (text,) = said(lambda: cascade.adapt(PIXELS / 255, verbose=False))
    assert text.startswith("adapt: input 'inputs'")
    assert said(lambda: cascade.fit(PIXELS / 255, Y, verbose=0)) == []


@pytest.mark.parametrize("call", ["adapt", "fit"])
def test_check_values_turns_it_off(call):
    cascade = build(adapters=kc.adapters.PCAAdapter(2))
    scaled = PIXELS / 255

    def run():
        cascade.adapt(scaled, verbose=False, check_values=False)
        if call == "fit":
            cascade.fit(scaled, Y, verbose=0, check_values=False)

    assert said(run) == []


def test_validation_data_are_looked_at_before_training():
    cascade = build()
    (text,) = said(
        lambda: cascade.fit(
            PIXELS, Y, validation_data=(PIXELS / 255, Y), epochs=0, verbose=0
        )
    )
    assert text.startswith("validation_data: ")


def test_values_that_are_not_finite_are_said():
    bad = PIXELS.copy()
    bad[2, 3] = np.nan
    (text,) = said(lambda: build().fit(bad, Y, verbose=0))
    assert "'inputs' has values that are not finite" in text


def application():
    """Returns a network that begins as a MobileNet, by which it is known."""
    x = images = keras.Input((32, 32, 3))
    x = layers.Conv2D(4, 3, strides=2, name="conv1")(x)
    x = layers.BatchNormalization(name="conv1_bn")(x)
    x = layers.ReLU(name="conv1_relu")(x)
    x = layers.DepthwiseConv2D(3, name="conv_dw_1")(x)
    return keras.Model(images, x, name="mobile")


IMAGES = RNG.uniform(0, 255, size=(4, 32, 32, 3)).astype("float32")
PREPARED = keras.applications.mobilenet.preprocess_input(IMAGES.copy())


@pytest.mark.parametrize(
    ("preprocess", "x", "words"),
    [
        ("mobilenet", IMAGES, []),
        ("mobilenet", PREPARED, ["look preprocessed already", "cascade"]),
        ("mobilenet", IMAGES / 255, ["Feed pixels in [0, 255]"]),
        (None, PREPARED, []),
        (None, IMAGES, ["pixels / 127.5 - 1", "'upstream': 'mobilenet'"]),
        ("vgg16", IMAGES, ["preprocesses", "and the network expects"]),
    ],
)
def test_preprocessing_done_twice_or_not_at_all_is_said(preprocess, x, words):
    cascade = kc.build_cascade(
        application(), adapters=None, preprocess=preprocess
    )
    found = look(cascade, x)
    assert len(found) == bool(words)
    for text in words:
        assert text in found[0]


def look(cascade, x):
    looks = FirstBatches()
    return said(lambda: looks.look(cascade, {"inputs": x}, "fit"))


def test_a_network_that_scales_itself_is_not_to_be_preprocessed():
    cascade = build(preprocess="mobilenet")
    (text,) = look(cascade, PIXELS)
    assert "(mobilenet: pixels / 127.5 - 1)" in text
    assert "preprocess={'upstream': None}" in text
    report = kc.check_interface(scaling(), preprocess="mobilenet", head=3)
    (finding,) = report.findings
    assert finding.what in text.replace("upstream/scale", "scale")


def test_a_loaded_cascade_knows_what_its_networks_expect(tmp_path):
    cascade = build()
    cascade.save(tmp_path / "c.keras")
    loaded = keras.models.load_model(tmp_path / "c.keras")
    assert look(loaded, PIXELS / 255) == look(cascade, PIXELS / 255) != []


def test_upstreams_that_share_a_network_are_told_apart():
    net = scaling()
    cascade = kc.build_cascade(
        {"a": net, "b": net}, inputs={"a": "left", "b": "right"}, head=3
    )
    found = find_requirements(cascade)
    titles = {name: one.title for name, (one,) in found.items()}
    assert titles == {"left": "a 'eye'", "right": "b 'eye'"}
