"""Compares rankings of taps with the accuracy after really training."""

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import keras

TITLE = "Means over the pairs; regret in points of accuracy"
COLUMNS = {
    "regret": "{regret:.2f}",
    "worst": "{worst:.1f}",
    "tau": "{tau:.2f}",
    "tuned regret": "{tuned_regret:.2f}",
    "tuned tau": "{tuned_tau:.2f}",
    "bound": "{bound}",
}
SCORES = ("probe", "knn", "logme", "hscore", "effective_rank")
NETWORKS = ("encoder", "tuned to digits", "untrained")
TASKS = ("digits", "character", "font", "rotation")
# Fine-tuning takes long: one tap of each resolution, and the last.
TUNED = ("stage1_out", "stage2_out", "stage3_out", "stage4_out", "features")
TUNED_SAMPLES, TUNED_EPOCHS = 256, 4
EPOCHS, TUNING_EPOCHS = 60, 3
TEST = 800


class Task(NamedTuple):
    """Images with labels, to train on and to test on."""

    x: np.ndarray
    y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray


def run(
    samples: int = 300,
    trained: int = 1000,
    networks: Sequence[str] = NETWORKS,
    tasks: Sequence[str] = TASKS,
) -> list[dict]:
    """Returns a row for each score, and one for the deepest tap.

    Args:
        samples: The number of images that taps are ranked by. Defaults to
            `300`.
        trained: The number of images that heads are trained on. Defaults to
            `1000`.
        networks: The networks, of `NETWORKS`. Defaults to all.
        tasks: The tasks, of `TASKS`. Defaults to all.

    Returns:
        Rows with `name`; `regret`, by how many points the accuracy of a head
        that is trained on the best tap of the ranking is below that of the
        best tap there is, the mean over pairs of a network and a task;
        `worst`, the largest; `tau`, the weighted Kendall tau of ranking and
        accuracy; the same after fine-tuning from a few taps, `tuned_regret`
        and `tuned_tau`; `bound` as text, and whether it `holds`.
    """
    made = {name: make_network(name) for name in networks}
    data = {name: make_task(name, trained) for name in tasks}
    pairs = []
    for label, network in made.items():
        for name, task in data.items():
            pair = compare(network, task, samples)
            print(f"{label}, {name}: {summary(pair)}", flush=True)
            pairs.append(pair)
    return rows(pairs)


class Pair(NamedTuple):
    """The rankings of a network's taps for a task, and the truth.

    Attributes:
        scores: The value of each tap by the name of the score.
        heads: The accuracy of a head that was trained on each tap.
        tuned: The accuracy after fine-tuning from each of a few taps.
    """

    scores: Mapping[str, Mapping[str, float]]
    heads: Mapping[str, float]
    tuned: Mapping[str, float]


def compare(network: "keras.Model", task: Task, samples: int) -> Pair:
    """Ranks the taps of a network, and trains on each of them."""
    import keras_cascade as kc

    given = (task.x[:samples], task.y[:samples])
    ranking = kc.rank_taps(network, given, scores=SCORES)
    found = {
        name: {row.path: row.scores[name] for row in ranking.rows}
        for name in SCORES
    }
    found["deepest"] = {x.path: float(x.depth) for x in ranking.rows}
    heads = train_heads(network, list(found["deepest"]), task)
    tuned = {path: fine_tune(network, path, task) for path in TUNED}
    return Pair(found, heads, tuned)


def regret(scores: Mapping[str, float], truth: Mapping[str, float]) -> float:
    """Returns the points by which the best tap of a ranking is not the best."""
    chosen = max(truth, key=lambda path: scores[path])
    return max(truth.values()) - truth[chosen]


def tau(scores: Mapping[str, float], truth: Mapping[str, float]) -> float:
    """Returns the weighted Kendall tau of a ranking; 0 where all are equal."""
    from scipy.stats import weightedtau

    pairs = [(scores[path], accuracy) for path, accuracy in truth.items()]
    first, second = np.array(pairs).T
    if not np.ptp(first) or not np.ptp(second):
        return 0.0
    return float(weightedtau(first, second).statistic)


