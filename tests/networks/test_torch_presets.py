"""Networks of timm and transformers by name, and what bare modules say."""

import sys
from types import ModuleType, SimpleNamespace

import keras
import numpy as np
import pytest

import keras_cascade as kc
from keras_cascade.networks import torch_presets
from tests.networks.pytorch.families import define_operators

torch = pytest.importorskip("torch", reason="modules are PyTorch's")
nn = torch.nn


def small_network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )


@pytest.fixture
def timm(monkeypatch):
    """What is used of timm, which is not installed here: two functions."""
    found = ModuleType("timm")
    config = {
        "input_size": (3, 16, 16),
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2, 0.3, 0.4),
    }

    def create_model(name, pretrained, num_classes):
        module = small_network()
        module.pretrained_cfg = config
        assert num_classes == 0
        return module

    found.__version__ = "1.0"
    found.create_model = create_model
    found.is_model = lambda name: name == "tiny"
    found.list_models = lambda: ["tiny"]
    found.get_pretrained_cfg = lambda name, _: SimpleNamespace(
        to_dict=lambda: config
    )
    monkeypatch.setitem(sys.modules, "timm", found)
    return config


def test_a_network_of_timm_gets_its_preprocessing(timm):
    cascade = kc.build_cascade("timm:tiny", taps="3", head=2)
    module = small_network()
    pixels = np.random.default_rng(0).uniform(0, 255, (4, 16, 16, 3))
    ready = (pixels / 255 - timm["mean"]) / timm["std"]
    with torch.no_grad():
        wanted = module(torch.tensor(np.moveaxis(ready, -1, 1)).float())
    plain = kc.build_cascade("timm:tiny", taps="3", fusion=None)
    found = plain.predict(pixels.astype("float32"), verbose=0)
    (features,) = keras.tree.flatten(found)
    np.testing.assert_allclose(features, wanted.numpy(), atol=1e-4)
    assert cascade.input_shape == (None, 16, 16, 3)


def test_a_name_that_timm_does_not_have(timm):
    with pytest.raises(ValueError, match=r"timm 1\.0 has no network 'tyny'"):
        kc.build_cascade("timm:tyny", head=2)


@pytest.mark.parametrize("name", ["timm:tiny", "hf:user/tiny"])
def test_a_package_that_is_missing(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ImportError, match=r"keras_cascade\[torch-hub\]"):
        kc.build_cascade(name, head=2)


@pytest.mark.parametrize(
    ("module", "call"),
    [
        (small_network, r"kc.from_torch\(sequential, \(3, 224, 224\)\)"),
        (lambda: nn.Linear(5, 2), r"kc.from_torch\(linear, \(5,\)\)"),
        (lambda: nn.Embedding(5, 2), r"kc.from_torch\(embedding, example\)"),
    ],
)
def test_a_bare_module_says_the_call_to_make(module, call):
    with pytest.raises(TypeError, match=call):
        kc.build_cascade(module(), head=2)


def test_scaling_is_that_of_the_configuration():
    scaling = torch_presets._scaling((0.5,) * 3, (0.25,) * 3)
    assert scaling.scale == pytest.approx((1 / 63.75,) * 3)
    assert scaling.offset == (-2.0,) * 3


@pytest.mark.large
def test_a_folder_of_transformers(tmp_path):
    transformers = pytest.importorskip(
        "transformers", reason="not in the test environments"
    )
    _operators = define_operators()
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        image_size=16,
        patch_size=8,
    )
    torch.manual_seed(0)
    module = transformers.ViTModel(config).eval()
    module.save_pretrained(tmp_path)
    transformers.ViTImageProcessor(
        size={"height": 16, "width": 16},
        image_mean=[0.5] * 3,
        image_std=[0.25] * 3,
    ).save_pretrained(tmp_path)
    cascade = kc.build_cascade(
        f"hf:{tmp_path}",
        taps="last_hidden_state",
        adapters=None,
        fusion=None,
    )
    pixels = np.random.default_rng(0).uniform(0, 255, (3, 16, 16, 3))
    ready = torch.tensor(np.moveaxis((pixels / 255 - 0.5) / 0.25, -1, 1))
    with torch.no_grad():
        wanted = module(ready.float()).last_hidden_state.numpy()
    (found,) = keras.tree.flatten(
        cascade.predict(pixels.astype("float32"), verbose=0)
    )
    np.testing.assert_allclose(found, wanted, atol=1e-4)


@pytest.mark.large
def test_a_folder_of_a_text_network(tmp_path):
    transformers = pytest.importorskip(
        "transformers", reason="not in the test environments"
    )
    _operators = define_operators()
    config = transformers.BertConfig(
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        vocab_size=100,
        max_position_embeddings=6,
    )
    torch.manual_seed(0)
    module = transformers.BertModel(config).eval()
    module.save_pretrained(tmp_path)
    cascade = kc.build_cascade(
        f"hf:{tmp_path}",
        taps="last_hidden_state",
        adapters=None,
        fusion=None,
    )
    ids = np.random.default_rng(0).integers(3, 99, (3, 6))
    mask = np.ones_like(ids)
    mask[1, 4:] = 0
    with torch.no_grad():
        wanted = module(torch.tensor(ids), torch.tensor(mask))[0].numpy()
    (found,) = keras.tree.flatten(
        cascade.predict({"input_ids": ids, "attention_mask": mask}, verbose=0)
    )
    np.testing.assert_allclose(found, wanted, atol=1e-4)
