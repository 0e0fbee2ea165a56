"""The recipes run as they stand, on what each page says that one has."""

import importlib.util
import re
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_cascade as kc
from tests.applications import settle

ROOT = Path(__file__).parents[1]
RECIPES = ROOT / "docs" / "recipes"
LENGTH = 15  # lines of code on a page
HAS_TENSORFLOW = importlib.util.find_spec("tensorflow") is not None
HAS_TORCH = importlib.util.find_spec("torch") is not None


def code_of(page: Path) -> str:
    return "".join(
        re.findall(
            r"^```python\n(.*?)^```", page.read_text("utf-8"), re.M | re.S
        )
    )


def glyphs(number: int = 32) -> np.ndarray:
    return kc.zoo.digits()[0].images[:number]


def classes(number: int, highest: int) -> np.ndarray:
    return np.arange(number) % highest


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0, 1, shape).astype("float32")


def photos(number: int) -> np.ndarray:
    """Returns noise over colours that differ between the images."""
    colours = 170 * numbers(number, 1, 1, 3)
    return colours + 85 * numbers(number, 224, 224, 3)


def student() -> keras.Model:
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((32, 32, 1)),
            layers.Conv2D(8, 3, strides=4, activation="relu"),
            layers.GlobalAveragePooling2D(),
        ]
    )


def backbone() -> object:
    """Returns a module of the form of timm's that give features."""
    if not HAS_TORCH:
        return None
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(3, 8, 7, 4, 3, bias=False),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
    )


def image_folder() -> dict[str, object]:
    for name in ("cat", "dog"):
        Path("photos", name).mkdir(parents=True)
        for i, photo in enumerate(photos(4)):
            keras.utils.save_img(Path("photos", name, f"{i}.png"), photo)
    return {}


GIVEN: dict[str, Callable[[], dict[str, object]]] = {
    "anomaly-map": lambda: {"normal": glyphs(), "images": glyphs(4)},
    "application-to-phone": lambda: {
        "images": photos(8),
        "labels": classes(8, 2),
    },
    "image-and-text": lambda: {
        "images": glyphs(),
        "tokens": np.random.default_rng(0).integers(0, 1000, (32, 12)),
        "labels": classes(32, 3),
    },
    "image-folder": image_folder,
    "images-and-table": lambda: {
        "images": glyphs(),
        "table": numbers(32, 4),
        "prices": numbers(32),
    },
    "multi-label": lambda: {
        "images": glyphs(),
        "labels": numbers(32, 5).round(),
    },
    "regression": lambda: {"images": glyphs(), "values": numbers(32)},
    "resume": lambda: {"images": glyphs(), "labels": classes(32, 10)},
    "several-heads": lambda: {
        "images": glyphs(),
        "labels": classes(32, 10),
        "quality": numbers(32),
    },
    "student-and-teacher": lambda: {
        "student": student(),
        "teacher": kc.zoo.load("glyph_encoder"),
        "images": glyphs(),
        "labels": classes(32, 10),
    },
    "timm-and-application": lambda: {
        "backbone": backbone(),
        "images": photos(8),
        "labels": classes(8, 2),
    },
}


@pytest.fixture(autouse=True)
def _in_a_folder_without_downloads(tmp_path, monkeypatch):
    """Gives applications random weights: the page's code is what is tested."""
    monkeypatch.chdir(tmp_path)
    for name in ("MobileNetV3Small", "MobileNetV2"):
        make = getattr(keras.applications, name)
        monkeypatch.setattr(keras.applications, name, _random(make))


def _random(make):
    def settled(**arguments):
        network = make(**arguments | {"weights": None})
        settle(network, photos(8))
        return network

    return settled


def run(page: str, **others: object) -> dict[str, object]:
    """Returns the names after the page's code, which must be short."""
    pytest.importorskip("sklearn")
    code = code_of(RECIPES / f"{page}.md")
    assert len(code.splitlines()) <= LENGTH
    names = GIVEN[page]() | others
    exec(compile(code, page, "exec"), names)
    return names


def test_there_is_no_other_page():
    pages = {path.stem for path in RECIPES.glob("*.md")}
    assert pages == {*GIVEN, "index", "coming-from"}


@pytest.mark.parametrize(
    "page",
    sorted(
        GIVEN.keys()
        - {
            "anomaly-map",
            "application-to-phone",
            "image-folder",
            "timm-and-application",
        }
    ),
)
def test_it_trains(page):
    names = run(page)
    assert np.isfinite(names["cascade"].history.history["loss"]).all()


@pytest.mark.skipif(not HAS_TORCH, reason="the backbone is PyTorch's")
def test_a_backbone_of_pytorch_reads_the_same_pixels():
    names = run("timm-and-application")
    cascade, images = names["cascade"], names["images"]
    assert np.isfinite(cascade.history.history["loss"]).all()
    import torch

    mean, std = np.array(names["mean"]), np.array(names["std"])
    pixels = np.moveaxis((images / 255 - mean) / std, -1, 1)
    with torch.no_grad():
        own = names["backbone"].eval()(torch.tensor(pixels).float())
    found = names["network"].predict(images, verbose=0)
    np.testing.assert_allclose(found, own.numpy(), atol=1e-4)


def test_a_folder_is_read_to_its_end_which_keras_warns_of():
    with pytest.warns(UserWarning, match="Your input ran out of data"):
        names = run("image-folder")
    cascade = names["cascade"]
    assert cascade.output_shape == (None, 2)
    assert np.isfinite(cascade.history.history["loss"]).all()


def test_a_defect_is_hot_where_it_is():
    images = glyphs(4)
    images[2, 8:16, 16:24] = np.random.default_rng(0).uniform(0, 255, (8, 8, 1))
    names = run("anomaly-map", normal=glyphs(200), images=images)
    heat = keras.ops.convert_to_numpy(names["heat"])[..., 0]
    assert heat.max(axis=(1, 2)).argmax() == 2
    row, column = np.unravel_index(heat[2].argmax(), (32, 32))
    assert 6 <= row < 18 and 14 <= column < 26
    assert np.allclose(names["worst"], heat.max(axis=(1, 2)))


def test_a_phone_gets_a_file_that_was_proved():
    if not HAS_TENSORFLOW:
        with pytest.raises(ModuleNotFoundError, match=r"\[tensorflow\]"):
            run("application-to-phone")
        return
    report = run("application-to-phone")["report"]
    assert report.builtin_only and Path("photos.tflite").exists()


def test_what_others_do_is_done_as_the_page_says():
    network = kc.zoo.load("glyph_encoder")
    names = {
        "kc": kc,
        "network": network,
        "encoder": network,
        "expert": kc.zoo.load("digits_expert"),
        "images": glyphs(),
        "labels": classes(32, 10),
    }
    exec(compile(code_of(RECIPES / "coming-from.md"), "page", "exec"), names)
    for tap, path in {"low": "stage2_out", "high": "stage4_out"}.items():
        own = keras.Model(network.input, network.get_layer(path).output)
        expected = own.predict(glyphs(), verbose=0)
        np.testing.assert_allclose(names["features"][tap], expected, atol=1e-4)
    assert not any("lora" in weight.path for weight in names["plain"].weights)