def rows(pairs: Sequence[Pair]) -> list[dict]:
    """Returns the row of each score."""
    found = {name: _figures(name, pairs) for name in (*SCORES, "deepest")}
    limit = found["deepest"]["regret"]
    return [
        {
            "name": name,
            **figures,
            "bound": "regret at most that of deepest",
            "holds": bool(figures["regret"] <= limit),
        }
        for name, figures in found.items()
    ]


def _figures(name: str, pairs: Sequence[Pair]) -> dict[str, float]:
    regrets = [regret(x.scores[name], x.heads) for x in pairs]
    tuned = [regret(x.scores[name], x.tuned) for x in pairs]
    return {
        "regret": float(np.mean(regrets)),
        "worst": max(regrets),
        "tau": float(np.mean([tau(x.scores[name], x.heads) for x in pairs])),
        "tuned_regret": float(np.mean(tuned)),
        "tuned_tau": float(
            np.mean([tau(x.scores[name], x.tuned) for x in pairs])
        ),
    }


def summary(pair: Pair) -> str:
    """Returns the truth of a pair, and the regret of each ranking."""
    best = max(pair.heads, key=lambda path: pair.heads[path])
    regrets = ", ".join(
        f"{name} {regret(x, pair.heads):.1f} ({regret(x, pair.tuned):.1f})"
        for name, x in pair.scores.items()
    )
    tuned = " ".join(f"{x:.1f}" for x in pair.tuned.values())
    return f"{best} {pair.heads[best]:.1f}, tuned {tuned}; regret {regrets}"


