"""Trains converted cascades beside loops written in PyTorch.

Three ways to cascade two networks in PyTorch: features beside measured numbers,
an inner layer's features through a projection, and that with the first network
frozen and a learning rate for each part. Same weights, same batches: each
batch's loss must be PyTorch's, on every backend.
"""

import keras
import numpy as np
import pytest

import keras_cascade as kc

torch = pytest.importorskip("torch", reason="modules are PyTorch's")
pytest.importorskip("sklearn", reason="the digits are scikit-learn's")
nn, optim = torch.nn, torch.optim

TOLERANCE = 1e-4 if keras.config.backend() == "torch" else 1e-3
BATCH, STEPS = 16, 16


class Upstream(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer_penultimate = nn.Sequential(
            nn.Conv2d(1, 8, 3, 2, 1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 16, 3, 2, 1, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Flatten(),
        )
        self.features = nn.Linear(256, 128)

    def forward(self, x):
        return torch.relu(self.features(self.layer_penultimate(x)))


class Downstream(nn.Module):
    input_size = 130

    def __init__(self):
        super().__init__()
        self.hidden = nn.Linear(self.input_size, 32)
        self.digits = nn.Linear(32, 10)

    def forward(self, x):
        return self.digits(torch.relu(self.hidden(x)))


class CascadedModel(nn.Module):
    """As one reads it in answers: it cannot run, its parts do not match."""

    def __init__(self, model_upstream, model_downstream):
        super(CascadedModel, self).__init__()  # noqa: UP008
        self.upstream = model_upstream
        self.downstream = model_downstream
        self.extra_features = nn.Linear(2, 2)

    def forward(self, x):
        upstream_output = self.upstream(x)
        extra_feats = self.extra_features(torch.randn(2))
        combined_input = torch.cat((upstream_output, extra_feats), dim=1)
        downstream_output = self.downstream(combined_input)
        return downstream_output  # noqa: RET504


class MeasuredModel(CascadedModel):
    """The same with two measured numbers for each image, not random ones."""

    def forward(self, x, measured):
        upstream_output = self.upstream(x)
        extra_feats = self.extra_features(measured)
        combined_input = torch.cat((upstream_output, extra_feats), dim=1)
        return self.downstream(combined_input)


@pytest.fixture(scope="module")
def digits():
    """Images as PyTorch has them, two numbers for each, and labels."""
    train, _ = kc.zoo.digits()
    images = np.moveaxis(train.images[: BATCH * STEPS], -1, 1) / 255
    measured = train.side[: BATCH * STEPS].astype("float32")
    return (
        images.astype("float32"),
        measured,
        train.labels[: BATCH * STEPS].astype("int64"),
    )


@pytest.fixture
def parts(digits):
    """Two modules; the moments of the first are those of the digits."""
    torch.manual_seed(0)
    upstream = Upstream().train()
    with torch.no_grad():
        for _ in range(30):
            upstream(torch.from_numpy(digits[0][:64]))
    return upstream, Downstream()


def pytorch_losses(forward, optimizer, arrays, labels):
    """The loop that one writes: the loss of every batch."""
    loss_of, losses = nn.CrossEntropyLoss(), []
    for i in range(0, len(labels), BATCH):
        batch = [torch.from_numpy(x[i : i + BATCH]) for x in arrays]
        optimizer.zero_grad()
        loss = loss_of(forward(*batch), torch.from_numpy(labels[i : i + BATCH]))
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return losses


class EachBatch(keras.callbacks.Callback):
    """Undoes the running mean of the losses that Keras reports."""

    def __init__(self):
        super().__init__()
        self.losses, self.total = [], 0.0

    def on_train_batch_end(self, batch, logs=None):
        total = float(logs["loss"]) * (batch + 1)
        self.losses.append(total - self.total)
        self.total = total


def keras_losses(model, optimizer, inputs, labels):
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    each = EachBatch()
    model.fit(
        inputs,
        labels,
        batch_size=BATCH,
        shuffle=False,
        verbose=0,
        callbacks=[each],
    )
    return each.losses


def assert_same(found, wanted):
    learned = np.mean(wanted[:4]) - np.mean(wanted[-4:])
    assert learned > 0.05, "PyTorch's loop learns nothing"
    np.testing.assert_allclose(found, wanted, rtol=0, atol=TOLERANCE)


def projected(parts, learning_rates=None, trainable=None):
    """A cascade of the converted parts, and PyTorch's projection."""
    upstream, downstream = parts
    projection_layer = nn.Linear(256, downstream.input_size)
    cascade = kc.build_cascade(
        kc.from_torch(upstream, (1, 32, 32)),
        kc.from_torch(downstream, (downstream.input_size,)),
        taps={"features": "layer_penultimate"},
        adapters={"features": kc.adapters.DenseAdapter(downstream.input_size)},
        trainable=trainable,
        learning_rates=learning_rates,
    )
    weight, bias = projection_layer.parameters()
    # Copies: JAX keeps the memory that it is given.
    cascade.blocks["adapters"].set_weights(
        [weight.detach().numpy().T.copy(), bias.detach().numpy().copy()]
    )
    return cascade, projection_layer


def test_a_module_that_cannot_run_is_refused_with_pytorchs_reason(parts):
    reason = "umber of dimensions"
    module = CascadedModel(*parts)
    with pytest.raises((RuntimeError, IndexError), match=reason):
        module(torch.zeros(2, 1, 32, 32))
    with pytest.raises(ValueError, match=reason):
        kc.from_torch(module, (1, 32, 32))


def test_features_beside_measured_numbers(parts, digits):
    images, measured, labels = digits
    module = MeasuredModel(*parts)
    network = kc.from_torch(module, ((1, 32, 32), (2,)))

    wanted = pytorch_losses(
        module.train(),
        optim.SGD(module.parameters(), lr=0.02, momentum=0.9),
        (images, measured),
        labels,
    )
    inputs = {"x": np.moveaxis(images, 1, -1), "measured": measured}
    optimizer = keras.optimizers.SGD(0.02, momentum=0.9)

    assert_same(keras_losses(network, optimizer, inputs, labels), wanted)


def test_an_inner_layer_through_a_projection(parts, digits):
    images, _, labels = digits
    model_upstream, model_downstream = parts
    cascade, projection_layer = projected(
        parts, trainable={"upstream": True, "downstream": True}
    )

    def forward(input_tensor):
        upstream_features = model_upstream.layer_penultimate(input_tensor)
        projected_features = projection_layer(upstream_features)
        return model_downstream(projected_features)

    modules = nn.ModuleList([*parts, projection_layer]).train()
    optimizer = optim.SGD(modules.parameters(), lr=0.02, momentum=0.9)
    wanted = pytorch_losses(forward, optimizer, (images,), labels)

    inputs = np.moveaxis(images, 1, -1)
    optimizer = keras.optimizers.SGD(0.02, momentum=0.9)
    assert_same(keras_losses(cascade, optimizer, inputs, labels), wanted)


def test_joint_training_with_the_first_network_frozen(parts, digits):
    images, _, labels = digits
    model_upstream, model_downstream = parts
    for param in model_upstream.parameters():
        param.requires_grad = False
    rates = {"adapters": 0.001, "downstream": 0.001}
    cascade, projection_layer = projected(
        parts, rates, trainable={"downstream": True}
    )
    frozen = cascade.blocks["upstream"].get_weights()
    # Without it, PyTorch would move the moments of a frozen network.
    model_upstream.eval()

    def forward(input_tensor):
        upstream_features = model_upstream.layer_penultimate(input_tensor)
        return model_downstream(projection_layer(upstream_features))

    optimizer = optim.Adam(
        [
            {"params": projection_layer.parameters(), "lr": 0.001},
            {"params": model_downstream.parameters(), "lr": 0.001},
        ]
    )
    wanted = pytorch_losses(forward, optimizer, (images,), labels)

    inputs = np.moveaxis(images, 1, -1)
    # Keras adds epsilon before it corrects the second moment, PyTorch after
    # it: 1e-9 in Keras comes near PyTorch's 1e-8 in the first steps.
    optimizer = keras.optimizers.Adam(0.001, epsilon=1e-9)
    assert_same(keras_losses(cascade, optimizer, inputs, labels), wanted)
    for before, after in zip(
        frozen, cascade.blocks["upstream"].get_weights(), strict=True
    ):
        np.testing.assert_array_equal(before, after)
