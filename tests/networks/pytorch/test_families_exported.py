"""LiteRT and ONNX files of converted networks answer as their modules.

torchvision and transformers are in no test environment; installed beside
PyTorch and a backend that writes the format, all run.
"""

import keras
import numpy as np
import pytest

import keras_cascade as kc
from keras_cascade.networks.pytorch.conversion import convert
from keras_cascade.networks.pytorch.verification import torch_outputs
from tests.exporting.runtimes import run
from tests.networks.pytorch.families import define_operators, prepared

torch = pytest.importorskip("torch", reason="modules are PyTorch's")


@pytest.fixture(scope="module", autouse=True)
def operators():
    yield define_operators()


@pytest.mark.large
@pytest.mark.parametrize("ending", ["tflite", "onnx"])
@pytest.mark.parametrize(
    ("package", "name"),
    [
        ("torchvision", "mobilenet_v3_small"),
        ("transformers", "ViT"),
        ("torchvision", "vit_b_32"),
    ],
)
def test_a_file_answers_as_the_module(package, name, ending, tmp_path):
    pytest.importorskip(package, reason="not in the test environments")
    if ending == "tflite" and keras.config.backend() != "tensorflow":
        pytest.skip("LiteRT files are written on TensorFlow")
    module, example = prepared(package, name)
    network = convert(module, example).network
    (tensor,) = example.tensors()
    images = np.moveaxis(tensor.numpy(), 1, -1)
    path = tmp_path / f"network.{ending}"
    report = kc.export(network, path, check_data=images, verbose=False)
    assert report.difference < 1e-3
    (name,) = report.inputs
    found = run(path, {name: images})
    wanted = torch_outputs(module, example)
    if not isinstance(wanted, dict):
        wanted = dict.fromkeys(found, wanted)
    assert set(found) == set(wanted)
    for key, answer in found.items():
        array = wanted[key].numpy()
        spread = array.std(0).mean()
        assert np.abs(answer - array).max() / spread < 1e-3, key
