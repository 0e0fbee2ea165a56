"""KerasHub's backbones in files, read by the files' own runtimes."""

import importlib.util

import keras
import numpy as np
import pytest

import keras_cascade as kc
from tests.exporting.runtimes import run
from tests.hub.backbones import inputs_for, make

pytest.importorskip("keras_hub", reason="needs the extra 'hub'")

pytestmark = [
    pytest.mark.large,
    pytest.mark.skipif(
        importlib.util.find_spec("tensorflow") is None,
        reason="LiteRT files are written by TensorFlow, which is missing",
    ),
    # KerasHub's layers, built by KerasHub itself (0.32).
    pytest.mark.filterwarnings(
        r"ignore:`build\(\)` was called on layer:UserWarning"
    ),
]
# Text with a dict of inputs, maps, and layers that only the class can make.
TAPS = {
    "BertBackbone": "pooled_dense",
    "ResNetBackbone": "-1",
    "ViTBackbone": "-1",
}


@pytest.mark.parametrize("ending", [".onnx", ".tflite"])
@pytest.mark.parametrize("name", TAPS)
def test_a_file_gives_what_the_backbone_gives(name, ending, tmp_path):
    backbone = make(name)
    inputs = inputs_for(name, backbone)
    cascade = kc.build_cascade(
        backbone,
        taps={"tap": TAPS[name]},
        adapters=None,
        fusion=None,
        preprocess=None,
    )
    outputs = kc.truncate(backbone, TAPS[name]).predict(inputs, verbose=0)
    (expected,) = keras.tree.flatten(outputs)
    path = tmp_path / f"file{ending}"
    report = kc.export(cascade, path, verbose=False)
    given = inputs if isinstance(inputs, dict) else {"inputs": inputs}
    wanted = {port: given[port] for port in report.inputs}
    (found,) = run(path, wanted).values()
    spread = np.std(expected, axis=0).mean()
    assert spread > 1e-2
    assert np.abs(found - expected).max() < 1e-3 * spread
