"""Files have named inputs and outputs, labels, a card, and nothing else."""

import importlib.util
import json

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_cascade as kc
from tests.exporting.runtimes import run

RNG = np.random.default_rng(0)
X = RNG.uniform(0, 255, (6, 12, 12, 3)).astype("float32")
Y = np.arange(6) % 3
NEEDS_TENSORFLOW = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None,
    reason="written by TensorFlow, which is not installed",
)
FILES = [
    pytest.param("file.tflite", marks=NEEDS_TENSORFLOW),
    pytest.param("saved", marks=NEEDS_TENSORFLOW),
    "file.onnx",
    "file.keras",
]


def upstream():
    x = keras.Input((12, 12, 3), name="image")
    y = layers.Conv2D(4, 3, name="conv")(x)
    y = layers.BatchNormalization(name="norm")(y)
    y = layers.ReLU(name="relu")(y)
    y = layers.Dropout(0.5, name="drop")(y)
    y = layers.GlobalAveragePooling2D(name="pool")(y)
    model = keras.Model(x, layers.Dense(8, name="features")(y), name="seer")
    model(X / 127.5 - 1, training=True)
    return model


@pytest.fixture(scope="module")
def cascade():
    """Preprocessing, two heads, LoRA, retention, and a step of training."""
    keras.utils.set_random_seed(0)
    cascade = kc.build_cascade(
        upstream(),
        taps={"map": "relu", "vector": "features"},
        adapters={"map": kc.adapters.PCAAdapter(3), "vector": 4},
        head={"kind": 3, "size": layers.Dense(1, name="size")},
        preprocess={"upstream": "mobilenet_v2"},
        trainable={"upstream/features": kc.LoRA(2)},
        retention={"upstream/features": kc.L2SP(0.1)},
        loss={"kind": "sparse_categorical_crossentropy", "size": "mse"},
    ).adapt(X, verbose=False)
    cascade.fit(X, {"kind": Y, "size": 1.0 * Y}, epochs=2, verbose=0)
    return cascade


def of_the_cascade(cascade):
    found = cascade.predict(X, verbose=0)
    assert np.std(found["size"]) > 1e-2
    return found


@pytest.fixture(scope="module")
def checked(cascade, tmp_path_factory):
    """An ONNX file that was checked, and its report."""
    path = tmp_path_factory.mktemp("checked") / "file.onnx"
    return path, kc.export(cascade, path, check_data=X, verbose=False)


def test_outputs_have_the_names_of_the_heads(cascade, checked):
    path, report = checked
    found = run(path, {"inputs": X})
    for name, expected in of_the_cascade(cascade).items():
        np.testing.assert_allclose(found[name], expected, atol=1e-4)
    assert report.inputs == {"inputs": (None, 12, 12, 3)}
    assert report.outputs == {"kind": (None, 3), "size": (None, 1)}


def test_layers_that_only_other_outputs_need_are_left_out(
    cascade, checked, tmp_path
):
    part = kc.export(
        cascade, tmp_path / "part.onnx", outputs="size", verbose=False
    )
    assert list(run(part.path, {"inputs": X})) == ["size"]
    assert "Softmax" in checked[1].operators
    assert "Softmax" not in part.operators


def test_the_files_size_is_that_of_its_weights_and_nothing_else(
    cascade, tmp_path
):
    """conv 112, PCA mean 4 and kernel 12, features 40, vector 36, heads 32."""
    kc.export(cascade, tmp_path / "file.keras", verbose=False)
    plain = keras.saving.load_model(tmp_path / "file.keras")
    trained = [v for v in plain.weights if "seed" not in v.path]
    count = sum(int(np.prod(v.shape)) for v in trained)
    norms, normalization = 16, 4 + 4 + 1
    assert count == 112 + norms + normalization + 12 + 40 + 36 + 24 + 8


def test_a_keras_file_has_the_requested_outputs(cascade, tmp_path):
    path = tmp_path / "file.keras"
    kc.export(cascade, path, outputs="size", verbose=False)
    found = keras.saving.load_model(path).predict(X, verbose=0)
    expected = of_the_cascade(cascade)
    assert list(found) == ["size"]
    np.testing.assert_allclose(found["size"], expected["size"], atol=1e-5)


