"""Compares converted PyTorch networks with the module or a hand-written one."""

import functools
import os
import runpy
import statistics
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import keras
    import torch

FOLDER = Path(__file__).parent
TIMING = runpy.run_path(str(FOLDER / "timing.py"))
FILES = runpy.run_path(str(FOLDER / "litert_files.py"))
as_row = TIMING["as_row"]
seconds_in_turns = TIMING["seconds_in_turns"]
CLASSES = 10
RATE = 1e-3
# The largest ratio beside the module's eager step, and beside stock Keras.
BOUNDS = {"module": 1.15, "Keras by hand": 1.10}
# The largest ratio of the latencies of two LiteRT files.
LATENCY = 1.05
# The longest conversion of a ResNet-50, in seconds on two cores.
CONVERSION_S = 30.0
# Blocks of each of the four stages, and whether they are bottlenecks.
RESNET_18 = ((2, 2, 2, 2), False)
RESNET_50 = ((3, 4, 6, 3), True)


def run(
    pairs: int = 7,
    steps: int = 5,
    batch_size: int = 32,
    size: int = 96,
    conversions: int = 3,
    runs: int = 100,
    pixels: int = 224,
) -> list[dict]:
    """Returns rows for training steps, a LiteRT file and a conversion.

    Args:
        pairs: The number of pairs of times. Defaults to `7`.
        steps: The number of training steps of which a time is the median. The
            models take turns, so that noise affects both alike. Defaults to
            `5`.
        batch_size: The number of images in a step. Defaults to `32`.
        size: Height and width of the images. Defaults to `96`.
        conversions: The number of times that a ResNet-50 is converted.
            Defaults to `3`.
        runs: The number of runs of a file of which a time is the median.
            Defaults to `100`.
        pixels: Height and width of the images of the files. Defaults to `224`.

    Returns:
        Rows with `name`, the medians of the seconds `ours_s` and
        `reference_s`, `ratio` (the median of the pairs' ratios), its `bound`
        as text, and whether it `holds`. The references of a step are that of
        a ResNet-18 written in Keras and, on PyTorch, the module's own eager
        step; that of a file, which is there on TensorFlow where torchvision
        is installed, Keras's own MobileNetV3Small; that of a conversion is
        its bound in seconds.
    """
    import keras

    references = list(BOUNDS)
    if keras.config.backend() != "torch":
        references.remove("module")
    rows = []
    for against in references:
        ours, reference, x, y = _models(against, batch_size, size)
        times = seconds_in_turns((ours, reference), x, y, pairs, steps)
        name = f"step ResNet-18 beside {against}"
        rows.append(as_row(name, times, BOUNDS[against]))
    if keras.config.backend() == "tensorflow" and find_spec("torchvision"):
        rows.append(_latency_row(pairs, runs, pixels))
    return [*rows, _conversion_row(conversions, size)]


def _models(
    against: str, batch_size: int, size: int
) -> tuple["keras.Model", Any, np.ndarray, np.ndarray]:
    """Returns the converted network, its reference and a batch."""
    import keras
    import torch

    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    torch.manual_seed(0)
    module = resnet(*RESNET_18)
    ours = _compiled(_converted(module, size))
    if against == "module":
        reference = EagerModule(module)
    else:
        reference = _compiled(keras_resnet_18(size))
        _check_same_work(ours, reference)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(batch_size, size, size, 3)).astype("float32")
    return ours, reference, x, rng.integers(0, CLASSES, batch_size)


def _converted(module: "torch.nn.Module", size: int) -> "keras.Model":
    import keras_cascade as kc

    return kc.from_torch(
        module, (3, size, size), verify=False, data_format="channels_last"
    )


def _compiled(model: "keras.Model") -> "keras.Model":
    import keras

    model.compile(
        optimizer=keras.optimizers.SGD(RATE),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    return model


def _check_same_work(ours: "keras.Model", reference: "keras.Model") -> None:
    def shapes(model: "keras.Model") -> list[tuple]:
        return sorted(tuple(v.shape) for v in model.trainable_variables)

    if shapes(ours) != shapes(reference):
        raise RuntimeError(
            "The converted network and the one written by hand train different "
            f"weights: {len(shapes(ours))} and {len(shapes(reference))}."
        )


def _latency_row(pairs: int, runs: int, size: int) -> dict:
    """Returns the row of MobileNetV3-Small's file beside Keras's network's."""
    import keras

    module = _mobile_net().eval()
    models = {
        "ours": _converted(module, size),
        "Keras's": keras.applications.MobileNetV3Small(
            (size, size, 3),
            weights=None,
            include_preprocessing=False,
            classifier_activation=None,
        ),
    }
    rng = np.random.default_rng(0)
    image = rng.normal(size=(1, size, size, 3)).astype("float32")
    with tempfile.TemporaryDirectory() as folder:
        routes = [
            _file_of(model, Path(folder) / f"{name}.tflite")
            for name, model in models.items()
        ]
        times = FILES["in_turns"](routes, {"image": image}, pairs, runs)
    return as_row("MobileNetV3-Small's LiteRT file", times, LATENCY)


def _file_of(model: "keras.Model", path: Path) -> Callable[[Any], np.ndarray]:
    import keras_cascade as kc

    (name,) = kc.export(model, path, verbose=False).inputs
    run_file = FILES["only_output"](FILES["open_file"](path))
    return lambda inputs: run_file({name: inputs["image"]})


def _mobile_net() -> "torch.nn.Module":
    """Returns torchvision's network, of as many classes as Keras's has."""
    import torch

    # A torchvision that was compiled for another PyTorch lacks operators,
    # which its import asks for.
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, name):
            library.define(f"{name}(Tensor a, Tensor b, float c) -> Tensor")
    from torchvision import models

    return models.mobilenet_v3_small(weights=None)


