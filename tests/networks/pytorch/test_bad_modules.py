"""Tests modules that do not convert, and rules of the user's own."""

import keras
import numpy as np
import pytest

import keras_cascade as kc
from tests.networks.pytorch.comparing import (
    answers,
    assert_close,
    images,
    module_of,
    numbers,
)

torch = pytest.importorskip("torch", reason="modules are PyTorch's")
nn = torch.nn
PIXELS = numbers(6, 3, 8, 8)


def test_a_constant_of_a_size_that_is_free_is_an_error():
    module = module_of(lambda x: x + torch.arange(x.shape[1]))
    kc.from_torch(module, (5,))
    with pytest.raises(ValueError, match="a size that the example leaves"):
        kc.from_torch(module, (None,))


def test_preprocessing_without_images_is_an_error():
    with pytest.raises(ValueError, match="the module takes none"):
        kc.from_torch(nn.Linear(3, 3), (3,), preprocess={"mean": 0.5})


@pytest.mark.parametrize(
    ("preprocess", "message"),
    [
        ("imagenet", "preprocess must be None"),
        ({"scale": 2}, "may have 'mean'"),
    ],
)
def test_preprocessing_of_another_kind(preprocess, message):
    with pytest.raises((TypeError, ValueError), match=message):
        kc.from_torch(nn.Conv2d(3, 4, 3), PIXELS, preprocess=preprocess)


def test_operations_without_a_rule_are_named_before_anything_is_built():
    module = module_of(lambda x: torch.special.bessel_j0(x) + torch.digamma(x))
    with pytest.raises(ValueError, match="2 of the module's operations") as e:
        kc.from_torch(module, (4,))
    assert "aten.special_bessel_j0.default" in str(e.value)
    assert "aten.digamma.default" in str(e.value)
    assert "kc.register_torch_op" in str(e.value)


def test_a_rule_of_ones_own():
    @kc.register_torch_op("aten.softshrink")
    def softshrink(x, lambd=0.5):
        return keras.ops.soft_shrink(x, lambd)

    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Softshrink(0.1))
    network = kc.from_torch(module, PIXELS)
    found = network.predict(images(PIXELS), verbose=0)
    assert_close(
        np.moveaxis(found, -1, 1) if found.shape[-1] == 4 else found,
        answers(module, PIXELS),
    )


def test_a_wrong_rule_is_found_by_the_check():
    @kc.register_torch_op("aten.hardshrink")
    def hardshrink(x, lambd=0.5):
        return x

    module = nn.Hardshrink(0.5)
    with pytest.raises(ValueError, match="differs from the module"):
        kc.from_torch(module, (4,))
    kc.from_torch(module, (4,), verify=False)


def test_branches_on_values_are_an_error_with_torchs_reason():
    def branch(x):
        return x if x.sum() > 0 else -x

    with pytest.raises(ValueError, match="no branch may depend on values"):
        kc.from_torch(module_of(branch), (4,))


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ({}, "example is empty"),
        ("image", "must be a tensor, an array, or a shape"),
        (np.float32(3.0), "its first axis must be the batch"),
        ([numbers(2, 3), numbers(3, 3)], "batches of different sizes"),
    ],
)
def test_examples_that_are_none(example, message):
    with pytest.raises((TypeError, ValueError), match=message):
        kc.from_torch(nn.Linear(3, 3), example)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"module": 3}, "module must be a torch.nn.Module"),
        ({"data_format": "nhwc"}, "data_format must be"),
        ({"name": "a/b"}, "name must be"),
    ],
)
def test_bad_arguments(arguments, message):
    given = {"module": nn.Linear(3, 3), "example": (3,), **arguments}
    module, example = given.pop("module"), given.pop("example")
    with pytest.raises((TypeError, ValueError), match=message):
        kc.from_torch(module, example, **given)
