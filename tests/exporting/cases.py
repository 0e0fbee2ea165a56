"""Makes cascades to export, and inputs that their answers depend on."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

import keras_cascade as kc
from tests.applications import images_for, make, settle

SAMPLES = 16
APPLICATIONS = (
    "MobileNetV3Small",
    "EfficientNetV2B0",
    "ConvNeXtTiny",
    "ResNet50V2",
)


def application(name: str, samples: int = SAMPLES) -> tuple[kc.Cascade, Any]:
    """A Keras application as upstream, an adapter, and a head."""
    network = make(name, include_top=False, pooling="avg")
    settled, preprocess = images_for(name, 64), None
    if name == "ResNet50V2":  # the one that does none itself
        settled, preprocess = settled / 127.5 - 1, "resnet_v2"
    settle(network, settled)
    cascade = kc.build_cascade(
        network,
        adapters=kc.adapters.DenseAdapter(32),
        head=10,
        preprocess={"upstream": preprocess},
    )
    return cascade, images_for(name, samples)


def injected() -> tuple[kc.Cascade, Any]:
    """Features that enter an inner layer of a convolutional downstream."""
    upstream = make("MobileNet", include_top=False, alpha=0.25)
    downstream = small_network()
    for network in (upstream, downstream):
        settle(network, images_for("MobileNet", 64))
    cascade = kc.build_cascade(
        upstream,
        downstream,
        taps={"map": "conv_pw_3_relu"},
        inject={"map": kc.Injection("relu1", "film", zero_init=False)},
        preprocess=None,
    )
    return cascade, images_for("MobileNet", SAMPLES)


def stitched() -> tuple[kc.Cascade, Any]:
    """A downstream entered by the map that was fitted to its own values."""
    upstream = make("MobileNet", include_top=False, alpha=0.25)
    downstream, images = small_network(), images_for("MobileNet", 64)
    settle(upstream, images / 127.5 - 1)
    settle(downstream, images)
    # The fitted map explains a part of what varies; scores shall show it.
    kernel = downstream.get_layer("scores").kernel
    kernel.assign(10 * kernel)
    cascade = kc.build_cascade(
        upstream,
        downstream,
        taps={"map": "conv1_relu"},
        adapters=kc.adapters.StitchAdapter(),
        inject={"map": kc.Injection("relu1", "replace")},
        preprocess={"upstream": "mobilenet"},
    )
    cascade.adapt(images, verbose=False)
    return cascade, images_for("MobileNet", SAMPLES)


def two_inputs() -> tuple[kc.Cascade, Any]:
    """Two upstreams with an input each, a PCA, and side features."""
    look = make("MobileNet", include_top=False, alpha=0.25, pooling="avg")
    settle(look, images_for("MobileNet", 64))
    cascade = kc.build_cascade(
        {"look": look, "facts": dense_network(12)},
        dense_network(40),
        taps={"features": "look/-1", "facts": "facts/hidden"},
        adapters={"features": kc.adapters.PCAAdapter(14), "facts": None},
        extra_inputs={"side": (2,)},
        preprocess=None,
    )
    cascade.adapt(_inputs_of(cascade, 64), verbose=False)
    return cascade, _inputs_of(cascade, SAMPLES)


def transformer() -> tuple[kc.Cascade, Any]:
    """Tokens, attention, and a dense downstream."""
    x = keras.Input((24,), dtype="int32", name="tokens")
    y = attention_blocks(layers.Embedding(50, 32, name="embed")(x))
    network = keras.Model(x, y, name="encoder")
    cascade = kc.build_cascade(network, dense_network(16))
    tokens = np.random.default_rng(0).integers(0, 50, (SAMPLES, 24))
    return cascade, tokens.astype("int32")


def vision_transformer() -> tuple[kc.Cascade, Any]:
    """Patches, attention, and a dense downstream."""
    x = keras.Input((32, 32, 3), name="image")
    y = layers.Conv2D(32, 8, strides=8, name="patches")(x)
    y = attention_blocks(layers.Reshape((16, 32), name="sequence")(y))
    network = keras.Model(x, y, name="encoder")
    cascade = kc.build_cascade(network, dense_network(16))
    return cascade, images_for("MobileNet", SAMPLES)


def recurrent(make: Callable[[], Any]) -> tuple[kc.Cascade, Any]:
    """A recurrent layer over eight steps, and a head."""
    x = keras.Input((8, 4), name="signal")
    cascade = kc.build_cascade(keras.Model(x, make()(x), name="net"), head=10)
    (signal,) = _inputs_of(cascade, SAMPLES).values()
    return cascade, signal


def conv_lstm() -> tuple[kc.Cascade, Any]:
    """A convolutional LSTM over four images, and a head."""
    x = keras.Input((4, 6, 6, 2), name="film")
    y = layers.ConvLSTM2D(8, 3, name="rnn")(x)
    y = layers.GlobalMaxPooling2D(name="pool")(y)
    cascade = kc.build_cascade(keras.Model(x, y, name="net"), head=10)
    (film,) = _inputs_of(cascade, SAMPLES).values()
    return cascade, film


def embedding() -> tuple[kc.Cascade, Any]:
    """Ids of categories beside numbers, and a head."""
    ids = keras.Input((3,), dtype="int32", name="ids")
    y = layers.Embedding(50, 4, "normal", name="embed")(ids)
    y = layers.Flatten(name="flat")(y)
    network = keras.Model(ids, layers.Dense(8, "tanh", name="mix")(y))
    cascade = kc.build_cascade(network, head=10, extra_inputs={"side": (2,)})
    return cascade, _inputs_of(cascade, SAMPLES)


def odd_names() -> tuple[keras.Model, Any]:
    """Names that are no identifiers, or mean something in Python."""
    names = ("side-info", "img.rgb", "2d", "my input", "class")
    inputs = [keras.Input((3,), name=name) for name in names]
    y = layers.Concatenate(name="joined")(inputs)
    model = keras.Model(inputs, {"the answer": layers.Dense(5)(y)})
    return model, _inputs_of(model, SAMPLES)


def small_network() -> keras.Model:
    """Two convolutions and ten scores."""
    x = keras.Input((32, 32, 3), name="image")
    y = layers.Conv2D(8, 3, strides=2, padding="same", name="conv1")(x)
    y = layers.BatchNormalization(name="norm1")(y)
    y = layers.ReLU(name="relu1")(y)
    y = layers.Conv2D(8, 3, padding="same", activation="relu", name="conv2")(y)
    y = layers.GlobalAveragePooling2D(name="pool")(y)
    return keras.Model(x, layers.Dense(10, name="scores")(y), name="seen")


def dense_network(width: int) -> keras.Model:
    """One hidden layer and five scores."""
    x = keras.Input((width,), name="features")
    y = layers.Dense(24, activation="tanh", name="hidden")(x)
    return keras.Model(x, layers.Dense(5, name="scores")(y), name="expert")


def attention_blocks(x: Any, number: int = 2) -> Any:
    """Attention and dense blocks, as transformers have them."""
    for i in range(number):
        y = layers.LayerNormalization(name=f"norm_{i}a")(x)
        y = layers.MultiHeadAttention(4, 8, name=f"attention_{i}")(y, y)
        x = layers.Add(name=f"add_{i}a")([x, y])
        y = layers.LayerNormalization(name=f"norm_{i}b")(x)
        y = layers.Dense(64, activation="gelu", name=f"wide_{i}")(y)
        y = layers.Dense(32, name=f"narrow_{i}")(y)
        x = layers.Add(name=f"add_{i}b")([x, y])
    return x


CASES: dict[str, Callable[[], tuple[keras.Model, Any]]] = {
    **{name: lambda name=name: application(name) for name in APPLICATIONS},
    "injected": injected,
    "two_inputs": two_inputs,
    "stitched": stitched,
    "transformer": transformer,
    "vision_transformer": vision_transformer,
    "LSTM": lambda: recurrent(lambda: layers.LSTM(12, name="rnn")),
    "GRU": lambda: recurrent(lambda: layers.GRU(12, name="rnn")),
    "bidirectional": lambda: recurrent(
        lambda: layers.Bidirectional(layers.LSTM(12), name="rnn")
    ),
    "ConvLSTM": conv_lstm,
    "embedding": embedding,
    "odd_names": odd_names,
}


def by_name(cascade: keras.Model, x: Any) -> dict[str, np.ndarray]:
    """Inputs as a file takes them."""
    return x if isinstance(x, dict) else {cascade.inputs[0].name: x}


def answers(cascade: keras.Model, x: Any) -> np.ndarray:
    """Answers of the cascade, which vary enough over samples to compare."""
    (found,) = keras.tree.flatten(cascade.predict(x, verbose=0))
    found = np.asarray(found)
    assert spread(found) > 1e-2
    return found


def spread(values: np.ndarray) -> float:
    """The deviation over samples, a mean over features."""
    return float(np.std(values.reshape(len(values), -1), axis=0).mean())


def _inputs_of(model: keras.Model, samples: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(1)
    found = {}
    for tensor in model.inputs:
        shape = (samples, *tensor.shape[1:])
        if len(shape) == 4:
            found[tensor.name] = images_for("MobileNet", samples)
        elif tensor.dtype == "int32":
            found[tensor.name] = random.integers(0, 50, shape).astype("int32")
        else:
            # Recurrent networks hardly depend on faint sequences.
            scale = 5 if len(shape) in (3, 5) else 1
            values = random.normal(0, scale, shape)
            found[tensor.name] = values.astype("float32")
    return found
