"""Every backbone class of KerasHub at its smallest, with inputs for it."""

import inspect
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from tests.applications import settle

# Built once a test: a backbone's parts are layers, which belong to one model.
Arguments = Callable[[], dict[str, Any]]
Values = Callable[[np.random.Generator], np.ndarray]

# What is no network itself.
ABSTRACT = ("Backbone", "FeaturePyramidBackbone")
# A second export of the same class.
ALIASES = {
    "ESM2Backbone": "ESMBackbone",
    "Qwen2Backbone": "QwenBackbone",
    "SmolLMBackbone": "SmolLM3Backbone",
}

SAMPLES = 4
LENGTH = 6
VOCABULARY = 16


def exported_backbones() -> list[str]:
    """The names of the backbone classes that KerasHub exports."""
    from keras_hub import models

    return [
        name
        for name, value in vars(models).items()
        if inspect.isclass(value)
        and issubclass(value, models.Backbone)
        and name not in ABSTRACT
    ]


def make(name: str) -> keras.Model:
    """The backbone, untrained: always of the same weights.

    They are stirred, so that none is what a new copy would begin with, and
    BatchNormalization has the statistics of the inputs: else images hardly
    leave a trace in what a network with random weights gives.
    """
    import keras_hub

    keras.utils.set_random_seed(0)
    backbone = getattr(keras_hub.models, name)(**BACKBONES[name]())
    random = np.random.default_rng(1)
    for variable in backbone.weights:
        # DINOv2 has these twice, at two sizes, and keeps them in step.
        in_step = variable.name.endswith("position_embeddings")
        if "float" in variable.dtype and not in_step:
            noise = random.uniform(-0.2, 0.2, variable.shape)
            if variable.name.endswith("variance"):
                noise = np.abs(noise)
            value = keras.ops.convert_to_numpy(variable)
            variable.assign((value + noise).astype("float32"))
    settle(backbone, inputs_for(name, backbone))
    return backbone


def inputs_for(name: str, backbone: keras.Model) -> Any:
    """Inputs for it: by their names, or one."""
    name = ALIASES.get(name, name)
    random = np.random.default_rng(0)
    special = INPUTS.get(name, {})

    def values(tensor: keras.KerasTensor) -> np.ndarray:
        if tensor.name in special:
            return special[tensor.name](random)
        return _values(tensor, random)

    return keras.tree.map_structure(values, backbone.input)


def _values(
    tensor: keras.KerasTensor, random: np.random.Generator
) -> np.ndarray:
    """By what the input's name says."""
    sizes = [LENGTH if size is None else size for size in tensor.shape[1:]]
    if tensor.name.endswith("mask"):
        keep = np.ones((SAMPLES, *sizes))
        keep[0, -2:] = 0
        return keep.astype(tensor.dtype)
    if "int" in tensor.dtype:
        # Padding is 0.
        most = 2 if "segment" in tensor.name else VOCABULARY - 4
        return random.integers(1, most, (SAMPLES, *sizes)).astype(tensor.dtype)
    return random.normal(size=(SAMPLES, *sizes)).astype(tensor.dtype)


def values(outputs: Any) -> list[np.ndarray]:
    """Outputs as arrays, in the order in which their keys stand."""
    if isinstance(outputs, dict):
        return [x for value in outputs.values() for x in values(value)]
    if isinstance(outputs, list | tuple):
        return [x for value in outputs for x in values(value)]
    return [keras.ops.convert_to_numpy(outputs)]


def state(backbone: keras.Model) -> dict[str, Any]:
    """Everything about a backbone that a copy must leave alone."""
    operations = backbone.operations
    return {
        "config": backbone.get_config(),
        "names": [operation.name for operation in operations],
        "paths": [variable.path for variable in backbone.variables],
        "values": [value.tobytes() for value in backbone.get_weights()],
        "flags": [layer.trainable for layer in backbone._flatten_layers()],
        "outputs": [id(x) for x in keras.tree.flatten(backbone.output)],
        "calls": [len(op._inbound_nodes) for op in operations],
    }


# --- Text -------------------------------------------------------------------

