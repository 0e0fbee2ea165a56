"""Frozen layers inside composite layers run in inference mode."""

import keras
import numpy as np
import pytest

import keras_cascade as kc

layers = keras.layers


class Encoder(layers.Layer):
    """An encoder layer; its feed-forward part never mentions `training`."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = layers.MultiHeadAttention(1, 4, dropout=0.5, name="a")
        self.forward_part = Forward(name="f")
        self.out = layers.Dense(4, name="out")

    def build(self, shape):
        self.attention.build(shape, shape)
        self.forward_part.build(shape)
        self.out.build(shape)

    def call(self, x, training=None):
        x = x + self.attention(x, x, training=training)
        return self.out(self.forward_part(x))


class Forward(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.dense = layers.Dense(4, name="dense")
        self.norm = layers.BatchNormalization(name="norm")
        self.noise = layers.GaussianNoise(1.0, name="noise")

    def build(self, shape):
        self.dense.build(shape)
        self.norm.build(shape)

    def call(self, x):
        return self.noise(self.norm(self.dense(x)))

    def compute_output_shape(self, shape):
        return shape


class Positional(layers.Layer):
    """A layer that passes `training` on by position."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = Noisy(name="inner")
        self.out = layers.Dense(4, name="out")

    def build(self, shape):
        self.out.build(shape)

    def call(self, x, training=None):
        return self.out(self.inner.call(x, training))


class Noisy(layers.Layer):
    def call(self, x, training=None):
        return x + 1 if training else x


def steps_of(layer):
    return layers.TimeDistributed(layer, name="it")


def convolutional():
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dropout(0.5, name="drop"),
            layers.Dense(4, name="first"),
            layers.BatchNormalization(name="norm"),
            layers.Dense(4, name="last"),
        ],
        name="net",
    )


def both_ways():
    cell = layers.LSTM(4, dropout=0.5, recurrent_dropout=0.5, name="lstm")
    return layers.Bidirectional(
        cell,
        # What trains drops nothing.
        backward_layer=layers.LSTM(4, go_backwards=True, name="back"),
        merge_mode="sum",
        name="it",
    )


def attention():
    return layers.MultiHeadAttention(1, 4, dropout=0.5, name="it")


CASES = {
    "steps": (lambda: steps_of(convolutional()), "it/net/last"),
    "both ways": (both_ways, "it/back"),
    "attention": (attention, "it/query"),
    "own": (lambda: Encoder(name="it"), "it/out"),
    "own in steps": (lambda: steps_of(Forward(name="f")), "it/f/dense"),
    "by position": (lambda: Positional(name="it"), "it/out"),
}


def network_of(layer):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((3, 4))
    x = layers.Dense(4, name="first")(inputs)
    several = isinstance(layer, layers.MultiHeadAttention)
    arguments = (x, x) if several else (x,)
    return keras.Model(inputs, layer(*arguments))


@pytest.fixture
def x():
    return np.random.default_rng(0).normal(size=(8, 3, 4)).astype("float32")


def to_numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def both_modes(cascade, x):
    block = cascade.blocks["upstream"]
    (inference,) = block(x, training=False).values()
    (training,) = block(x, training=True).values()
    return to_numpy(inference), to_numpy(training)


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_a_layer_that_trains_in_part_drops_nothing_that_is_frozen(
    case, share, x
):
    make, pattern = CASES[case]
    network = network_of(make())
    expected = network.predict(x, verbose=0)
    cascade = kc.build_cascade(
        network, trainable={f"upstream/{pattern}": True}, copy=not share
    )
    assert cascade.trainable_variables
    for found in both_modes(cascade, x):
        np.testing.assert_allclose(found, expected, atol=1e-5)
    cascade.unfreeze("upstream")
    inference, training = both_modes(cascade, x)
    assert np.abs(inference - training).max() > 1e-2
    # Nothing of it stays on the layers.
    assert all("call" not in vars(x) for x in network._flatten_layers())


@pytest.mark.parametrize("case", ["attention", "own"])
def test_low_rank_updates_train_without_dropout(case, x):
    network = network_of(CASES[case][0]())
    cascade = kc.build_cascade(network, trainable={"upstream/it": kc.LoRA(2)})
    assert cascade.trainable_variables
    inference, training = both_modes(cascade, x)
    np.testing.assert_allclose(training, inference, atol=1e-5)


