"""LoRA inside the layers of KerasHub, which know nothing of it."""

import keras
import numpy as np
import pytest

import keras_cascade as kc
from tests.hub.backbones import inputs_for, make

pytest.importorskip("keras_hub", reason="needs the extra 'hub'")

pytestmark = pytest.mark.filterwarnings(
    # KerasHub's layers, built by KerasHub itself (0.32).
    r"ignore:`build\(\)` was called on layer:UserWarning"
)


def numpy(x):
    return np.array(keras.ops.convert_to_numpy(x))


@pytest.fixture(scope="module")
def backbone():
    return make("BertBackbone")


@pytest.fixture(scope="module")
def inputs(backbone):
    return inputs_for("BertBackbone", backbone)


@pytest.fixture(scope="module")
def cascade(backbone):
    """Read only: as training could leave it."""
    cascade = kc.build_cascade(
        backbone,
        taps="pooled_dense",
        trainable={"upstream/transformer_layer_*": kc.LoRA(2, alpha=4)},
    )
    random = np.random.default_rng(0)
    for variable in cascade.trainable_variables:
        variable.assign(random.normal(size=variable.shape))
    return cascade


def test_all_projections_of_an_encoder_have_updates(cascade):
    paths = [v.path for v in cascade.trainable_variables]
    inside = (
        "self_attention_layer/query",
        "self_attention_layer/key",
        "self_attention_layer/value",
        "self_attention_layer/attention_output",
        "feedforward_intermediate_dense",
        "feedforward_output_dense",
    )
    assert paths == [
        f"upstream/transformer_layer_{number}/{layer}/lora_kernel_{factor}"
        for number in range(2)
        for layer in inside
        for factor in "ab"
    ]


def test_a_saved_cascade_answers_the_same(cascade, inputs, tmp_path):
    cascade.save(tmp_path / "cascade.keras")
    loaded = keras.models.load_model(tmp_path / "cascade.keras")
    np.testing.assert_array_equal(numpy(loaded(inputs)), numpy(cascade(inputs)))
    assert [v.path for v in loaded.trainable_variables] == [
        v.path for v in cascade.trainable_variables
    ]


def test_a_stock_model_answers_the_same(cascade, backbone, inputs):
    found, expected = numpy(cascade.to_plain()(inputs)), numpy(cascade(inputs))
    np.testing.assert_array_equal(found, expected)
    before = numpy(backbone(inputs)["pooled_output"])
    assert np.abs(found - before).max() > 0.1


def test_low_rank_updates_of_a_backbone_are_merged(inputs):
    backbone = make("BertBackbone")
    backbone.enable_lora(2)
    random = np.random.default_rng(0)
    for variable in backbone.trainable_variables:
        if "lora" in variable.path:
            variable.assign(random.normal(size=variable.shape))
    copy = kc.build_cascade(backbone, taps="pooled_dense")
    expected = numpy(backbone(inputs)["pooled_output"])
    np.testing.assert_array_equal(numpy(copy(inputs)), expected)
