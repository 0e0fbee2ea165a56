"""Opens a folder or file on the console as batches of data.

The contents decide the kind; each kind has a module of its own.
"""

from collections import Counter
from pathlib import Path

import keras

from keras_cascade.cli.data.array_files import (
    ARRAY_ENDINGS,
    ArrayFiles,
    open_arrays,
)
from keras_cascade.cli.data.image_folder import (
    IMAGE_ENDINGS,
    ImageFolder,
    find_images,
    open_images,
)
from keras_cascade.exporting.checking import parity

Directory = ArrayFiles | ImageFolder

_POSSIBLE = (
    f"Possible are: images ({', '.join(IMAGE_ENDINGS)}), also in a folder for "
    "each class; .npz files with an array for each input, and 'labels'; or a "
    ".npy file for each."
)


def open_directory(
    path: Path | str, model: keras.Model, batch_size: int = 32
) -> Directory:
    """Opens data on disk in batches that a model takes, and streams them.

    The data is images, in a folder or in a folder for each class, whose
    position among the sorted names is the label, as in
    `keras.utils.image_dataset_from_directory`; or arrays by the names of the
    model's inputs, with `labels` if there are any, in a `.npz` file, a folder
    of these, or a folder with a `.npy` file for each.

    Returns:
        An iterable of `(x, y)`, or `(x,)` where there are no labels; `x` is a
        dict of arrays by the names of the inputs. Each pass reads it again.

    Raises:
        ValueError: There is no data, or it does not fit the model's inputs.
        ModuleNotFoundError: Images need Pillow, which is not installed.
    """
    path = Path(path)
    if path.is_file():
        if path.suffix.lower() != ".npz":
            raise ValueError(f"'{path}' is neither a folder nor a .npz file.")
        return open_arrays(path, [path], model, batch_size)
    if not path.is_dir():
        raise ValueError(f"There is no folder or .npz file '{path}'.")
    arrays = sorted(
        x
        for x in path.iterdir()
        if x.suffix.lower() in ARRAY_ENDINGS and not x.name.startswith(".")
    )
    images = find_images(path)
    kinds = {x.suffix.lower() for x in arrays}
    if images:
        kinds.add("images")
    if len(kinds) != 1:
        raise ValueError(_not_one_kind(path, kinds))
    if images:
        return open_images(path, images, model, batch_size)
    # A .npz file is a source, and so are the .npy files of a folder together.
    sources = arrays if ".npz" in kinds else [path]
    return open_arrays(path, sources, model, batch_size)


def check_labels(data: Directory, model: keras.Model) -> None:
    """Raises a ValueError if a model's metrics need other labels than these."""
    if not parity.has_metrics(model):
        return
    without = "Or leave the metrics out (--no-metrics)."
    if not data.has_labels:
        raise ValueError(
            f"'{data.path}' has no labels, and the metrics that the model was "
            f"compiled with need them: {parity.metric_names(model)}. "
            f"{data.how_to_label} {without}"
        )
    if isinstance(data, ImageFolder) and (wrong := data.misfit(model)):
        raise ValueError(f"{wrong} {without}")


def _not_one_kind(folder: Path, kinds: set[str]) -> str:
    if kinds:
        found = ", ".join(sorted(kinds))
        return f"'{folder}' holds {found}: it has to be one kind. {_POSSIBLE}"
    count = Counter(
        "folders" if path.is_dir() else path.suffix.lower() or "no ending"
        for path in folder.iterdir()
    )
    found = ", ".join(f"{n} {what}" for what, n in sorted(count.items()))
    return f"'{folder}' holds no data, only: {found or 'nothing'}. {_POSSIBLE}"