@pytest.mark.parametrize("cached", [False, True])
def test_a_fit_computes_the_loss_of_inference(cached, x, tmp_path):
    network = network_of(CASES["steps"][0]())
    y = np.zeros((8, 3, 4), "float32")
    expected = np.square(network.predict(x, verbose=0)).mean()
    cascade = kc.build_cascade(
        network,
        adapters=None,
        fusion=None,
        trainable={"upstream/it/net/last": True},
        optimizer=keras.optimizers.SGD(0.0),
        loss="mse",
    )
    cascade.save(tmp_path / "cascade.keras")
    loaded = keras.saving.load_model(tmp_path / "cascade.keras")
    before = [to_numpy(v) for v in loaded.variables]
    history = loaded.fit(x, y, 8, 2, 0, cache_features=cached).history
    np.testing.assert_allclose(history["loss"], [expected] * 2, rtol=1e-5)
    for variable, value in zip(loaded.variables, before, strict=True):
        if "norm" in variable.path:
            np.testing.assert_array_equal(to_numpy(variable), value)


class Augmenting(layers.Layer):
    """A user's layer with augmentation, dropout and moments inside."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.move = layers.RandomFlip(seed=0, name="move")
        self.rest = beside_augmentation()

    def call(self, x, training=None):
        return self.rest(self.move(x, training=training), training=training)

    def compute_output_shape(self, shape):
        return self.rest.compute_output_shape(shape)


def beside_augmentation(*before):
    return keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            *before,
            layers.Dropout(0.5, name="drop"),
            layers.BatchNormalization(momentum=0.5, name="norm"),
            layers.Conv2D(2, 3, name="conv"),
        ],
        name="net",
    )


def flipped():
    return beside_augmentation(layers.RandomFlip(seed=0, name="move"))


def flipped_deeper():
    inner = keras.Sequential([layers.RandomFlip(seed=0, name="move")])
    return beside_augmentation(inner)


AUGMENTING = {
    "steps": lambda: steps_of(flipped()),
    "steps of a network in a network": lambda: steps_of(flipped_deeper()),
    "steps of steps": lambda: steps_of(steps_of(flipped())),
    "own": lambda: Augmenting(name="it"),
}


@pytest.mark.parametrize("pattern", [None, "upstream/**/conv"])
@pytest.mark.parametrize("case", AUGMENTING)
def test_augmentation_inside_stays_active_and_is_never_cached(case, pattern):
    layer = AUGMENTING[case]()
    steps = (2,) * (case.count("steps"))
    images = keras.Input((*steps, 6, 6, 1))
    network = keras.Model(images, layers.Flatten()(layer(images)))
    cascade = kc.build_cascade(
        network,
        trainable=pattern and {pattern: True},
        head=2,
        loss="mse",
    )
    x = np.random.default_rng(0).normal(size=(4, *steps, 6, 6, 1))
    inference, training = both_modes(cascade, x.astype("float32"))
    assert np.abs(inference - training).max() > 1e-2
    # Flipped or not, these are the same: nothing else is active.
    inference, training = both_modes(cascade, np.ones(x.shape, "float32"))
    np.testing.assert_allclose(training, inference, atol=1e-5)
    if pattern is None:
        with pytest.warns(UserWarning, match="augmentation inside, active"):
            cascade.fit(x, np.ones((4, 2)), verbose=0, cache_features=True)
    before = {v.path: to_numpy(v) for v in cascade.variables}
    cascade.fit(x, np.ones((4, 2)), verbose=0)
    for variable in cascade.variables:
        if "norm" in variable.path:
            np.testing.assert_array_equal(
                to_numpy(variable), before[variable.path]
            )


def test_augmentation_inside_is_active_in_a_network_that_is_tapped_inside():
    images = keras.Input((2, 6, 6, 1))
    network = keras.Model(images, steps_of(flipped())(images))
    cascade = kc.build_cascade(network, taps=["it/net/move"], head=2)
    x = np.random.default_rng(0).normal(size=(4, 2, 6, 6, 1))
    inference, training = both_modes(cascade, x.astype("float32"))
    np.testing.assert_allclose(inference, x, atol=1e-6)
    assert np.abs(inference - training).max() > 1e-2
