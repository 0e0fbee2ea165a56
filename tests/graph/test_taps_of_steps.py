"""Taps inside a network that a wrapper calls once per step."""

import keras
import numpy as np
import pytest

import keras_cascade as kc

layers = keras.layers
RNG = np.random.default_rng(0)
VIDEO = RNG.normal(size=(2, 3, 6, 6, 3)).astype("float32")


def to_numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def encoder():
    inputs = keras.Input((4, 4, 2), name="map")
    x = layers.Activation("relu", name="relu")(inputs)
    x = layers.Conv2D(2, 3, name="c2")(x)
    return keras.Model(inputs, x, name="enc")


def image_network():
    """A network with another one inside, and layers that Keras numbers."""
    image = keras.Input((6, 6, 3), name="image")
    x = encoder()(layers.Conv2D(2, 3, name="c1")(image))
    x = layers.Dropout(0.5, name="drop")(x)
    x = layers.Dense(5)(layers.Flatten()(x))
    x = layers.BatchNormalization(name="norm")(x)
    return keras.Model(image, layers.Dense(4, name="out")(x), name="cnn")


def video_network(steps=3):
    keras.utils.set_random_seed(0)
    video = keras.Input((steps, 6, 6, 3), name="video")
    x = layers.TimeDistributed(image_network(), name="td")(video)
    return keras.Model(video, layers.LSTM(4, name="lstm")(x), name="films")


def sequential_in_two():
    keras.utils.set_random_seed(0)
    inner = keras.Sequential(
        [keras.Input((3,)), layers.Dense(4, name="a"), layers.Dense(2)],
        name="net",
    )
    inputs = keras.Input((2, 6, 6, 3))
    one = layers.TimeDistributed(inner, name="one")
    two = layers.TimeDistributed(one, name="two")
    x = layers.TimeDistributed(two, name="three")(inputs)
    return keras.Model(inputs, x)


def of_each_step(network, tensor, x):
    """What the network computes for each step, by stock Keras."""
    model = keras.Model(network.input, tensor)
    return np.stack([to_numpy(model(step)) for step in x.swapaxes(0, 1)], 1)


def expected_taps(network, x):
    cnn = network.get_layer("td").layer
    enc = cnn.get_layer("enc")
    c1 = of_each_step(cnn, cnn.get_layer("c1").output, x)
    c2 = keras.Model(enc.input, enc.get_layer("c2").output)
    return {
        "c1": c1,
        "c2": np.stack([to_numpy(c2(step)) for step in c1.swapaxes(0, 1)], 1),
        "drop": of_each_step(cnn, cnn.get_layer("drop").output, x),
        "td": of_each_step(cnn, cnn.output, x),
        "lstm": to_numpy(network(x)),
    }


TAPS = {
    "c1": "td/cnn/c1",
    "c2": "td/cnn/enc/c2",
    "drop": "td/**/drop",
    "td": "td",
    "lstm": "lstm",
}


def tapped(network, taps=TAPS, **options):
    return kc.build_cascade(
        network, taps=taps, adapters=None, fusion=None, **options
    )


@pytest.mark.parametrize("share", [False, True])
@pytest.mark.parametrize("steps", [3, None])
def test_a_tap_stacks_what_the_network_computes_for_each_step(steps, share):
    network = video_network(steps)
    outputs = tapped(network, copy=not share)(VIDEO)
    for name, expected in expected_taps(network, VIDEO).items():
        np.testing.assert_allclose(
            to_numpy(outputs[name]), expected, atol=1e-5, err_msg=name
        )


def test_wrappers_in_wrappers_are_tapped_too():
    network = sequential_in_two()
    path = "three/two/one/net/a"
    cascade = tapped(network, {"a": path, "out": "three"})
    x = RNG.normal(size=(2, 2, 6, 6, 3)).astype("float32")
    net = network.get_layer("three").layer.layer.layer
    found = cascade(x)
    kernel, bias = map(to_numpy, net.get_layer("a").weights)
    np.testing.assert_allclose(
        to_numpy(found["a"]), x @ kernel + bias, atol=1e-5
    )
    np.testing.assert_allclose(
        to_numpy(found["out"]), to_numpy(network(x)), atol=1e-5
    )
    for taps in ([path], [path, "three"]):
        cascade = tapped(network, taps)
        for name, value in cascade.to_plain()(x).items():
            np.testing.assert_allclose(
                to_numpy(value), to_numpy(cascade(x)[name]), atol=1e-6
            )
    (tap,) = kc.list_taps(network, path)
    assert tap.shape == (None, 2, 6, 6, 4)


