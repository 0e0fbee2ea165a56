"""The small pretrained networks that ship with the project, and their data.

`saved_models/` has a `.keras` file and a card for each network. This module
loads them by name, and the handwritten digits that the demo and the tutorials
run on.
"""

from typing import NamedTuple, cast

import keras
import numpy as np

from keras_cascade._package.resources import folder

__all__ = [
    "ASPECT_RANGE",
    "SIDE",
    "TRAIN_SIZE",
    "Digits",
    "digits",
    "enlarge",
    "load",
    "names",
    "side_features",
]

_NAMES = ("digits_expert", "glyph_encoder")
# The digits are not shuffled: consecutive ones are often by the same writer,
# and a writer in both parts would make the test too easy.
TRAIN_SIZE = 1000
"""The number of images in the training part of `digits()`."""
SIDE = 32
"""The side of the zoo's images, in pixels."""
ASPECT_RANGE = (0.2, 3.0)
"""The range that `side_features` clips the aspect ratio to."""


def __dir__() -> list[str]:
    """Returns the public names, for completion."""
    return __all__


class Digits(NamedTuple):
    """Images of handwritten digits with their side features and labels.

    Attributes:
        images: float32 array of shape (n, 32, 32, 1), white strokes on black,
            grey values in [0, 255].
        side: float32 array of shape (n, 2), as `side_features` computes it.
        labels: int32 array of shape (n,), the digits 0 to 9.
    """

    images: np.ndarray
    side: np.ndarray
    labels: np.ndarray

    def __repr__(self) -> str:
        shapes = (f"{k} {v.shape}" for k, v in self._asdict().items())
        return f"<Digits: {', '.join(shapes)}>"


def names() -> list[str]:
    """Returns the names of the networks that ship with the project, sorted.

    Example:
        >>> import keras_cascade as kc
        >>> kc.zoo.names()
        ['digits_expert', 'glyph_encoder']
    """
    return list(_NAMES)


def load(name: str) -> keras.Model:
    """Loads a pretrained network that ships with the project.

    Use it to try a cascade without a download. `glyph_encoder` turns images
    of characters, (32, 32, 1) with grey values in [0, 255], into 128
    features; `digits_expert` tells the ten digits from those features joined
    with the two of `side_features`. Both are made of stock Keras layers.

    Args:
        name: One of `names()`.

    Returns:
        The network, not compiled.

    Raises:
        ValueError: If no network of this name ships with the project.

    Example:
        >>> import keras_cascade as kc
        >>> encoder = kc.zoo.load("glyph_encoder")
        >>> encoder.output_shape
        (None, 128)
    """
    if name not in _NAMES:
        raise ValueError(
            f"No network {name!r} in the zoo. There are: {', '.join(_NAMES)}."
        )
    path = folder("saved_models") / f"{name}.keras"
    return cast(keras.Model, keras.models.load_model(path, compile=False))


def side_features(images: np.ndarray) -> np.ndarray:
    """Measures the ink mass and the aspect ratio, which convolutions see badly.

    The ink mass is the mean grey value as a share of 255. The aspect ratio is
    width by height of the box around all pixels of at least half the image's
    brightest value, clipped to [0.2, 3]; 1 for a black image.

    Args:
        images: Array of shape (n, height, width) or (n, height, width, 1),
            white strokes on black, grey values in [0, 255].

    Returns:
        A float32 array of shape (n, 2): ink mass, aspect ratio.

    Raises:
        ValueError: If `images` is not a batch of grey images.

    Example:
        >>> import numpy as np
        >>> import keras_cascade as kc
        >>> image = np.zeros((1, 32, 32, 1), "float32")
        >>> image[:, 8:24, 12:20] = 255
        >>> kc.zoo.side_features(image)
        array([[0.125, 0.5  ]], dtype=float32)
    """
    images = np.asarray(images)
    if images.ndim == 4 and images.shape[-1] == 1:
        images = images[..., 0]
    if images.ndim != 3:
        raise ValueError(
            "side_features expects grey images of shape (n, height, width) or "
            f"(n, height, width, 1), received shape {images.shape}. A single "
            "image needs a batch axis: image[None]."
        )
    mass = images.mean(axis=(1, 2), dtype="float64") / 255
    brightest = images.max(axis=(1, 2), keepdims=True)
    ink = (images >= 0.5 * brightest) & (brightest > 0)
    height, width = _extent(ink.any(axis=2)), _extent(ink.any(axis=1))
    ratio = np.where(height > 0, width / np.maximum(height, 1), 1.0)
    return np.stack([mass, ratio.clip(*ASPECT_RANGE)], axis=1).astype("float32")


def digits() -> tuple[Digits, Digits]:
    """Loads scikit-learn's handwritten digits as the zoo's networks take them.

    The 1,797 images of 8x8 pixels are resized bilinearly to 32x32 and scaled
    to [0, 255]. In the order of `sklearn.datasets.load_digits`, the first
    1,000 are the training part, the last 797 the test part.

    Returns:
        Two `Digits`: training part and test part.

    Raises:
        ImportError: If scikit-learn is not installed.

    Example:
        >>> import keras_cascade as kc
        >>> train, test = kc.zoo.digits()
        >>> train.images.shape, test.side.shape
        ((1000, 32, 32, 1), (797, 2))
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise ImportError(
            "zoo.digits() reads the handwritten digits of scikit-learn, which "
            'is not installed. Run: pip install "keras_cascade[demo]"'
        ) from error
    small, labels = load_digits(return_X_y=True)
    images = enlarge(small.reshape(-1, 8, 8) * (255 / 16))[..., None]
    whole = Digits(images, side_features(images), labels.astype("int32"))
    return (
        Digits(*(part[:TRAIN_SIZE] for part in whole)),
        Digits(*(part[TRAIN_SIZE:] for part in whole)),
    )


def enlarge(images: np.ndarray, size: int = SIDE) -> np.ndarray:
    """Resizes square images bilinearly to `size` pixels a side.

    It equals `keras.ops.image.resize` for enlarging, but in NumPy, so that
    the result is the same to the bit on every backend.

    Args:
        images: Array of shape (n, side, side).
        size: The side of the result in pixels, at least that of `images`.
            Defaults to `32`.

    Returns:
        A float32 array of shape (n, size, size).

    Example:
        >>> import numpy as np
        >>> from keras_cascade import zoo
        >>> zoo.enlarge(np.ones((1, 8, 8))).shape
        (1, 32, 32)
    """
    weights = _bilinear(images.shape[-1], size)
    return (weights @ images @ weights.T).astype("float32")


def _extent(occupied: np.ndarray) -> np.ndarray:
    """Returns the number of lines from the first to the last occupied one."""
    first = occupied.argmax(axis=1)
    last = occupied.shape[1] - 1 - occupied[:, ::-1].argmax(axis=1)
    return np.where(occupied.any(axis=1), last - first + 1, 0)


def _bilinear(source: int, target: int) -> np.ndarray:
    """Returns weights (target, source); pixel centres are half-integers."""
    centres = (np.arange(target) + 0.5) * source / target - 0.5
    centres = centres.clip(0, source - 1)[:, None]
    return np.maximum(0, 1 - np.abs(centres - np.arange(source)))
