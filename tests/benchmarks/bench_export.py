"""Compares a cascade's LiteRT file with files written without the library."""

import os
import runpy
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import keras

    import keras_cascade as kc

FOLDER = Path(__file__).parent
FILES = runpy.run_path(str(FOLDER / "litert_files.py"))
open_file, only_output = FILES["open_file"], FILES["only_output"]
in_turns, sample_of = FILES["in_turns"], FILES["sample_of"]
as_row = runpy.run_path(str(FOLDER / "timing.py"))["as_row"]
NETWORKS = ("glyph_encoder", "MobileNetV3Small")
# The inner layer of each upstream that is tapped, besides its output.
TAPS = {
    "glyph_encoder": "stage2_out",
    "MobileNetV3Small": "expanded_conv_7_add",
}
COMPONENTS, UNITS, METADATA = 32, 96, 2
SAMPLES = 64
# Relative to the standard deviation of the outputs over the samples.
TOLERANCE = 1e-3

Inputs = dict[str, np.ndarray]
Route = Callable[[Inputs], np.ndarray]


class Parts(NamedTuple):
    """A cascade, and the networks that it is built from.

    Attributes:
        cascade: The cascade, with a fitted PCA.
        upstream: The upstream.
        downstream: The downstream.
        tap: The inner layer of the upstream that is tapped.
    """

    cascade: "kc.Cascade"
    upstream: "keras.Model"
    downstream: "keras.Model"
    tap: str


def run(
    networks: Sequence[str] = NETWORKS,
    pairs: int = 7,
    runs: int = 200,
    size: int = 96,
) -> list[dict]:
    """Returns three rows for each network; one sample on one thread.

    Args:
        networks: The upstreams. Defaults to `NETWORKS`.
        pairs: The number of pairs of times. Defaults to `7`.
        runs: The number of runs in a block, of which a time is the median.
            The two files take turns block by block, so that noise affects both
            alike. Defaults to `200`.
        size: Height and width of MobileNetV3Small's images. Defaults to `96`.

    Returns:
        Rows with `name`, the medians of the seconds a sample `ours_s` and
        `reference_s`, `ratio` (the median of the pairs' ratios), its `bound`
        as text, and whether it `holds`.

    Raises:
        RuntimeError: If the backend is not TensorFlow, the only one on which
            Keras writes such files of all networks, or if outputs differ.
    """
    import keras

    if keras.config.backend() != "tensorflow":
        raise RuntimeError(
            "bench export compares with Keras's own LiteRT files, which it "
            "writes on TensorFlow: set KERAS_BACKEND=tensorflow; it is "
            f"'{keras.config.backend()}'."
        )
    rows = []
    for name in networks:
        with tempfile.TemporaryDirectory() as folder:
            rows += _rows(name, Path(folder), pairs, runs, size)
    return rows


def _rows(
    name: str, folder: Path, pairs: int, runs: int, size: int
) -> list[dict]:
    parts, inputs = _make(name, size)
    ours = _exported(parts.cascade, folder / "ours.tflite")
    others = {
        "two files with NumPy between": (_apart(parts, folder), 1.0),
        "one file written by hand": (
            _by_keras(_by_hand(parts), folder / "hand.tflite"),
            1.05,
        ),
        "itself without folding": (
            _exported(parts.cascade, folder / "plain.tflite", fold=False),
            1.05,
        ),
    }
    rows = []
    for what, (reference, bound) in others.items():
        _check_same_answers(f"{name}, {what}", ours, reference, inputs)
        times = in_turns((ours, reference), sample_of(inputs, 0), pairs, runs)
        rows.append(as_row(f"{name}, by {what}", times, bound))
    return rows


# The cascade


def _make(name: str, size: int) -> tuple[Parts, Inputs]:
    """Returns the README's cascade on an upstream, and samples for it."""
    import keras

    import keras_cascade as kc

    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    upstream, images = _upstream(name, size)
    downstream = kc.zoo.load("digits_expert")
    cascade = kc.build_cascade(
        upstream,
        downstream,
        taps={"texture": TAPS[name], "shape": "-1"},
        adapters={
            "texture": kc.adapters.PCAAdapter(COMPONENTS),
            "shape": kc.adapters.DenseAdapter(UNITS),
        },
        extra_inputs={"metadata": (METADATA,)},
        preprocess=None,
    )
    random = np.random.default_rng(1)
    metadata = random.uniform(0, 1, (len(images), METADATA)).astype("float32")
    inputs = {"inputs": images, "metadata": metadata}
    cascade.adapt(inputs, verbose=False)
    return Parts(cascade, upstream, downstream, TAPS[name]), inputs


