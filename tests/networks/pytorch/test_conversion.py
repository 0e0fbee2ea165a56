"""Tests networks made of modules: answers, training, names and files."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_cascade as kc
from keras_cascade.networks.pytorch.conversion import convert
from keras_cascade.networks.pytorch.parameters import Parameter
from keras_cascade.networks.pytorch.tracing import read_example
from tests.networks.pytorch.comparing import (
    answers,
    assert_close,
    images,
    numbers,
)

torch = pytest.importorskip("torch", reason="modules are PyTorch's")
nn, F = torch.nn, torch.nn.functional


class Block(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.downsample = nn.Conv2d(inputs, outputs, 1, 2, bias=False)

    def forward(self, x):
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        y += self.downsample(x)
        return self.relu(y)


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer1 = nn.Sequential(Block(3, 8), Block(8, 8))
        self.drop = nn.Dropout(0.25)
        self.fc = nn.Linear(8, 4)

    def forward(self, x):
        x = F.adaptive_avg_pool2d(self.layer1(x), 1)
        return self.fc(self.drop(torch.flatten(x, 1)))


class Tokens(nn.Module):
    """A transformer: a class token, positions and a scale are bare."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.cls_token = nn.Parameter(numbers(1, 1, 8, seed=1))
        self.positions = nn.Parameter(numbers(1, 5, 8, seed=2))
        self.scale = nn.Parameter(numbers(8, seed=3))
        self.block = nn.TransformerEncoderLayer(
            8, 2, 16, dropout=0.0, batch_first=True
        )
        self.norm = nn.LayerNorm(8)

    def forward(self, pixel_values):
        x = self.patches(pixel_values).flatten(2).transpose(1, 2)
        token = self.cls_token.expand(x.shape[0], -1, -1)
        x = torch.cat([token, x], 1) + self.positions
        x = self.norm(self.block(x) * self.scale)
        return {"last_hidden_state": x, "pooler_output": x[:, 0].tanh()}


class Tied(nn.Module):
    """Its output layer has the weights of its embedding."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(9, 8)
        self.twice = nn.Linear(8, 8)

    def forward(self, ids):
        x = self.twice(torch.tanh(self.twice(self.embedding(ids))))
        return F.linear(x, self.embedding.weight)


IDS = (numbers(6, 5).abs() * 3).long()
PIXELS = numbers(6, 3, 8, 8)


def residual():
    torch.manual_seed(0)
    module = Residual()
    with torch.no_grad():
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = 1.0
        module(PIXELS)
        for part in module.modules():
            if isinstance(part, nn.BatchNorm2d):
                part.momentum = 0.2
    return module


def test_a_residual_network_answers_as_its_module():
    module = residual()
    network = kc.from_torch(module, (3, 8, 8))
    assert network.input_shape == (None, 8, 8, 3)
    found = network.predict(images(PIXELS), verbose=0)
    assert_close(found, answers(module, PIXELS))


def test_the_module_stays_as_it_is():
    module = residual().train()
    module.layer1[1].eval()
    before = {k: x.clone() for k, x in module.state_dict().items()}
    kc.from_torch(module, PIXELS[:1])
    assert module.training and not module.layer1[1].training
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_layers_are_named_after_modules():
    network = kc.from_torch(residual(), PIXELS)
    names = [operation.name for operation in network.operations]
    wanted = (
        "layer1-0-conv1",
        "layer1-0-bn1",
        "layer1-0-relu",
        "layer1-0-relu_1",
        "layer1-0-downsample",
        "layer1-0-add",
        "layer1-0",
        "layer1",
        "drop",
        "fc",
    )
    assert set(wanted) <= set(names)
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("path", ["layer1.0", "layer1.1.conv2", "layer1"])
def test_taps_equal_the_outputs_of_modules(path):
    module, found = residual(), []
    module.get_submodule(path).register_forward_hook(
        lambda _, __, output: found.append(output.clone())
    )
    answers(module, PIXELS)
    network = kc.from_torch(module, PIXELS)
    tap = kc.truncate(network, path)
    assert_close(tap.predict(images(PIXELS), verbose=0), images(found[0]))


class ScaledNorm(nn.Module):
    """Its weight is bare: not the output of the module."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(numbers(8, seed=4))

    def forward(self, x):
        return x * x.square().mean(-1, keepdim=True).rsqrt() * self.weight


