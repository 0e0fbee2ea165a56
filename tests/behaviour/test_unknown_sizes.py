"""Networks whose sizes are not known until they run."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_cascade as kc
from keras_cascade.adapters import SpatialAdapter
from keras_cascade.adapters.size_matching import MatchSize

IMAGES = np.random.default_rng(0).normal(size=(2, 13, 18, 3)).astype("float32")
WORDS = np.array([[1, 2, 3, 4, 0, 0], [5, 6, 7, 8, 9, 1]], "int32")
MERGES = {
    "concat": lambda a, b: np.concatenate([a, b], -1),
    "add": np.add,
    "maximum": np.maximum,
}


def encoder(size=None):
    """Taps of two strides, another of the second, and a vector."""
    inputs = keras.Input((size, size, 3), name="image")
    fine = layers.Conv2D(4, 3, padding="same", name="fine")(inputs)
    coarse = layers.Conv2D(4, 3, 2, padding="same", name="coarse")(fine)
    other = layers.Conv2D(4, 3, padding="same", name="other")(coarse)
    vector = layers.GlobalAveragePooling2D(name="vector")(other)
    return keras.Model(inputs, [other, vector], name="encoder")


def expert(channels=4, size=None):
    inputs = keras.Input((size, size, channels), name="map")
    x = layers.Conv2D(4, 3, padding="same", name="inner")(inputs)
    x = layers.Activation("tanh", name="tanh")(x)
    return keras.Model(inputs, x, name="expert")


def text(width=4):
    inputs = keras.Input((None,), dtype="int32", name="words")
    x = layers.Embedding(11, width, name="steps")(inputs)
    return keras.Model(inputs, layers.GRU(3, name="gru")(x), name="text")


def tensors(network, *names):
    outputs = [network.get_layer(name).output for name in names]
    return keras.Model(network.input, outputs)


def resized(x, like):
    size = like.shape[1:3]
    return ops.convert_to_numpy(ops.image.resize(x, size, antialias=True))


def check_everywhere(cascade, data, expected, tmp_path, plain=True):
    """Predicted, trained for no epoch, saved, and in stock layers."""
    np.testing.assert_allclose(
        cascade.predict(data, verbose=0), expected, atol=1e-5
    )
    cascade.save(tmp_path / "cascade.keras")
    models = [keras.models.load_model(tmp_path / "cascade.keras")]
    for model in models + [cascade.to_plain()] * plain:
        found = model.predict(data, verbose=0)
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("fusion", MERGES)
def test_taps_of_two_strides_are_fused_at_the_size_of_the_first(
    fusion, tmp_path
):
    upstream = encoder()
    downstream = expert(8 if fusion == "concat" else 4)
    cascade = kc.build_cascade(
        upstream,
        downstream,
        taps=["fine", "coarse"],
        adapters=None,
        fusion=fusion,
    )
    fine, coarse = tensors(upstream, "fine", "coarse").predict(
        IMAGES, verbose=0
    )
    fused = MERGES[fusion](fine, resized(coarse, fine))
    expected = downstream.predict(fused, verbose=0)
    if fusion == "concat":
        check_everywhere(cascade, IMAGES, expected, tmp_path)
    found = cascade.predict(IMAGES, verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("known", [(16, None), (None, 16)])
def test_automatic_adapters_compute_what_they_do_for_known_sizes(known):
    """Sizes of the upstream and of the downstream; both are known first."""
    images = np.resize(IMAGES, (2, 16, 16, 3))
    taps = ["fine", "coarse"]
    all_known = kc.build_cascade(encoder(16), expert(6, 16), taps=taps)
    upstream, downstream = known
    cascade = kc.build_cascade(
        encoder(upstream), expert(6, downstream), taps=taps
    )
    cascade.set_weights(all_known.get_weights())
    np.testing.assert_allclose(
        cascade.predict(images, verbose=0),
        all_known.predict(images, verbose=0),
        atol=1e-5,
    )


@pytest.mark.parametrize(
    "adapters", [SpatialAdapter(channels=4), layers.Conv2D(4, 1)]
)
def test_own_adapters_of_unknown_size_are_fused_too(adapters):
    upstream, taps = encoder(), ["coarse", "fine"]
    cascade = kc.build_cascade(upstream, taps=taps, adapters=adapters)
    assert cascade.predict(IMAGES, verbose=0).shape == (2, 7, 9, 8)


def test_taps_of_one_size_are_not_resized():
    cascade = kc.build_cascade(
        encoder(), expert(8), taps=["coarse", "other"], adapters=None
    )
    kinds = {type(x) for x in cascade.blocks["fusion"].layers}
    assert MatchSize not in kinds


@pytest.mark.parametrize(
    ("merge", "tap"),
    [
        ("add", "coarse"),
        ("add", "vector"),
        ("multiply", "fine"),
        ("film", "coarse"),
        ("concat", "coarse"),
    ],
)
def test_features_of_any_size_enter_a_layer_of_unknown_size(
    merge, tap, tmp_path
):
    """Silent at first; then by the formula of an added gate."""
    upstream, downstream = encoder(), expert(3)
    cascade = kc.build_cascade(
        upstream,
        downstream,
        taps=[tap],
        inject={tap: kc.Injection("inner", merge)},
        inputs={"upstream": "image", "downstream": "image"},
    )
    alone = downstream.predict(IMAGES, verbose=0)
    found = cascade.predict(IMAGES, verbose=0)
    np.testing.assert_allclose(found, alone, atol=1e-6)
    if merge != "add":
        return
    (gate,) = cascade.get_layer("adapters").weights
    gate.assign(np.ones(4))
    features, inner = (
        tensors(network, name).predict(IMAGES, verbose=0)
        for network, name in ((upstream, tap), (downstream, "inner"))
    )
    if tap == "vector":
        features = features[:, None, None]
    else:
        features = resized(features, inner)
    expected = np.tanh(inner + features)
    check_everywhere(cascade, IMAGES, expected, tmp_path)


def test_features_join_an_input_of_unknown_size(tmp_path):
    upstream, downstream = encoder(), expert(3)
    cascade = kc.build_cascade(
        upstream,
        downstream,
        taps=["coarse", "fine"],
        downstream_input="both",
        inputs={"upstream": "image", "downstream": "image"},
    )
    expected = downstream.predict(IMAGES, verbose=0)
    check_everywhere(cascade, IMAGES, expected, tmp_path)


@pytest.mark.parametrize("merge", ["add", "concat"])
def test_a_vector_of_equal_width_enters_every_step_of_a_text(merge):
    upstream, downstream = encoder(), text()
    cascade = kc.build_cascade(
        upstream,
        downstream,
        taps={"seen": "vector"},
        inject={"seen": kc.Injection("steps", merge)},
        inputs={"upstream": "image", "downstream": "words"},
    )
    found = cascade.predict({"image": IMAGES, "words": WORDS}, verbose=0)
    expected = downstream.predict(WORDS, verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_texts_of_two_lengths_are_joined():
    """Twice the length halves: each step is a mean under a triangle."""
    networks = {"short": text(), "long": text()}
    cascade = kc.build_cascade(
        networks,
        taps={"a": "short/steps", "b": "long/steps"},
        adapters=None,
        fusion="add",
        inputs={"short": "few", "long": "many"},
    )
    data = {"few": WORDS[:, :3], "many": WORDS}
    a, b = (
        tensors(network, "steps").predict(x, verbose=0)
        for network, x in zip(networks.values(), data.values(), strict=True)
    )
    kernel = [[3, 3, 1, 0, 0, 0], [0, 1, 3, 3, 1, 0], [0, 0, 0, 1, 3, 3]]
    kernel = np.array(kernel) / np.sum(kernel, 1, keepdims=True)
    expected = a + kernel @ b
    found = cascade.predict(data, verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("cache", [False, True])
def test_it_trains_live_and_cached(cache):
    cascade = kc.build_cascade(
        encoder(), expert(8), taps=["fine", "coarse"], optimizer="sgd"
    )
    cascade.compile("sgd", loss="mse")
    target = np.zeros((2, 13, 18, 4), "float32")
    losses = cascade.fit(
        IMAGES, target, epochs=3, verbose=0, cache_features=cache
    ).history["loss"]
    assert losses[2] < losses[1] < losses[0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"taps": ["fine", "vector"]}, "a map of known size only"),
        (
            {
                "taps": ["vector"],
                "inject": {"vector": kc.Injection("inner", "replace")},
            },
            "a map of known size only",
        ),
    ],
)
def test_what_cannot_be_resized_is_refused_when_building(arguments, message):
    with pytest.raises(ValueError, match=message):
        kc.build_cascade(encoder(), expert(6), **arguments)


def test_the_interface_of_unknown_sizes_has_no_errors():
    report = kc.check_interface(encoder(), expert(6), taps=["fine", "coarse"])
    assert not [x for x in report.findings if x.level == "error"]


@pytest.mark.large
@pytest.mark.parametrize(
    ("name", "paths"),
    [
        ("MobileNetV3Small", ["expanded_conv_2_depthwise", "activation_17"]),
        ("EfficientNetV2B0", ["block3b_add", "top_activation"]),
        ("ResNet50", ["conv2_block3_out", "conv4_block6_out"]),
    ],
)
def test_applications_of_default_size_are_joined(name, paths):
    make = getattr(keras.applications, name)
    network = make(include_top=False, weights=None)
    cascade = kc.build_cascade(
        network,
        taps=paths,
        adapters=SpatialAdapter(channels=2),
        preprocess={"upstream": None},
    )
    images = np.random.default_rng(0).uniform(0, 255, (2, 65, 97, 3))
    first = tensors(network, paths[0]).predict(images, verbose=0)
    found = cascade.predict(images, verbose=0)
    assert found.shape == (*first.shape[:3], 4)


@pytest.mark.parametrize("size", [None, 16])
def test_maps_whose_channels_come_first_are_joined_by_channel(size):
    """Taps alone: TensorFlow's CPU convolves no such maps."""
    inputs = keras.Input((3, size, size), name="image")
    pool = layers.MaxPooling2D(
        data_format="channels_first", padding="same", name="half"
    )
    upstream = keras.Model(inputs, pool(inputs))
    below = keras.Input((6, size, size), name="map")
    mean = layers.GlobalAveragePooling2D(data_format="channels_first")
    cascade = kc.build_cascade(
        upstream,
        keras.Model(below, mean(below)),
        taps={"whole": "image", "half": "half"},
        adapters={"whole": None, "half": "auto"},
    )
    images = np.resize(IMAGES, (2, 3, 16, 16))
    halves = upstream(images)
    again = ops.image.resize(
        halves, (16, 16), antialias=True, data_format="channels_first"
    )
    joined = np.concatenate([images, ops.convert_to_numpy(again)], 1)
    np.testing.assert_allclose(
        cascade.predict(images, verbose=0), joined.mean((2, 3)), atol=1e-5
    )


def test_the_first_tap_may_be_injected_and_the_second_fused():
    upstream, downstream = encoder(16), expert(4, 16)
    images = np.resize(IMAGES, (2, 16, 16, 3))
    cascade = kc.build_cascade(
        upstream,
        downstream,
        taps=["vector", "fine"],
        inject={"vector": "inner"},
    )
    fine = tensors(upstream, "fine").predict(images, verbose=0)
    expected = downstream.predict(fine, verbose=0)
    np.testing.assert_allclose(
        cascade.predict(images, verbose=0), expected, atol=1e-5
    )
