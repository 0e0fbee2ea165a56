"""Networks of transformers, torchvision and timm do what cascades do.

For each: a training step beside PyTorch's, taps beside forward hooks, features
into a Keras application and from one, LoRA, cached features, and files. The
packages are in no test environment; installed beside PyTorch, all run:
`pip install torchvision timm transformers`.
"""

import itertools
import os
import re
import subprocess
import sys
from copy import deepcopy
from types import SimpleNamespace

import keras
import numpy as np
import pytest

import keras_cascade as kc
from keras_cascade.networks.pytorch.conversion import convert
from keras_cascade.networks.pytorch.naming import keras_name
from keras_cascade.networks.pytorch.outputs import named_leaves
from keras_cascade.networks.pytorch.parameters import Parameter
from keras_cascade.networks.pytorch.verification import torch_outputs
from tests.networks.pytorch.families import (
    CASES,
    IDS,
    define_operators,
    prepared,
)

torch = pytest.importorskip("torch", reason="modules are PyTorch's")
pytestmark = [
    pytest.mark.large,
    # Of PyTorch: some of timm's modules keep constants that they computed.
    pytest.mark.filterwarnings(
        "ignore:The tensor attribute.*assigned during export"
    ),
]
RATE = 2.0**-10


@pytest.fixture(scope="module", autouse=True)
def operators():
    yield define_operators()


@pytest.fixture(scope="module", params=CASES, ids=IDS)
def family(request, operators):
    """A module, and the network that is made of it, for all tests of it."""
    package, name = request.param
    pytest.importorskip(package, reason="not in the test environments")
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    module, example = prepared(package, name)
    converted = convert(module, example)
    values = converted.inputs
    data = {
        value.tensor.name: tensor.numpy()
        .transpose(value.order)
        .astype(value.dtype)
        for tensor, value in zip(example.tensors(), values, strict=True)
    }
    network = converted.network
    return SimpleNamespace(
        module=module,
        example=example,
        network=network,
        weights=converted.weights,
        outputs=converted.outputs,
        data=data,
        paths=inner_modules(module, example, network),
    )


@pytest.fixture(scope="module")
def application():
    """A small network of Keras's, of which the features are read inside."""
    network = keras.applications.MobileNetV2(
        (32, 32, 3), alpha=0.35, weights=None, classes=5, name="application"
    )
    randomize(network)
    return network


def randomize(network):
    """Gives BatchNormalization moments that move its maps."""
    rng = np.random.default_rng(0)
    for layer in network.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, variance = layer.get_weights()
            noise = rng.normal(0, 0.1, (2, *gamma.shape))
            layer.set_weights(
                [gamma, beta + noise[0], mean + noise[1], variance]
            )


PIXELS = np.random.default_rng(1).uniform(-1, 1, (8, 32, 32, 3))


