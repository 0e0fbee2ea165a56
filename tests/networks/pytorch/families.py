"""Modules of transformers, torchvision and timm, with random weights.

Each entry makes a module and what it is called with.
"""

import importlib.util

from keras_cascade.networks.pytorch.tracing import read_example
from tests.networks.pytorch.comparing import numbers

_SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
_TEXT = {"vocab_size": 100, "max_position_embeddings": 64, **_SMALL}
_GPT2 = {
    "vocab_size": 100,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 64,
    "use_cache": False,
}


def _pixels(side):
    return {"pixel_values": numbers(8, 3, side, side)}


def _ids():
    return {"input_ids": (numbers(8, 12).abs() * 30).long() % 90 + 3}


def _text():
    import torch

    mask = torch.ones(8, 12, dtype=torch.long)
    mask[1, 8:] = 0
    return {**_ids(), "attention_mask": mask}


# Class, settings of its configuration, and what it is called with.
TRANSFORMERS = {
    "ResNet": (
        {
            "embedding_size": 8,
            "hidden_sizes": [16, 32, 48, 64],
            "depths": [1] * 4,
        },
        lambda: _pixels(64),
    ),
    "ViT": (
        {"image_size": 32, "patch_size": 8, **_SMALL},
        lambda: _pixels(32),
    ),
    "Dinov2": (
        {"image_size": 32, "patch_size": 8, **_SMALL},
        lambda: _pixels(32),
    ),
    "ConvNext": (
        {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 2, 1]},
        lambda: _pixels(64),
    ),
    "Swin": (
        {
            "image_size": 64,
            "patch_size": 4,
            "embed_dim": 16,
            "depths": [2, 2],
            "num_heads": [2, 4],
            "window_size": 4,
        },
        lambda: _pixels(64),
    ),
    "Segformer": (
        {
            "hidden_sizes": [8, 16, 24, 32],
            "depths": [1] * 4,
            "num_attention_heads": [1, 2, 2, 4],
            "decoder_hidden_size": 16,
        },
        lambda: _pixels(64),
    ),
    "CLIPVision": (
        {"image_size": 32, "patch_size": 8, "projection_dim": 16, **_SMALL},
        lambda: _pixels(32),
    ),
    "CLIPText": (
        {**_TEXT, "projection_dim": 16, "eos_token_id": 2},
        _ids,
    ),
    "SiglipVision": (
        {"image_size": 32, "patch_size": 8, **_SMALL},
        lambda: _pixels(32),
    ),
    "Bert": (_TEXT, _text),
    "DistilBert": (
        {
            "vocab_size": 100,
            "dim": 32,
            "n_layers": 2,
            "n_heads": 4,
            "hidden_dim": 64,
            "max_position_embeddings": 64,
        },
        _text,
    ),
    "Roberta": (_TEXT, _text),
    "T5Encoder": (
        {
            "vocab_size": 100,
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 64,
            "num_layers": 2,
            "num_heads": 4,
        },
        _text,
    ),
    "GPT2": (_GPT2, _ids),
    "GPT2LMHead": (_GPT2, _ids),
    "Llama": (
        {
            "vocab_size": 100,
            "num_key_value_heads": 2,
            "use_cache": False,
            **_SMALL,
        },
        _ids,
    ),
    "Wav2Vec2": (
        {
            "conv_dim": [16] * 3,
            "conv_stride": [5, 2, 2],
            "conv_kernel": [10, 3, 3],
            "num_feat_extract_layers": 3,
            "num_conv_pos_embeddings": 16,
            "num_conv_pos_embedding_groups": 4,
            **_SMALL,
        },
        lambda: {"input_values": numbers(8, 1600)},
    ),
    "Whisper": (
        {
            "vocab_size": 100,
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 1,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 64,
            "decoder_ffn_dim": 64,
            "num_mel_bins": 16,
            "max_source_positions": 50,
            "pad_token_id": 0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "decoder_start_token_id": 1,
        },
        lambda: {"input_features": numbers(8, 16, 100)},
    ),
}

TORCHVISION = [
    "alexnet",
    "convnext_tiny",
    "densenet121",
    "efficientnet_b0",
    "efficientnet_v2_s",
    "googlenet",
    "inception_v3",
    "maxvit_t",
    "mnasnet0_5",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "regnet_y_400mf",
    "resnet18",
    "resnext50_32x4d",
    "shufflenet_v2_x0_5",
    "squeezenet1_0",
    "swin_t",
    "swin_v2_t",
    "vgg11",
    "vit_b_32",
]

