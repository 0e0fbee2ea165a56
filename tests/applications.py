"""Makes networks of keras.applications for tests, on small inputs."""

import inspect

import keras
import numpy as np
from keras.src.applications.convnext import LayerScale

# The smallest side that each network takes. A network that Keras adds has none,
# and fails behaviour/test_injected_applications.py until it is added here.
SIDES = {
    "ConvNeXtBase": 32,
    "ConvNeXtLarge": 32,
    "ConvNeXtSmall": 32,
    "ConvNeXtTiny": 32,
    "ConvNeXtXLarge": 32,
    "DenseNet121": 32,
    "DenseNet169": 32,
    "DenseNet201": 32,
    "EfficientNetB0": 32,
    "EfficientNetB1": 32,
    "EfficientNetB2": 32,
    "EfficientNetB3": 32,
    "EfficientNetB4": 32,
    "EfficientNetB5": 32,
    "EfficientNetB6": 32,
    "EfficientNetB7": 32,
    "EfficientNetV2B0": 32,
    "EfficientNetV2B1": 32,
    "EfficientNetV2B2": 32,
    "EfficientNetV2B3": 32,
    "EfficientNetV2L": 32,
    "EfficientNetV2M": 32,
    "EfficientNetV2S": 32,
    "InceptionResNetV2": 75,
    "InceptionV3": 75,
    "MobileNet": 32,
    "MobileNetV2": 32,
    "MobileNetV3Large": 32,
    "MobileNetV3Small": 32,
    "NASNetLarge": 32,
    "NASNetMobile": 32,
    "ResNet101": 32,
    "ResNet101V2": 32,
    "ResNet152": 32,
    "ResNet152V2": 32,
    "ResNet50": 32,
    "ResNet50V2": 32,
    "VGG16": 32,
    "VGG19": 32,
    "Xception": 71,
}


def exported_applications() -> list[str]:
    """Returns the names of the networks that keras.applications exports."""
    exported = vars(keras.applications).items()
    return [name for name, value in exported if inspect.isfunction(value)]


def make(name: str, **arguments) -> keras.Model:
    """Returns a network with random weights, at its smallest size."""
    side = SIDES[name]
    return getattr(keras.applications, name)(
        weights=None, input_shape=(side, side, 3), **arguments
    )


def images_for(name: str, number: int) -> np.ndarray:
    """Returns random pixels in [0, 255]."""
    shape = (number, SIDES[name], SIDES[name], 3)
    random = np.random.default_rng(0)
    return random.uniform(0, 255, shape).astype("float32")


def settle(network: keras.Model, inputs: np.ndarray) -> None:
    """Normalises random weights until features depend on the input.

    With random weights they hardly do. One pass in training mode, with
    momentum 0 and nothing dropped, makes each moving statistic of
    BatchNormalization the batch's. A network without any normalization gets
    He's initial scale for that of Glorot, which halves the variance at each
    rectifier.
    """
    layers = network._flatten_layers()
    norms = _of_type(layers, keras.layers.BatchNormalization)
    dropouts = _of_type(layers, keras.layers.Dropout)
    momenta, rates = [x.momentum for x in norms], [x.rate for x in dropouts]
    _set(norms, "momentum", [0.0] * len(norms))
    _set(dropouts, "rate", [0.0] * len(dropouts))
    network(inputs, training=True)
    _set(norms, "momentum", momenta)
    _set(dropouts, "rate", rates)
    for layer in _of_type(layers, LayerScale):
        layer.gamma.assign(np.ones(layer.gamma.shape))
    if not norms and not _of_type(layers, keras.layers.LayerNormalization):
        for layer in _of_type(layers, keras.layers.Conv2D | keras.layers.Dense):
            layer.kernel.assign(layer.kernel * 2**0.5)


def inner_maps(network: keras.Model) -> list[keras.layers.Layer]:
    """Returns the layers with maps of more than one position, in order."""
    return [
        layer
        for layer in network.layers[1:]
        if len(layer.output.shape) == 4
        and layer.output.shape[1] * layer.output.shape[2] > 1
    ]


def spread(values: np.ndarray) -> float:
    """Returns the mean deviation of the features over samples."""
    return float(np.std(values.reshape(len(values), -1), axis=0).mean())


def _of_type(layers, kind) -> list:
    return [layer for layer in layers if isinstance(layer, kind)]


def _set(layers, attribute, values) -> None:
    for layer, value in zip(layers, values, strict=True):
        setattr(layer, attribute, value)