_TEXT = {
    "vocabulary_size": VOCABULARY,
    "num_layers": 2,
    "num_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 12,
}
_QUERIES = {
    "vocabulary_size": VOCABULARY,
    "num_layers": 2,
    "num_query_heads": 4,
    "num_key_value_heads": 2,
    "hidden_dim": 8,
    "intermediate_dim": 12,
}
_ENCODER_DECODER = {
    "vocabulary_size": VOCABULARY,
    **{
        f"{part}_{name}": value
        for part in ("encoder", "decoder")
        for name, value in {
            "hidden_dim": 8,
            "intermediate_dim": 12,
            "num_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 4,
            "layer_types": ["sliding_attention", "full_attention"],
        }.items()
    },
    "sliding_window": 4,
}
_TEXT_TOWER = {
    "vocabulary_size": VOCABULARY,
    "embedding_dim": 8,
    "hidden_dim": 8,
    "num_layers": 2,
    "num_heads": 2,
    "intermediate_dim": 12,
    "max_sequence_length": LENGTH,
}


def _text(**changes: Any) -> Arguments:
    return lambda: {**_TEXT, **changes}


def _queries(**changes: Any) -> Arguments:
    return lambda: {**_QUERIES, **changes}


def _encoder_decoder(**changes: Any) -> Arguments:
    return lambda: {**_ENCODER_DECODER, **changes}


_EXPERTS = {"num_experts": 2, "top_k": 1}
_LINEAR_ATTENTION = {
    "head_dim": 4,
    "layer_types": ["linear_attention", "full_attention"],
    "partial_rotary_factor": 0.5,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 2,
    "linear_key_head_dim": 4,
    "linear_value_head_dim": 4,
}

TEXT: dict[str, Arguments] = {
    "AlbertBackbone": _text(embedding_dim=8),
    "BartBackbone": _text(),
    "BertBackbone": _text(),
    "BloomBackbone": _text(),
    "CLIPTextEncoder": lambda: dict(_TEXT_TOWER),
    "DebertaV3Backbone": _text(bucket_size=4),
    "DistilBertBackbone": _text(),
    "ESMBackbone": _text(),
    "EdRecBackbone": lambda: {
        "vocab_size": VOCABULARY,
        "num_layers_enc": 1,
        "num_layers_dec": 1,
        "hidden_dim": 8,
        "intermediate_dim": 12,
        "num_heads": 2,
    },
    "ElectraBackbone": lambda: {
        "vocab_size": VOCABULARY,
        "num_layers": 2,
        "num_heads": 2,
        "hidden_dim": 8,
        "embedding_dim": 6,
        "intermediate_dim": 12,
    },
    "FNetBackbone": lambda: {
        name: value for name, value in _TEXT.items() if name != "num_heads"
    },
    "FalconBackbone": lambda: {
        "vocabulary_size": VOCABULARY,
        "num_layers": 2,
        "num_attention_heads": 2,
        "hidden_dim": 8,
        "intermediate_dim": 32,
    },
    "GPT2Backbone": _text(),
    "GPTNeoXBackbone": _text(rotary_percentage=0.5),
    "GemmaBackbone": _queries(head_dim=4),
    "GptOssBackbone": _queries(num_experts=3, top_k=2),
    "Llama3Backbone": _queries(),
    "LlamaBackbone": _queries(),
    "MetaCLIP2TextEncoder": lambda: dict(_TEXT_TOWER),
    "MistralBackbone": _queries(),
    "MixtralBackbone": _queries(**_EXPERTS),
    "OPTBackbone": _text(),
    "Phi3Backbone": _queries(),
    "Qwen3Backbone": _queries(head_dim=4),
    "Qwen3MoeBackbone": _queries(moe_intermediate_dim=8, **_EXPERTS),
    "Qwen3_5MoeBackbone": lambda: {
        "vocabulary_size": VOCABULARY,
        "num_layers": 2,
        "num_query_heads": 4,
        "num_key_value_heads": 2,
        "hidden_dim": 8,
        "moe_intermediate_dim": 8,
        "shared_expert_intermediate_size": 8,
        **_EXPERTS,
        **_LINEAR_ATTENTION,
    },
    "QwenBackbone": _queries(),
    "QwenMoeBackbone": _queries(
        moe_intermediate_dim=8, shared_expert_intermediate_dim=8, **_EXPERTS
    ),
    "RWKV7Backbone": lambda: {
        "hidden_size": 16,
        "head_size": 8,
        "num_layers": 2,
        "vocabulary_size": VOCABULARY,
        "intermediate_dim": 16,
        "gate_lora": 8,
        "mv_lora": 8,
        "aaa_lora": 8,
        "decay_lora": 8,
    },
    "RobertaBackbone": _text(),
    "RoformerV2Backbone": _text(head_size=4),
    "SigLIPTextEncoder": lambda: dict(_TEXT_TOWER),
    "SmolLM3Backbone": lambda: {
        "vocabulary_size": VOCABULARY,
        "hidden_dim": 8,
        "intermediate_dim": 12,
        "num_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "rope_layer_enabled_list": [True, False],
        "layer_types": ["attention", "attention"],
        "mlp_bias": False,
        "layer_norm_epsilon": 1e-5,
        "max_position_embeddings": 16,
        "rope_theta": 10000.0,
        "partial_rotary_factor": 1.0,
    },
    "T5Backbone": _text(),
    "T5GemmaBackbone": _encoder_decoder(),
    "XLMRobertaBackbone": _text(),
    "XLNetBackbone": _text(),
}

