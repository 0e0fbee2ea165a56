"""ONNX files whose weights are in a file beside them."""

from functools import partial

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc
from keras_cascade.exporting import exporter, job, options
from tests.exporting.runtimes import run

X = np.random.default_rng(0).normal(size=(6, 16)).astype("float32")
NOT_BY_TF2ONNX = pytest.mark.skipif(
    keras.config.backend() == "tensorflow", reason="tf2onnx writes one file"
)


def network(seed=0):
    keras.utils.set_random_seed(seed)
    x = keras.Input((16,), name="x")
    y = layers.Dense(300, "tanh")(x)
    return keras.Model(x, layers.Dense(4, name="scores")(y))


@pytest.fixture
def tiny_files(monkeypatch):
    """Has files hold 20 kB instead of 2 GiB."""
    with monkeypatch.context() as patch:
        patch.setitem(options.LARGEST, "onnx", 20_000)
        yield patch


def assert_answers(path, model):
    (found,) = run(path, {"x": X}).values()
    expected = model.predict(X, verbose=0)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@NOT_BY_TF2ONNX
def test_weights_that_a_file_cannot_hold_are_beside_it(tmp_path, tiny_files):
    model, path = network(), tmp_path / "net.onnx"
    data = tmp_path / "net.onnx.data"
    given = {"check_data": X, "labels": list("abcd"), "verbose": False}
    report = kc.export(model, path, **given)
    assert sorted(tmp_path.iterdir()) == [path, data]
    assert data.stat().st_size > 20_000 > path.stat().st_size
    assert report.size_bytes == data.stat().st_size + path.stat().st_size
    assert report.data_path == data
    assert "'net.onnx.data', which belongs to it" in str(report)
    assert report.to_dict()["data_path"] == str(data)
    assert kc.read_card(path)["labels"] == {"scores": list("abcd")}
    assert_answers(path, model)
    # A file that holds its weights replaces both.
    tiny_files.undo()
    report = kc.export(model, path, verbose=False)
    assert report.data_path is None
    assert list(tmp_path.iterdir()) == [path]
    assert_answers(path, model)


@NOT_BY_TF2ONNX
def test_a_wrong_file_is_kept_together_with_its_weights(tmp_path, tiny_files):
    """The converter gets another model than the one that is compared."""
    model, other, path = network(), network(seed=1), tmp_path / "net.onnx"
    change, backend = job.to_inference_program, keras.config.backend()
    wrong = partial(change, other)
    tiny_files.setattr(
        job, "to_inference_program", lambda _, *rest: wrong(*rest)
    )
    tiny_files.setattr(exporter, "backends_for", lambda _: [backend])
    with pytest.raises(kc.ParityError) as caught:
        kc.export(model, path, check_data=X, verbose=False)
    kept = tmp_path / "net.beyond_tolerance.onnx"
    report = caught.value.report
    assert report.path == kept
    assert sorted(tmp_path.iterdir()) == [kept, report.data_path]
    assert_answers(kept, other)


@NOT_BY_TF2ONNX
@pytest.mark.large
def test_a_network_of_more_than_2_gib_is_written(tmp_path):
    """540 million weights, of which few enter an answer."""
    keras.utils.set_random_seed(0)
    x = keras.Input((8,), dtype="int32", name="tokens")
    table = layers.Embedding(8_437_500, 64, name="table")
    y = layers.GlobalAveragePooling1D()(table(x))
    model = keras.Model(x, layers.Dense(4, name="scores")(y))
    tokens = np.random.default_rng(0).integers(0, 8_437_500, (6, 8))
    tokens = tokens.astype("int32")
    path = tmp_path / "net.onnx"
    report = kc.export(model, path, check_data=tokens, verbose=False)
    assert report.size_bytes > 2**31 > path.stat().st_size
    assert report.holds
    assert kc.read_card(path)["inputs"]["tokens"]["shape"] == [None, 8]
    (found,) = run(path, {"tokens": tokens}).values()
    # NumPy's answer, without a backend.
    rows = keras.ops.take(table.embeddings, tokens, axis=0)
    rows = keras.ops.convert_to_numpy(rows)
    kernel, bias = model.layers[-1].get_weights()
    expected = rows.mean(axis=1) @ kernel + bias
    np.testing.assert_allclose(found, expected, atol=1e-6)
