"""Tests every network of keras.applications injected into itself.

Each is upstream, tapped at a quarter of its depth, and downstream, entered at
half of it. It ends in the logits of ten classes: the gradient of the summed
cross-entropy there is of size one a sample, however wide the network is, so
that three steps of 1e-3 show in the loss, in float32. What random weights make
of it on the way down differs by a factor of 1e6 between networks, and can
overshoot: gradients are clipped to norm one.
"""

import gc

import keras
import numpy as np
import pytest

import keras_cascade as kc
from keras_cascade.injection.arguments import MERGES
from tests.applications import (
    SIDES,
    exported_applications,
    images_for,
    inner_maps,
    make,
    settle,
    spread,
)

BACKEND = keras.backend.backend()
CLASSES = 10
SAMPLES = 8
# The smallest network of each module, with one of the merges.
SMALLEST = {
    "ConvNeXtTiny": "film",
    "DenseNet121": "concat",
    "EfficientNetB0": "add",
    "EfficientNetV2B0": "multiply",
    "InceptionResNetV2": "add",
    "InceptionV3": "film",
    "MobileNet": "concat",
    "MobileNetV2": "multiply",
    "MobileNetV3Small": "film",
    "NASNetMobile": "add",
    "ResNet50": "concat",
    "ResNet50V2": "multiply",
    "VGG16": "film",
    "VGG19": "add",
    "Xception": "concat",
}
# Tested on backends other than TensorFlow; every merge is tested on a small
# network besides.
QUICKEST = ("VGG16",)
# Tested in `large` only: each takes as long as five others.
SLOWEST = ("InceptionResNetV2", "NASNetMobile")
# Their branches are scaled down before they are added: three steps then change
# the loss by less than the precision of float32.
SCALED = ("InceptionResNetV2",)
NO_NASNET = pytest.mark.skipif(
    BACKEND == "torch", reason="Keras has no NASNet on torch, by its own error"
)


# The tapped network is the one that features enter.
pytestmark = pytest.mark.filterwarnings("ignore:[^(]*shares layers")


def _marked(names, large=SLOWEST):
    return [
        pytest.param(
            name,
            marks=[
                *([NO_NASNET] if name.startswith("NASNet") else []),
                *([pytest.mark.large] if name in large else []),
            ],
        )
        for name in names
    ]


def test_every_network_that_keras_exports_is_tested():
    exported = exported_applications()
    assert set(exported) == set(SIDES)
    assert _modules(exported) == _modules(SMALLEST)


def _modules(names):
    return {getattr(keras.applications, name).__module__ for name in names}


@pytest.mark.parametrize(
    "name", _marked(SMALLEST if BACKEND == "tensorflow" else QUICKEST)
)
def test_the_smallest_network_of_each_module_can_be_injected(
    name, record_property, tmp_path
):
    case = Case(name, record_property, tmp_path)
    case.check(SMALLEST[name], compiled=False)


@pytest.mark.parametrize("merge", MERGES)
def test_every_merge_works(merge, record_property, tmp_path):
    # A network of few layers: each merge compiles them, which takes time.
    Case("MobileNet", record_property, tmp_path, residual_network()).check(
        merge
    )


def residual_network():
    """Returns convolutions of three sizes, one of them with a shortcut."""
    x = keras.Input((SIDES["MobileNet"], SIDES["MobileNet"], 3))
    y = convolution(x, 8, 2)
    y = keras.layers.add([y, convolution(convolution(y, 8), 8)])
    y = convolution(convolution(convolution(y, 16, 2), 16), 24, 2)
    y = keras.layers.GlobalAveragePooling2D()(y)
    return keras.Model(x, keras.layers.Dense(CLASSES)(y))


def convolution(x, filters, strides=1):
    y = keras.layers.Conv2D(filters, 3, strides, "same", use_bias=False)(x)
    return keras.layers.ReLU()(keras.layers.BatchNormalization()(y))


@pytest.mark.parametrize("name", _marked(SIDES, large=SIDES))
def test_every_network_works_with_every_merge(name, record_property, tmp_path):
    # Fewer leave some channels hardly any variance after a hundred layers,
    # and normalisations that divide by it make huge features for `replace`.
    enough = 256 * 32**2 // SIDES[name] ** 2
    case = Case(name, record_property, tmp_path, settled_on=enough)
    for merge in MERGES:
        case.check(merge)
        gc.collect()


