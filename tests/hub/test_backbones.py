"""Every backbone of KerasHub in cascades: as upstream, inside, as downstream.

Truth is the backbone itself, and `keras.Model` over its own tensors.
"""

import os
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc
from tests.hub.backbones import (
    BACKBONES,
    exported_backbones,
    inputs_for,
    make,
    state,
    values,
)

pytest.importorskip("keras_hub", reason="needs the extra 'hub'")

pytestmark = [
    # KerasHub's layers, built by KerasHub itself (0.32).
    pytest.mark.filterwarnings(
        r"ignore:`build\(\)` was called on layer:UserWarning"
    ),
    pytest.mark.filterwarnings(
        "ignore:.*was passed an input with a mask attached:UserWarning"
    ),
    pytest.mark.filterwarnings("ignore:.*'rwkv_ops' package:UserWarning"),
    # Gemma 3n on JAX, which has no int64; handed on by Keras over many lines.
    pytest.mark.filterwarnings(
        r"ignore:[\s\S]*Explicitly requested dtype int64:UserWarning"
    ),
    # Raised in RoformerV2 by torch, and handed on by Keras over many lines.
    pytest.mark.filterwarnings(
        r"ignore:[\s\S]*Using a non-tuple sequence:UserWarning"
    ),
]

# Of how far samples lie apart. Torch computes some of Gemma 3 otherwise where
# weights are frozen: the last bit.
BOUND = 1e-5 if keras.backend.backend() == "torch" else 1e-6

# Quick, and of each kind: images, text, sound, several at once.
QUICK = (
    "BertBackbone",
    "CLIPBackbone",
    "DINOV2Backbone",
    "GPT2Backbone",
    "LlamaBackbone",
    "MiTBackbone",
    "MoonshineBackbone",
    "ResNetBackbone",
    "ViTBackbone",
    "WhisperBackbone",
)
# Where a name means an input and an output, the input is called otherwise.
RENAMED = {"StableDiffusion3Backbone": {"images": "pixels", "latents": "noise"}}
# What KerasHub itself cannot do here, in its words.
TORCHVISION = pytest.mark.skipif(
    keras.backend.backend() == "torch",
    reason="KerasHub calls torchvision: No module named 'torchvision'",
)
MARKS = {"SAM3PromptableConceptBackbone": (TORCHVISION,)}

# A layer inside, at whatever depth.
INNER = {
    "AlbertBackbone": "embedding_projection",
    "BartBackbone": "transformer_encoder_layer_0",
    "BertBackbone": "transformer_layer_0",
    "CLIPBackbone": "clip_vision_encoder/encoder_block_0",
    "DebertaV3Backbone": "disentangled_attention_encoder_layer_0",
    "DenseNetBackbone": "stack1_block1_concat",
    "EfficientNetBackbone": "block1b_",
    "GPT2Backbone": "transformer_layer_0",
    "GemmaBackbone": "decoder_block_0",
    "LlamaBackbone": "transformer_layer_0",
    "MoonshineBackbone": "conv2",
    "PaliGemmaBackbone": "pali_gemma_vit/image_classifier",
    "ResNetBackbone": "stack0_block0_out",
    "SwinTransformerBackbone": "stage_0",
    "ViTBackbone": "vit_patching_and_embedding",
    "WhisperBackbone": "transformer_encoder_layer_0",
}

# Image networks that take what another network found: 32 by 32, 3 channels.
DOWNSTREAM = (
    "DINOV2Backbone",
    "DenseNetBackbone",
    "MiTBackbone",
    "ResNetBackbone",
    "SwinTransformerBackbone",
    "VGGBackbone",
    "ViTBackbone",
)


def _all():
    return [pytest.param(n, marks=MARKS.get(n, ())) for n in BACKBONES]


def _fed(name, cascade, backbone, inputs):
    """A backbone's inputs as the cascade takes them."""
    tensors = keras.tree.flatten(backbone.input)
    arrays = keras.tree.flatten(inputs)
    renamed = RENAMED.get(name, {})
    by_name = {
        renamed.get(tensor.name, tensor.name): array
        for tensor, array in zip(tensors, arrays, strict=True)
    }
    if not isinstance(cascade.input, dict):
        return by_name.get(cascade.input.name, arrays[0])
    return {name: by_name[name] for name in cascade.input}


