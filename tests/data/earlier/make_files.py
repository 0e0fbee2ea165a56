"""Writes the files here with another version of the package.

    git worktree add ../earlier a2be80b
    for backend in torch tensorflow jax; do
        KERAS_BACKEND=$backend PYTHONPATH=../earlier \
            python tests/data/earlier/make_files.py
    done

torch comes first: it trains the cascades and saves them. Then each backend
loads the files with that version, and writes down what the cascades answer, how
their training goes on, and the features of one of them.
"""

import json
import os
import shutil
import sys
import zipfile
from pathlib import Path

if os.environ.get("KERAS_BACKEND") == "jax":
    # As the tests compile.
    os.environ.setdefault("XLA_FLAGS", "--xla_backend_optimization_level=0")

import keras
import numpy as np

import keras_cascade as kc

sys.path.insert(0, str(Path(__file__).parent))
import cascades

FOLDER = Path(__file__).parent


def write_files() -> None:
    """Trains every cascade for two epochs and saves it."""
    np.savez_compressed(FOLDER / "data.npz", **cascades.DATA)
    for name, (build, *_) in cascades.CASCADES.items():
        keras.utils.clear_session()
        keras.utils.set_random_seed(0)
        cascade = build()
        cascades.train(name, cascade, 0, 2)
        save(cascade, name)
    save(cascades.stock_network(), "stock")
    states = {name: cascades.state_of(load(name)) for name in cascades.CASCADES}
    write_json("states", states)


def write_answers(backend: str) -> None:
    """Writes down what a backend makes of the files."""
    found = {"stock/0": cascades.answers("stock", load("stock"))[0]}
    histories = {}
    for name in cascades.CASCADES:
        cascade = load(name)
        for number, values in enumerate(cascades.answers(name, cascade)):
            spread = values.astype("float64").std(axis=0).mean()
            assert spread > 1e-2, f"{name}: all samples are alike"
            found[f"{name}/{number}"] = values
        histories[name] = cascades.train(name, cascade, 2, 4)
    np.savez_compressed(FOLDER / f"answers-{backend}.npz", **found)
    write_json(f"histories-{backend}", histories)


def write_features(backend: str) -> None:
    """Keeps features in a folder, of arrays and of a stream."""
    folder = FOLDER / f"features-{backend}"
    shutil.rmtree(folder, ignore_errors=True)
    logs = cascades.train_on_features(load("cached"), folder)
    (folder / "writing.lock").unlink(missing_ok=True)
    made_by = {"keras": keras.version(), "logs": logs}
    write_json(f"features-{backend}", made_by)


def save(model: keras.Model, name: str) -> None:
    """Saves a model, its file packed to a third of what Keras writes."""
    path = FOLDER / f"{name}.keras"
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        members = {info: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for info, content in members.items():
            archive.writestr(info.filename, content)


def load(name: str) -> keras.Model:
    """Loads a file as users do."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    return keras.saving.load_model(FOLDER / f"{name}.keras")


def write_json(name: str, content: dict) -> None:
    """Writes a file that people can read."""
    text = json.dumps(content, indent=1) + "\n"
    (FOLDER / f"{name}.json").write_text(text)


if __name__ == "__main__":
    print(f"made by {kc.__file__}")  # noqa: T201
    if keras.backend.backend() == "torch":
        write_files()
    write_answers(keras.backend.backend())
    write_features(keras.backend.backend())