def inner_modules(module, example, network):
    """Three modules of which the outputs are tensors of the network."""
    calls, handles = {}, []

    def note(path):
        def hook(_, __, output):
            calls.setdefault(path, []).append(output)

        return hook

    for path, part in module.named_modules():
        if path:
            handles.append(part.register_forward_hook(note(path)))
    torch_outputs(module, example)
    for handle in handles:
        handle.remove()
    names = {operation.name for operation in network.operations}
    batch = len(example.tensors()[0])
    found = [
        path
        for path, outputs in calls.items()
        if len(outputs) == 1
        and isinstance(outputs[0], torch.Tensor)
        and outputs[0].is_floating_point()
        and len(outputs[0]) == batch
        and outputs[0].ndim > 1
        and keras_name(path) in names
    ]
    assert len(found) > 2, found
    return [found[len(found) * i // 4] for i in (1, 2, 3)]


def answer(model, data):
    """What a model answers, by the names of its outputs, in inference mode."""
    found = model(given(model, data), training=False)
    return keras.tree.map_structure(keras.ops.convert_to_numpy, found)


def given(model, data):
    """The data that a model takes, in the structure of its inputs.

    A cascade calls the only input of a network "inputs".
    """
    (only, *_) = data

    def of(tensor):
        name = re.sub(r":\d+$", "", tensor.name)
        return data[only if name == "inputs" else name]

    return keras.tree.map_structure(of, model.input)


def assert_same(found, wanted, tolerance=1e-4):
    for x, y in zip(
        keras.tree.flatten(found), keras.tree.flatten(wanted), strict=True
    ):
        spread = y.std(0).mean() or 1.0
        assert np.abs(x - y).max() / spread < tolerance


# Training.


@pytest.mark.parametrize("training", [False, True])
def test_a_step_of_SGD_is_that_of_torch(family, training, record_property):
    if training and not has_batch_normalization(family.module):
        pytest.skip("the same in both modes")
    directions = {
        name: np.random.default_rng(2)
        .normal(
            size=[len(family.example.tensors()[0]), *value.tensor.shape[1:]]
        )
        .astype("float32")
        for name, value in family.outputs.items()
    }
    found = keras_gradients(family, directions, training)
    wanted = torch_gradients(family, directions, training)
    far = [k for k, x in wanted.items() if not_near(found[k], x)]
    record_property(f"far_{training}", f"{len(far)} of {len(wanted)}")
    if not far:
        return
    wrong = far_apart(found, wanted)
    record_property(f"norm_{training}", f"{wrong:.1e}")
    if training:
        # Keras takes variances of batches as mean(x²) - mean(x)² on PyTorch,
        # which loses digits where a channel's mean is far from zero.
        assert wrong < 0.05
    else:
        # What is left is rounding, which turns a ReLU on or off: PyTorch is as
        # far from itself in 64 bits, or for inputs that differ by a millionth.
        others = [
            torch_gradients(family, directions, training, change)
            for change in (in_64_bits, *map(nearby, range(4)))
        ]
        rounding = max(far_apart(wanted, other) for other in others)
        assert wrong < max(1e-3, 4 * rounding)


def in_64_bits(module, x):
    module.double()
    return x.double() if x.is_floating_point() else x


def nearby(seed):
    def change(_, x):
        if not x.is_floating_point():
            return x
        generator = torch.Generator().manual_seed(seed)
        return x * (1 + 1e-6 * torch.randn(x.shape, generator=generator))

    return change


def far_apart(found, wanted):
    """The distance of all gradients, relative to their length."""
    both = [
        np.concatenate([x[k].ravel() for k in wanted]) for x in (found, wanted)
    ]
    return np.linalg.norm(both[0] - both[1]) / np.linalg.norm(both[1])


def has_batch_normalization(module):
    kind = torch.nn.modules.batchnorm._BatchNorm
    return any(isinstance(part, kind) for part in module.modules())


def not_near(found, wanted):
    return np.abs(found - wanted).max() > 1e-3 * np.abs(wanted).max()


class Projection(keras.Loss):
    """The sum of an output along a direction, of each sample."""

    def call(self, y_true, y_pred):
        axes = tuple(range(1, len(y_pred.shape)))
        return keras.ops.sum(y_true * y_pred, axes)


class InMode(keras.Model):
    """A network in one mode, whatever the mode of the call."""

    def __init__(self, network, mode):
        super().__init__()
        self.network, self.mode = network, mode

    def call(self, inputs):
        return self.network(inputs, training=self.mode)


def keras_gradients(family, directions, training):
    """PyTorch's names to minus the first velocity of SGD, over the rate."""
    network = keras.models.clone_model(family.network)
    network.set_weights(family.network.get_weights())
    for layer in network.layers:
        if isinstance(layer, keras.layers.Dropout):
            layer.rate = 0.0
    named = isinstance(network.output, dict)
    targets = directions if named else list(directions.values())
    if not named and len(targets) == 1:
        (targets,) = targets
    model = InMode(network, training)
    losses = keras.tree.map_structure(
        lambda _: Projection(reduction="sum"), targets
    )
    optimizer = keras.optimizers.SGD(RATE, momentum=0.5)
    model.compile(optimizer, losses)
    data = given(network, family.data)
    model.train_on_batch(data, targets)
    velocities = {
        variable.path.removeprefix(f"{model.name}/"): -to_numpy(velocity) / RATE
        for variable, velocity in zip(
            model.trainable_variables, optimizer.momentums, strict=True
        )
    }
    assert_moved(network, family.network, velocities)
    return {
        weight.sources[0].name: in_torch(weight, velocities)
        for weight in family.weights
        if isinstance(weight.sources[0], Parameter)
        and weight.sources[0].trainable
    }


def to_numpy(tensor):
    return keras.ops.convert_to_numpy(tensor)


def assert_moved(network, before, velocities):
    """Weights went where the gradients send them."""
    for new, old in zip(
        network.trainable_weights, before.trainable_weights, strict=True
    ):
        wanted = to_numpy(old) - RATE * velocities[new.path]
        np.testing.assert_allclose(to_numpy(new), wanted, rtol=1e-5, atol=1e-6)


def in_torch(weight, velocities):
    """The gradient of a parameter, with PyTorch's axes.

    Which element of Keras's weight is which of PyTorch's tells the numbers of
    all elements, laid out as Keras has them.
    """
    shape = weight.sources[0].array.shape
    places = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    if len(weight.sources) > 1:
        return velocities[weight.find().path].reshape(shape)
    places = np.asarray(weight.to_keras(places)).ravel()
    found = np.empty(places.size)
    found[places] = velocities[weight.find().path].ravel()
    return found.reshape(shape)


def torch_gradients(family, directions, training, change=None):
    """Gradients by name; only BatchNormalization is in training mode."""
    module, example = deepcopy(family.module).eval(), family.example
    if change is not None:
        example = example.map(lambda x: change(module, x))
    if training:
        for part in module.modules():
            if isinstance(part, torch.nn.modules.batchnorm._BatchNorm):
                part.train()
    outputs = named_leaves(module(*example.args, **example.kwargs))
    sum(
        (
            outputs[name]
            * torch.from_numpy(x.transpose(np.argsort(value.order)).copy())
        ).sum()
        for (name, value), x in zip(
            family.outputs.items(), directions.values(), strict=True
        )
    ).backward()
    return {
        source.name: gradient_of(module, source.name)
        for weight in family.weights
        for source in weight.sources[:1]
        if isinstance(source, Parameter) and source.trainable
    }


def gradient_of(module, name):
    parameter = module.get_parameter(name)
    if parameter.grad is None:
        return np.zeros(parameter.shape)
    return parameter.grad.double().numpy().copy()


# In cascades.


def test_taps_equal_forward_hooks(family):
    hooked, handles = {}, []
    for path in family.paths:
        handles.append(
            family.module.get_submodule(path).register_forward_hook(
                lambda _, __, output, path=path: hooked.update(
                    {path: output.detach().clone().numpy()}
                )
            )
        )
    torch_outputs(family.module, family.example)
    for handle in handles:
        handle.remove()
    names = [f"tap{i}" for i in range(3)]
    cascade = kc.build_cascade(
        family.network,
        taps=dict(zip(names, family.paths, strict=True)),
        adapters=None,
        fusion=None,
    )
    found = answer(cascade, family.data)
    for name, path in zip(names, family.paths, strict=True):
        wrong = difference_in_any_order(found[name], hooked[path])
        assert wrong < 1e-3, (path, wrong)


def difference_in_any_order(found, wanted):
    """The difference in the order of axes that is nearest; samples first."""
    assert sorted(found.shape) == sorted(wanted.shape)
    spread = wanted.std(0).mean() or 1.0
    orders = itertools.permutations(range(1, found.ndim))
    return min(
        np.abs(found.transpose(0, *order) - wanted).max() / spread
        for order in orders
        if found.transpose(0, *order).shape == wanted.shape
    )


_POOLS = {
    3: keras.layers.GlobalAveragePooling1D,
    4: keras.layers.GlobalAveragePooling2D,
    5: keras.layers.GlobalAveragePooling3D,
}


def pooled(network, path):
    """The adapter that gives a vector of the output of a layer."""
    name = keras_name(path)
    (tensor,) = [o.output for o in network.operations if o.name == name]
    pool = _POOLS.get(len(tensor.shape))
    return pool() if pool else keras.layers.Identity()


def snapshot(model):
    return [keras.ops.convert_to_numpy(w).copy() for w in model.weights]


def assert_bits(found, wanted):
    for x, y in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(x, y)


def test_its_features_enter_a_keras_application(family, application):
    path = family.paths[1]
    cascade = kc.build_cascade(
        family.network,
        application,
        taps={"inner": path},
        adapters={"inner": pooled(family.network, path)},
        inject={"inner": "block_6_expand_relu"},
        inputs={"downstream": "pixels"},
        trainable={"downstream": False},
        preprocess=None,
        loss="mse",
        optimizer=keras.optimizers.SGD(1.0),
    )
    data = {**family.data, "pixels": PIXELS.astype("float32")}
    wanted = application(data["pixels"], training=False)
    assert_same(answer(cascade, data), keras.ops.convert_to_numpy(wanted), 1e-5)
    check_only_the_adapters_learn(cascade, data, np.eye(5)[np.arange(8) % 5])


def check_only_the_adapters_learn(cascade, data, targets):
    """Fits, after which frozen networks are the same, bit for bit."""
    frozen = {k: snapshot(b) for k, b in cascade.blocks.items()}
    adapters = frozen.pop("adapters")
    cascade.fit(
        given(cascade, data), targets, batch_size=4, epochs=1, verbose=0
    )
    for name, before in frozen.items():
        assert_bits(snapshot(cascade.blocks[name]), before)
    after = snapshot(cascade.blocks["adapters"])
    moved = [np.abs(x - y).max() for x, y in zip(after, adapters, strict=True)]
    assert max(moved) > 0
    assert all(np.isfinite(moved))


def test_an_applications_features_enter_it(family, application):
    path = family.paths[1]
    layer = "block_6_expand_relu"
    cascade = kc.build_cascade(
        application,
        family.network,
        taps={"inner": layer},
        adapters={"inner": pooled(application, layer)},
        inject={"inner": path},
        inputs={"upstream": "pixels"},
        trainable={"downstream": False},
        preprocess=None,
        optimizer=keras.optimizers.SGD(RATE),
    )
    data = {**family.data, "pixels": PIXELS.astype("float32")}
    wanted = answer(family.network, family.data)
    found = answer(cascade, data)
    assert_same(found, wanted)
    cascade.compile(
        keras.optimizers.SGD(RATE),
        keras.tree.map_structure(lambda _: "mse", wanted),
    )
    targets = keras.tree.map_structure(np.zeros_like, wanted)
    check_only_the_adapters_learn(cascade, data, targets)


TARGETS = np.eye(3, dtype="float32")[np.arange(8) % 3]


def with_head(family, trainable=None):
    """A cascade of the network's features and a head."""
    paths = dict(zip("ab", family.paths[1:], strict=True))
    return kc.build_cascade(
        family.network,
        taps=paths,
        adapters={k: pooled(family.network, x) for k, x in paths.items()},
        head=3,
        trainable=trainable,
        loss="categorical_crossentropy",
        optimizer=keras.optimizers.SGD(RATE),
    )


def test_low_rank_updates_leave_kernels_as_they_are(family):
    keras.utils.set_random_seed(0)
    plain = with_head(family)
    keras.utils.set_random_seed(0)
    cascade = with_head(family, {"upstream": kc.LoRA(2)})
    assert_same(answer(cascade, family.data), answer(plain, family.data))
    upstream = cascade.blocks["upstream"]
    before = {
        weight.path: keras.ops.convert_to_numpy(weight).copy()
        for weight in upstream.weights
    }
    cascade.fit(given(cascade, family.data), TARGETS, verbose=0, epochs=2)
    moved = {
        w.path
        for w in upstream.weights
        if (keras.ops.convert_to_numpy(w) != before[w.path]).any()
    }
    assert moved
    assert all("lora" in path for path in moved), moved


def test_cached_features_train_the_same(family):
    keras.utils.set_random_seed(0)
    cascade = with_head(family)
    weights, losses = cascade.get_weights(), []
    for cached in (False, True):
        cascade.set_weights(weights)
        history = cascade.fit(
            given(cascade, family.data),
            TARGETS,
            epochs=2,
            batch_size=4,
            shuffle=False,
            verbose=0,
            cache_features=cached,
        )
        losses.append(history.history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-4)


# Files.

LOAD = """
import sys
class NoTorch:
    def find_spec(self, name, *_):
        if {block} and name.split(".")[0] == "torch":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NoTorch())
import keras, numpy as np
network = keras.models.load_model({path!r}, safe_mode=True)
data = dict(np.load({data!r}))
if len(data) == 1:
    (data,) = data.values()
found = keras.tree.flatten(network(data, training=False))
np.savez({out!r}, *(keras.ops.convert_to_numpy(x) for x in found))
assert "keras_cascade" not in sys.modules
"""


def test_a_file_loads_safely_without_torch(family, tmp_path):
    path, data, out = (tmp_path / x for x in ("n.keras", "x.npz", "y.npz"))
    family.network.save(path)
    np.savez(data, **family.data)
    code = LOAD.format(
        block=keras.backend.backend() != "torch",
        path=str(path),
        data=str(data),
        out=str(out),
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)
    wanted = keras.tree.flatten(answer(family.network, family.data))
    found = list(np.load(out).values())
    np.savez(tmp_path / "wanted.npz", *wanted)
    assert_same(found, wanted, 1e-5)
