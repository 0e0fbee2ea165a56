"""Tests rules that replace, sort and count elements."""

import keras
import numpy as np
import pytest

from keras_cascade.networks.pytorch import from_torch
from tests.networks.pytorch.comparing import check, module_of, numbers

torch = pytest.importorskip("torch", reason="modules are PyTorch's")
nn, F = torch.nn, torch.nn.functional

EDGES = torch.tensor([-1.0, 0.0, 1.0])


def _first(x):
    """The place of the largest, and two more, for each of the last axis."""
    return x.argsort(1)[:, :3]


FUNCTIONS = {
    "sorted": lambda x: x.sort(1, descending=True)[0],
    "places in order": lambda x: x.argsort(-1),
    "median": lambda x: x.median(1)[0],
    "median of an even number": lambda x: x.median(-1, keepdim=True)[0],
    "buckets": lambda x: torch.bucketize(x, EDGES),
    "buckets, closed on the right": lambda x: torch.bucketize(
        x.round(), EDGES, right=True
    ),
    "a number scattered": lambda x: x.scatter(1, _first(x), 7.0),
    "elements scattered": lambda x: (x * 1).scatter(1, _first(x), x[:, 2:5]),
    "elements added": lambda x: x.scatter_add(1, _first(x) // 2, x[:, :3]),
    "a diagonal": lambda x: x.diagonal(1, dim1=1, dim2=2),
    "windows": lambda x: x.unfold(1, 3, 2),
    "products": lambda x: x.cumprod(1),
    "variance and mean": lambda x: torch.var_mean(x, 1),
    "deviation and mean": lambda x: torch.std_mean(x, (1, 2), keepdim=True),
    "one-hot": lambda x: F.one_hot(x.argmax(-1), 8),
    "distances": lambda x: torch.cdist(x, x.flip(2) + 1),
    "distances by coordinates": lambda x: torch.cdist(x, x * 2, p=1),
    "the rest of a division": lambda x: torch.fmod(x, 0.7),
    "lengths": lambda x: torch.hypot(x, x + 1),
    "whole parts": lambda x: (x * 3).trunc(),
    "with a row of zeros": lambda x: torch.cat(
        [x, x.new_zeros(len(x), 1, 8)], 1
    ),
    "with a row of a number": lambda x: torch.cat(
        [torch.full((len(x), 1, 8), 3.0), x], 1
    ),
    "beside zeros": lambda x: torch.stack([torch.zeros(len(x), 7, 8), x], 1),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name):
    check(FUNCTIONS[name], numbers(4, 7, 8))


COLUMNS = {
    "of rows": (lambda x, weight: x + weight, (7, 1)),
    "of maps": (lambda x, weight: x[:, None] + weight, (7, 1)),
    "beside one": (lambda x, weight: x[:, :, :1] + weight, (7,)),
    "of numbers": (
        lambda x, weight: x * weight + torch.arange(7.0)[:, None],
        (7, 7),
    ),
}


@pytest.mark.parametrize("name", COLUMNS)
def test_a_column_is_added_to_a_square(name):
    # Keras on TensorFlow would take it for a bias of the other axis.
    function, shape = COLUMNS[name]
    check(module_of(function, weight=torch.ones(shape)), numbers(4, 7, 7))


ACTIVATIONS = [
    nn.Softshrink(0.3),
    nn.Hardshrink(),
    nn.Threshold(0.1, 5.0),
    nn.RReLU(),
    nn.Softplus(2, 5),
]


@pytest.mark.parametrize("module", ACTIVATIONS, ids=str)
def test_activations(module):
    check(module, 3 * numbers(4, 7, 8))


@pytest.mark.parametrize(
    "pad",
    [
        nn.ReplicationPad2d((1, 2, 0, 3)),
        nn.CircularPad2d(2),
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="replicate"),
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"),
    ],
    ids=str,
)
def test_pads(pad):
    check(pad, numbers(4, 3, 6, 7))


def test_a_product_of_two_vectors():
    module = nn.Bilinear(8, 8, 3)
    check(
        module_of(
            lambda x, weight, bias: F.bilinear(x[:, 0], x[:, 1], weight, bias),
            weight=module.weight,
            bias=module.bias,
        ),
        numbers(4, 2, 8),
    )


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_bags_of_words(mode):
    words = torch.arange(28).reshape(4, 7) % 20
    check(nn.EmbeddingBag(20, 6, mode=mode), words)


def test_the_gradient_of_distances_is_0_where_vectors_are_equal():
    x = numbers(4, 7, 8)
    module = module_of(
        lambda x, weight: torch.cdist(x * weight, x * weight),
        weight=torch.ones(8),
    )
    network = from_torch(module, x)
    network.compile("sgd", "mse")
    loss = network.train_on_batch(x.numpy(), np.zeros((4, 7, 7)))
    module(x).square().mean().backward()
    assert loss > 0
    found = keras.ops.convert_to_numpy(network.trainable_variables[0])
    step = 0.01 * module.weight.grad.numpy()
    np.testing.assert_allclose(found.ravel(), 1 - step, rtol=1e-5)