class FlatLinear(nn.Linear):
    """Its layer is not its last operation."""

    def forward(self, x):
        return super().forward(x.flatten(0, 1)).unflatten(0, (-1, 5))


class PaddedConv(nn.Conv1d):
    """Its layer is its last operation, but not its only one."""

    def forward(self, x):
        return super().forward(F.pad(x, (1, 0)))


class NormAndActivation(nn.BatchNorm1d):
    def forward(self, x):
        return F.relu(super().forward(x))


def test_the_name_of_a_module_is_that_of_its_output():
    parts = {
        "norm": ScaledNorm(),
        "linear": FlatLinear(8, 8),
        "conv": PaddedConv(5, 5, 2),
        "bn": NormAndActivation(5),
        "embedding": Tied().embedding,
    }

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            for name, part in parts.items():
                setattr(self, name, part)

        def forward(self, ids):
            x = self.linear(self.norm(self.embedding(ids)))
            x = F.linear(self.bn(self.conv(x)), self.embedding.weight)
            return x.softmax(-1)

    torch.manual_seed(0)
    module, found = Net(), {}
    for name, part in parts.items():
        part.register_forward_hook(
            lambda _, __, output, name=name: found.update({name: output})
        )
    network = kc.from_torch(module, IDS)
    answers(module, IDS)
    for name, output in found.items():
        tap = kc.truncate(network, name)
        wanted = output.mT if name in ("conv", "bn") else output
        assert_close(tap.predict(IDS.numpy(), verbose=0), wanted)
    layers = {layer.name for layer in network.layers if layer.weights}
    assert layers == {
        "norm-weight",
        "linear-linear",
        "conv",
        "bn-batch_norm",
        "embedding-weight",
    }


class Positions(nn.Module):
    """Its output is the same for each sample."""

    def __init__(self):
        super().__init__()
        self.rows = nn.Parameter(numbers(8, seed=5))

    def forward(self, x):
        return self.rows.tanh().expand(x.shape[0], -1)


def test_a_tap_has_a_row_for_each_sample():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.positions = Positions()

        def forward(self, x):
            return x + self.positions(x)

    module, x = Net(), numbers(6, 8)
    tap = kc.truncate(kc.from_torch(module, x), "positions")
    wanted = answers(module.positions, x)
    found = tap.predict(x.numpy(), verbose=0)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


def test_no_transposes_are_between_convolutions():
    network = kc.from_torch(residual(), PIXELS)
    kinds = [type(operation).__name__ for operation in network.operations]
    assert kinds.count("Transpose") == 0


def test_batches_of_any_size():
    module = residual()
    network = kc.from_torch(module, PIXELS[:1])
    for size in (1, 5):
        found = network.predict(images(PIXELS[:size]), verbose=0)
        wanted = answers(module, PIXELS)[:size]
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_sizes_may_stay_free():
    module = residual()
    network = kc.from_torch(module, (3, None, None))
    assert network.input_shape == (None, None, None, 3)
    pixels = numbers(6, 3, 12, 20)
    found = network.predict(images(pixels), verbose=0)
    assert_close(found, answers(module, pixels))


def test_images_with_channels_first():
    module = residual()
    network = kc.from_torch(module, PIXELS, data_format="channels_first")
    assert network.input_shape == (None, 3, 8, 8)
    found = network.predict(PIXELS.numpy(), verbose=0)
    assert_close(found, answers(module, PIXELS))


def test_a_transformer_with_named_outputs():
    torch.manual_seed(0)
    module = Tokens()
    network = kc.from_torch(module, {"pixel_values": PIXELS})
    found = network.predict(images(PIXELS), verbose=0)
    wanted = answers(module, PIXELS)
    assert list(found) == ["last_hidden_state", "pooler_output"]
    for name in found:
        assert_close(found[name], wanted[name])


@pytest.mark.parametrize("make", [residual, Tokens, Tied])
def test_every_parameter_is_a_weight(make):
    torch.manual_seed(0)
    module = make()
    example = IDS if make is Tied else PIXELS
    network = kc.from_torch(module, example)
    wanted = sum(parameter.numel() for parameter in module.parameters())
    found = sum(int(np.prod(w.shape)) for w in network.trainable_weights)
    assert found == wanted


