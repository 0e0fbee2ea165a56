"""Crafted `.keras` files run nothing, read nothing, and fill no memory.

Each attack is a file that an earlier version of Keras, or a library like it,
fell for. It is loaded in each way that a user loads files, in safe mode, while
an audit hook watches for processes, connections, and for files outside.
"""

import base64
import contextlib
import io
import json
import marshal
import pickle
import sys
import zipfile

import h5py
import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc
from keras_cascade.cli import main

# Of Keras itself; our own roads raise a `ValueError` that names the file.
REFUSALS = (ValueError, TypeError, KeyError, ImportError)
WATCHED = ("subprocess.Popen", "os.system", "os.exec", "socket.connect")
SECRET = "never-to-be-read"


class Watch:
    """Notes what a load does that no file may ask for."""

    def __init__(self):
        self.active, self.seen = False, []

    def __call__(self, event, arguments):
        if not self.active:
            return
        opened = event == "open" and SECRET in str(arguments[0])
        if event in WATCHED or opened:
            self.seen.append((event, str(arguments)[:200]))


WATCH = Watch()
sys.addaudithook(WATCH)


# --- Files -----------------------------------------------------------------


def network():
    inputs = keras.Input((3,), name="x")
    x = layers.Dense(2, name="hidden")(inputs)
    return keras.Model(inputs, layers.ReLU(name="act")(x), name="net")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("attacks")
    network().save(folder / "net.keras")
    cascade = kc.build_cascade(network(), taps="hidden", head=2, loss="mse")
    cascade.save(folder / "cascade.keras")
    (folder / SECRET).write_text("one\ntwo\n")
    return folder


def members_of(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path, members, compression=zipfile.ZIP_DEFLATED):
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def with_config(folder, change, kind="net"):
    """Returns a file whose config is changed."""
    members = members_of(folder / f"{kind}.keras")
    config = json.loads(members["config.json"])
    change(config)
    members["config.json"] = json.dumps(config)
    return write(folder / "crafted.keras", members)


def with_weights(folder, change):
    """Returns a file whose weights are changed, as an HDF5 file."""
    members = members_of(folder / "net.keras")
    buffer = io.BytesIO(members["model.weights.h5"])
    with h5py.File(buffer, "r+") as file:
        change(file["layers/dense/vars"], folder)
    members["model.weights.h5"] = buffer.getvalue()
    return write(folder / "crafted.keras", members)


# --- Objects that a config may not name ------------------------------------


def bytecode():
    code = (lambda x: __import__("os").system("true")).__code__
    return base64.b64encode(marshal.dumps(code)).decode()


def python_lambda():
    value = {"code": bytecode(), "defaults": None, "closure": None}
    return {"class_name": "__lambda__", "config": {"value": value}}


def lambda_layer():
    config = {"name": "bad", "function": python_lambda(), "arguments": {}}
    return keras_object("keras.layers", "Lambda", config)


def keras_object(module, name, config, registered=None):
    return {
        "module": module,
        "class_name": name,
        "config": config,
        "registered_name": registered,
    }


def function(module, name, registered=None):
    return keras_object(module, "function", name, registered or name)


def named_lambda():
    """A `Lambda` of a function that the file names."""
    layer = lambda_layer()
    layer["config"]["function"] = function("os", "system")
    return layer


def lookup(folder):
    config = {"name": "bad", "vocabulary": str(folder / SECRET)}
    return keras_object("keras.layers", "StringLookup", config)


def wrapper(inner):
    config = {"name": "bad", "layer": inner}
    return keras_object("keras.layers", "TimeDistributed", config)


def torch_pickle():
    class Bad:
        def __reduce__(self):
            return (exec, ("__import__('os').system('true')",))

    pickled = base64.b64encode(pickle.dumps(Bad())).decode()
    module = {"class_name": "__bytes__", "config": {"value": pickled}}
    config = {"name": "bad", "module": module}
    return keras_object("keras.layers", "TorchModuleWrapper", config)


