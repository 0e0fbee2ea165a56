"""Small cascades that together have all that a file can hold of one.

`make_files.py` trains them with an earlier version of the package and saves
them; `tests/behaviour/test_earlier_files.py` and
`tests/cache/test_earlier_features.py` load the files.
"""

import hashlib
from pathlib import Path

import keras
import numpy as np
from keras import layers, optimizers
from keras.optimizers import schedules

import keras_cascade as kc
from keras_cascade import Injection
from keras_cascade.adapters import (
    DenseAdapter,
    LabelMapAdapter,
    LogitsAdapter,
    PCAAdapter,
    SpatialAdapter,
    TokenAdapter,
)

ROWS = 32
CLASSES = "sparse_categorical_crossentropy"
# What `unfreeze` does in the first epoch, and once the file is loaded.
STAGES = {1: "upstream/high", 3: ["upstream/norm", "upstream/low"]}


def make_data() -> dict[str, np.ndarray]:
    """Inputs and labels of all cascades; the images have a brightness each."""
    draw = np.random.default_rng(0)
    noise = draw.normal(size=(ROWS, 8, 8, 1))
    images = 100 + 25 * (noise + draw.normal(size=(ROWS, 1, 1, 1)))
    words = draw.integers(1, 9, (ROWS, 6))
    words[::3, 4:] = 0
    return {
        "vectors": draw.normal(size=(ROWS, 6)).astype("float32"),
        "side": draw.normal(size=(ROWS, 2)).astype("float32"),
        "images": images.astype("float32"),
        "words": words.astype("int32"),
        "three": draw.integers(0, 3, ROWS),
        "two": draw.integers(0, 2, ROWS),
        "digits": draw.integers(0, 4, (ROWS, 8)).astype("int32"),
        "target": draw.normal(size=(ROWS, 2)).astype("float32"),
    }


# The data as it was made first, whatever NumPy draws today.
_KEPT = Path(__file__).with_name("data.npz")
DATA = dict(np.load(_KEPT)) if _KEPT.exists() else make_data()
# What each word is, far from the next.
WORDS = np.random.default_rng(2).normal(size=(9, 4)).astype("float32")


@keras.saving.register_keras_serializable(package="earlier_files")
class Scaled(layers.Layer):
    """A layer whose config lacks an argument."""

    def __init__(self, units, scale=1.0, **kwargs):
        super().__init__(**kwargs)
        self.scale, self.inner = scale, layers.Dense(units)

    def build(self, shape):
        self.inner.build(shape)

    def call(self, x):
        return self.inner(x) * self.scale


@keras.saving.register_keras_serializable(package="earlier_files")
class Backbone(keras.Model):
    """Makes its layers from a few numbers, as KerasHub's backbones do."""

    def __init__(self, units=5, name="backbone", trainable=True):
        x = keras.Input((6,), name="x")
        y = Scaled(units, 0.5, name="first")(x)
        y = Scaled(units, name="second")(keras.ops.tanh(y))
        super().__init__(x, y, name=name, trainable=trainable)
        self.units = units

    def get_config(self):
        own = {"name": self.name, "trainable": self.trainable}
        return {"units": self.units, **own}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return cls(**config)


def settled(inputs, outputs, name, *data):
    """A network whose normalizations have the moments of some data."""
    network = keras.Model(inputs, outputs, name=name)
    network(data[0] if len(data) == 1 else data, training=True)
    return network


def classifier(name="reader", classes=4):
    """A network of vectors that ends in probabilities, which LwF keeps."""
    x = inputs = keras.Input((6,), name="x")
    x = layers.Dense(8, "tanh", name="low")(x)
    x = layers.BatchNormalization(momentum=0.0, name="norm")(x)
    x = layers.Dense(5, "tanh", name="high")(x)
    x = layers.Dropout(0.2, seed=3, name="drop")(x)
    x = layers.Dense(classes, "softmax", name="letters")(x)
    return settled(inputs, x, name, DATA["vectors"])