# --- Images -----------------------------------------------------------------

_IMAGE = {"image_shape": (32, 32, 3)}
_VISION_TOWER = {
    **_IMAGE,
    "patch_size": 16,
    "hidden_dim": 8,
    "num_layers": 2,
    "num_heads": 2,
    "intermediate_dim": 12,
}
_HGNET = {
    "depths": [1, 1],
    "embedding_size": 4,
    "hidden_sizes": [8, 12],
    "stem_channels": [3, 4, 4],
    "hidden_act": "relu",
    "use_learnable_affine_block": True,
    "stackwise_stage_filters": [(4, 4, 8, 1, 2, 3), (8, 4, 12, 1, 2, 3)],
    "apply_downsample": [False, True],
    "use_lightweight_conv_block": [False, True],
}
_MOBILE_V5 = {
    "stackwise_block_types": [["er"], ["uir", "mqa"]],
    "stackwise_num_blocks": [1, 2],
    "stackwise_num_filters": [[8], [12, 12]],
    "stackwise_strides": [[2], [2, 1]],
    "stackwise_act_layers": [["relu"], ["relu", "relu"]],
    "stackwise_exp_ratios": [[2.0], [2.0, 2.0]],
    "stackwise_se_ratios": [[0.0], [0.0, 0.0]],
    "stackwise_dw_kernel_sizes": [[0], [3, 3]],
    "stackwise_dw_start_kernel_sizes": [[0], [0, 0]],
    "stackwise_dw_end_kernel_sizes": [[0], [0, 0]],
    "stackwise_exp_kernel_sizes": [[3], [0, 0]],
    "stackwise_pw_kernel_sizes": [[1], [0, 0]],
    "stackwise_num_heads": [[0], [0, 2]],
    "stackwise_key_dims": [[0], [0, 4]],
    "stackwise_value_dims": [[0], [0, 4]],
    "stackwise_kv_strides": [[0], [0, 1]],
    "stackwise_use_cpe": [[False], [False, False]],
    "stem_size": 4,
    "num_features": 8,
    "use_msfa": False,
}


def _hub(class_name: str, /, **arguments: Any) -> keras.Model:
    import keras_hub

    return getattr(keras_hub.models, class_name)(**arguments)


def _hub_layer(class_name: str, /, **arguments: Any) -> keras.Layer:
    import keras_hub

    return getattr(keras_hub.layers, class_name)(**arguments)


def _resnet(**changes: Any) -> dict:
    return {
        # KerasHub wants 64 in the first stage.
        "input_conv_filters": [64],
        "input_conv_kernel_sizes": [3],
        "stackwise_num_filters": [64, 8],
        "stackwise_num_blocks": [1, 1],
        "stackwise_num_strides": [1, 2],
        "block_type": "basic_block",
        **_IMAGE,
        **changes,
    }


def _mit() -> dict:
    return {
        **_IMAGE,
        "num_layers": 2,
        "hidden_dims": [4, 8],
        "layerwise_depths": [1, 1],
        "layerwise_num_heads": [1, 2],
        "layerwise_sr_ratios": [2, 1],
        "layerwise_patch_sizes": [7, 3],
        "layerwise_strides": [4, 2],
        "max_drop_path_rate": 0.1,
    }


def _vit_det() -> dict:
    return {
        **_IMAGE,
        "patch_size": 8,
        "hidden_size": 8,
        "num_layers": 2,
        "global_attention_layer_indices": [1],
        "intermediate_dim": 12,
        "num_heads": 2,
        "num_output_channels": 8,
        "window_size": 2,
    }