def test_they_are_listed_with_their_cost():
    taps = {tap.path: tap for tap in kc.list_taps(video_network())}
    c1, c2 = taps["td/cnn/c1"], taps["td/cnn/enc/c2"]
    assert c1.shape == (None, 3, 4, 4, 2)
    assert (c1.parameters, c2.parameters) == (56, 56 + 38)
    # Of three steps each 4 x 4 places, 27 products for each of 2 channels.
    assert c1.flops == 3 * 2 * 16 * 27 * 2
    assert c2.flops == c1.flops + 3 * 32 + 3 * 2 * 4 * 18 * 2
    assert {"td/cnn", "td/cnn/dense", "td/cnn/norm"} <= taps.keys()
    assert taps["td/cnn"].shape == taps["td"].shape == (None, 3, 4)


def test_what_lies_after_the_last_tap_is_left_out_and_paths_stay():
    network = video_network()
    whole = {w.path for w in tapped(network, "td").weights}
    part = tapped(network, "td/cnn/enc/c2")
    kept = {w.path for w in part.weights}
    assert kept == {
        f"upstream/td/{layer}/{name}"
        for layer in ("c1", "c2")
        for name in ("kernel", "bias")
    }
    assert kept < whole
    assert {w.path for w in tapped(network).weights} >= whole


@pytest.fixture
def trained():
    """A cascade that trains one layer inside, and its data."""
    cascade = tapped(
        video_network(),
        {"c1": "td/cnn/c1", "td": "td"},
        trainable={"upstream/td/cnn/enc/c2": True},
        learning_rates={"upstream/td/cnn/enc/c2": 1e-2},
        loss="mse",
    )
    y = {"c1": np.zeros((2, 3, 4, 4, 2)), "td": np.zeros((2, 3, 4))}
    return cascade, y


def test_layers_inside_train_alone_and_files_bring_all_back(trained, tmp_path):
    cascade, y = trained
    assert {w.path for w in cascade.trainable_weights} == {
        "upstream/td/c2/kernel",
        "upstream/td/c2/bias",
    }
    cascade.save(tmp_path / "cascade.keras")
    again = keras.saving.load_model(tmp_path / "cascade.keras")
    for model in (cascade, again, again.rebuild()):
        before = {v.path: to_numpy(v).copy() for v in model.variables}
        # A frozen Dropout and BatchNormalization are in inference mode.
        loss = model.evaluate(VIDEO, y, verbose=0)
        loss = loss[0] if isinstance(loss, list) else loss
        history = model.fit(VIDEO, y, verbose=0).history
        np.testing.assert_allclose(history["loss"], [loss], rtol=1e-5)
        moved = {
            v.path
            for v in model.variables
            if not np.array_equal(to_numpy(v), before[v.path])
        }
        assert moved == {"upstream/td/c2/kernel", "upstream/td/c2/bias"}
    paths = [v.path for v in again.variables]
    assert paths == [v.path for v in cascade.variables]
    np.testing.assert_array_equal(
        *(to_numpy(x(VIDEO)["td"]) for x in (cascade, again))
    )


def test_it_is_frozen_and_thawed_by_path(trained):
    cascade, _ = trained
    cascade.freeze("upstream/td")
    assert not cascade.trainable_weights
    cascade.unfreeze("upstream/td/cnn/c1")
    assert {w.path for w in cascade.trainable_weights} == {
        "upstream/td/c1/kernel",
        "upstream/td/c1/bias",
    }


def test_files_of_weights_fit_the_network_and_its_block(tmp_path):
    network = video_network()
    block = tapped(network).blocks["upstream"]
    values = [RNG.normal(size=w.shape) for w in network.weights]
    network.set_weights(values)
    network.save_weights(tmp_path / "network.weights.h5")
    block.load_weights(tmp_path / "network.weights.h5")
    expected = expected_taps(network, VIDEO)
    for name, value in block(VIDEO).items():
        np.testing.assert_allclose(to_numpy(value), expected[name], atol=1e-3)
    block.save_weights(tmp_path / "block.weights.h5")
    other = video_network()
    other.load_weights(tmp_path / "block.weights.h5")
    for one, two in zip(other.weights, network.weights, strict=True):
        np.testing.assert_array_equal(to_numpy(one), to_numpy(two))


@pytest.mark.parametrize("taps", [["td/cnn/enc/c2"], list(TAPS.values())])
def test_stock_models_give_the_same(taps, tmp_path):
    network = video_network()
    cascade = tapped(network, taps)
    plain = cascade.to_plain()
    kinds = {type(x).__module__.split(".")[0] for x in plain._flatten_layers()}
    assert kinds == {"keras"}
    plain.save(tmp_path / "plain.keras")
    loaded = keras.saving.load_model(tmp_path / "plain.keras")
    found, expected = loaded(VIDEO), cascade(VIDEO)
    for name, value in expected.items():
        np.testing.assert_array_equal(to_numpy(found[name]), to_numpy(value))


