"""`keras-cascade rank`, on images in a folder for each class."""

import json

import numpy as np
import pytest

from keras_cascade.cli import main


@pytest.fixture
def folder(tmp_path):
    image = pytest.importorskip("PIL.Image")
    draw = np.random.default_rng(0)
    for number, name in enumerate(("dark", "light")):
        (tmp_path / name).mkdir()
        for i in range(8):
            pixels = draw.integers(100, size=(32, 32)) + 120 * number
            path = tmp_path / name / f"{i}.png"
            image.fromarray(pixels.astype("uint8")).save(path)
    return tmp_path


def test_taps_are_ranked_and_drawn(folder, capsys, tmp_path_factory):
    pytest.importorskip("matplotlib")
    picture = tmp_path_factory.mktemp("plot") / "taps.svg"
    argv = ["rank", "glyph_encoder", "--data", str(folder), "--json"]
    argv += ["--taps", "stage*_out", "--plot", str(picture)]
    assert main(argv) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["samples"] == 16 and found["score"] == "probe"
    assert found["baselines"] == {"deepest": "stage4_out"}
    assert found["taps"][0]["scores"]["probe"] == 1.0
    assert picture.read_text("utf-8").count("stage") >= 1


def test_a_folder_that_is_not_there_is_told(capsys):
    assert main(["rank", "glyph_encoder", "--data", "no_folder"]) == 1
    assert "no_folder" in capsys.readouterr().err
