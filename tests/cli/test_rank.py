"""`keras-cascade rank`, on images in a folder for each class."""

import json

import keras
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


def test_sequences_are_ranked_by_their_first_token_if_asked(folder, capsys):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((32, 32, 1), name="image")
    x = keras.layers.Conv2D(4, 8, 8, name="patches")(x)
    x = keras.layers.Reshape((16, 4), name="sequence")(x)
    # A first token that knows nothing.
    x = keras.layers.ZeroPadding1D((1, 0), name="tokens")(x)
    path = folder.parent / "patches.keras"
    keras.Model(inputs, x).save(path)
    argv = ["rank", str(path), "--data", str(folder), "--json"]
    argv += ["--taps", "tokens"]
    scores = []
    for option in ([], ["--class-token"]):
        assert main(argv + option) == 0
        (tap,) = json.loads(capsys.readouterr().out)["taps"]
        scores.append(tap["scores"]["probe"])
    assert scores[0] == 1.0
    assert scores[1] <= 0.5


def test_a_folder_that_is_not_there_is_told(capsys):
    assert main(["rank", "glyph_encoder", "--data", "no_folder"]) == 1
    assert "no_folder" in capsys.readouterr().err
