"""Reads images in a folder, or in a folder for each class, as raw pixels.

Tested by `tests/cli/data/test_directories.py`.
"""

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_cascade._reporting.messages import listed

# The endings that `keras.utils.image_dataset_from_directory` reads.
IMAGE_ENDINGS = (".bmp", ".gif", ".jpeg", ".jpg", ".png")
# Numbers of channels, and Pillow's mode of images that have them.
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


@dataclass(frozen=True)
class ImageFolder:
    """Batches of images, which are decoded as they are read.

    Their order is shuffled, and always the same: the first images are of all
    classes, as calibration needs.

    Attributes:
        path: The folder.
        files: The images.
        labels: The class of each image; None if the folder has no classes.
        classes: The names of the classes; a label is a position among them.
        tensor: The model's input.
        batch_size: The images of a batch.
    """

    path: Path
    files: Sequence[Path]
    labels: Sequence[int] | None
    classes: Sequence[str]
    tensor: keras.KerasTensor
    batch_size: int

    how_to_label = "Put the images into a folder for each class."

    @property
    def has_labels(self) -> bool:
        """Whether the images are in folders of classes."""
        return self.labels is not None

    def misfit(self, model: keras.Model) -> str | None:
        """Returns why the folders cannot be a model's classes, or None."""
        shape = model.output_shape
        if not isinstance(shape, tuple):
            return (
                f"'{self.path}' has one class for each image, the model "
                f"{len(model.outputs)} outputs: put labels into .npz files."
            )
        # A single value tells two classes apart.
        wanted = 2 if shape[-1] == 1 else shape[-1]
        if wanted == len(self.classes):
            return None
        return (
            f"'{self.path}' has {len(self.classes)} folders of classes "
            f"({_shown(self.classes)}), the model tells {wanted} apart. A "
            "label is a folder's position: each class needs a folder, even an "
            "empty one."
        )

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        order = np.random.default_rng(0).permutation(len(self.files))
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            images = [self._image(self.files[row]) for row in chosen]
            x = {self.tensor.name: _stacked(images, self.path)}
            if self.labels is None:
                yield (x,)
            else:
                yield x, np.array([self.labels[row] for row in chosen], "int32")

    def _image(self, path: Path) -> np.ndarray:
        height, width, channels = _size(self.tensor)
        pixels = _decoded(path, _MODES[channels])
        # Pillow gives gray images without an axis of channels.
        pixels = pixels.reshape(*pixels.shape[:2], channels)
        pixels = _resized(_resized(pixels, 0, height), 1, width)
        if "int" in self.tensor.dtype:
            pixels = np.rint(pixels)
        return pixels.transpose(2, 0, 1) if _channels_first() else pixels


def find_images(folder: Path) -> dict[str, list[Path]]:
    """Finds the images in a folder, by the class whose folder they are in.

    Returns:
        Class to its images, sorted; classes may be empty. The key of images
        in the folder itself is `""`. The dict is empty if there are no images.
        Hidden files and folders are left out.
    """
    entries = sorted(x for x in folder.iterdir() if x.name[0] != ".")
    found = {
        x.name: sorted(image for image in x.rglob("*") if _is_image(image))
        for x in entries
        if x.is_dir()
    }
    if own := [x for x in entries if _is_image(x)]:
        found[""] = own
    return found if any(found.values()) else {}


def open_images(
    folder: Path,
    found: Mapping[str, Sequence[Path]],
    model: keras.Model,
    batch_size: int,
) -> ImageFolder:
    """Opens images as a model takes them.

    `found` are the images in the folder, from `find_images`.

    Raises:
        ValueError: The model takes no images, or has other inputs as well.
        ModuleNotFoundError: Pillow is not installed.
    """
    tensor = _image_input(folder, model)
    if importlib.util.find_spec("PIL") is None:
        raise ModuleNotFoundError(
            f"The images in '{folder}' are read with Pillow, which is not "
            "installed: pip install pillow"
        )
    if "" not in found:
        pairs = [(x, i) for i, own in enumerate(found.values()) for x in own]
        files, labels = [x for x, _ in pairs], [label for _, label in pairs]
        return ImageFolder(
            folder, files, labels, tuple(found), tensor, batch_size
        )
    if others := [name for name, paths in found.items() if name and paths]:
        raise ValueError(
            f"'{folder}' holds images, such as '{found[''][0].name}', and "
            f"folders of images: {_shown(others)}. Put all images into the "
            "folder, or all into a folder for each class."
        )
    return ImageFolder(folder, found[""], None, (), tensor, batch_size)


def _image_input(folder: Path, model: keras.Model) -> keras.KerasTensor:
    """Returns the only input of a model, if it takes images."""
    inputs = model.inputs
    shapes = ", ".join(f"'{x.name}' {tuple(x.shape)}" for x in inputs)
    if len(inputs) > 1:
        raise ValueError(
            f"'{folder}' holds images, which are one input; the model has "
            f"{len(inputs)}: {shapes}. Put arrays of these names into .npz "
            "files."
        )
    if len(inputs[0].shape) != 4 or _size(inputs[0])[2] not in _MODES:
        raise ValueError(
            f"'{folder}' holds images; the model takes none: {shapes}. Images "
            f"have {_shown(list(map(str, _MODES)))} channels. Put arrays of "
            "this name into .npz files."
        )
    return inputs[0]


def _size(tensor: keras.KerasTensor) -> tuple[int | None, int | None, Any]:
    """Returns height, width and channels; None where any will do."""
    a, b, c = tensor.shape[1:]
    return (b, c, a) if _channels_first() else (a, b, c)


def _channels_first() -> bool:
    return keras.config.image_data_format() == "channels_first"


def _is_image(path: Path) -> bool:
    ends = path.suffix.lower() in IMAGE_ENDINGS
    return ends and path.name[0] != "." and path.is_file()


def _decoded(path: Path, mode: str) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(path) as image:
            # The modes of integers and floats, whose range is not known.
            if image.mode[0] in "IF":
                raise ValueError(
                    f"The image '{path}' has more than 8 bits a channel "
                    f"(Pillow's mode '{image.mode}'), in a range that is not "
                    "known. Save it with 8 bits, or put arrays into .npz files."
                )
            return np.asarray(image.convert(mode), dtype="float32")
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError(
            f"The image '{path}' cannot be read: {error}. Repair it, or "
            "remove it."
        ) from error


def _resized(pixels: np.ndarray, axis: int, size: int | None) -> np.ndarray:
    """Resizes an axis bilinearly, as `image_dataset_from_directory` does."""
    # Not by `keras.ops.image`: JAX would compile for each size of an image.
    given = pixels.shape[axis]
    if size in (None, given):
        return pixels
    centres = (np.arange(size) + 0.5) * given / size - 0.5
    centres = centres.clip(0, given - 1)
    below = np.floor(centres).astype(int)
    above = np.minimum(below + 1, given - 1)
    share = (centres - below).astype("float32")
    share = share.reshape(-1, *(1,) * (pixels.ndim - 1 - axis))
    low, high = pixels.take(below, axis), pixels.take(above, axis)
    return low + (high - low) * share


def _stacked(images: Sequence[np.ndarray], folder: Path) -> np.ndarray:
    if len({image.shape for image in images}) > 1:
        raise ValueError(
            f"The images in '{folder}' have several sizes, and the model takes "
            "any: bring them to one size."
        )
    return np.stack(images)


def _shown(names: Sequence[str], most: int = 5) -> str:
    return listed(names[:most]) + (", …" if len(names) > most else "")