TIMM = [
    "beit_base_patch16_224",
    "caformer_s18",
    "cait_xxs24_224",
    "coatnet_nano_rw_224",
    "convmixer_768_32",
    "convnext_atto",
    "crossvit_tiny_240",
    "cspresnet50",
    "davit_tiny",
    "deit_tiny_patch16_224",
    "densenet121",
    "dpn48b",
    "edgenext_xx_small",
    "efficientformer_l1",
    "efficientnet_b0",
    "eva02_tiny_patch14_224",
    "fastvit_t8",
    "focalnet_tiny_srf",
    "gernet_s",
    "ghostnet_050",
    "hiera_tiny_224",
    "hrnet_w18_small",
    "inception_next_atto",
    "levit_128s",
    "maxvit_rmlp_pico_rw_256",
    "mixer_s32_224",
    "mobileone_s0",
    "mobilenetv3_small_050",
    "mobilevit_xxs",
    "nfnet_f0",
    "pit_ti_224",
    "poolformer_s12",
    "regnety_002",
    "repvgg_a0",
    "resmlp_12_224",
    "resnet18",
    "selecsls42",
    "starnet_s050",
    "swin_tiny_patch4_window7_224",
    "tiny_vit_5m_224",
    "vgg11",
    "vit_small_patch14_dinov2",
    "vit_tiny_patch16_224",
    "volo_d1_224",
    "xcit_nano_12_p16_224",
]


# Sides that differ from the configuration's, which take long.
_SIDES = {"vit_small_patch14_dinov2": 112}


def of_transformers(name):
    import transformers

    settings, example = TRANSFORMERS[name]
    stem = name.replace("Encoder", "").replace("LMHead", "")
    config = getattr(transformers, f"{stem}Config")(**settings)
    ending = "HeadModel" if name.endswith("LMHead") else "Model"
    cls = getattr(transformers, f"{name.removesuffix('Head')}{ending}")
    module = cls(config)
    return module.encoder if name == "Whisper" else module, example()


def of_torchvision(name):
    from torchvision import models

    # Their weights are drawn in a slow way unless it is said.
    settings = {}
    if name in ("googlenet", "inception_v3"):
        settings["init_weights"] = True
    side = {"inception_v3": 299, "vit_b_32": 224, "maxvit_t": 224}.get(name, 64)
    module = models.get_model(name, weights=None, **settings)
    return module, numbers(8, 3, side, side)


def of_timm(name):
    import timm

    settings = {"img_size": _SIDES[name]} if name in _SIDES else {}
    module = timm.create_model(
        name, pretrained=False, num_classes=10, **settings
    )
    config = module.default_cfg
    fixed = config.get("fixed_input_size") or name in (
        "mixer_s32_224",
        "resmlp_12_224",
    )
    side = _SIDES.get(name, config["input_size"][-1] if fixed else 64)
    return module, numbers(8, 3, side, side)


MAKERS = {
    "transformers": (of_transformers, TRANSFORMERS),
    "torchvision": (of_torchvision, TORCHVISION),
    "timm": (of_timm, TIMM),
}

CASES = [
    (package, name) for package, (_, names) in MAKERS.items() for name in names
]
IDS = ["-".join(case) for case in CASES]


def prepared(package, name):
    """A module whose every part has an effect, and what it is called with."""
    import torch

    torch.manual_seed(0)
    make, _ = MAKERS[package]
    module, given = make(name)
    example = read_example(given)
    awake(module)
    settle(module, example)
    return module, example


def awake(module):
    """Moves parameters that begin as one number: zeros would hide a block."""
    import torch

    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for x in module.parameters():
            if x.numel() == 1 or x.std() < 1e-4:
                x.add_(0.1 * torch.randn(x.shape, generator=generator))


def settle(module, example):
    """Gives BatchNormalization the moments of a batch."""
    import torch

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


def define_operators():
    """Defines two operators for which torchvision's import asks.

    PyPI's torchvision has compiled ones, which a PyTorch for CPUs cannot load.
    No network of classification calls them. transformers imports it as well.
    """
    import torch

    if importlib.util.find_spec("torchvision") is None:
        return None
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(
                f"{name}(Tensor dets, Tensor scores, float iou_threshold) "
                "-> Tensor"
            )
    return library