def train_heads(
    network: "keras.Model", paths: Sequence[str], task: Task
) -> dict[str, float]:
    """Returns the accuracy of a head trained on each tap, in percent.

    All heads are one layer: features are filled up to one width with zeros,
    and Adam treats each weight alone.
    """
    import keras

    seen = pooled(network, paths, task.x)
    train = _standard(seen, seen)
    test = _standard(pooled(network, paths, task.test_x), seen)
    classes = int(task.y.max()) + 1
    keras.utils.set_random_seed(0)
    heads = keras.layers.EinsumDense(
        "btf,tfc->btc",
        (len(paths), classes),
        bias_axes="tc",
        activation="softmax",
    )
    model = keras.Sequential([keras.Input(train.shape[1:]), heads])
    steps = EPOCHS * -(-len(train) // 128)
    rate = keras.optimizers.schedules.CosineDecay(1e-2, steps)
    model.compile(
        keras.optimizers.Adam(rate), "sparse_categorical_crossentropy"
    )
    labels = np.repeat(task.y[:, None], len(paths), axis=1)
    model.fit(train, labels, 128, EPOCHS, verbose=0)
    right = (
        model.predict(test, 256, verbose=0).argmax(-1) == (task.test_y[:, None])
    )
    return dict(zip(paths, 100 * right.mean(axis=0), strict=True))


def pooled(
    network: "keras.Model", paths: Sequence[str], x: np.ndarray
) -> list[np.ndarray]:
    """Returns the mean features of each tap, by layers of Keras alone."""
    import keras

    outputs = [network.get_layer(path).output for path in paths]
    pool = keras.layers.GlobalAveragePooling2D
    means = [pool()(t) if len(t.shape) == 4 else t for t in outputs]
    return keras.Model(network.input, means).predict(x, 128, verbose=0)


def _standard(
    features: Sequence[np.ndarray], trained: Sequence[np.ndarray]
) -> np.ndarray:
    """Returns `(samples, taps, width)`, standardised as the training data."""
    width = max(x.shape[1] for x in features)
    result = np.zeros((len(features[0]), len(features), width), "float32")
    for i, (x, other) in enumerate(zip(features, trained, strict=True)):
        spread = np.maximum(other.std(axis=0), 1e-6)
        result[:, i, : x.shape[1]] = (x - other.mean(axis=0)) / spread
    return result


def fine_tune(network: "keras.Model", path: str, task: Task) -> float:
    """Returns the accuracy after training all up to a tap, in percent."""
    import keras

    import keras_cascade as kc

    keras.utils.set_random_seed(0)
    cascade = kc.build_cascade(
        network,
        taps=[path],
        head=int(task.y.max()) + 1,
        trainable={"upstream": True, "upstream/*norm*": False},
        optimizer=keras.optimizers.Adam(1e-3),
        loss="sparse_categorical_crossentropy",
    )
    part = slice(TUNED_SAMPLES)
    cascade.fit(task.x[part], task.y[part], 32, TUNED_EPOCHS, verbose=0)
    found = cascade.predict(task.test_x, 256, verbose=0).argmax(axis=1)
    return 100 * float((found == task.test_y).mean())


def make_network(name: str) -> "keras.Model":
    """Returns a network of `NETWORKS`."""
    import keras

    import keras_cascade as kc

    encoder = kc.zoo.load("glyph_encoder")
    keras.utils.set_random_seed(0)
    if name == "tuned to digits":
        train, _ = kc.zoo.digits()
        head = keras.layers.Dense(10, activation="softmax")
        model = keras.Model(encoder.input, head(encoder.output))
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(train.images, train.labels, 32, TUNING_EPOCHS, verbose=0)
    if name == "untrained":
        encoder = keras.models.clone_model(encoder)
        _settle(encoder, make_task("digits", 256).x)
    return encoder


def _settle(network: "keras.Model", x: np.ndarray) -> None:
    """Makes the moving statistics those of the images."""
    import keras

    kind = keras.layers.BatchNormalization
    norms = [layer for layer in network.layers if isinstance(layer, kind)]
    for layer in norms:
        layer.momentum = 0.0
    network(x, training=True)


def make_task(name: str, count: int) -> Task:
    """Returns a task of `TASKS`: images of 32 x 32 in [0, 255]."""
    import keras_cascade as kc

    if name == "digits":
        train, test = kc.zoo.digits()
        return Task(
            train.images[:count],
            train.labels[:count],
            test.images[:TEST],
            test.labels[:TEST],
        )
    draw = np.random.default_rng(0)
    make = {"character": _character, "font": _font, "rotation": _rotation}
    x, y = make[name](draw, count + TEST)
    return Task(x[:count], y[:count], x[count:], y[count:])


Labelled = tuple[np.ndarray, np.ndarray]


def _character(draw: np.random.Generator, count: int) -> Labelled:
    """Returns letters in fonts that the encoder never saw."""
    glyphs = import_glyphs()
    classes = np.array([c for c in glyphs.CLASSES if c.isupper()])
    y = draw.integers(len(classes), size=count)
    faces = glyphs.atlas(glyphs.TEST_FACES)
    return glyphs.render(faces, classes[y], draw), y


def _font(draw: np.random.Generator, count: int) -> Labelled:
    """Returns letters of any kind; the label is the font."""
    glyphs = import_glyphs()
    classes = np.array([c for c in glyphs.CLASSES if c.isupper()])
    y = draw.integers(len(glyphs.TEST_FACES), size=count)
    x = np.zeros((count, 32, 32, 1), "float32")
    for number, face in enumerate(glyphs.TEST_FACES):
        own = np.flatnonzero(y == number)
        letters = classes[draw.integers(len(classes), size=len(own))]
        x[own] = glyphs.render(glyphs.atlas([face]), letters, draw)
    return x, y


def _rotation(draw: np.random.Generator, count: int) -> Labelled:
    """Returns letters turned by quarters; the label is the number of them."""
    x, _ = _character(draw, count)
    y = draw.integers(4, size=count)
    turned = [np.rot90(one, turns) for one, turns in zip(x, y, strict=True)]
    return np.stack(turned), y


def import_glyphs() -> ModuleType:
    """Returns the module that rendered the zoo's training data."""
    from keras_cascade._package.resources import folder

    path = Path(folder("saved_models") / "glyphs.py")
    if not path.is_file():
        raise FileNotFoundError(
            f"The letters are rendered by {path.name}, which is in a checkout "
            "of the project and not in an installed package."
        )
    spec: Any = importlib.util.spec_from_file_location("glyphs", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
