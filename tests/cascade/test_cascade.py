"""A Cascade is a Keras model: all kinds of data, the same numbers."""

import doctest
import importlib.util
import itertools

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_cascade as kc
from keras_cascade.adapters import PCAAdapter
from keras_cascade.cascade.trainer import Trainer

RNG = np.random.default_rng(0)
X = RNG.normal(size=(24, 6)).astype("float32")
SIDE = RNG.normal(size=(24, 2)).astype("float32")
Y = RNG.integers(0, 3, size=24).astype("int32")
BATCH = 8
STEPS = len(X) // BATCH


@pytest.fixture(scope="module")
def networks():
    """Read only: a cascade works on copies."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((6,), name="x")
    x = layers.Dense(8, activation="relu", name="hidden")(x)
    x = layers.Dense(5, name="features")(x)
    upstream = keras.Model(inputs, x, name="encoder")
    downstream = keras.Sequential(
        [keras.Input((9,)), layers.Dense(3, "softmax", name="out")],
        name="expert",
    )
    return upstream, downstream


def build(networks, **arguments):
    arguments = {
        "taps": {"low": "hidden", "high": "features"},
        "adapters": {"low": PCAAdapter(3), "high": 4},
        "extra_inputs": {"side": (2,)},
        "optimizer": keras.optimizers.SGD(0.1),
        "loss": "sparse_categorical_crossentropy",
        "metrics": ["accuracy"],
        **arguments,
    }
    return kc.build_cascade(*networks, **arguments)


class Batches(keras.utils.PyDataset):
    """Batches by index, counting how often each is read."""

    def __init__(self, with_labels=True):
        super().__init__()
        self.with_labels = with_labels
        self.reads = [0] * STEPS

    def __len__(self):
        return STEPS

    def __getitem__(self, index):
        self.reads[index] += 1
        rows = slice(BATCH * index, BATCH * (index + 1))
        x = {"inputs": X[rows], "side": SIDE[rows]}
        return (x, Y[rows]) if self.with_labels else x


def by_name():
    return {"inputs": X, "side": SIDE}


def arrays():
    return {"x": by_name(), "y": Y, "batch_size": BATCH}


def py_dataset():
    return {"x": Batches()}


def generator():
    batches = Batches()

    def endless():
        while True:
            yield from (batches[i] for i in range(STEPS))

    return {"x": endless(), "steps_per_epoch": STEPS}


def tf_dataset():
    tf = pytest.importorskip("tensorflow")
    data = tf.data.Dataset.from_tensor_slices((by_name(), Y))
    return {"x": data.batch(BATCH)}


def torch_loader():
    torch = pytest.importorskip("torch")
    rows = [
        ({"inputs": x, "side": side}, int(y))
        for x, side, y in zip(X, SIDE, Y, strict=True)
    ]
    return {"x": torch.utils.data.DataLoader(rows, batch_size=BATCH)}


def needed(module):
    missing = importlib.util.find_spec(module) is None
    return pytest.mark.skipif(missing, reason=f"{module} is not installed")


KINDS = [
    arrays,
    py_dataset,
    generator,
    pytest.param(tf_dataset, marks=needed("tensorflow")),
    pytest.param(torch_loader, marks=needed("torch")),
]


@pytest.fixture(scope="module")
def reference(networks):
    """Losses of two epochs, and then the results, on arrays."""
    return run(networks, arrays)


def run(networks, kind):
    """Adapts, fits, evaluates and predicts on one kind of data."""
    keras.utils.set_random_seed(1)
    cascade = build(networks)
    adapt_on = kind()
    if "steps_per_epoch" in adapt_on:
        adapt_on["x"] = itertools.islice(adapt_on["x"], STEPS)
    rows = adapt_on.get("batch_size", 32)
    cascade.adapt(adapt_on["x"], batch_size=rows, verbose=False)
    # Streams have an order of their own, about which nobody is warned.
    order = {"shuffle": False} if kind in (arrays, py_dataset) else {}
    history = cascade.fit(**kind(), **order, epochs=2, verbose=0)
    scored = kind()
    steps = scored.pop("steps_per_epoch", None)
    evaluated = cascade.evaluate(**scored, steps=steps, verbose=0)
    asked = kind()
    asked.pop("y", None)
    steps = asked.pop("steps_per_epoch", None)
    predicted = cascade.predict(**asked, steps=steps, verbose=0)
    return history.history, evaluated, predicted


@pytest.mark.parametrize("kind", KINDS)
def test_all_kinds_of_data_give_the_same_numbers(networks, reference, kind):
    history, evaluated, predicted = run(networks, kind)
    np.testing.assert_allclose(history["loss"], reference[0]["loss"], rtol=1e-5)
    assert history["accuracy"] == pytest.approx(reference[0]["accuracy"])
    np.testing.assert_allclose(evaluated, reference[1], rtol=1e-5)
    np.testing.assert_allclose(predicted, reference[2], atol=1e-6)


def test_the_results_are_those_of_the_networks_by_hand(networks, reference):
    """The first loss of one large batch, from the original networks."""
    upstream, downstream = networks
    cascade = build(networks).adapt(by_name(), verbose=False)
    hidden = keras.Model(upstream.inputs, upstream.get_layer("hidden").output)
    low, high = hidden.predict(X, verbose=0), upstream.predict(X, verbose=0)
    centred = low - low.mean(axis=0)
    _, _, rows = np.linalg.svd(centred, full_matrices=False)
    components = ops.convert_to_numpy(cascade.adapters["low"].components)
    np.testing.assert_allclose(np.abs(components), np.abs(rows[:3]), atol=1e-4)
    kernel, bias = map(ops.convert_to_numpy, cascade.adapters["high"].weights)
    joined = np.hstack([centred @ components.T, high @ kernel + bias, SIDE])
    expected = downstream.predict(joined, verbose=0)
    result = cascade.predict(by_name(), verbose=0)
    np.testing.assert_allclose(result, expected, atol=1e-5)
    loss, accuracy = cascade.evaluate(by_name(), Y, verbose=0)
    by_hand = -np.log(expected[np.arange(len(Y)), Y]).mean()
    assert loss == pytest.approx(by_hand, abs=1e-4)
    assert accuracy == pytest.approx((expected.argmax(axis=1) == Y).mean())


def test_the_blocks_have_their_names_in_the_order_of_the_flow(networks):
    cascade = build(networks, head=[layers.Activation("tanh")])
    assert list(cascade.blocks) == [
        "upstream",
        "adapters",
        "fusion",
        "downstream",
        "head",
    ]
    bare = kc.build_cascade(networks[0], taps="hidden", head=2)
    assert list(bare.blocks) == ["upstream", "head"]


def test_taps_and_adapters_are_known_by_name(networks):
    cascade = build(networks)
    assert cascade.taps == {"low": "hidden", "high": "features"}
    assert list(cascade.adapters) == ["low", "high"]
    assert isinstance(cascade.adapters["low"], PCAAdapter)


def test_every_path_begins_with_its_block_and_is_unique(networks):
    cascade = build(networks, head=3)
    paths = [v.path for v in cascade.variables]
    assert len(set(paths)) == len(paths)
    assert {path.split("/")[0] for path in paths} <= set(cascade.blocks)


def test_the_examples_of_the_docstrings_run():
    """On what the examples take for given: networks, data, a cascade."""
    keras.utils.set_random_seed(0)
    encoder = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(4, 3, name="texture"),
            layers.Flatten(),
            layers.Dense(5, name="shape"),
        ]
    )
    cascade = kc.build_cascade(
        encoder,
        taps={"texture": "texture", "shape": "shape"},
        adapters={"texture": PCAAdapter(3)},
        head=2,
        loss="sparse_categorical_crossentropy",
    )
    images = RNG.normal(size=(16, 8, 8, 1)).astype("float32")
    cascade.adapt(images, verbose=False)
    given = {
        "kc": kc,
        "keras_cascade": kc,
        "keras": keras,
        "network": encoder,
        "cascade": cascade,
        "images": images,
        "labels": np.arange(16) % 2,
    }
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    finder = doctest.DocTestFinder()
    for documented in (
        kc.build_cascade,
        kc.split,
        kc.FeatureCache,
        kc.Cascade,
        Trainer,
        kc.export,
    ):
        for example in finder.find(documented, globs=given):
            runner.run(example)
    assert runner.tries > 7
    assert runner.failures == 0