def _cascade(name, backbone, **arguments):
    if renamed := RENAMED.get(name):
        arguments["inputs"] = {"upstream": renamed}
    return kc.build_cascade(
        backbone, adapters=None, fusion=None, preprocess=None, **arguments
    )


def _spread(found):
    """How far the samples lie apart: the mean deviation at a feature."""
    flat = found.reshape(len(found), -1).astype("float64")
    return float(np.std(flat, axis=0).mean())


def _hold_equal(found, expected):
    """By how far samples lie apart: what is constant, exactly."""
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        difference = np.abs(one.astype("float64") - other.astype("float64"))
        assert np.isfinite(other).all()
        assert difference.max() <= BOUND * _spread(other)
    assert max(map(_spread, expected)) > 1e-2


def _check_upstream(name, path):
    backbone = make(name)
    inputs = inputs_for(name, backbone)
    expected = values(backbone(inputs, training=False))
    before = state(backbone)

    cascade = _cascade(name, backbone)
    fed = _fed(name, cascade, backbone, inputs)
    given = values(cascade(fed))

    _hold_equal(given, expected)
    assert state(backbone) == before
    needed = keras.Model(backbone.input, backbone.output)
    assert cascade.count_params() == needed.count_params()
    paths = [variable.path for variable in cascade.variables]
    assert len(set(paths)) == len(paths)
    assert all(p.startswith("upstream/") for p in paths)

    cascade.save(path)
    loaded = keras.saving.load_model(path)
    assert [variable.path for variable in loaded.variables] == paths
    for one, other in zip(values(loaded(fed)), given, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.large
def test_every_class_that_keras_hub_exports_is_here():
    assert set(exported_backbones()) == set(BACKBONES)


@pytest.mark.large
@pytest.mark.parametrize("name", _all())
def test_as_upstream_a_backbone_computes_the_same(name, tmp_path):
    _check_upstream(name, tmp_path / "cascade.keras")


@pytest.mark.interop
@pytest.mark.parametrize("name", QUICK)
def test_as_upstream_quick_backbones_compute_the_same(name, tmp_path):
    _check_upstream(name, tmp_path / "cascade.keras")


@pytest.mark.large
@pytest.mark.parametrize("name", INNER)
def test_a_tap_inside_gives_the_inner_tensor(name, tmp_path):
    backbone = make(name)
    inputs = inputs_for(name, backbone)
    *outer, last = INNER[name].split("/")
    if outer:
        # Keras has no model from an outer input to an inner layer.
        (network,) = (backbone.get_layer(part) for part in outer)
        inputs = keras.tree.map_structure(
            lambda tensor: inputs[tensor.name], network.input
        )
        tensor = network.get_layer(last).output
        reference = keras.Model(network.input, tensor)
    else:
        tensor = backbone.get_layer(last).output
        reference = keras.Model(backbone.input, tensor)
    expected = values(reference(inputs, training=False))

    cascade = _cascade(name, backbone, taps={"inner": INNER[name]})
    fed = _fed(name, cascade, backbone, inputs_for(name, backbone))
    given = values(cascade(fed))
    _hold_equal(given, expected)
    # What lies behind the tap is not there.
    assert cascade.count_params() < backbone.count_params()

    cascade.save(tmp_path / "cascade.keras")
    loaded = keras.saving.load_model(tmp_path / "cascade.keras")
    np.testing.assert_array_equal(values(loaded(fed))[0], given[0])


@pytest.mark.large
@pytest.mark.parametrize(
    "name",
    [
        "CSPNetBackbone",
        "DINOV2Backbone",
        "DINOV3Backbone",
        "DenseNetBackbone",
        "EfficientNetBackbone",
        "MiTBackbone",
        "ResNetBackbone",
        "RetinaNetBackbone",
    ],
)
def test_the_levels_of_a_pyramid_are_taps(name):
    backbone = make(name)
    inputs = inputs_for(name, backbone)
    levels = backbone.pyramid_outputs
    reference = keras.Model(backbone.input, levels)(inputs, training=False)

    cascade = _cascade(name, backbone, taps=list(levels))
    given = cascade(_fed(name, cascade, backbone, inputs))
    assert list(cascade.taps) == list(levels)
    _hold_equal(
        [values(given[level])[0] for level in levels],
        [values(reference[level])[0] for level in levels],
    )
    names = [
        x for tap in kc.list_taps(backbone) for x in (tap.path, *tap.names)
    ]
    assert set(levels) <= set(names)


@pytest.mark.large
def test_outputs_by_name_are_taps():
    backbone = make("BertBackbone")
    inputs = inputs_for("BertBackbone", backbone)
    cascade = _cascade("BertBackbone", backbone, taps="sequence_output")
    given = cascade(_fed("BertBackbone", cascade, backbone, inputs))
    _hold_equal(
        values(given),
        values(backbone(inputs, training=False)["sequence_output"]),
    )


@pytest.mark.large
@pytest.mark.parametrize("name", DOWNSTREAM)
def test_as_downstream_a_backbone_uses_the_features(name, tmp_path):
    x = keras.Input((32, 32, 5), name="x")
    upstream = keras.Model(
        x, layers.Conv2D(4, 3, padding="same", name="found")(x), name="finder"
    )
    backbone = make(name)
    images = np.random.default_rng(1).normal(size=(4, 32, 32, 5))

    cascade = kc.build_cascade(
        upstream,
        backbone,
        taps={"map": "found"},
        adapters={"map": layers.Conv2D(3, 1, name="project")},
        preprocess=None,
    )
    given = values(cascade(images))
    adapted = cascade.adapters["map"](upstream(images))
    (seen,) = keras.tree.flatten(backbone.input)
    fed = {seen.name: adapted} if isinstance(backbone.input, dict) else adapted
    expected = values(backbone(fed, training=False))
    _hold_equal(given, expected)

    cascade.save(tmp_path / "cascade.keras")
    loaded = keras.saving.load_model(tmp_path / "cascade.keras")
    np.testing.assert_array_equal(values(loaded(images))[0], given[0])


@pytest.mark.large
@pytest.mark.parametrize("name", ["CLIPBackbone", "PARSeqBackbone"])
def test_as_downstream_of_several_inputs_a_backbone_takes_text_as_well(name):
    x = keras.Input((32, 32, 5), name="x")
    upstream = keras.Model(
        x, layers.Conv2D(3, 3, padding="same", name="found")(x), name="finder"
    )
    backbone = make(name)
    inputs = inputs_for(name, backbone)
    maps = np.random.default_rng(1).normal(size=(4, 32, 32, 5))
    text = {key: value for key, value in inputs.items() if key != "images"}

    cascade = kc.build_cascade(
        upstream,
        backbone,
        taps={"images": "found"},
        adapters=None,
        fusion=None,
        extra_inputs={
            key: keras.Input((None,), dtype="int32", name=key) for key in text
        },
        preprocess=None,
    )
    given = values(cascade({"inputs": maps, **text}))
    fed = {"images": values(upstream(maps))[0], **text}
    _hold_equal(given, values(backbone(fed, training=False)))


@pytest.mark.large
@pytest.mark.parametrize("name", ["ViTBackbone", "LlamaBackbone"])
def test_shared_layers_are_saved_as_well(name, tmp_path):
    backbone = make(name)
    inputs = inputs_for(name, backbone)
    cascade = _cascade(name, backbone, copy=False)
    fed = _fed(name, cascade, backbone, inputs)
    cascade.save(tmp_path / "cascade.keras")
    loaded = keras.saving.load_model(tmp_path / "cascade.keras")
    np.testing.assert_array_equal(
        values(loaded(fed))[0], values(backbone(inputs, training=False))[0]
    )


@pytest.mark.large
@pytest.mark.parametrize("name", ["ViTBackbone", "Gemma3nBackbone"])
def test_a_cascade_is_a_network_and_is_saved_again(name, tmp_path):
    backbone = make(name)
    inputs = inputs_for(name, backbone)
    first = _cascade(name, backbone)
    first.save(tmp_path / "first.keras")
    loaded = keras.saving.load_model(tmp_path / "first.keras")
    second = _cascade(name, loaded)
    second.save(tmp_path / "second.keras")
    again = keras.saving.load_model(tmp_path / "second.keras")
    fed = _fed(name, first, backbone, inputs)
    expected = values(first(fed))
    for cascade in (second, again):
        np.testing.assert_array_equal(values(cascade(fed))[0], expected[0])


@pytest.mark.large
def test_flags_of_the_layers_of_a_backbone_are_kept(tmp_path):
    backbone = make("BertBackbone")
    cascade = _cascade(
        "BertBackbone",
        backbone,
        trainable={"upstream/transformer_layer_1": True},
    )
    cascade.save(tmp_path / "cascade.keras")
    loaded = keras.saving.load_model(tmp_path / "cascade.keras")
    trains = [v.path for v in cascade.trainable_variables]
    assert trains
    assert all("/transformer_layer_1/" in path for path in trains)
    assert [v.path for v in loaded.trainable_variables] == trains


@pytest.mark.large
def test_layers_that_refer_to_one_another_are_not_duplicated():
    # The layer that embeds holds the text model, which is a layer as well.
    backbone = make("Gemma3nBackbone")
    cascade = _cascade("Gemma3nBackbone", backbone, trainable=True)
    inner = cascade.blocks["upstream"]
    embeds = inner.get_layer("multimodal_embedding_processor")
    assert embeds.language_model is inner.get_layer("text_model")


@pytest.mark.large
@pytest.mark.parametrize("name", ["ViTBackbone", "GemmaBackbone"])
def test_a_cascade_loads_in_a_process_that_imports_this_package_alone(
    name, tmp_path
):
    backbone = make(name)
    inputs = inputs_for(name, backbone)
    cascade = _cascade(name, backbone)
    fed = _fed(name, cascade, backbone, inputs)
    cascade.save(tmp_path / "cascade.keras")
    arrays = fed if isinstance(fed, dict) else {"inputs": fed}
    np.savez(tmp_path / "inputs.npz", **arrays)
    script = (
        "import keras, keras_cascade, numpy as np\n"
        "x = dict(np.load('inputs.npz'))\n"
        "x = x if len(x) > 1 else x['inputs']\n"
        "model = keras.saving.load_model('cascade.keras')\n"
        "y = keras.tree.flatten(model(x))[0]\n"
        "np.save('outputs.npy', keras.ops.convert_to_numpy(y))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path,
        env=environment,
        check=True,
        capture_output=True,
    )
    np.testing.assert_array_equal(
        np.load(tmp_path / "outputs.npy"), values(cascade(fed))[0]
    )


# Of these a part is no function of single samples: heads that compare those of
# a batch, samples packed into one sequence, positions of XLNet that depend on
# the size of the batch, the first sample's number of steps that counts for all,
# tensors without a row for each sample.
WITHIN_A_BATCH = (
    "CLIPBackbone",
    "DFineBackbone",
    "Gemma3nBackbone",
    "MetaCLIP2Backbone",
    "Qwen3_5Backbone",
    "SAM3PromptableConceptBackbone",
    "SAMBackbone",
    "SigLIPBackbone",
    "StableDiffusion3Backbone",
    "XLNetBackbone",
    # On TensorFlow alone, where images take their places in the text.
    *(
        ("Gemma3Backbone", "Gemma4Backbone")
        if keras.backend.backend() == "tensorflow"
        else ()
    ),
)
EAGER = pytest.mark.skipif(
    keras.backend.backend() != "torch",
    reason="KerasHub reads numbers off tensors: no predict, cached or not",
)
CACHED_MARKS = {
    **MARKS,
    "Qwen3_5Backbone": (EAGER,),
    "StableDiffusion3Backbone": (EAGER,),
}


@pytest.mark.large
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=CACHED_MARKS.get(n, ())) for n in BACKBONES],
)
def test_answers_from_a_cache_are_the_same(name):
    backbone = make(name)
    cascade = _cascade(name, backbone)
    data = _fed(name, cascade, backbone, inputs_for(name, backbone))
    expected = values(cascade.predict(data, verbose=0))
    cache = kc.FeatureCache()
    with warnings.catch_warnings(record=True) as warned:
        warnings.filterwarnings("always", message="cache_features")
        again = [
            cascade.predict(data, verbose=0, cache_features=cache)
            for _ in range(2)
        ]
    said = [w for w in warned if "cache_features" in str(w.message)]
    assert bool(said) == (name in WITHIN_A_BATCH), [*map(str, said)]
    for found in again:
        for one, other in zip(values(found), expected, strict=True):
            # Rounding: the frozen part runs on batches of another size.
            bound = 1e-4 * np.std(other.astype("float64"))
            np.testing.assert_allclose(one, other, rtol=0, atol=bound)