def test_several_of_unknown_size_are_not_made_stock():
    image = keras.Input((None, None, 3))
    x = layers.Conv2D(2, 3, name="c1")(image)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(2, 1, name="c2")(x))
    cnn = keras.Model(image, x, name="cnn")
    video = keras.Input((3, 6, 6, 3))
    network = keras.Model(video, layers.TimeDistributed(cnn, name="td")(video))
    cascade = tapped(network, ["td/cnn/c1", "td/cnn/c2"])
    with pytest.raises(NotImplementedError, match="Several tensors inside"):
        cascade.to_plain()


def masked_network():
    keras.utils.set_random_seed(0)
    step = keras.Input((3,))
    x = layers.Dense(4, "tanh", name="a")(step)
    net = keras.Model(step, layers.Dense(2)(x), name="net")
    inputs = keras.Input((5, 3))
    x = layers.Masking(name="mask")(inputs)
    return keras.Model(inputs, layers.TimeDistributed(net, name="td")(x))


def test_the_mask_of_the_steps_goes_on():
    network = masked_network()
    x = RNG.normal(size=(2, 5, 3)).astype("float32")
    x[0, 3:] = x[1, 2:] = 0
    cascade = kc.build_cascade(
        network, taps={"a": "td/net/a", "td": "td"}, fusion=None
    )
    kernel, bias = map(to_numpy, network.get_layer("td").layer.weights[:2])
    values = np.tanh(x @ kernel + bias)
    means = np.stack([values[0, :3].mean(0), values[1, :2].mean(0)])
    found = to_numpy(cascade(x)["a"])
    np.testing.assert_allclose(found, means, atol=1e-5)
    with pytest.raises(NotImplementedError, match="with a mask"):
        cascade.to_plain()


def test_blocks_are_tapped_again_and_networks_truncated():
    network = video_network()
    expected = expected_taps(network, VIDEO)
    block = tapped(network).blocks["upstream"]
    again = tapped(block, {"c2": "td/cnn/enc/c2", "c1": "td/cnn/c1"})
    for name, value in again(VIDEO).items():
        np.testing.assert_allclose(to_numpy(value), expected[name], atol=1e-5)
    part = kc.truncate(network, "td/cnn/enc/c2")
    assert type(part.layers[-1]) is layers.TimeDistributed
    np.testing.assert_allclose(to_numpy(part(VIDEO)), expected["c2"], atol=1e-5)


def test_cached_training_is_live_training():
    histories = []
    for cached in (False, True):
        keras.utils.set_random_seed(0)
        cascade = kc.build_cascade(
            video_network(), taps=["td/cnn/c1", "td"], head=2, loss="mse"
        )
        fit = cascade.fit(
            *(VIDEO, np.ones((2, 2)), 1, 3, 0),
            shuffle=False,
            cache_features=cached,
        )
        histories.append(fit.history["loss"])
    np.testing.assert_allclose(*histories, rtol=1e-4)


class Twice(layers.Wrapper):
    def call(self, x):
        return self.layer(self.layer(x))

    def compute_output_shape(self, shape):
        return shape


def own_wrapper():
    inputs = keras.Input((4,))
    step = keras.Input((4,))
    net = keras.Model(step, layers.Dense(4, name="a")(step), name="net")
    return keras.Model(inputs, Twice(net, name="it")(inputs))


def of_a_layer():
    inputs = keras.Input((3, 4))
    x = layers.TimeDistributed(layers.Dense(4, name="a"), name="it")(inputs)
    return keras.Model(inputs, x)


def both_ways():
    inputs = keras.Input((3, 4))
    x = layers.Bidirectional(layers.LSTM(2, name="a"), name="it")(inputs)
    return keras.Model(inputs, x)


@pytest.mark.parametrize(
    ("make", "path"),
    [
        (own_wrapper, "it/net/a"),
        (of_a_layer, "it/a"),
        (both_ways, "it/forward_a"),
    ],
)
def test_other_wrappers_say_that_only_their_output_is_a_tap(make, path):
    network = make()
    kind = type(network.get_layer("it")).__name__
    message = f"'it' is a {kind}, which has no graph to look into: only its"
    with pytest.raises(ValueError, match=message):
        tapped(network, [path])


def test_nothing_is_injected_into_single_steps():
    side = keras.Input((4,))
    network = keras.Model(side, layers.Dense(2, name="d")(side))
    with pytest.raises(ValueError, match=r"inside 'td' \(TimeDistributed\)"):
        kc.build_cascade(
            network, video_network(), inject={"output": "td/cnn/c1"}
        )


def test_what_would_be_adapted_is_known_before():
    report = kc.check_interface(video_network(), taps=["td/cnn/c1"], head=2)
    assert "c1" in str(report)
