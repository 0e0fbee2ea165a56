"""Files that an earlier version wrote load in this one, and train on.

`tests/data/earlier` has them, with what that version made of them on each
backend. All were saved on torch.
"""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from tests.data.earlier import cascades

FOLDER = Path(cascades.__file__).parent
BACKEND = keras.backend.backend()
# The others compile a program for each, which takes seconds.
TRAINED = list(cascades.CASCADES) if BACKEND == "torch" else ["stages"]


def load(name):
    return keras.saving.load_model(FOLDER / f"{name}.keras", safe_mode=True)


def record(name):
    return json.loads((FOLDER / f"{name}.json").read_text())


@pytest.fixture(scope="module", params=cascades.CASCADES)
def loaded(request):
    """Returns the name of a cascade, and the cascade from its file."""
    return request.param, load(request.param)


@pytest.fixture(scope="module")
def expected_answers():
    """Returns the predictions of the earlier version, by name and number."""
    with np.load(FOLDER / f"answers-{BACKEND}.npz") as arrays:
        return dict(arrays)


@pytest.fixture(scope="module")
def to_the_bit(expected_answers):
    """Whether Keras alone computes here as where the predictions were made."""
    (found,) = cascades.answers("stock", load("stock"))
    return np.array_equal(found, expected_answers["stock/0"])


def test_weights_flags_rates_and_slots_are_as_they_were(loaded):
    name, cascade = loaded
    found, expected = cascades.state_of(cascade), record("states")[name]
    assert found["weights"] == expected["weights"]
    assert found["slots"] == expected["slots"]
    assert found["trainable"] == expected["trainable"]
    assert found["taps"] == expected["taps"]
    assert found["rates"] == pytest.approx(expected["rates"], rel=1e-6)


def test_predictions_are_as_they_were(loaded, expected_answers, to_the_bit):
    name, cascade = loaded
    tolerance = 2e-3 if name == "mixed" else 2e-6
    for number, found in enumerate(cascades.answers(name, cascade)):
        expected = expected_answers[f"{name}/{number}"]
        assert found.dtype == expected.dtype
        if to_the_bit:
            np.testing.assert_array_equal(found, expected)
        else:
            scale = np.abs(expected.astype("float64")).max()
            np.testing.assert_allclose(found, expected, atol=tolerance * scale)


@pytest.mark.parametrize("name", TRAINED)
def test_training_goes_on_as_it_did(name):
    found = cascades.train(name, load(name), 2, 4)
    expected = record(f"histories-{BACKEND}")[name]
    assert found.keys() == expected.keys()
    tolerance = 1e-3 if name == "mixed" else 1e-5
    for key, values in expected.items():
        np.testing.assert_allclose(found[key], values, tolerance, err_msg=key)