def _vit() -> dict:
    return {
        **_IMAGE,
        "patch_size": 16,
        "num_layers": 2,
        "num_heads": 2,
        "hidden_dim": 8,
        "mlp_dim": 12,
        "use_patch_bias": False,
    }


def _d_fine() -> dict:
    stages = [[4, 4, 16, 1, 3, 3], [16, 4, 16, 1, 3, 3]]
    encoder = _hub(
        "HGNetV2Backbone",
        **{
            **_HGNET,
            "stackwise_stage_filters": stages,
            "hidden_sizes": [16, 16],
            "apply_downsample": [False, True],
            "out_features": ["stage1", "stage2"],
            "image_shape": (None, None, 3),
        },
    )
    return {
        "backbone": encoder,
        "decoder_in_channels": [8, 8],
        "encoder_hidden_dim": 8,
        "num_denoising": 0,
        "num_labels": 4,
        "hidden_dim": 8,
        "learn_initial_query": False,
        "num_queries": 5,
        "anchor_image_size": (32, 32),
        "feat_strides": [4, 8],
        "num_feature_levels": 2,
        "encoder_in_channels": [16, 16],
        "encode_proj_layers": [1],
        "num_attention_heads": 2,
        "encoder_ffn_dim": 12,
        "num_encoder_layers": 1,
        "hidden_expansion": 0.5,
        "depth_multiplier": 0.34,
        "eval_idx": -1,
        "num_decoder_layers": 2,
        "decoder_attention_heads": 2,
        "decoder_ffn_dim": 12,
        "decoder_n_points": [2, 2],
        "lqe_hidden_dim": 8,
        "num_lqe_layers": 2,
        "out_features": ["stage1", "stage2"],
        "seed": 0,
        **_IMAGE,
    }


def _depth_anything() -> dict:
    return {
        "image_encoder": _hub(
            "DINOV2Backbone",
            **{
                **_VISION_TOWER,
                "image_shape": (64, 64, 3),
                "position_embedding_shape": (64, 64),
            },
        ),
        "reassemble_factors": [2, 1],
        "neck_hidden_dims": [4, 8],
        "fusion_hidden_dim": 8,
        "head_hidden_dim": 4,
        "head_in_index": -1,
        "feature_keys": ["stage1", "stage2"],
    }


