"""Tests that damaged and crafted files of weights end in one clear error."""

import json
import zipfile

import h5py
import keras
import numpy as np
import pytest

import keras_cascade as kc

layers = keras.layers
SLOTS = "optimizer/vars"
LAYOUT = f"{SLOTS}/layout"


def build():
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((5,), name="f")
    x = layers.Dense(4, "tanh", name="d")(x)
    x = layers.Dropout(0.1, name="drop")(x)
    return kc.build_cascade(
        keras.Model(inputs, x),
        head=3,
        trainable={"upstream/d": kc.LoRA(2), "upstream/drop": True},
        optimizer="adam",
        loss="mse",
    )


@pytest.fixture(scope="module")
def cascade():
    cascade = build()
    cascade.fit(np.ones((8, 5), "float32"), np.ones((8, 3)), verbose=0)
    return cascade


def replace(name, value=None, **how):
    def damage(file):
        del file[name]
        if value is not None or how:
            file.create_dataset(name, data=value, **how)

    return damage


def text(content):
    return replace(LAYOUT, np.frombuffer(content, "uint8"))


def layout(**changes):
    def damage(file):
        found = json.loads(bytes(file[LAYOUT][()]))
        for key, change in changes.items():
            found[key] = change(found[key])
        text(json.dumps(found).encode())(file)

    return damage


def numbered(number):
    """Returns slots that are all of the variable of a number."""
    return lambda slots: [[x, i if i is None else number] for x, i in slots]


def as_group(name):
    def damage(file):
        del file[name]
        file.create_group(name)

    return damage


def hidden(name, shape):
    """A dataset of which nothing is stored."""
    return replace(name, shape=shape, dtype="float32", chunks=(99, 99))


def updates(which):
    return f"layers/block/layers/dense/vars/lora_{which}"


DAMAGES = {
    "no JSON": (text(b"{nope"), "layout"),
    "no UTF-8": (text(b"\xff\xfe"), "layout"),
    "nested deep": (text(b"[" * 100_000), "layout"),
    "a list": (text(b"[]"), "layout"),
    "floats": (replace(LAYOUT, np.ones(3)), "float64 of shape"),
    "a string": (replace(LAYOUT, "text"), "layout"),
    "a group": (as_group(LAYOUT), "layout"),
    "no variables": (layout(variables=lambda _: None), "layout"),
    "other paths": (layout(variables=lambda x: [*range(len(x))]), "no text"),
    "one path": (layout(variables=lambda x: x[:1] * len(x)), "twice"),
    "a text of slots": (layout(slots=lambda _: "abc"), "layout"),
    "triples": (layout(slots=lambda _: [[1, 2, 3]]), "layout"),
    "lists as names": (layout(slots=lambda _: [[[], 0]]), "does not name"),
    "beyond": (layout(slots=numbered(99)), "does not name"),
    "negative": (layout(slots=numbered(-1)), "does not name"),
    "numbers as text": (layout(slots=numbered("0")), "does not name"),
    "no steps": (
        layout(slots=lambda x: [y for y in x if y[0] != "began_at"]),
        "began_at",
    ),
    "no slot": (replace(f"{SLOTS}/2"), "lacks '2'"),
    "another shape": (
        replace(f"{SLOTS}/3", np.ones((9, 9))),
        r"'3' in the file is float64 of shape \(9, 9\); expected float32",
    ),
    "strings in a slot": (replace(f"{SLOTS}/3", "x"), "expected float32"),
    "a group for a slot": (as_group(f"{SLOTS}/3"), "Dataset"),
    "37 GB": (hidden(f"{SLOTS}/3", (10**5, 10**5)), "37"),
    "steps as floats": (replace(f"{SLOTS}/10", np.ones(4) / 2), "began_at"),
    "no B": (replace(updates("b")), r"'d' with low-rank updates of the shapes"),
    "another A": (replace(updates("a"), np.ones((9, 9))), r"\(5, 2\) and"),
}


def state_of(cascade):
    variables = [*cascade.variables, *cascade.optimizer.variables]
    return [np.array(keras.ops.convert_to_numpy(v)) for v in variables]


# Keras looks for a layer that it failed to load in other parts of the file.
@pytest.mark.filterwarnings("ignore:Skipping nested container:UserWarning")
@pytest.mark.parametrize("name", DAMAGES)
def test_the_error_names_the_file_and_what_is_wrong(cascade, name, tmp_path):
    damage, message = DAMAGES[name]
    path = tmp_path / "damaged.weights.h5"
    cascade.save_weights(path)
    with h5py.File(path, "r+") as file:
        damage(file)
    before = state_of(cascade)
    with pytest.raises(ValueError, match=message) as caught:
        cascade.load_weights(path)
    assert f"'{path}' cannot be loaded" in str(caught.value)
    assert "\n" not in str(caught.value)
    for one, other in zip(before, state_of(cascade), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("name", ["a list", "no slot", "another shape"])
def test_models_with_damaged_slots_are_refused_too(cascade, name, tmp_path):
    damage, message = DAMAGES[name]
    whole, weights = tmp_path / "whole.keras", tmp_path / "some.weights.h5"
    cascade.save(whole)
    with zipfile.ZipFile(whole) as archive:
        members = {x: archive.read(x) for x in archive.namelist()}
    weights.write_bytes(members["model.weights.h5"])
    with h5py.File(weights, "r+") as file:
        damage(file)
    members["model.weights.h5"] = weights.read_bytes()
    with zipfile.ZipFile(tmp_path / "damaged.keras", "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    with pytest.raises(ValueError, match=message):
        keras.saving.load_model(tmp_path / "damaged.keras")


@pytest.mark.parametrize("value", [np.ones((9, 9), "uint32"), "x", np.ones(2)])
def test_damaged_random_states_stay_as_they_are(cascade, value, tmp_path):
    path = tmp_path / "damaged.weights.h5"
    cascade.save_weights(path)
    with h5py.File(path, "r+") as file:
        replace("layers/block/vars/0", value)(file)
    with pytest.warns(UserWarning, match="random states of 'upstream' stay"):
        cascade.load_weights(path)


@pytest.mark.parametrize("content", [b"", b"no HDF5", None])
def test_files_that_are_none_are_named(cascade, content, tmp_path):
    path = tmp_path / "damaged.weights.h5"
    cascade.save_weights(path)
    path.write_bytes(path.read_bytes()[:-99] if content is None else content)
    with pytest.raises(ValueError, match=r"damaged\.weights\.h5' cannot be lo"):
        cascade.load_weights(path)
