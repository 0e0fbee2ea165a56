"""Tests operations that PyTorch makes simpler ones of."""

import keras
import numpy as np
import pytest

from keras_cascade.networks.pytorch import from_torch
from tests.networks.pytorch.comparing import check, module_of, numbers

torch = pytest.importorskip("torch", reason="modules are PyTorch's")
nn, F = torch.nn, torch.nn.functional

FUNCTIONS = {
    "fractions": lambda x: x.frac(),
    "cosines": lambda x: F.cosine_similarity(x, x.flip(1), dim=-1),
    "a matrix product": lambda x: torch.tensordot(x, torch.ones(8, 3), 1),
    "turned": lambda x: x.rot90(1, (1, 2)),
    "side by side": lambda x: torch.hstack([x, x * 2]),
    "a weighted product": lambda x: torch.baddbmm(
        x @ x.mT, x, x.mT, beta=0.5, alpha=2
    ),
    "not numbers": lambda x: (x.sign() / x.relu()).nan_to_num(0.0, 1.0, -1.0),
    "taken": lambda x: torch.take_along_dim(x, x.argmax(1, True), 1),
    "longer lines": lambda x: F.interpolate(x, scale_factor=2, mode="linear"),
    "shorter lines": lambda x: F.interpolate(x, size=5),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_an_operation_without_a_rule_is_made_of_others(name):
    check(FUNCTIONS[name], numbers(4, 7, 8))


def _into_parts(x):
    y = x * 1
    y[:, 0] = 5.0
    y[:, :, 1] += y[:, :, 0]
    y[:, 2:4].mul_(2)
    return y


def _into_what_is_read(x):
    y = x * 2
    part = y[:, 1:]
    y[:, :2].mul_(0.5)
    return y + part.sum((1, 2), keepdim=True)


@pytest.mark.parametrize("function", [_into_parts, _into_what_is_read])
def test_writes_into_parts_of_tensors(function):
    check(function, numbers(4, 7, 8))


class Cells(nn.Module):
    """A cell, three steps of time."""

    def __init__(self, kind):
        super().__init__()
        self.cell = getattr(nn, kind)(8, 5)

    def forward(self, x):
        state = x.new_zeros(len(x), 5)
        memory = state
        for step in range(3):
            if isinstance(self.cell, nn.LSTMCell):
                state, memory = self.cell(x[:, step], (state, memory))
            else:
                state = self.cell(x[:, step], state)
        return state


@pytest.mark.parametrize("kind", ["LSTMCell", "GRUCell", "RNNCell"])
def test_cells(kind):
    check(Cells(kind), numbers(4, 7, 8))


class Mixed(nn.Module):
    """Layers with modes beside an operation that has no rule."""

    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(
            nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.3)
        )
        self.drop = nn.Dropout2d(0.2)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.drop(self.inner(x).frac())
        return self.head(x.mean((2, 3)))


def test_layers_keep_their_modes_and_names_and_the_module_is_as_it_was():
    module = Mixed()
    program = torch.export.export(
        module.eval(),
        (numbers(2, 3, 8, 8),),
        dynamic_shapes=({0: torch.export.Dim.AUTO},),
    )
    before = str(program.graph)
    network = from_torch(program, numbers(2, 3, 8, 8))
    assert str(program.graph) == before
    layers = {layer.name: layer for layer in network.layers}
    assert isinstance(layers["inner-1"], keras.layers.BatchNormalization)
    dropouts = keras.layers.Dropout, keras.layers.SpatialDropout2D
    rates = [x.rate for x in network.layers if isinstance(x, dropouts)]
    assert rates == [0.3, 0.2]
    x = np.moveaxis(numbers(8, 3, 8, 8).numpy(), 1, -1)
    network.compile("sgd", "mse")
    network.fit(x, np.ones((8, 2)), verbose=0)
    assert np.abs(layers["inner-1"].moving_mean).max() > 0


def test_what_is_no_simpler_is_named():
    with pytest.raises(ValueError, match=r"no rule for 1 .*aten\.lgamma"):
        from_torch(module_of(lambda x: x.frac().lgamma()), (3, 4))
