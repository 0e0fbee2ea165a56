"""Features that an earlier version kept in a folder are read in this one.

`tests/data/earlier` has a folder for each backend.
"""

import json
import shutil
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.data.earlier import cascades

FOLDER = Path(cascades.__file__).parent
KEPT = f"features-{keras.backend.backend()}"


def test_nothing_is_computed_again(tmp_path, computed):
    expected = json.loads((FOLDER / f"{KEPT}.json").read_text())
    if keras.version() != expected["keras"]:
        pytest.skip(f"These features are those of Keras {expected['keras']}.")
    shutil.copytree(FOLDER / KEPT, tmp_path / "features")
    before = sorted(tmp_path.rglob("*.npy"))
    cascade = keras.saving.load_model(FOLDER / "cached.keras")
    found = cascades.train_on_features(cascade, tmp_path / "features")
    assert computed == []
    assert sorted(tmp_path.rglob("*.npy")) == before
    for logs, earlier in zip(found, expected["logs"], strict=True):
        np.testing.assert_allclose(logs["loss"], earlier["loss"], rtol=1e-5)


def test_everything_is_computed_where_there_are_none(tmp_path, computed):
    cascade = keras.saving.load_model(FOLDER / "cached.keras")
    cascades.train_on_features(cascade, tmp_path / "features")
    # Once in single precision and once in half.
    assert sum(computed) == 2 * cascades.ROWS