def test_tied_weights_are_one_and_a_module_called_twice_is_one_layer():
    torch.manual_seed(0)
    module = Tied()
    network = kc.from_torch(module, IDS)
    assert_close(network.predict(IDS.numpy(), verbose=0), answers(module, IDS))
    assert sorted(w.path for w in network.weights) == [
        "embedding-weight/embeddings",
        "twice/bias",
        "twice/kernel",
    ]


def test_frozen_parameters_arrive_frozen():
    module = residual()
    module.layer1.requires_grad_(False)
    network = kc.from_torch(module, PIXELS)
    assert {w.path for w in network.trainable_weights} == {
        "fc/kernel",
        "fc/bias",
    }


class Masked(nn.Module):
    """Its attention hides later positions by a mask of its own."""

    def __init__(self, visible):
        super().__init__()
        self.features = nn.Linear(8, 8)
        self.register_buffer("visible", visible)

    def forward(self, x):
        x = self.features(x)[:, None]
        return F.scaled_dot_product_attention(x, x, x, self.visible)[:, 0]


@pytest.mark.parametrize("everything", [True, False])
def test_no_constant_trains(everything):
    visible = torch.ones(20, 20, dtype=torch.bool)
    module = Masked(visible if everything else visible.tril())
    x = numbers(6, 20, 8)
    network = kc.from_torch(module, x)
    network.trainable = True
    assert [w.path for w in network.weights] == [
        "features/kernel",
        "features/bias",
    ]
    assert_close(network.predict(x.numpy(), verbose=0), answers(module, x))


def test_normalization_and_dropout_keep_their_settings():
    network = kc.from_torch(residual(), PIXELS)
    norm = network.get_layer("layer1-0-bn1")
    assert norm.momentum == pytest.approx(0.8)
    assert norm.epsilon == pytest.approx(1e-5)
    assert network.get_layer("drop").rate == 0.25


@pytest.mark.parametrize("make", [residual, Tokens, Tied])
def test_gradients_are_those_of_torch(make):
    torch.manual_seed(0)
    module = make()
    example = IDS if make is Tied else PIXELS
    if make is residual:
        module.drop.p = 0.0
    converted = convert(module, read_example(example))
    network, weights = converted.network, converted.weights
    data = example.numpy() if make is Tied else images(example)
    _torch_loss(module.train()(example)).backward()
    wanted = {k: p.grad.numpy() for k, p in module.named_parameters()}
    gradients = _gradients(network, data)
    for weight in weights:
        (source, *_) = weight.sources
        if isinstance(source, Parameter):
            found = gradients[weight.find().path]
            expected = weight.to_keras(wanted[source.name])
            scale = np.abs(expected).max()
            assert np.abs(found - expected).max() <= 1e-3 * scale, source.name


def _torch_loss(outputs):
    outputs = outputs.values() if isinstance(outputs, dict) else [outputs]
    return sum((x**2).sum() for x in outputs)


def _gradients(network, data):
    """The gradients of the sum of squares, from one step of plain SGD."""
    before = {w.path: keras.ops.convert_to_numpy(w) for w in network.weights}

    class SumOfSquares(keras.Loss):
        def call(self, y_true, y_pred):
            axes = tuple(range(1, len(y_pred.shape)))
            return keras.ops.sum(keras.ops.square(y_pred), axes)

    outputs = network.output
    names = list(outputs) if isinstance(outputs, dict) else None
    loss = SumOfSquares(reduction="sum")
    rate = 2.0**-10
    network.compile(
        keras.optimizers.SGD(rate),
        dict.fromkeys(names, loss) if names else loss,
    )
    return _after_one_step(network, data, names, before, rate)


def _after_one_step(network, data, names, before, rate):
    zeros = np.zeros(len(data))
    network.train_on_batch(
        data, dict.fromkeys(names, zeros) if names else zeros
    )
    return {
        w.path: (before[w.path] - keras.ops.convert_to_numpy(w)) / rate
        for w in network.weights
    }


