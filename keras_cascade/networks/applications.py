"""Loads Keras applications by name, and recognises them as objects."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from itertools import dropwhile
from typing import Any

import keras

from keras_cascade import _keras_compat as compat
from keras_cascade.networks.downloads import Download

# The module of each application, and the side of the images that its weights
# were trained on: the default of its constructor (Keras 3.15).
APPLICATIONS = {
    "ConvNeXtBase": ("convnext", 224),
    "ConvNeXtLarge": ("convnext", 224),
    "ConvNeXtSmall": ("convnext", 224),
    "ConvNeXtTiny": ("convnext", 224),
    "ConvNeXtXLarge": ("convnext", 224),
    "DenseNet121": ("densenet", 224),
    "DenseNet169": ("densenet", 224),
    "DenseNet201": ("densenet", 224),
    "EfficientNetB0": ("efficientnet", 224),
    "EfficientNetB1": ("efficientnet", 240),
    "EfficientNetB2": ("efficientnet", 260),
    "EfficientNetB3": ("efficientnet", 300),
    "EfficientNetB4": ("efficientnet", 380),
    "EfficientNetB5": ("efficientnet", 456),
    "EfficientNetB6": ("efficientnet", 528),
    "EfficientNetB7": ("efficientnet", 600),
    "EfficientNetV2B0": ("efficientnet_v2", 224),
    "EfficientNetV2B1": ("efficientnet_v2", 240),
    "EfficientNetV2B2": ("efficientnet_v2", 260),
    "EfficientNetV2B3": ("efficientnet_v2", 300),
    "EfficientNetV2L": ("efficientnet_v2", 480),
    "EfficientNetV2M": ("efficientnet_v2", 480),
    "EfficientNetV2S": ("efficientnet_v2", 384),
    "InceptionResNetV2": ("inception_resnet_v2", 299),
    "InceptionV3": ("inception_v3", 299),
    "MobileNet": ("mobilenet", 224),
    "MobileNetV2": ("mobilenet_v2", 224),
    "MobileNetV3Large": ("mobilenet_v3", 224),
    "MobileNetV3Small": ("mobilenet_v3", 224),
    "NASNetLarge": ("nasnet", 331),
    "NASNetMobile": ("nasnet", 224),
    "ResNet101": ("resnet", 224),
    "ResNet101V2": ("resnet_v2", 224),
    "ResNet152": ("resnet", 224),
    "ResNet152V2": ("resnet_v2", 224),
    "ResNet50": ("resnet", 224),
    "ResNet50V2": ("resnet_v2", 224),
    "VGG16": ("vgg16", 224),
    "VGG19": ("vgg19", 224),
    "Xception": ("xception", 299),
}

# The mode of keras.applications.imagenet_utils that the `preprocess_input` of
# each module applies; None for nothing, as its networks have layers that do.
MODES = {
    "convnext": None,
    "densenet": "torch",
    "efficientnet": None,
    "efficientnet_v2": None,
    "inception_resnet_v2": "tf",
    "inception_v3": "tf",
    "mobilenet": "tf",
    "mobilenet_v2": "tf",
    "mobilenet_v3": None,
    "nasnet": "tf",
    "resnet": "caffe",
    "resnet50": "caffe",
    "resnet_v2": "tf",
    "vgg16": "caffe",
    "vgg19": "caffe",
    "xception": "tf",
}


@dataclass(frozen=True)
class Recognised:
    """The application that a network is.

    Attributes:
        module: Its module in `keras.applications`, such as "resnet_v2".
        needs: The mode of the preprocessing that the network expects before
            it; None if it expects none.
    """

    module: str
    needs: str | None


def load_application(
    name: str,
    role: str,
    weights: bool = True,
    input_shape: tuple[int, ...] | None = None,
) -> keras.Model:
    """Loads a Keras application with ImageNet weights, without its top.

    The weights come from Keras's cache, or are downloaded into it.

    Args:
        name: A name of `APPLICATIONS`.
        role: The network's role in the cascade, for errors: "upstream".
        weights: Whether it gets these weights, or is randomly initialised.
            Defaults to `True`.
        input_shape: The shape of an image; None is the shape of those that
            the weights were trained on. Defaults to `None`.

    Returns:
        The network.

    Raises:
        RuntimeError: If the weights cannot be loaded.
    """
    side = APPLICATIONS[name][1]
    first = keras.config.image_data_format() == "channels_first"
    shape = (3, side, side) if first else (side, side, 3)
    instead = (
        "To use weights of your own, pass the model: "
        f"keras.applications.{name}(include_top=False, weights=path)."
    )
    with Download(f"{role}='{name}', with its ImageNet weights,", instead):
        return getattr(keras.applications, name)(
            weights="imagenet" if weights else None,
            include_top=False,
            input_shape=input_shape or shape,
        )


def recognise(network: keras.Model) -> Recognised | None:
    """Returns the module of `keras.applications` that made a network.

    The types, names and kernels of the first layers after the input decide,
    not the network's name: a network of another origin that is called
    "resnet50" is not recognised, one that was renamed or ends at an inner
    layer is, and so is one that stands at the beginning of another network.

    Args:
        network: Any model; one without a graph is not recognised.

    Returns:
        The module and the preprocessing that the network needs, or None.
    """
    operations = _after_input(network)
    # Layers with which applications scale their input themselves.
    scalings = (keras.layers.Rescaling, keras.layers.Normalization)
    stem = list(dropwhile(lambda x: isinstance(x, scalings), operations))
    found = _find_signature(stem)
    if found is not None and len(stem) < len(operations):
        return Recognised(found.module, None)
    return found


@dataclass(frozen=True)
class _Signature:
    """The first layers of a network.

    Attributes:
        stem: The class and name of each layer, and the beginning of its
            kernel's shape.
        inside: The name of a layer further in, if the stem does not suffice.
    """

    stem: tuple[tuple[str, str, tuple[int, ...]], ...]
    inside: str | None = None


def _signature(*layers: str, inside: str | None = None) -> _Signature:
    """Reads layers such as `"Conv2D conv1 3x3x3"`."""
    stem = []
    for layer in layers:
        kind, name, *shape = layer.split()
        sizes = shape[0].split("x") if shape else ()
        stem.append((kind, name, tuple(map(int, sizes))))
    return _Signature(tuple(stem), inside)


_VGG = (
    "Conv2D block1_conv1 3x3x3",
    "Conv2D block1_conv2 3x3x64",
    "MaxPooling2D block1_pool",
    "Conv2D block2_conv1 3x3x64",
)
_INCEPTION = (
    "Conv2D * 3x3x3",
    "BatchNormalization *",
    "Activation *",
    "Conv2D * 3x3x32",
    "BatchNormalization *",
    "Activation *",
    "Conv2D * 3x3x32",
    "BatchNormalization *",
    "Activation *",
    "MaxPooling2D *",
    "Conv2D * 1x1x64",
)
# A star stands for what Keras numbers by the process, and for the class of
# ConvNeXt's stem, which is a Sequential that copies turn into a Functional.
_SIGNATURES = {
    "convnext": _signature(
        "* *_stem",
        "Conv2D *_stage_0_block_0_depthwise_conv 7x7x1",
        "LayerNormalization *_stage_0_block_0_layernorm",
    ),
    "densenet": _signature(
        "ZeroPadding2D *",
        "Conv2D conv1_conv 7x7x3",
        "BatchNormalization conv1_bn",
        "Activation conv1_relu",
        "ZeroPadding2D *",
        "MaxPooling2D pool1",
    ),
    "efficientnet": _signature(
        "ZeroPadding2D stem_conv_pad",
        "Conv2D stem_conv 3x3x3",
        "BatchNormalization stem_bn",
        "Activation stem_activation",
        "DepthwiseConv2D block1a_dwconv",
    ),
    "efficientnet_v2": _signature(
        "Conv2D stem_conv 3x3x3",
        "BatchNormalization stem_bn",
        "Activation stem_activation",
        "Conv2D block1a_project_conv",
    ),
    "inception_resnet_v2": _signature(*_INCEPTION, inside="mixed_5b"),
    "inception_v3": _signature(*_INCEPTION, inside="mixed0"),
    "mobilenet": _signature(
        "Conv2D conv1 3x3x3",
        "BatchNormalization conv1_bn",
        "ReLU conv1_relu",
        "DepthwiseConv2D conv_dw_1",
    ),
    "mobilenet_v2": _signature(
        "Conv2D Conv1 3x3x3",
        "BatchNormalization bn_Conv1",
        "ReLU Conv1_relu",
        "DepthwiseConv2D expanded_conv_depthwise",
    ),
    "mobilenet_v3": _signature(
        "Conv2D conv 3x3x3",
        "BatchNormalization conv_bn",
        inside="expanded_conv_depthwise",
    ),
    "nasnet": _signature(
        "Conv2D stem_conv1 3x3x3",
        "BatchNormalization stem_bn1",
        "Activation *",
        "Conv2D reduction_conv_1_stem_1 1x1",
    ),
    "resnet": _signature(
        "ZeroPadding2D conv1_pad",
        "Conv2D conv1_conv 7x7x3",
        "BatchNormalization conv1_bn",
        "Activation conv1_relu",
        "ZeroPadding2D pool1_pad",
    ),
    "resnet_v2": _signature(
        "ZeroPadding2D conv1_pad",
        "Conv2D conv1_conv 7x7x3",
        "ZeroPadding2D pool1_pad",
        "MaxPooling2D pool1_pool",
    ),
    "vgg19": _signature(*_VGG, inside="block3_conv4"),
    "vgg16": _signature(*_VGG),
    "xception": _signature(
        "Conv2D block1_conv1 3x3x3",
        "BatchNormalization block1_conv1_bn",
        "Activation block1_conv1_act",
        "Conv2D block1_conv2 3x3x32",
    ),
}


def _after_input(network: keras.Model) -> list[keras.Operation]:
    """Returns the operations of a network of one input, in their order."""
    if isinstance(network, keras.Sequential):
        return list(network.layers) if network.built else []
    if not compat.is_functional(network) or len(network.inputs) != 1:
        return []
    inputs = keras.layers.InputLayer
    return [x for x in network.operations if not isinstance(x, inputs)]


def _find_signature(stem: Sequence[keras.Operation]) -> Recognised | None:
    for module, signature in _SIGNATURES.items():
        if _matches(stem, signature):
            return Recognised(module, _needs(module, stem))
    if stem and isinstance(stem[0], keras.Model):
        return recognise(stem[0])
    return None


def _matches(stem: Sequence[keras.Operation], signature: _Signature) -> bool:
    inside = signature.inside
    if inside and all(operation.name != inside for operation in stem):
        return False
    return len(stem) >= len(signature.stem) and all(
        fnmatchcase(type(operation).__name__, kind)
        and fnmatchcase(operation.name, name)
        and _kernel_shape(operation, len(size)) == size
        for operation, (kind, name, size) in zip(
            stem, signature.stem, strict=False
        )
    )


def _kernel_shape(operation: keras.Operation, length: int) -> tuple[int, ...]:
    kernel = getattr(operation, "kernel", None) if length else None
    return () if kernel is None else tuple(kernel.shape[:length])


def _needs(module: str, stem: Sequence[keras.Operation]) -> str | None:
    """Returns the mode of preprocessing before a network that has none itself.

    Networks that usually scale their input themselves were then built with
    `include_preprocessing=False`.
    """
    if module == "mobilenet_v3":
        return "tf"
    if module == "efficientnet_v2":
        # S, M and L keep the width of their stem in the first block; B0 to B3
        # narrow it, and have the preprocessing of version 1.
        projection: Any = stem[3]
        width, projected = projection.kernel.shape[2:]
        return "128" if width == projected else "torch"
    return MODES[module] or "torch"