def image_encoder(name="encoder", channels=4):
    """A network of images, with maps of two sizes and a vector."""
    x = inputs = keras.Input((8, 8, 1), name="image")
    x = layers.Rescaling(1 / 50, offset=-2.0, name="rescale")(x)
    x = layers.Conv2D(channels, 3, padding="same", name="conv1")(x)
    x = layers.BatchNormalization(momentum=0.0, name="norm1")(x)
    x = layers.ReLU(name="relu1")(x)
    x = layers.MaxPooling2D(name="pool1")(x)
    x = layers.Conv2D(6, 3, padding="same", name="conv2")(x)
    x = layers.BatchNormalization(momentum=0.0, name="norm2")(x)
    x = layers.ReLU(name="relu2")(x)
    x = layers.GlobalAveragePooling2D(name="pool2")(x)
    x = layers.Dense(5, name="out")(x)
    return settled(inputs, x, name, DATA["images"])


def expert(width, name="expert"):
    """A network that tells three classes from features."""
    inputs = keras.Input((width,), name="features")
    x = layers.Dense(6, "relu", name="hidden")(inputs)
    return keras.Model(
        inputs, layers.Dense(3, "softmax", name="kind")(x), name=name
    )


def retention():
    """Three upstreams, each kept by another method; one has an old head."""
    return kc.build_cascade(
        {n: classifier(n) for n in ("pulled", "weighted", "taught")},
        taps={
            "first": "pulled/high",
            "second": "weighted/-1",
            "third": "taught/norm",
        },
        adapters=3,
        fusion="add",
        head=3,
        trainable=True,
        retention={
            "pulled": kc.L2SP(0.1),
            "weighted": kc.EWC(1.0, DATA["vectors"]),
            "taught": kc.LwF(0.5, temperature=2.0),
        },
        optimizer=optimizers.SGD(0.05, momentum=0.9),
        loss=CLASSES,
        metrics=["accuracy"],
    )


def stages():
    """Rates a block and a depth, decoupled decay, and layers that join."""
    decay = schedules.CosineDecay(2e-2, 40)
    return kc.build_cascade(
        classifier(),
        expert(7),
        taps={"texture": "drop"},
        extra_inputs={"side": (2,)},
        trainable={"upstream/drop": True},
        learning_rates={
            "upstream": kc.LayerwiseDecay(
                schedules.ExponentialDecay(1e-2, 5, 0.5), 0.5, groups=2
            ),
            "downstream": schedules.ExponentialDecay(2e-2, 3, 0.5),
            "downstream/hidden": 1e-3,
        },
        optimizer=optimizers.AdamW(decay, global_clipnorm=1.0),
        loss=CLASSES,
    )


def words():
    """A network that gives each word its vector, and masks the ends."""
    x = inputs = keras.Input((6,), dtype="int32", name="x")
    x = layers.Embedding(9, 4, mask_zero=True, name="embed")(x)
    network = keras.Model(inputs, x, name="dictionary")
    network.set_weights([WORDS])
    return network


def lora():
    """Low-rank updates in plain, composite and wrapped layers; a mask."""
    inputs = keras.Input((6,), dtype="int32", name="words")
    x = words()(inputs)
    x = layers.MultiHeadAttention(2, 3, name="attention")(x, x)
    x = layers.TimeDistributed(layers.Dense(4), name="wrapped")(x)
    x = layers.Bidirectional(layers.GRU(2), name="both_ways")(x)
    x = layers.Dense(5, "tanh", name="top")(x)
    return kc.build_cascade(
        keras.Model(inputs, x, name="text"),
        head=2,
        trainable={"upstream": kc.LoRA(2, alpha=8), "upstream/both_ways": True},
        optimizer=optimizers.Adam(0.02, gradient_accumulation_steps=2),
        loss="mse",
    )