IMAGES: dict[str, Arguments] = {
    "BASNetBackbone": lambda: {
        "image_encoder": _hub(
            "ResNetBackbone",
            **_resnet(
                stackwise_num_filters=[64, 128, 256, 512],
                stackwise_num_blocks=[1, 1, 1, 1],
                stackwise_num_strides=[1, 2, 2, 2],
                image_shape=(None, None, 3),
            ),
        ),
        "num_classes": 1,
        "projection_filters": 64,
        **_IMAGE,
    },
    "CLIPVisionEncoder": lambda: dict(_VISION_TOWER),
    "CSPNetBackbone": lambda: {
        "stem_filters": 8,
        "stem_kernel_size": 3,
        "stem_strides": 2,
        "stackwise_depth": [1, 1],
        "stackwise_strides": [1, 2],
        "stackwise_num_filters": [8, 16],
        "block_type": "dark_block",
        "stage_type": "dark",
        **_IMAGE,
    },
    "DFineBackbone": _d_fine,
    "DINOV2Backbone": lambda: {
        **_VISION_TOWER,
        "position_embedding_shape": (32, 32),
    },
    "DINOV3Backbone": lambda: dict(_VISION_TOWER),
    "DeepLabV3Backbone": lambda: {
        "image_encoder": _hub("ResNetBackbone", **_resnet()),
        "projection_filters": 4,
        "low_level_feature_key": "P2",
        "spatial_pyramid_pooling_key": "P3",
        "upsampling_size": 2,
        "dilation_rates": [1, 2],
        **_IMAGE,
    },
    "DeiTBackbone": lambda: dict(_VISION_TOWER),
    "DenseNetBackbone": lambda: {
        "stackwise_num_repeats": [1, 1],
        "growth_rate": 4,
        **_IMAGE,
    },
    "DepthAnythingBackbone": _depth_anything,
    "EfficientNetBackbone": lambda: {
        "stackwise_width_coefficients": [1.0, 1.0],
        "stackwise_depth_coefficients": [1.0, 1.0],
        "stackwise_kernel_sizes": [3, 3],
        "stackwise_num_repeats": [2, 1],
        "stackwise_input_filters": [8, 8],
        "stackwise_output_filters": [8, 16],
        "stackwise_expansion_ratios": [1, 4],
        "stackwise_squeeze_and_excite_ratios": [0.0, 0.25],
        "stackwise_strides": [1, 2],
        "stackwise_block_types": ["fused", "unfused"],
        "stackwise_force_input_filters": [0, 0],
        "stackwise_nores_option": [False, False],
        "num_features": 16,
        "input_shape": (32, 32, 3),
    },
    "HGNetV2Backbone": lambda: {**_HGNET, **_IMAGE},
    "MetaCLIP2VisionEncoder": lambda: dict(_VISION_TOWER),
    "MiTBackbone": _mit,
    "MobileNetBackbone": lambda: {
        "stackwise_expansion": [[8, 8], [16]],
        "stackwise_num_blocks": [2, 1],
        "stackwise_num_filters": [[8, 8], [16]],
        "stackwise_kernel_size": [[3, 3], [5]],
        "stackwise_num_strides": [[2, 1], [2]],
        "stackwise_se_ratio": [[None, None], [0.25]],
        "stackwise_activation": [["relu", "relu"], ["hard_swish"]],
        "stackwise_padding": [[1, 1], [2]],
        "output_num_filters": 16,
        "depthwise_filters": 8,
        "depthwise_stride": 1,
        "depthwise_residual": False,
        "last_layer_filter": 16,
        "squeeze_and_excite": 0.5,
        "input_num_filters": 8,
        **_IMAGE,
    },
    "MobileNetV5Backbone": lambda: {**_MOBILE_V5, **_IMAGE},
    "ResNetBackbone": _resnet,
    "RetinaNetBackbone": lambda: {
        "image_encoder": _hub(
            "ResNetBackbone",
            **_resnet(
                stackwise_num_filters=[64, 8, 8, 8],
                stackwise_num_blocks=[1, 1, 1, 1],
                stackwise_num_strides=[1, 2, 2, 2],
            ),
        ),
        "min_level": 3,
        "max_level": 6,
        "use_p5": False,
        **_IMAGE,
    },
    "SegFormerBackbone": lambda: {
        "image_encoder": _hub("MiTBackbone", **_mit()),
        "projection_filters": 8,
    },
    "SigLIPVisionEncoder": lambda: dict(_VISION_TOWER),
    "SwinTransformerBackbone": lambda: {
        **_IMAGE,
        "embed_dim": 8,
        "depths": (2, 1),
        "num_heads": (2, 2),
        "window_size": 4,
    },
    "VGGBackbone": lambda: {
        "stackwise_num_repeats": [1, 2],
        "stackwise_num_filters": [4, 8],
        **_IMAGE,
    },
    "ViTBackbone": _vit,
    "ViTDetBackbone": _vit_det,
    "XceptionBackbone": lambda: {
        "stackwise_conv_filters": [[4, 8], [8, 8]],
        "stackwise_pooling": [True, False],
        **_IMAGE,
    },
}

# --- Audio, and several at once ---------------------------------------------


def _towers(prefix: str, **changes: Any) -> Arguments:
    def arguments() -> dict:
        return {
            "vision_encoder": _hub(f"{prefix}VisionEncoder", **_VISION_TOWER),
            "text_encoder": _hub(f"{prefix}TextEncoder", **_TEXT_TOWER),
            **changes,
        }

    return arguments


def _blip2() -> dict:
    return {
        "vision_encoder": _hub(
            "BLIP2VisionEncoder",
            image_size=32,
            patch_size=16,
            num_layers=1,
            num_heads=2,
            hidden_dim=8,
            intermediate_dim=12,
            use_patch_bias=True,
            use_class_token=True,
            use_mha_bias=True,
            use_mlp_bias=True,
            dropout_rate=0.0,
            layer_norm_epsilon=1e-6,
            initializer_range=0.02,
        ),
        "qformer": _hub(
            "BLIP2QFormer",
            num_query_tokens=3,
            num_layers=2,
            num_heads=2,
            hidden_dim=8,
            intermediate_dim=12,
            vision_dim=8,
            cross_attention_frequency=2,
            dropout=0.0,
            layer_norm_epsilon=1e-6,
        ),
        "language_model": _hub(
            "BLIP2CustomOPT",
            vocabulary_size=VOCABULARY,
            num_layers=2,
            num_heads=2,
            hidden_dim=8,
            intermediate_dim=12,
            num_query_tokens=3,
            dropout=0.0,
            max_sequence_length=16,
            qformer_hidden_dim=8,
        ),
    }