class Case:
    """A network with settled weights, and checks of cascades with itself."""

    def __init__(self, name, record, folder, network=None, settled_on=SAMPLES):
        self.record, self.file = record, folder / "cascade.keras"
        self.images = images_for(name, SAMPLES)
        self.labels = np.arange(SAMPLES) % CLASSES
        self.network = network or make(
            name, classes=CLASSES, classifier_activation=None
        )
        settle(self.network, images_for(name, settled_on))
        self.tap, self.site = _places(self.network, name in SCALED)
        self.alone = _numpy(self.network(self.images))
        self.compiled = None
        self.spread = spread(self.alone)
        assert self.spread > 1e-2

    def check(self, merge, compiled=True):
        """Checks the first predictions, training, and the saved file."""
        cascade = self.build(merge, compiled)
        start = _numpy(cascade(self.images))
        if merge == "replace":
            self.check_cut(cascade, start)
        else:
            self.check_silent(start, merge)
        if compiled and merge != "replace":
            self.check_compiled(cascade, merge)
        end = self.check_learns(cascade, start, merge)
        self.check_file(cascade, end)

    def build(self, merge, compiled=True):
        """Returns a cascade in which only the adapters train."""
        cascade = kc.build_cascade(
            self.network,
            self.network,
            taps={"tap": self.tap.name},
            inject={"tap": kc.Injection(self.site.name, merge)},
            preprocess=None,
            trainable={"upstream": False, "downstream": False},
            optimizer=keras.optimizers.SGD(1e-3, global_clipnorm=1.0),
            loss=keras.losses.SparseCategoricalCrossentropy(
                from_logits=True, reduction="sum"
            ),
        )
        # TensorFlow traces hundreds of layers in ten times their time.
        cascade.run_eagerly = not compiled and BACKEND == "tensorflow"
        return cascade

    def check_silent(self, start, merge):
        """Checks that it computes what the downstream computes alone."""
        difference = float(np.abs(start - self.alone).max())
        self.record(f"{merge}: largest difference at step 0", difference)
        assert difference == 0

    def check_compiled(self, cascade, merge):
        """Checks that compiling changes it no more than the network alone.

        The two are two programs, whose factors it may order differently: each
        lies off by about as much from what is computed call by call.
        """
        if self.compiled is None:
            self.compiled = self.network.predict(self.images, verbose=0)
        predicted = cascade.predict(self.images, verbose=0)
        difference = np.abs(predicted - self.compiled).max() / self.spread
        moved = np.abs(self.compiled - self.alone).max() / self.spread
        self.record(f"{merge}: compiled, by spread", float(difference))
        self.record(f"{merge}: network alone, compiled", float(moved))
        assert difference <= max(1e-6, 2 * moved)

    def check_cut(self, cascade, start):
        """Checks that it computes the same as Keras's own cut at that layer."""
        cut = self.cut()
        images = keras.ops.convert_to_tensor(self.images)
        tapped = cascade.blocks["upstream"](images)
        features = cascade.adapters["tap"](tapped["tap"])
        expected = cut([images, features][-len(cut.inputs) :])
        np.testing.assert_array_equal(start, _numpy(expected))
        kept = cascade.blocks["downstream"].variables
        assert len(kept) == len(cut.variables)

    def cut(self):
        """Returns the network from the site on, with its input if needed."""
        site, output = self.site.output, self.network.output
        try:
            return keras.Model([site], output)
        except ValueError:  # "not connected": a path leads around the site
            return keras.Model([self.network.input, site], output)

    def check_learns(self, cascade, start, merge):
        """Checks that three steps lower the loss, and train the adapter."""
        trained = {v.path: v for v in cascade.trainable_variables}
        before = {path: _numpy(v).copy() for path, v in trained.items()}
        assert all(path.startswith("adapters/") for path in trained)
        for _ in range(3):
            cascade.train_on_batch(self.images, self.labels)
        kernel = "adapters/tap/kernel"
        assert np.any(_numpy(trained[kernel]) != before[kernel])
        end = _numpy(cascade(self.images))
        at_start, at_end = self.loss(start), self.loss(end)
        self.record(f"{merge}: loss before", at_start)
        self.record(f"{merge}: loss after", at_end)
        assert at_end < at_start
        return end

    def check_file(self, cascade, end):
        """Checks that the loaded model is bit-identical."""
        cascade.save(self.file)
        again = keras.saving.load_model(self.file)
        self.file.unlink()
        np.testing.assert_array_equal(_numpy(again(self.images)), end)

    def loss(self, logits):
        """Returns the sum of the samples' cross-entropies, in float64."""
        logits = logits.astype("float64")
        logits -= logits.max(axis=-1, keepdims=True)
        normaliser = np.log(np.exp(logits).sum(axis=-1))
        return float((normaliser - logits[range(SAMPLES), self.labels]).sum())


def _places(network, in_no_branch):
    """Returns a layer at a quarter, and one from half on of another shape.

    Of another shape, so that an adapter stands between them. On request the
    second is one that everything passes through.
    """
    maps = inner_maps(network)
    tap = maps[len(maps) // 4]
    later = maps[len(maps) // 2 :]
    possible = (x for x in later if x.output.shape != tap.output.shape)
    return tap, next(
        x for x in possible if not in_no_branch or _is_passed(network, x)
    )


def _is_passed(network, layer):
    """Whether every path from the input to the output meets a layer."""
    try:
        keras.Model([layer.output], network.output)
    except ValueError:  # "not connected"
        return False
    return True


def _numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)