def _conversion_row(conversions: int, size: int) -> dict:
    """Returns the row of converting a ResNet-50, the comparison included."""
    import keras_cascade as kc

    module, seconds = resnet(*RESNET_50), []
    for _ in range(conversions):
        start = time.perf_counter()
        kc.from_torch(module, (3, size, size))
        seconds.append(time.perf_counter() - start)
    own = statistics.median(seconds)
    return {
        "name": "conversion of ResNet-50",
        "ours_s": own,
        "reference_s": CONVERSION_S,
        "ratio": own / CONVERSION_S,
        "bound": "at most 1.00",
        "holds": own <= CONVERSION_S,
    }


class EagerModule:
    """Trains a module as PyTorch's users do, by Keras's name for a step."""

    def __init__(self, module: "torch.nn.Module") -> None:
        import torch

        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        self._module = module.train().to(self._device)
        self._optimizer = torch.optim.SGD(module.parameters(), lr=RATE)

    def train_on_batch(self, x: np.ndarray, y: np.ndarray) -> float:
        """Returns the loss of a step on images with the channels last."""
        import torch

        # PyTorch takes the strides as they are: its channels_last format.
        images = torch.from_numpy(x).to(self._device).permute(0, 3, 1, 2)
        labels = torch.from_numpy(y).to(self._device)
        self._optimizer.zero_grad()
        answers = self._module(images)
        loss = torch.nn.functional.cross_entropy(answers, labels)
        loss.backward()
        self._optimizer.step()
        return loss.item()


def resnet(blocks: tuple[int, ...], bottleneck: bool) -> "torch.nn.Module":
    """Returns torchvision's ResNet of so many blocks in each stage."""
    from torch import nn

    width, stages = 64, []
    for stage, number in enumerate(blocks):
        layers = []
        for i in range(number):
            stride = 2 if stage and not i else 1
            own = 64 * 2**stage
            layers.append(_block_class()(width, own, stride, bottleneck))
            width = own * (4 if bottleneck else 1)
        stages.append(nn.Sequential(*layers))
    return nn.Sequential(
        nn.Conv2d(3, 64, 7, 2, 3, bias=False),
        nn.BatchNorm2d(64),
        nn.ReLU(inplace=True),
        nn.MaxPool2d(3, 2, 1),
        *stages,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, CLASSES),
    )


@functools.cache
def _block_class() -> Callable[[int, int, int, bool], "torch.nn.Module"]:
    """Returns the class of a block; PyTorch is imported where it runs."""
    from torch import nn

    def normalized(i: int, o: int, size: int, stride: int = 1) -> list:
        conv = nn.Conv2d(i, o, size, stride, size // 2, bias=False)
        return [conv, nn.BatchNorm2d(o)]

    def branch(i: int, own: int, stride: int, bottleneck: bool) -> list:
        if not bottleneck:
            first = normalized(i, own, 3, stride)
            return [*first, nn.ReLU(inplace=True), *normalized(own, own, 3)]
        first = [*normalized(i, own, 1), nn.ReLU(inplace=True)]
        middle = [*normalized(own, own, 3, stride), nn.ReLU(inplace=True)]
        return [*first, *middle, *normalized(own, 4 * own, 1)]

    class Block(nn.Module):
        def __init__(
            self, i: int, own: int, stride: int, bottleneck: bool
        ) -> None:
            super().__init__()
            outputs = own * (4 if bottleneck else 1)
            self.branch = nn.Sequential(*branch(i, own, stride, bottleneck))
            self.shortcut = nn.Sequential()
            if stride != 1 or i != outputs:
                self.shortcut = nn.Sequential(
                    *normalized(i, outputs, 1, stride)
                )
            self.relu = nn.ReLU(inplace=True)

        def forward(self, x: "torch.Tensor") -> "torch.Tensor":
            y = self.branch(x)
            y += self.shortcut(x)
            return self.relu(y)

    return Block


def keras_resnet_18(size: int) -> "keras.Model":
    """Returns the same ResNet-18 as one writes it in Keras."""
    from keras import Input, Model, layers

    inputs = Input((size, size, 3))
    x = layers.ReLU()(_normalized(layers.ZeroPadding2D(3)(inputs), 64, 7, 2))
    x = layers.MaxPooling2D(3, 2)(layers.ZeroPadding2D(1)(x))
    for stage, number in enumerate(RESNET_18[0]):
        for i in range(number):
            x = _keras_block(x, 64 * 2**stage, 2 if stage and not i else 1)
    x = layers.GlobalAveragePooling2D()(x)
    return Model(inputs, layers.Dense(CLASSES)(x))


def _keras_block(x: Any, filters: int, stride: int) -> Any:
    from keras import layers

    y = layers.ZeroPadding2D(1)(x) if stride > 1 else x
    y = layers.ReLU()(_normalized(y, filters, 3, stride))
    y = _normalized(y, filters, 3)
    if stride > 1:
        x = _normalized(x, filters, 1, stride)
    return layers.ReLU()(layers.Add()([y, x]))


def _normalized(x: Any, filters: int, kernel: int, stride: int = 1) -> Any:
    from keras import layers

    padding = "same" if stride == 1 else "valid"
    x = layers.Conv2D(filters, kernel, stride, padding, use_bias=False)(x)
    return layers.BatchNormalization(epsilon=1e-5, momentum=0.9)(x)


def main() -> None:
    """Prints the rows."""
    for row in run():
        print(row)


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main()