LOAD = """
import sys
class NoTorch:
    def find_spec(self, name, *_):
        if {block} and name.split(".")[0] == "torch":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, NoTorch())
import keras, numpy as np
network = keras.models.load_model({path!r}, safe_mode=True)
data = np.load({data!r})
np.save({out!r}, network.predict(data, verbose=0)["pooler_output"])
assert "keras_cascade" not in sys.modules
"""


def test_a_file_loads_without_torch_and_without_this_package(tmp_path):
    torch.manual_seed(0)
    module = Tokens()
    network = kc.from_torch(module, PIXELS)
    path, data, out = (tmp_path / x for x in ("n.keras", "x.npy", "y.npy"))
    network.save(path)
    np.save(data, images(PIXELS))
    code = LOAD.format(
        block=keras.backend.backend() != "torch",
        path=str(path),
        data=str(data),
        out=str(out),
    )
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)
    assert_close(np.load(out), answers(module, PIXELS)["pooler_output"])


def test_a_module_in_a_cascade():
    network = kc.from_torch(residual(), PIXELS)
    cascade = kc.build_cascade(
        network,
        taps=["layer1.0", "fc"],
        head=3,
        loss="mse",
        trainable={"upstream/layer1.1.*": True},
    )
    frozen = {
        w.path: keras.ops.convert_to_numpy(w)
        for w in cascade.non_trainable_weights
        if "layer1-0" in w.path
    }
    assert frozen
    data = images(PIXELS)
    cascade.fit(data, np.eye(3)[[0, 1, 2] * 2], epochs=2, verbose=0)
    for weight in cascade.non_trainable_weights:
        if weight.path in frozen:
            np.testing.assert_array_equal(weight, frozen[weight.path])


def test_cached_features_of_a_transformer():
    torch.manual_seed(0)
    network = kc.from_torch(Tokens(), PIXELS)
    data, labels = images(PIXELS), np.eye(3)[[0, 1, 2] * 2]
    losses = []
    for cached in (False, True):
        keras.utils.set_random_seed(0)
        cascade = kc.build_cascade(
            network, taps=["block", "pooler_output"], head=3, loss="mse"
        )
        history = cascade.fit(
            data,
            labels,
            epochs=3,
            shuffle=False,
            verbose=0,
            cache_features=cached,
        )
        losses.append(history.history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-4)


def test_an_exported_program():
    module = residual().eval()
    program = torch.export.export(
        module, (PIXELS,), dynamic_shapes=({0: torch.export.Dim.AUTO},)
    )
    network = kc.from_torch(program, PIXELS)
    found = network.predict(images(PIXELS), verbose=0)
    assert_close(found, answers(module, PIXELS))


@pytest.mark.parametrize(
    "preprocess",
    [
        {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)},
        keras.layers.Rescaling(1 / 127.5, -1),
    ],
    ids=["numbers", "layer"],
)
def test_preprocessing_is_in_the_graph(preprocess):
    module = residual()
    network = kc.from_torch(module, PIXELS, preprocess=preprocess)
    pixels = np.random.default_rng(0).uniform(0, 255, (6, 8, 8, 3))
    if isinstance(preprocess, dict):
        ready = (pixels / 255 - preprocess["mean"]) / preprocess["std"]
    else:
        ready = pixels / 127.5 - 1
    ready = torch.tensor(np.moveaxis(ready, -1, 1), dtype=torch.float32)
    found = network.predict(pixels.astype("float32"), verbose=0)
    assert_close(found, answers(module, ready), 1e-3)


def test_arguments_need_not_be_in_the_order_of_their_names():
    class Two(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 3)

        def forward(self, picture, added):
            return self.conv(picture).mean((2, 3)) + added

    network = kc.from_torch(Two(), ((3, 8, 8), (4,)))
    assert network.input["picture"].shape == (None, 8, 8, 3)
    assert network.input["added"].shape == (None, 4)


def test_a_module_that_trains_on_leaves_its_network_as_it_is():
    module = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64))
    network = kc.from_torch(module, (64,))
    before = [x.copy() for x in network.get_weights()]
    with torch.no_grad():
        for value in (*module.parameters(), *module.buffers()):
            value.add_(1)
    for found, wanted in zip(network.get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, wanted)
