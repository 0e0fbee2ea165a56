"""Networks of transformers, torchvision and timm answer as their modules.

The packages are in no test environment; installed beside PyTorch, all run:
`pip install torchvision timm transformers`.
"""

from copy import deepcopy

import pytest

from keras_cascade.networks.pytorch.conversion import convert
from keras_cascade.networks.pytorch.verification import (
    differences,
    torch_outputs,
)
from tests.networks.pytorch.families import (
    CASES,
    IDS,
    define_operators,
    prepared,
)

torch = pytest.importorskip("torch", reason="modules are PyTorch's")


@pytest.fixture(scope="module", autouse=True)
def operators():
    yield define_operators()


# Of PyTorch: some of timm's modules keep constants that they computed.
@pytest.mark.filterwarnings(
    "ignore:The tensor attribute.*assigned during export"
)
@pytest.mark.large
@pytest.mark.parametrize(("package", "name"), CASES, ids=IDS)
def test_a_network_answers_as_its_module(package, name):
    pytest.importorskip(package, reason="not in the test environments")
    module, example = prepared(package, name)
    converted = convert(module, example)
    found = max(differences(converted, module, example).values())
    assert found < 1e-4 or found < 3 * rounding(module, example)


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