OBJECTS = {
    "a Lambda": lambda folder: lambda_layer(),
    "a Lambda of a named function": lambda folder: named_lambda(),
    "a bare lambda": lambda folder: python_lambda(),
    "a Lambda inside a wrapper": lambda folder: wrapper(lambda_layer()),
    "a Lambda inside a network": lambda folder: keras_object(
        "keras", "Sequential", {"name": "bad", "layers": [lambda_layer()]}
    ),
    "a class of subprocess": lambda folder: keras_object(
        "subprocess", "Popen", {"args": ["true"]}
    ),
    "a function of os": lambda folder: function("os", "system"),
    "a builtin": lambda folder: function("builtins", "eval"),
    "a download": lambda folder: function("keras.utils", "get_file"),
    "a loader": lambda folder: function("keras.saving", "load_model"),
    "another loader": lambda folder: function("keras.models", "load_model"),
    "the switch of safe mode": lambda folder: function(
        "keras.config", "enable_unsafe_deserialization"
    ),
    "a private download": lambda folder: keras_object(
        "keras.src.utils.file_utils", "get_file", {"fname": "x"}
    ),
    "a module of ours": lambda folder: keras_object(
        "keras_cascade.exporting.processes", "run", {"command": ["true"]}
    ),
    "a builtin under our name": lambda folder: keras_object(
        "keras.layers",
        "Lambda",
        lambda_layer()["config"],
        "keras_cascade>Block",
    ),
    "a vocabulary of a file": lookup,
    "a SavedModel": lambda folder: keras_object(
        "keras.layers", "TFSMLayer", {"name": "bad", "filepath": str(folder)}
    ),
    "a pickle of torch": lambda folder: torch_pickle(),
    "an asset outside": lambda folder: keras_object(
        "keras.layers", "StringLookup", {"name": f"../../{SECRET}"}
    ),
}


def as_layer(config, bad):
    """In place of the last layer of the network."""
    entry = config["config"]["layers"][-1]
    bad.setdefault("config", {})
    entry.update(bad)


def as_activation(config, bad):
    config["config"]["layers"][1]["config"]["activation"] = bad


def as_initializer(config, bad):
    config["config"]["layers"][1]["config"]["kernel_initializer"] = bad


def as_loss(config, bad):
    config["compile_config"] = {"optimizer": "adam", "loss": bad}


PLACES = {
    "a layer": as_layer,
    "an activation": as_activation,
    "an initializer": as_initializer,
}


def spec_of(config):
    return config["config"]["spec"]


IN_SPECS = {
    "an adapter": lambda config, bad: spec_of(config)["adapters"].update(f=bad),
    "a fusion": lambda config, bad: spec_of(config).update(fusion=bad),
    "a head": lambda config, bad: spec_of(config).update(head={"": [bad]}),
    "a preprocessing": lambda config, bad: spec_of(config).update(
        preprocess={"upstream": bad}
    ),
    "a rate": lambda config, bad: spec_of(config).update(
        learning_rates={"upstream": bad}
    ),
    "a penalty": lambda config, bad: spec_of(config).update(
        retention={"upstream": bad}
    ),
}


# --- Ways to load ----------------------------------------------------------


def by_keras(path):
    keras.saving.load_model(path)


def as_a_network(path):
    kc.build_cascade(path, taps=["hidden"])


def truncated(path):
    kc.truncate(str(path), "hidden")


ROADS = [by_keras, as_a_network, truncated]


def refused_by_the_console(path):
    out = io.StringIO()
    with contextlib.redirect_stderr(out):
        assert main(["taps", str(path)]) == 1
    assert len(out.getvalue().splitlines()) == 1
    assert "crafted.keras" in out.getvalue()


def check_refused(path, roads=ROADS):
    """Loads in every way, and reads the card, which a file need not have."""
    WATCH.seen.clear()
    WATCH.active = True
    try:
        for road in roads:
            with pytest.raises(REFUSALS) as caught:
                road(path)
            if road is not by_keras:
                assert isinstance(caught.value, ValueError)
                assert "crafted.keras" in str(caught.value)
        refused_by_the_console(path)
        with contextlib.suppress(ValueError, KeyError, zipfile.BadZipFile):
            kc.read_card(path)
    finally:
        WATCH.active = False
    assert not WATCH.seen


# --- Attacks ---------------------------------------------------------------


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("what", OBJECTS)
def test_no_config_names_what_would_run(folder, what, place):
    bad = OBJECTS[what](folder)
    path = with_config(folder, lambda config: PLACES[place](config, bad))
    check_refused(path, ROADS if place == "a layer" else [as_a_network])


@pytest.mark.parametrize("place", IN_SPECS)
@pytest.mark.parametrize("what", ["a bare lambda", "a Lambda", "a loader"])
def test_no_spec_of_a_cascade_does(folder, what, place):
    bad = OBJECTS[what](folder)
    path = with_config(
        folder, lambda config: IN_SPECS[place](config, bad), "cascade"
    )
    check_refused(path, [by_keras, as_a_network])