def _upstream(name: str, size: int) -> tuple["keras.Model", np.ndarray]:
    import keras

    import keras_cascade as kc

    random = np.random.default_rng(0)
    if name in kc.zoo.names():
        network = kc.zoo.load(name)
        shape = network.input_shape[1:]
    else:
        shape = (size, size, 3)
        network = getattr(keras.applications, name)(
            weights=None, include_top=False, input_shape=shape
        )
    # Brighter and darker images, so that outputs differ.
    brightest = random.uniform(20, 255, (SAMPLES, 1, 1, 1))
    images = random.uniform(0, 1, (SAMPLES, *shape)) * brightest
    images = images.astype("float32")
    if name not in kc.zoo.names():
        _settle(network, images)
    return network, images


def _settle(network: "keras.Model", images: np.ndarray) -> None:
    """Sets the moments of normalizations to those of the images.

    With random weights and initial moments, the outputs of a network hardly
    depend on its input.
    """
    import keras

    norms = [
        layer
        for layer in network.layers
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    momenta = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = 0.0
    network(images, training=True)
    for layer, momentum in zip(norms, momenta, strict=True):
        layer.momentum = momentum


# The routes


def _exported(cascade: "kc.Cascade", path: Path, fold: bool = True) -> Route:
    import keras_cascade as kc

    kc.export(cascade, path, fold=fold, verbose=False)
    return only_output(open_file(path))


def _by_keras(model: "keras.Model", path: Path) -> Route:
    _write_by_keras(model, path)
    return only_output(open_file(path))


def _apart(parts: Parts, folder: Path) -> Route:
    """Returns a function of a file for each network, with NumPy in between."""
    _write_by_keras(_features(parts), folder / "first.tflite")
    _write_by_keras(parts.downstream, folder / "second.tflite")
    first, second = (
        open_file(folder / "first.tflite"),
        open_file(folder / "second.tflite"),
    )
    mean, components, kernel, bias = _adapters(parts.cascade)
    image = parts.upstream.inputs[0].name
    evidence = parts.downstream.inputs[0].name

    def route(inputs: Inputs) -> np.ndarray:
        found = first({image: inputs["inputs"]})
        texture = (_pooled(found["output_0"]) - mean) @ components
        shape = _pooled(found["output_1"]) @ kernel + bias
        features = [texture, shape, inputs["metadata"]]
        joined = np.concatenate(features, axis=1)
        return second({evidence: joined})["output_0"]

    return route


def _by_hand(parts: Parts) -> "keras.Model":
    """Returns the cascade as one writes it in stock Keras."""
    import keras
    from keras import layers

    mean, components, kernel, bias = _adapters(parts.cascade)
    inputs = keras.Input(parts.upstream.input_shape[1:], name="inputs")
    metadata = keras.Input((METADATA,), name="metadata")
    texture, shape = (
        layers.GlobalAveragePooling2D()(x) if len(x.shape) == 4 else x
        for x in _features(parts)(inputs)
    )
    centre = layers.Normalization(mean=mean, variance=np.ones_like(mean))
    project = layers.Dense(COMPONENTS, use_bias=False)
    dense = layers.Dense(UNITS)
    joined = layers.Concatenate()(
        [project(centre(texture)), dense(shape), metadata]
    )
    project.set_weights([components])
    dense.set_weights([kernel, bias])
    return keras.Model([inputs, metadata], parts.downstream(joined))


def _features(parts: Parts) -> "keras.Model":
    import keras

    tapped = parts.upstream.get_layer(parts.tap).output
    return keras.Model(parts.upstream.input, [tapped, parts.upstream.output])


def _adapters(cascade: "kc.Cascade") -> tuple[np.ndarray, ...]:
    """Returns mean and components of the PCA, kernel and bias of the Dense."""
    pca = cascade.adapters["texture"]
    dense = cascade.adapters["shape"]
    found = pca.mean, pca.components, *dense.weights
    mean, components, kernel, bias = (x.numpy() for x in found)
    return mean, np.ascontiguousarray(components.T), kernel, bias


def _pooled(features: np.ndarray) -> np.ndarray:
    return features.mean((1, 2)) if features.ndim == 4 else features


def _write_by_keras(model: "keras.Model", path: Path) -> None:
    import tensorflow as tf

    # Keras asks for TensorFlow's own operators too, which need a larger
    # interpreter.
    builtin = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS]}
    model.export(path, format="litert", target_spec=builtin, verbose=False)


# Comparing


def _check_same_answers(
    what: str, ours: Route, reference: Route, inputs: Inputs
) -> None:
    own, other = (
        np.concatenate([route(sample_of(inputs, i)) for i in range(SAMPLES)])
        for route in (ours, reference)
    )
    spread = other.std(axis=0).mean()
    difference = np.abs(own - other).max() / spread
    if not difference <= TOLERANCE:
        raise RuntimeError(
            f"{what}: the answers are {difference:.2g} deviations apart, so "
            "that times would be of different work."
        )


def main() -> None:
    """Prints the rows."""
    for row in run():
        print(row)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