def injection():
    """Every merge that starts silent, on maps and vectors; averages."""
    x = inputs = keras.Input((8, 8, 1), name="image")
    for number in range(1, 5):
        x = layers.Conv2D(3, 3, padding="same", name=f"conv{number}")(x)
        x = layers.LayerNormalization(name=f"norm{number}")(x)
        x = layers.ReLU(name=f"relu{number}")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(3, "softmax", name="kind")(x)
    return kc.build_cascade(
        image_encoder(),
        keras.Model(inputs, x, name="reader"),
        taps={"edges": "relu1", "shapes": "relu2", "style": "-1"},
        extra_inputs={"side": (2,)},
        inject={
            "edges": [Injection("relu1", "film"), Injection("norm2", "concat")],
            "shapes": Injection("relu3", "multiply"),
            "style": Injection("conv4"),
            "side": Injection("pool", "film", zero_init=False),
        },
        trainable={
            "upstream/conv2": kc.LoRA(2),
            "downstream": False,
            "downstream/kind": True,
        },
        optimizer=optimizers.Adam(0.05, use_ema=True, ema_momentum=0.8),
        loss=CLASSES,
    )


def replacement():
    """A layer's output is replaced, and features join the inputs."""
    x = inputs = keras.Input((6,), name="x")
    for number in range(1, 4):
        x = layers.Dense(5, "tanh", name=f"dense{number}")(x)
    x = layers.Add(name="sum")([x, layers.Dense(5, name="skip")(inputs)])
    return kc.build_cascade(
        {"low": classifier(), "high": classifier()},
        keras.Model(inputs, layers.Dense(3, name="kind")(x), name="expert"),
        taps={"a": "low/high", "b": "high/-1", "c": "high/norm"},
        adapters={"a": None, "b": 4, "c": DenseAdapter(4, "relu")},
        fusion="average",
        inject={"a": Injection("dense2", "replace")},
        downstream_input="both",
        head=[layers.Dense(4, "relu"), layers.Dense(3, "softmax")],
        trainable={"high": True},
        optimizer=optimizers.RMSprop(0.01),
        loss=CLASSES,
    )


def adapters():
    """All adapters, fitted where they learn; what they give is the output."""
    kind = classifier()
    kinds = keras.ops.convert_to_numpy(kind(DATA["vectors"])).argmax(axis=1)
    cascade = kc.build_cascade(
        {"image": image_encoder(), "kind": kind, "text": words()},
        taps={
            "principal": "image/relu1",
            "share": "kind/low",
            "logits": "kind/letters",
            "mapped": "kind/-1",
            "learned": "kind/-1",
            "resized": "image/relu2",
            "projected": "image/relu1",
            "sequence": "image/norm2",
            "vector": "text/embed",
            "grid": "text/embed",
            "dense": "image/pool2",
            "stock": "image/out",
        },
        adapters={
            "principal": PCAAdapter(2, whiten=True),
            "share": PCAAdapter(0.9).adapt(share_features()),
            "logits": LogitsAdapter(temperature=None),
            "mapped": LabelMapAdapter({0: 0, 1: 0, 2: 1, 3: 1}),
            "learned": LabelMapAdapter(
                target_classes=["low", "middle", "high"],
                output="log_probabilities",
            ),
            "resized": SpatialAdapter((2, 3)),
            "projected": SpatialAdapter((4, 4), channels=2, activation="relu"),
            "sequence": TokenAdapter("sequence", size=5, channels=3),
            "vector": TokenAdapter("vector", channels=4, use_bias=False),
            "grid": TokenAdapter("map", size=3, grid=(2, 3)),
            "dense": DenseAdapter(3, "tanh", kernel_regularizer="l2"),
            "stock": layers.Normalization(),
        },
        fusion=None,
        optimizer=optimizers.Adagrad(0.05),
        loss="mse",
    )
    # What the temperature is fitted to: the answers, some of them wrong.
    labels = np.where(np.arange(ROWS) % 4, kinds.clip(max=2), DATA["three"])
    data = inputs_of("adapters"), labels
    return cascade.adapt(data, verbose=False)


def share_features():
    """Rows that vary in two directions."""
    draw = np.random.default_rng(1)
    rows = draw.normal(size=(64, 2)) @ draw.normal(size=(2, 8))
    return (rows + 0.01 * draw.normal(size=(64, 8))).astype("float32")


def caster():
    """A network of whole numbers that calls another one, of floats."""
    again = layers.Dense(8, "tanh", name="again")
    y = keras.Input((8,), dtype="float32", name="y")
    body = keras.Model(y, again(again(y)), name="body")
    x = keras.Input((8,), dtype="int32", name="numbers")
    return keras.Model(x, body(x), name="caster")


