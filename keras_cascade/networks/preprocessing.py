"""Makes the layers that networks were trained after, for raw pixels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import keras

from keras_cascade._reporting.messages import closest
from keras_cascade.networks.applications import MODES

# The ImageNet statistics of keras.applications.imagenet_utils, in RGB.
_MEAN = (0.485, 0.456, 0.406)
_DEVIATION = (0.229, 0.224, 0.225)
_CAFFE_MEAN = (123.68, 116.779, 103.939)


@dataclass(frozen=True)
class Scaling:
    """A preprocessing of pixels in RGB: pixels * scale + offset.

    Attributes:
        text: The formula, for `summary()`.
        scale: A number, or one for each channel.
        offset: A number, or one for each channel.
        to_bgr: Whether the channels are then reversed.
    """

    text: str
    scale: float | tuple[float, ...] = 1.0
    offset: float | tuple[float, ...] = 0.0
    to_bgr: bool = False

    @property
    def by_channel(self) -> bool:
        """Whether channels are scaled differently."""
        return isinstance(self.scale, tuple) or isinstance(self.offset, tuple)

    def layers(self, data_format: str) -> list[keras.Layer]:
        """Returns layers that scale images of a data format."""
        offset: Any = _by_channel(self.offset, data_format)
        rescaling = keras.layers.Rescaling(
            _by_channel(self.scale, data_format),
            offset,
            name="rescale",
            # Under mixed precision, pixels would lose digits before they are
            # scaled.
            dtype="float32",
        )
        return [rescaling, *([_rgb_to_bgr(data_format)] if self.to_bgr else [])]


# The modes of keras.applications.imagenet_utils, and that of EfficientNetV2S, M
# and L.
MODE_SCALINGS = {
    "tf": Scaling("pixels / 127.5 - 1", 1 / 127.5, -1.0),
    "torch": Scaling(
        "pixels / 255, less ImageNet's mean, by its deviation",
        tuple(1 / (255 * deviation) for deviation in _DEVIATION),
        tuple(-m / d for m, d in zip(_MEAN, _DEVIATION, strict=True)),
    ),
    "caffe": Scaling(
        "pixels less ImageNet's mean, as BGR",
        offset=tuple(-mean for mean in _CAFFE_MEAN),
        to_bgr=True,
    ),
    "128": Scaling("pixels / 128 - 1", 1 / 128, -1.0),
}


@keras.saving.register_keras_serializable(package="keras_cascade")
@dataclass(frozen=True)
class Preprocess:
    """The layers between a cascade's input and a network.

    Attributes:
        name: A description, for `summary()`.
        layers: The layers, in order. They are copied where they are used; an
            empty tuple is for a network that has layers of its own.
    """

    name: str
    layers: tuple[keras.Layer, ...] = ()

    def get_config(self) -> dict[str, Any]:
        """Returns plain values, for a `.keras` file."""
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "layers": [serialize(x) for x in self.layers],
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "Preprocess":
        """Returns the object of a config."""
        deserialize: Any = keras.saving.deserialize_keras_object
        return cls(config["name"], tuple(map(deserialize, config["layers"])))


def check_module(name: str, argument: str) -> str:
    """Returns the name of a module of `keras.applications`.

    Args:
        name: The name.
        argument: The argument that it was passed as, for the error.

    Raises:
        ValueError: If there is no such module.
    """
    if name in MODES:
        return name
    raise ValueError(
        f"{argument}: keras.applications has no module '{name}'."
        f"{closest(name, MODES)} There are: {', '.join(MODES)}."
    )


def _by_channel(
    values: float | tuple[float, ...], data_format: str
) -> float | list[list[list[float]]]:
    """Returns values in the shape of images."""
    # Rescaling (Keras 3.15) reads lists by the global data format: set to
    # channels-first, that moves the axis of a list given as `scale`, whatever
    # the images are like, and leaves that of `offset`. Of rank 3 both stay.
    if isinstance(values, int | float):
        return values
    if data_format == "channels_first":
        return [[[value]] for value in values]
    return [[list(values)]]


def _rgb_to_bgr(data_format: str) -> keras.Layer:
    first = data_format == "channels_first"
    shape = (3, None, None) if first else (None, None, 3)
    image = keras.Input(shape, name="rgb", dtype="float32")
    flipped = keras.ops.flip(image, axis=1 if first else 3)
    return keras.Model(image, flipped, name="rgb_to_bgr")