@pytest.mark.parametrize("name", FILES)
def test_a_file_has_a_card_and_labels(cascade, name, tmp_path):
    path = tmp_path / name
    labels = {"kind": ["sun", "moon", "star"]}
    kc.export(cascade, path, labels=labels, verbose=False)
    card = kc.read_card(path)
    assert card["taps"] == {"map": "relu", "vector": "features"}
    names = [block["name"] for block in card["blocks"]]
    assert {"upstream", "adapters", "head"} <= set(names)
    assert card["versions"]["keras"] == keras.__version__
    assert card["labels"] == labels
    assert card["inputs"]["inputs"]["shape"] == [None, 12, 12, 3]
    if path.is_dir():
        lines = (path / "assets" / "labels.txt").read_text().split()
        assert lines == labels["kind"]


def test_the_card_has_the_differences_from_the_model(checked):
    path, report = checked
    parity = kc.read_card(path)["parity"]
    assert set(parity) == {"kind", "size"}
    assert parity["size"]["maximum"] == report.parity["size"].maximum < 1e-3


def test_the_report_is_a_table_and_plain_values(checked):
    path, report = checked
    values = json.loads(json.dumps(report.to_dict()))
    assert values["holds"] is True
    assert values["size_bytes"] == path.stat().st_size
    assert values["latency"]["one_thread"]["median_ms"] > 0
    assert values["peak_memory_bytes"] > 1e6
    text = str(report)
    assert "BatchNormalization into the layer before it" in text
    assert "within tolerance" in text
    assert "kind: same top answer" in text


def test_the_cascade_is_not_changed(cascade, tmp_path):
    before = [ops.convert_to_numpy(v).copy() for v in cascade.variables]
    answers = of_the_cascade(cascade)
    nodes = [len(layer._inbound_nodes) for layer in cascade._flatten_layers()]
    flags = [layer.trainable for layer in cascade._flatten_layers()]
    kc.export(cascade, tmp_path / "file.onnx", fold=False, verbose=False)
    after = [ops.convert_to_numpy(v) for v in cascade.variables]
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(old, new)
    again = of_the_cascade(cascade)
    for name, expected in answers.items():
        np.testing.assert_array_equal(again[name], expected)
    layers_now = cascade._flatten_layers()
    assert flags == [layer.trainable for layer in layers_now]
    assert nodes == [len(layer._inbound_nodes) for layer in layers_now]
    cascade.fit(X, {"kind": Y, "size": 1.0 * Y}, epochs=1, verbose=0)


def test_an_export_replaces_an_earlier_one(cascade, tmp_path):
    path = tmp_path / "file.keras"
    for _ in range(2):
        cascade.export(path, verbose=False)
    assert [x.name for x in tmp_path.iterdir()] == ["file.keras"]


def test_any_functional_model_is_exported(tmp_path):
    model = upstream()
    path = tmp_path / "file.onnx"
    report = kc.export(model, path, fold=False, verbose=False)
    assert report.folded == {}
    expected = model.predict(X, verbose=0)
    found = run(path, {"image": X})["features"]
    difference = np.abs(found - expected).max()
    assert difference < 1e-3 * expected.std(axis=0).mean()


@pytest.mark.parametrize(
    "name",
    [
        FILES[1],
        pytest.param(
            "file.pt2",
            marks=pytest.mark.skipif(
                keras.config.backend() != "torch", reason="torch's own format"
            ),
        ),
    ],
)
def test_an_input_that_no_output_needs_is_left_out(name, tmp_path):
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    outputs = {"one": layers.Dense(2)(a), "two": layers.Dense(2)(b)}
    model = keras.Model({"a": a, "b": b}, outputs)
    data = {x: RNG.normal(size=(5, 3)).astype("float32") for x in "ab"}
    report = kc.export(
        model, tmp_path / name, check_data=data, outputs="one", verbose=False
    )
    assert list(report.inputs) == ["a"]
    assert report.difference < 1e-3


@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict")
def test_check_data_has_the_keys_that_predict_takes(tmp_path):
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
    total = layers.Dense(1, name="total")(a - b)
    model = keras.Model({"second": a, "first": b}, total)
    x = {"second": np.ones((4, 2)), "first": np.arange(8.0).reshape(4, 2)}
    model.predict(x, verbose=0)
    report = kc.export(
        model, tmp_path / "file.keras", check_data=x, verbose=False
    )
    assert report.holds