def nested():
    """A cascade of a cascade, a backbone and preprocessing; several heads."""
    inner = kc.build_cascade(
        {"made": Backbone(), "reader": classifier()},
        taps={"made": "made/second", "low": "reader/low"},
        adapters={"low": PCAAdapter(3)},
    ).adapt(DATA["vectors"], verbose=False)
    return kc.build_cascade(
        {"cascade": inner, "image": image_encoder(), "numbers": caster()},
        taps={
            "features": "cascade/-1",
            "map": "image/pool1",
            "twice": "numbers/body/again:1",
        },
        adapters={"map": 4},
        inputs={"cascade": "vectors", "image": "pixels", "numbers": "digits"},
        preprocess={"image": layers.Rescaling(1.5, name="brighter")},
        fusion=layers.Concatenate(name="joined"),
        head={
            "kind": 3,
            "odd": [layers.Dense(2, "softmax", name="odd")],
            "map": 3,
        },
        trainable={"cascade/reader/low": True, "numbers/body": True},
        learning_rates={"cascade": 1e-3, "head": 2e-2},
        optimizer=optimizers.AdamW(1e-2),
        loss=CLASSES,
    )


def mixed():
    """Half precision, with a loss scale."""
    keras.config.set_dtype_policy("mixed_float16")
    try:
        return kc.build_cascade(
            classifier(),
            expert(6),
            taps="high",
            adapters=6,
            trainable={"upstream/high": True},
            learning_rates={"upstream": 1e-3},
            optimizer=optimizers.Adam(1e-2),
            loss=CLASSES,
        )
    finally:
        keras.config.set_dtype_policy("float32")


def cached():
    """A cascade of which all is frozen but the last layer."""
    flat = [SpatialAdapter((2, 3), name="resized"), layers.Flatten()]
    cascade = kc.build_cascade(
        {
            "image": image_encoder(),
            "kind": classifier(),
            "text": words(),
            "numbers": caster(),
        },
        expert(2 + 4 + 2 + 18 + 3 + 8),
        taps={
            "principal": "image/relu1",
            "logits": "kind/letters",
            "mapped": "kind/-1",
            "resized": "image/pool1",
            "sentence": "text/-1",
            "twice": "numbers/-1",
            "style": "image/-1",
        },
        adapters={
            "principal": PCAAdapter(2),
            "logits": LogitsAdapter(2.0),
            "mapped": LabelMapAdapter({0: 0, 1: 0, 2: 1, 3: 1}),
            "resized": keras.Sequential(
                [layers.Conv2D(3, 1, name="few"), *flat]
            ),
            "sentence": TokenAdapter("vector", channels=3),
        },
        inject={"style": Injection("hidden", "film", zero_init=False)},
        preprocess={"image": layers.Rescaling(1.5, name="brighter")},
        trainable={
            "adapters": False,
            "downstream": False,
            "downstream/kind": True,
        },
        optimizer=optimizers.SGD(0.05),
        loss=CLASSES,
    )
    return cascade.adapt(inputs_of("cached"), verbose=False)


# Name to what makes the cascade, the data that its inputs are, and its labels.
CASCADES = {
    "retention": (retention, "vectors", "three"),
    "stages": (stages, {"inputs": "vectors", "side": "side"}, "three"),
    "lora": (lora, "words", "target"),
    "injection": (injection, {"inputs": "images", "side": "side"}, "three"),
    "replacement": (replacement, "vectors", "three"),
    "adapters": (
        adapters,
        {
            "image_inputs": "images",
            "kind_inputs": "vectors",
            "text_inputs": "words",
        },
        None,
    ),
    "nested": (
        nested,
        {"vectors": "vectors", "pixels": "images", "digits": "digits"},
        {"kind": "three", "odd": "two", "map": "three"},
    ),
    "mixed": (mixed, "vectors", "three"),
    "cached": (
        cached,
        {
            "image_inputs": "images",
            "kind_inputs": "vectors",
            "text_inputs": "words",
            "numbers_inputs": "digits",
        },
        "three",
    ),
}


