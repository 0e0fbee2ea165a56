"""Files of networks that are called once per step, for any number of steps."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc
from keras_cascade.exporting.formats.steps import steps_as_samples
from keras_cascade.exporting.inference_program import to_inference_program
from tests.exporting.runtimes import run

BACKEND = keras.config.backend()
RNG = np.random.default_rng(0)


def to_numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def image_network(*more):
    image = keras.Input((6, 6, 3))
    x = layers.Conv2D(2, 3, name="c1")(image)
    x = layers.Conv2D(4, 3, name="c2")(x * 2)
    for layer in more:
        x = layer(x)
    x = layers.BatchNormalization(name="norm")(layers.Flatten()(x))
    return keras.Model(image, layers.Dense(4, name="out")(x), name="cnn")


def video_network(steps, inside=None, depth=1):
    keras.utils.set_random_seed(0)
    layer = inside or image_network()
    for _ in range(depth):
        layer = layers.TimeDistributed(layer, name=f"td{depth}")
    video = keras.Input((*[steps] * depth, 6, 6, 3), name="video")
    return keras.Model(video, layer(video), name="films")


def expected(network, x):
    """What the networks give for each step, one after the other."""
    step = network.layers[-1]
    while isinstance(step, layers.TimeDistributed):
        step = step.layer
    flat = [to_numpy(step(y[None]))[0] for y in x.reshape(-1, 6, 6, 3)]
    return np.stack(flat).reshape(*x.shape[:-3], *flat[0].shape)


def calls(layer, monkeypatch):
    """The shapes that a layer is called with from now on."""
    found, original = [], layer.call

    def call(x, *args, **kwargs):
        found.append(tuple(x.shape))
        return original(x, *args, **kwargs)

    monkeypatch.setattr(layer, "call", call)
    return found


@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("steps", [3, None])
def test_all_steps_are_one_batch(steps, depth, monkeypatch):
    network = video_network(steps, depth=depth)
    program = to_inference_program(network, folding=False).program
    x = RNG.normal(size=(2, *[3] * depth, 6, 6, 3)).astype("float32")
    (conv,) = [
        inner
        for layer in program.layers
        for inner in layer._flatten_layers()
        if inner.name == "c1"
    ]
    shapes = calls(conv, monkeypatch)
    with steps_as_samples(program):
        (found,) = program(keras.ops.convert_to_tensor(x)).values()
    assert shapes == [(2 * 3**depth, 6, 6, 3)]
    np.testing.assert_allclose(to_numpy(found), expected(network, x), atol=1e-5)


class OverTheBatch(layers.Layer):
    def call(self, x):
        return x - keras.ops.mean(x, axis=0, keepdims=True)


def centred():
    image = keras.Input((6, 6, 3))
    x = image - keras.ops.mean(image, axis=0, keepdims=True)
    return keras.Model(image, layers.Flatten()(x))


@pytest.mark.parametrize(
    "inside",
    [
        lambda: image_network(OverTheBatch()),
        lambda: image_network(layers.Lambda(lambda x: x - x[:1])),
        centred,
    ],
    ids=["a layer of the user's", "Lambda", "operations"],
)
def test_what_may_mix_samples_is_called_for_each_step(inside):
    network = video_network(3, inside())
    program = to_inference_program(network, folding=False).program
    x = keras.ops.convert_to_tensor(RNG.normal(size=(2, 3, 6, 6, 3)), "float32")
    with steps_as_samples(program):
        (found,) = program(x).values()
    np.testing.assert_allclose(to_numpy(found), to_numpy(network(x)), atol=1e-5)


@pytest.mark.skipif(BACKEND == "jax", reason="jax2onnx joins no open axes")
def test_files_take_any_number_of_steps_and_give_what_is_inside(tmp_path):
    network = video_network(None)
    cascade = kc.build_cascade(
        network,
        taps={"c2": "td1/cnn/c2", "out": "td1"},
        adapters=None,
        fusion=None,
    )
    path = tmp_path / "film.onnx"
    report = kc.export(cascade, path, verbose=False)
    assert report.backend == BACKEND
    for count, steps in [(2, 3), (1, 5), (3, 1)]:
        x = RNG.normal(size=(count, steps, 6, 6, 3)).astype("float32")
        found = run(path, {"inputs": x})
        np.testing.assert_allclose(
            found["out"], expected(network, x), atol=1e-5
        )
        assert found["c2"].shape == (count, steps, 2, 2, 4)
    # Stock layers cannot give several tensors of unknown sizes.
    image = keras.Input((None, None, 3))
    x = layers.Conv2D(2, 3, name="c1")(image)
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3, name="c2")(x))
    network = video_network(None, keras.Model(image, x, name="cnn"))
    cascade = kc.build_cascade(
        network,
        taps={"c1": "td1/cnn/c1", "out": "td1"},
        adapters=None,
        fusion=None,
    )
    path = tmp_path / "open.onnx"
    kc.export(cascade, path, verbose=False)
    x = RNG.normal(size=(2, 4, 6, 6, 3)).astype("float32")
    found = run(path, {"inputs": x})
    np.testing.assert_allclose(found["out"], expected(network, x), atol=1e-5)
    with pytest.raises(NotImplementedError, match="Several tensors inside"):
        kc.export(cascade, tmp_path / "film.keras", verbose=False)
