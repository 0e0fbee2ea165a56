"""Networks of transformers, torchvision and timm answer as their modules.

The packages are in no test environment; installed beside PyTorch, all run:
`pip install torchvision timm transformers`.
"""

from copy import deepcopy

import pytest

from keras_cascade.networks.pytorch.conversion import convert
from keras_cascade.networks.pytorch.tracing import read_example
from keras_cascade.networks.pytorch.verification import (
    differences,
    torch_outputs,
)
from tests.networks.pytorch.families import MAKERS, define_operators

torch = pytest.importorskip("torch", reason="modules are PyTorch's")

CASES = [
    (package, name) for package, (_, names) in MAKERS.items() for name in names
]


@pytest.fixture(scope="module", autouse=True)
def operators():
    yield define_operators()


def settle(module, example):
    """Gives BatchNormalization the moments of a batch."""
    norms = [
        part
        for part in module.eval().modules()
        if isinstance(part, torch.nn.modules.batchnorm._BatchNorm)
    ]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train().momentum = 1.0
    with torch.no_grad():
        module(*example.args, **example.kwargs)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval().momentum = momentum


@pytest.mark.large
@pytest.mark.parametrize(
    ("package", "name"), CASES, ids=[f"{x}-{y}" for x, y in CASES]
)
def test_a_network_answers_as_its_module(package, name):
    pytest.importorskip(package, reason="not in the test environments")
    torch.manual_seed(0)
    make, _ = MAKERS[package]
    module, given = make(name)
    example = read_example(given)
    settle(module, example)
    converted = convert(module, example)
    found = max(differences(converted, module, example).values())
    assert found < max(1e-4, 3 * rounding(module, example))


def rounding(module, example):
    """How far PyTorch is from itself in 64 bits, in spreads of its answers."""
    precise = deepcopy(module).double()
    doubled = example.map(lambda x: x.double() if x.is_floating_point() else x)
    pairs = zip(
        _tensors(torch_outputs(module, example)),
        _tensors(torch_outputs(precise, doubled)),
        strict=True,
    )
    return max(float((x - y).abs().max() / y.std(0).mean()) for x, y in pairs)


def _tensors(outputs):
    found = torch.utils._pytree.tree_leaves(outputs)
    return [
        x
        for x in found
        if isinstance(x, torch.Tensor) and x.is_floating_point()
    ]
