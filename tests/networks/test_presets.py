import importlib.util
import sys

import keras
import numpy as np
import pytest

from keras_cascade.assembly.preprocessing import preprocessing_network
from keras_cascade.networks.loading import load_network
from keras_cascade.networks.preprocess_argument import resolve_preprocess

# KerasHub imports TensorFlow beside the backend where it is installed.
with_hub = [
    pytest.mark.interop,
    pytest.mark.skipif(
        importlib.util.find_spec("keras_hub") is None,
        reason="KerasHub is not installed: the extra `hub`",
    ),
]
SCALE, OFFSET = (0.017, 0.0175, 0.018), (-2.1, -2.0, -1.8)


def _save_resnet(folder, **converter):
    """A tiny ResNet as a preset, with an image converter if one is given."""
    import keras_hub

    backbone = keras_hub.models.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64],
        stackwise_num_blocks=[1],
        stackwise_num_strides=[1],
        block_type="basic_block",
    )
    backbone.save_to_preset(folder)
    if converter:
        keras_hub.layers.ResNetImageConverter(**converter).save_to_preset(
            folder
        )
    return backbone


def _resolved(name, network):
    sources, networks = {"upstream": name}, {"upstream": network}
    return resolve_preprocess("auto", ["upstream"], sources, networks)[
        "upstream"
    ]


def _numpy(x):
    return keras.ops.convert_to_numpy(x)


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """A folder with the preset of a backbone, and the backbone."""
    folder = str(tmp_path_factory.mktemp("preset"))
    backbone = _save_resnet(
        folder, image_size=(32, 40), scale=SCALE, offset=OFFSET
    )
    return folder, backbone


def test_without_keras_hub_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(
        ImportError,
        match=r"upstream='hub:resnet_18_imagenet' is a preset of KerasHub.*"
        r'pip install "keras_cascade\[hub\]"',
    ):
        load_network("hub:resnet_18_imagenet", "upstream")


class TestWithHub:
    pytestmark = with_hub

    def test_a_preset_is_its_backbone_at_the_size_of_its_images(self, resnet):
        folder, backbone = resnet
        network = load_network(f"hub:{folder}", "upstream")
        assert type(network) is type(backbone)
        assert network.input_shape == (None, 32, 40, 3)
        images = np.random.default_rng(0).normal(size=(2, 32, 40, 3))
        np.testing.assert_allclose(
            _numpy(network(images)), _numpy(backbone(images)), atol=1e-6
        )

    @pytest.mark.parametrize("dtype", ["uint8", "float32"])
    def test_its_images_are_scaled_as_its_converter_does(self, resnet, dtype):
        import keras_hub

        folder, _ = resnet
        network = load_network(f"hub:{folder}", "upstream")
        preprocess = _resolved(f"hub:{folder}", network)
        assert preprocess.name == (
            f"{folder}: pixels * (0.017, 0.0175, 0.018) + (-2.1, -2, -1.8)"
        )
        front = preprocessing_network(preprocess, network.inputs[0], "raw")
        images = np.random.default_rng(0).integers(0, 256, (2, 32, 40, 3))
        images = images.astype(dtype)
        converter = keras_hub.layers.ImageConverter.from_preset(folder)
        np.testing.assert_allclose(
            _numpy(front(images)), _numpy(converter(images)), atol=1e-5
        )
        assert "keras_hub" not in front.to_json()

    def test_a_preset_without_a_converter_takes_images_as_they_are(
        self, tmp_path
    ):
        _save_resnet(str(tmp_path))
        network = load_network(f"hub:{tmp_path}", "upstream")
        assert network.input_shape == (None, None, None, 3)
        assert _resolved(f"hub:{tmp_path}", network) is None

    def test_a_converter_that_only_resizes_scales_nothing(self, tmp_path):
        _save_resnet(str(tmp_path), image_size=(32, 32))
        network = load_network(f"hub:{tmp_path}", "upstream")
        assert network.input_shape == (None, 32, 32, 3)
        assert _resolved(f"hub:{tmp_path}", network) is None

    def test_text_stays_as_it_is(self, tmp_path):
        import keras_hub

        backbone = keras_hub.models.BertBackbone(
            vocabulary_size=20,
            num_layers=1,
            num_heads=2,
            hidden_dim=8,
            intermediate_dim=16,
            max_sequence_length=8,
        )
        backbone.save_to_preset(str(tmp_path))
        network = load_network(f"hub:{tmp_path}", "upstream")
        assert sorted(network.input) == sorted(backbone.input)
        assert _resolved(f"hub:{tmp_path}", network) is None

    def test_an_unknown_preset_is_an_error_with_the_closest(self):
        with pytest.raises(
            ValueError,
            match=r"has no preset 'resnet_18_imagenett', and there is no such "
            r"folder\. Closest: 'resnet_18_imagenet'",
        ):
            load_network("hub:resnet_18_imagenett", "upstream")

    def test_a_failing_download_is_one_error(self, monkeypatch):
        import kagglehub

        def fail(*_):
            raise ConnectionError("no way to kaggle.com\nand more")

        monkeypatch.setattr(kagglehub, "model_download", fail)
        with pytest.raises(
            RuntimeError,
            match=r"upstream='hub:resnet_18_imagenet' could not be loaded: no "
            r"way to kaggle\.com\. Pass the folder",
        ) as error:
            load_network("hub:resnet_18_imagenet", "upstream")
        assert "\n" not in str(error.value)

    def test_a_converter_of_another_kind_is_an_error(self, tmp_path):
        import keras_hub
        from keras_hub.layers import ResNetImageConverter

        @keras.saving.register_keras_serializable(package="tests_presets")
        class Own(ResNetImageConverter):
            def call(self, inputs):
                return super().call(inputs) * 2.0

        _save_resnet(str(tmp_path))
        Own(image_size=(32, 32)).save_to_preset(str(tmp_path))
        found = keras_hub.layers.ImageConverter.from_preset(str(tmp_path))
        assert type(found) is Own
        network = load_network(f"hub:{tmp_path}", "upstream")
        with pytest.raises(ValueError, match=r"a way of its own \(Own\)"):
            _resolved(f"hub:{tmp_path}", network)