@pytest.mark.parametrize("what", ["a bare lambda", "a loader"])
def test_no_loss_does(folder, what):
    bad = OBJECTS[what](folder)
    path = with_config(folder, lambda config: as_loss(config, bad))
    WATCH.seen.clear()
    WATCH.active = True
    with pytest.raises((ValueError, TypeError)):
        keras.saving.load_model(path)
    WATCH.active = False
    assert not WATCH.seen


def external_link(group, folder):
    with h5py.File(folder / SECRET, "w") as file:
        file["0"] = np.ones((3, 2), "float32")
    del group["0"]
    group["0"] = h5py.ExternalLink(str(folder / SECRET), "/0")


def external_storage(group, folder):
    (folder / SECRET).write_bytes(b"\0" * 24)
    del group["0"]
    file = [(str(folder / SECRET), 0, 24)]
    group.create_dataset("0", (3, 2), "float32", external=file)


def virtual_dataset(group, folder):
    with h5py.File(folder / SECRET, "w") as file:
        file["0"] = np.ones((3, 2), "float32")
    source = h5py.VirtualSource(str(folder / SECRET), "0", (3, 2), "float32")
    layout = h5py.VirtualLayout((3, 2), "float32")
    layout[:] = source
    del group["0"]
    group.create_virtual_dataset("0", layout)


def shape_bomb(group, folder):
    del group["0"]
    group.create_dataset(
        "0", (2**20, 2**20), "float32", chunks=(1024, 1024), compression="gzip"
    )


# Keras says that it looks elsewhere, and raises an error after that.
@pytest.mark.filterwarnings("ignore:Skipping nested container")
@pytest.mark.parametrize(
    "change", [external_link, external_storage, virtual_dataset, shape_bomb]
)
def test_no_weights_lead_outside_or_grow(folder, change):
    check_refused(with_weights(folder, change))


def bomb(name):
    """A member that unpacks to 70 MB."""
    return {name: b"[" + b" " * 70_000_000}


def outside(name):
    return {name: b"one\n"}


ARCHIVES = {
    "a config that grows": bomb("config.json"),
    "metadata that grow": bomb("metadata.json"),
    "weights that grow": bomb("model.weights.h5"),
    "assets that grow": bomb("assets/x.txt"),
    "a member above": outside("assets/../../../evil.txt"),
    "a member of the root": outside("/evil.txt"),
    "a member of a drive": outside("C:\\evil.txt"),
    "a config that is nested": {"config.json": "[" * 100_000},
    "a config of another kind": {"config.json": "[]"},
    "a config that is no text": {"config.json": b"\xff\xfe\x00"},
    "weights of another kind": {"model.weights.h5": b"none"},
}


@pytest.mark.parametrize("what", ARCHIVES)
def test_no_archive_grows_or_leads_outside(folder, what):
    """Beyond what Keras refuses, whose limits begin at 256 MiB and 4 GiB."""
    members = {**members_of(folder / "net.keras"), **ARCHIVES[what]}
    path = write(folder / "crafted.keras", members)
    check_refused(path, [as_a_network, truncated])


def test_damaged_archives_are_one_error(folder):
    good = (folder / "net.keras").read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 255
    path = folder / "crafted.keras"
    for content in (b"", b"text", good[: len(good) // 2], bytes(flipped)):
        path.write_bytes(content)
        check_refused(path, [as_a_network])


def test_a_legacy_file_is_no_network(folder):
    """HDF5 files of Keras 2 were loaded without regard for safe mode."""
    with h5py.File(folder / "crafted.h5", "w") as file:
        config = {"class_name": "Sequential", "config": [lambda_layer()]}
        file.attrs["model_config"] = json.dumps(config)
    with pytest.raises(ValueError, match="is no network"):
        as_a_network(folder / "crafted.h5")
    with pytest.raises((ValueError, TypeError)):
        keras.saving.load_model(folder / "crafted.h5")


def test_what_is_not_crafted_loads(folder):
    """The same roads, so that a refusal means something."""
    for name in ("net.keras", "cascade.keras"):
        by_keras(folder / name)
    as_a_network(folder / "net.keras")
    truncated(folder / "net.keras")
    assert main(["taps", str(folder / "net.keras"), "--json"]) == 0
