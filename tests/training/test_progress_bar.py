"""The line of rates and drift after Keras's progress bar."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc
from keras_cascade._reporting import console
from keras_cascade.training.progress_bar import epoch_line

X = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
BLOCKS = ("encoder", "texture_network", "adapters", "fusion", "downstream")


def cascade():
    inputs = keras.Input((3,))
    network = keras.Model(inputs, layers.Dense(4, name="dense")(inputs))
    return kc.build_cascade(
        network,
        head=1,
        trainable=True,
        learning_rates={"upstream": 1e-3, "head": 0.02},
        optimizer="sgd",
        loss="mse",
        metrics=["mae"],
    )


def fit(verbose, callbacks=(), **arguments):
    return cascade().fit(
        X,
        X[:, :1],
        epochs=2,
        verbose=verbose,
        callbacks=[kc.DriftMonitor(X), *callbacks],
        **arguments,
    )


@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("verbose", [1, 2, "auto"])
def test_each_epoch_ends_with_a_line_of_ours(verbose, cached, capsys):
    if cached:
        with pytest.warns(UserWarning, match="nothing of 'cascade'"):
            history = fit(verbose, cache_features=True).history
    else:
        history = fit(verbose).history
    lines = capsys.readouterr().out.splitlines()
    ours = [line for line in lines if line.startswith("    rates ")]
    assert len(ours) == 2 and max(map(len, ours)) <= 100
    assert all("upstream 0.001, head 0.02 · drift upstream " in x for x in ours)
    # Keras's own line is as it would be without us.
    assert not any(
        name in line
        for line in lines
        if line not in ours
        for name in ("learning_rate", "drift", "cka")
    )
    assert sum("mae" in line and "loss" in line for line in lines) >= 2
    assert len(history["learning_rate/upstream"]) == 2
    assert len(history["drift/upstream"]) == len(history["cka/output"]) == 2


def test_it_is_silent_if_keras_is(capsys):
    fit(0)
    assert capsys.readouterr().out == ""


def test_a_progress_bar_of_the_user_stays_as_it_is(capsys):
    fit(2, [keras.callbacks.ProgbarLogger()])
    out = capsys.readouterr().out
    assert out.count("learning_rate/upstream: 0.0010") == 2
    assert "    rates" not in out


@pytest.mark.parametrize("count", range(1, 6))
def test_a_line_fits_100_columns(count):
    names = BLOCKS[:count]
    values = {
        f"{kind}/{name}": 0.12345 / (i + 1)
        for kind in ("learning_rate", "drift", "cka", "old_task")
        for i, name in enumerate(names)
    }
    line = epoch_line(values)
    assert len(line) <= 100
    for heading in ("rates ", "drift ", "cka ", "old task "):
        assert heading in line
    assert "…" not in line


def test_where_there_is_no_room_for_all_the_bounds_are_shown():
    values = {
        f"{kind}/{name}": 0.12345 / (i + 1)
        for kind in ("learning_rate", "drift", "cka")
        for i, name in enumerate(BLOCKS)
    }
    assert epoch_line(values).strip() == (
        "rates 0.025 to 0.12 · drift at most 0.12 (encoder) · "
        "cka at least 0.0247 (downstream)"
    )


def test_values_that_look_equal_are_shown_once():
    values = {f"learning_rate/{name}": 1e-3 for name in BLOCKS}
    line = epoch_line({**values, "learning_rate/downstream": 1e-4})
    assert line.strip() == (
        "rates encoder+texture_network+adapters+fusion 0.001, downstream 0.0001"
    )


def test_a_long_name_gives_way_to_the_bound():
    line = epoch_line({f"drift/{'x' * 200}": 0.5})
    assert line.strip() == "drift at most 0.5"


def test_a_narrow_terminal_cuts_the_line(monkeypatch):
    monkeypatch.setattr(console, "width", lambda: 30)
    values = {f"{kind}/x": 0.5 for kind in ("learning_rate", "drift", "cka")}
    line = epoch_line(values)
    assert len(line) == 30 and line.endswith("…")