def _gemma3() -> dict:
    return {
        **_QUERIES,
        "head_dim": 4,
        "image_size": 16,
        "vision_encoder": _hub(
            "Gemma3VisionEncoder",
            image_size=16,
            patch_size=4,
            num_heads=2,
            hidden_dim=8,
            num_layers=1,
            intermediate_dim=12,
            output_dim=8,
            pool_size=2,
        ),
    }


def _gemma3n() -> dict:
    audio = {
        "hidden_size": 8,
        "input_feat_size": 16,
        "sscp_conv_channel_size": [4, 4],
        "sscp_conv_kernel_size": [(3, 3), (3, 3)],
        "sscp_conv_stride_size": [(2, 2), (2, 2)],
        "sscp_conv_group_norm_eps": 1e-5,
        "num_hidden_layers": 1,
        "rms_norm_eps": 1e-6,
        "gradient_clipping": 1.0,
        "residual_weight": 0.5,
        "num_attention_heads": 1,
        "attention_chunk_size": 4,
        "num_attention_context_right": 1,
        "num_attention_context_left": 5,
        "attention_logit_cap": 50.0,
        "conv_kernel_size": 3,
        "reduction_factor": 1,
    }
    vision = _hub("MobileNetV5Backbone", **{**_MOBILE_V5, **_IMAGE})
    return {
        "text_vocab_size": VOCABULARY,
        "text_hidden_size": 8,
        "num_hidden_layers": 1,
        "pad_token_id": 0,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "head_dim": 8,
        "intermediate_size": [16],
        "hidden_activation": "gelu_approximate",
        "layer_types": ["full_attention"],
        "sliding_window": 4,
        "rope_theta": 10000.0,
        "max_position_embeddings": 16,
        "vocab_size_per_layer_input": VOCABULARY,
        "hidden_size_per_layer_input": 2,
        "altup_num_inputs": 2,
        "laurel_rank": 1,
        "vision_encoder_config": vision.get_config(),
        "vision_hidden_size": 16,
        "vision_vocab_size": 4,
        "vision_vocab_offset": VOCABULARY,
        "vision_soft_tokens_per_image": 16,
        "image_token_id": VOCABULARY - 2,
        "audio_encoder_config": audio,
        "audio_hidden_size": 8,
        "audio_vocab_size": 4,
        "audio_vocab_offset": VOCABULARY + 4,
        "audio_soft_tokens_per_image": 4,
        "audio_token_id": VOCABULARY - 1,
    }


def _gemma4() -> dict:
    return {
        **_QUERIES,
        "head_dim": 4,
        "image_size": 16,
        "vision_encoder": _hub(
            "Gemma4VisionEncoder",
            image_size=16,
            patch_size=4,
            num_heads=2,
            hidden_dim=8,
            num_layers=1,
            intermediate_dim=12,
            head_dim=4,
            output_dim=8,
            pool_size=2,
        ),
    }


def _qwen3_5() -> dict:
    from keras_hub.src.models.qwen3_5.qwen3_5_vision_encoder import (
        Qwen3_5VisionEncoder,
    )

    return {
        **_QUERIES,
        **_LINEAR_ATTENTION,
        "vision_encoder": Qwen3_5VisionEncoder(
            depth=1,
            hidden_size=8,
            num_heads=2,
            intermediate_size=12,
            patch_size=4,
            temporal_patch_size=1,
            spatial_merge_size=2,
            out_hidden_size=8,
            num_position_embeddings=16,
        ),
    }


def _sam() -> dict:
    return {
        "image_encoder": _hub("ViTDetBackbone", **_vit_det()),
        "prompt_encoder": _hub_layer(
            "SAMPromptEncoder",
            hidden_size=8,
            image_embedding_size=(4, 4),
            input_image_size=(32, 32),
            mask_in_channels=4,
        ),
        "mask_decoder": _hub_layer(
            "SAMMaskDecoder",
            num_layers=1,
            hidden_size=8,
            intermediate_dim=12,
            num_heads=2,
            embedding_dim=8,
            num_multimask_outputs=2,
            iou_head_depth=2,
            iou_head_hidden_dim=8,
        ),
    }