def inputs_of(name: str) -> dict | np.ndarray:
    """The inputs of a cascade, as it takes them."""
    given = CASCADES[name][1]
    if isinstance(given, dict):
        return {own: DATA[key] for own, key in given.items()}
    return DATA[given]


def labels_of(name: str, cascade: keras.Model) -> dict | np.ndarray:
    """The labels of a cascade; halves where its outputs are features."""
    given = CASCADES[name][2]
    if isinstance(given, str):
        return DATA[given]
    if isinstance(given, dict):
        return {own: DATA[key] for own, key in given.items()}
    return {
        key: np.full((ROWS, *tensor.shape[1:]), 0.5, "float32")
        for key, tensor in cascade.output.items()
    }


def train(name: str, cascade: keras.Model, first: int, last: int) -> dict:
    """Trains a cascade for some epochs; gives the logs, as floats."""
    stages = {e: p for e, p in STAGES.items() if e < last}
    history = cascade.fit(
        inputs_of(name),
        labels_of(name, cascade),
        batch_size=8,
        initial_epoch=first,
        epochs=last,
        unfreeze=stages if name == "stages" else None,
        shuffle=False,
        verbose=0,
        check_values=False,  # two brighten images more than networks expect
    ).history
    return {k: [float(x) for x in values] for k, values in history.items()}


def stock_network():
    """A network without a part of this package, of the operations of most."""
    x = keras.Input((6,), dtype="int32", name="words")
    y = layers.GRU(4, name="gru")(words()(x))
    image = image_encoder()
    z = layers.Concatenate(name="joined")([y, image.output])
    z = layers.Dense(4, "softmax", name="kind")(layers.Dense(8, "tanh")(z))
    return keras.Model({"words": x, "image": image.input}, z, name="stock")


def answers(name: str, model: keras.Model) -> list[np.ndarray]:
    """What a model gives for its inputs, in order."""
    stock = {"words": DATA["words"], "image": DATA["images"]}
    inputs = stock if name == "stock" else inputs_of(name)
    return keras.tree.flatten(model.predict(inputs, verbose=0))


def state_of(cascade: keras.Model) -> dict:
    """What a cascade is but for its answers; weights by their content."""
    return {
        "trainable": [v.path for v in cascade.trainable_variables],
        "rates": cascade.learning_rates(),
        "taps": cascade.taps,
        "weights": {v.path: content(v) for v in cascade.variables},
        "slots": [content(v) for v in cascade.optimizer.variables],
    }


def content(variable: keras.Variable) -> str:
    """The start of a hash of a variable's values and shape."""
    values = keras.ops.convert_to_numpy(variable).astype("float64")
    text = str(values.shape).encode() + values.tobytes()
    return hashlib.sha256(text).hexdigest()[:16]


class Batches(keras.utils.PyDataset):
    """The data of the cached cascade as a stream, which counts its reads."""

    def __init__(self):
        super().__init__()
        self.reads = 0

    @property
    def num_batches(self):
        return ROWS // 8

    def __getitem__(self, index):
        self.reads += 1
        rows = slice(8 * index, 8 * (index + 1))
        inputs = {key: x[rows] for key, x in inputs_of("cached").items()}
        return inputs, DATA["three"][rows]


def train_on_features(cascade: keras.Model, folder: Path) -> list[dict]:
    """Trains on arrays, on a stream, and evaluates in half precision."""
    both = {"epochs": 2, "shuffle": False, "verbose": 0}
    both["check_values"] = False  # images are brighter than expected
    x, y = inputs_of("cached"), DATA["three"]
    stream = kc.FeatureCache(folder, key="batches")
    half = kc.FeatureCache(folder, dtype="bfloat16")
    logs = [
        cascade.fit(x, y, batch_size=8, cache_features=folder, **both).history,
        cascade.fit(Batches(), cache_features=stream, **both).history,
    ]
    loss = cascade.evaluate(x, y, verbose=0, cache_features=half)
    logs.append({"loss": [loss]})
    return [{k: [float(v) for v in x] for k, x in log.items()} for log in logs]
