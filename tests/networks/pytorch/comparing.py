"""Compares networks with the modules that they are made of."""

import keras
import numpy as np

# The largest difference that float32 explains, in spreads of the answers.
CLOSE = 1e-4


def numbers(*shape, seed=0):
    import torch

    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator)


def answers(module, *args, **kwargs):
    """What PyTorch answers, as arrays."""
    import torch

    with torch.no_grad():
        given = module.eval()(*args, **kwargs)
    if isinstance(given, dict):
        return {k: x.numpy() for k, x in given.items()}
    if isinstance(given, tuple | list):
        return [x.numpy() for x in given]
    return given.numpy()


def images(tensor):
    """A batch of images as Keras has it."""
    return np.moveaxis(tensor.numpy(), 1, -1)


def assert_close(found, wanted, tolerance=CLOSE):
    """Compares arrays, relative to how far the answers lie apart."""
    wanted = np.asarray(wanted)
    found = np.asarray(found)
    assert found.shape == wanted.shape
    if wanted.dtype.kind != "f":
        np.testing.assert_array_equal(found, wanted)
        return
    spread = wanted.std(axis=0).mean()
    assert spread > 1e-2, "the answers hardly depend on the input"
    difference = np.abs(found - wanted).max() / spread
    assert difference < tolerance, difference


def module_of(function, **parameters):
    """A module that computes a function of its input and its parameters."""
    import torch

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            for name, value in parameters.items():
                setattr(self, name, torch.nn.Parameter(value))

        def forward(self, x):
            weights = {k: getattr(self, k) for k in parameters}
            return function(x, **weights)

    return Module()


def check(module, x, *, last=None):
    """Compares a network with its module; maps leave with channels last."""
    import torch

    from keras_cascade.networks.pytorch import from_torch

    if not isinstance(module, torch.nn.Module):
        module = module_of(module)
    torch.manual_seed(0)
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    wanted = answers(module, x.clone())
    network = from_torch(module, x.clone(), verify=False)
    network.to_json()  # every setting can be saved
    given = images(x) if x.ndim > 3 and x.dtype.is_floating_point else x.numpy()
    found = network(given, training=False)
    found = keras.tree.map_structure(keras.ops.convert_to_numpy, found)
    pairs = zip(
        keras.tree.flatten(found), keras.tree.flatten(wanted), strict=True
    )
    for got, want in pairs:
        is_map = want.ndim > 3 if last is None else last
        if is_map and got.shape != want.shape:
            got = np.moveaxis(got, -1, 1)
        assert_close(got, want)
    return network