def _sam3() -> dict:
    block = {"hidden_dim": 8, "intermediate_dim": 12, "num_heads": 2}
    return {
        "vision_encoder": _hub_layer(
            "SAM3VisionEncoder",
            image_shape=(56, 56, 3),
            patch_size=14,
            num_layers=2,
            fpn_hidden_dim=8,
            fpn_scale_factors=[4.0, 2.0, 1.0, 0.5],
            pretrain_image_shape=(28, 28, 3),
            window_size=2,
            global_attn_indexes=[1],
            **block,
        ),
        "text_encoder": _hub_layer(
            "SAM3TextEncoder",
            vocabulary_size=VOCABULARY,
            embedding_dim=8,
            num_layers=1,
            **block,
        ),
        "geometry_encoder": _hub_layer(
            "SAM3GeometryEncoder", num_layers=1, roi_size=7, **block
        ),
        "detr_encoder": _hub_layer("SAM3DetrEncoder", num_layers=1, **block),
        "detr_decoder": _hub_layer(
            "SAM3DetrDecoder",
            image_shape=(56, 56, 3),
            patch_size=14,
            num_layers=1,
            num_queries=5,
            **block,
        ),
        "mask_decoder": _hub_layer(
            "SAM3MaskDecoder",
            num_upsampling_stages=3,
            hidden_dim=8,
            num_heads=2,
        ),
    }


def _stable_diffusion_3() -> dict:
    from keras_hub.src.models.vae.vae_backbone import VAEBackbone

    tower = {**_TEXT_TOWER, "intermediate_output_index": 0}
    return {
        "mmdit_patch_size": 2,
        "mmdit_hidden_dim": 16,
        "mmdit_num_layers": 2,
        "mmdit_num_heads": 2,
        "mmdit_position_size": 16,
        "mmdit_qk_norm": None,
        "mmdit_dual_attention_indices": None,
        "vae": VAEBackbone(
            encoder_num_filters=[32, 32, 32, 32],
            encoder_num_blocks=[1, 1, 1, 1],
            decoder_num_filters=[32, 32, 32, 32],
            decoder_num_blocks=[1, 1, 1, 1],
            sampler_method="mode",
        ),
        "clip_l": _hub("CLIPTextEncoder", **tower, name="clip_l"),
        "clip_g": _hub("CLIPTextEncoder", **tower, name="clip_g"),
        "image_shape": (64, 64, 3),
    }


MULTIMODAL: dict[str, Arguments] = {
    "BLIP2Backbone": _blip2,
    "CLIPBackbone": _towers("CLIP", projection_dim=8),
    "FluxBackbone": lambda: {
        "input_channels": 8,
        "hidden_size": 16,
        "mlp_ratio": 2.0,
        "num_heads": 2,
        "depth": 1,
        "depth_single_blocks": 1,
        "axes_dim": [2, 2, 4],
        "theta": 10000,
        "use_bias": True,
        "image_shape": (4, 8),
        "text_shape": (4, 8),
        "image_ids_shape": (4, 3),
        "text_ids_shape": (4, 3),
        "y_shape": (8,),
    },
    "Gemma3Backbone": _gemma3,
    "Gemma3nBackbone": _gemma3n,
    "Gemma4Backbone": _gemma4,
    "MetaCLIP2Backbone": _towers("MetaCLIP2", projection_dim=8),
    "PARSeqBackbone": lambda: {
        "image_encoder": _hub("ViTBackbone", **_vit()),
        "vocabulary_size": VOCABULARY,
        "max_label_length": LENGTH,
        "decoder_hidden_dim": 8,
        "num_decoder_layers": 1,
        "num_decoder_heads": 2,
        "decoder_mlp_dim": 12,
    },
    "PaliGemmaBackbone": lambda: {
        **_QUERIES,
        "image_size": 16,
        "head_dim": 4,
        "vit_patch_size": 8,
        "vit_num_heads": 2,
        "vit_hidden_dim": 8,
        "vit_num_layers": 1,
    },
    "Qwen3_5Backbone": _qwen3_5,
    "SAM3PromptableConceptBackbone": _sam3,
    "SAMBackbone": _sam,
    "SigLIPBackbone": _towers("SigLIP"),
    "StableDiffusion3Backbone": _stable_diffusion_3,
    "T5Gemma2Backbone": _encoder_decoder(),
    "VideoPrismBackbone": lambda: {
        "num_frames": 2,
        "patch_size": 16,
        "hidden_dim": 8,
        "intermediate_dim": 12,
        "num_heads": 2,
        "num_spatial_layers": 1,
        "num_temporal_layers": 1,
        "num_auxiliary_layers": 1,
        "vocabulary_size": VOCABULARY,
        "num_text_layers": 1,
        **_IMAGE,
    },
}

AUDIO: dict[str, Arguments] = {
    "MoonshineBackbone": lambda: {
        "vocabulary_size": VOCABULARY,
        "filter_dim": 8,
        "encoder_num_layers": 1,
        "decoder_num_layers": 1,
        "hidden_dim": 8,
        "intermediate_dim": 12,
        "encoder_num_heads": 2,
        "decoder_num_heads": 2,
    },
    "WhisperBackbone": lambda: {
        **_TEXT,
        "num_mels": 8,
        "max_encoder_sequence_length": 12,
        "max_decoder_sequence_length": 12,
    },
}

BACKBONES: dict[str, Arguments] = {**TEXT, **IMAGES, **AUDIO, **MULTIMODAL}
BACKBONES |= {alias: BACKBONES[name] for alias, name in ALIASES.items()}

# What an input's name and dtype do not say.


def _normal(*shape: int) -> Values:
    return lambda random: random.normal(size=(SAMPLES, *shape)).astype(
        "float32"
    )


def _always(values: Any, dtype: str = "int32") -> Values:
    """The same for each sample."""

    def repeated(random: np.random.Generator) -> np.ndarray:
        del random
        return np.stack([np.asarray(values, dtype)] * SAMPLES)

    return repeated


def _tokens_with(*special: int) -> Values:
    """Words, and behind them what stands for an image or a sound."""

    def tokens(random: np.random.Generator) -> np.ndarray:
        ids = random.integers(1, VOCABULARY - 4, (SAMPLES, LENGTH))
        ids[:, -len(special) :] = special
        return ids.astype("int32")

    return tokens


# Four tokens of an image stand behind the first word.
_BEHIND_THE_FIRST = [1, 2, 3, 4]
_GRID = [[[row, column] for row in range(4) for column in range(4)]]

INPUTS: dict[str, dict[str, Values]] = {
    "Gemma3Backbone": {
        "images": _normal(1, 16, 16, 3),
        "vision_indices": _always(_BEHIND_THE_FIRST),
        "vision_mask": _always([0, 1, 1, 1, 1, 0]),
    },
    "Gemma3nBackbone": {
        "token_ids": _tokens_with(VOCABULARY - 2, VOCABULARY - 1),
        "images": _normal(1, 32, 32, 3),
        "input_features": _normal(1, 16, 16),
        "input_features_mask": _always([[False] * 16], "bool"),
        "padding_mask": _always([True] * LENGTH, "bool"),
    },
    "Gemma4Backbone": {
        "pixel_values": _normal(1, 16, 48),
        "pixel_position_ids": _always(_GRID),
        "position_ids": _always(range(LENGTH)),
        "vision_indices": _always(_BEHIND_THE_FIRST),
        "vision_mask": _always([0, 1, 1, 1, 1, 0]),
    },
    "MoonshineBackbone": {
        "encoder_input_values": _normal(1600, 1),
        "encoder_padding_mask": _always([True] * 1600, "bool"),
    },
    "SAMBackbone": {
        "boxes": _normal(1, 2, 2),
        "labels": _always([1.0, 0.0], "float32"),
        # Four times the side of what the image becomes.
        "masks": _normal(1, 16, 16, 1),
        "points": _normal(2, 2),
    },
    "SAM3PromptableConceptBackbone": {
        # KerasHub broadcasts a (samples, boxes + 1) mask over (boxes + 1,
        # boxes + 1): it wants a box less than there are samples.
        "boxes": _always([[0.5, 0.5, 0.4, 0.3, 0.0]] * 3, "float32"),
        "box_labels": _always([1, 0, 1]),
    },
    "Qwen3_5Backbone": {
        "pixel_values": _normal(16, 1, 4, 4, 3),
        "image_grid_thw": _always([[1, 4, 4]]),
        # Positions in all samples, one behind the other.
        "vision_indices": lambda random: np.add.outer(
            np.arange(SAMPLES) * LENGTH, _BEHIND_THE_FIRST
        ).astype("int32"),
    },
}
