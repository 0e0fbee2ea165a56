"""Images of any size in the files that torch writes."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc
from tests.exporting.runtimes import run

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "torch", reason="torch's tracing"
)
SAME = {"padding": "same"}
KINDS = {
    "wide": lambda: layers.Conv2D(2, 3, strides=2, **SAME),
    "even": lambda: layers.Conv2D(2, 2, strides=2, **SAME),
    "dilated": lambda: layers.Conv2D(2, 3, dilation_rate=2, **SAME),
    "maximum": lambda: layers.MaxPooling2D(3, 2, **SAME),
    "mean": lambda: layers.AveragePooling2D(3, 1, **SAME),
    "valid": lambda: layers.Conv2D(2, 3, strides=2),
}


def by_torch(path, inputs):
    import torch

    module = torch.export.load(path).module()
    given = {name: torch.as_tensor(x) for name, x in inputs.items()}
    return {k: x.detach().numpy() for k, x in module(**given).items()}


@pytest.mark.parametrize("ending", [".pt2", ".onnx"])
def test_images_of_odd_and_even_sizes(ending, tmp_path):
    x = keras.Input((None, None, 3), name="image")
    parts = {
        name: layers.GlobalAveragePooling2D()(make()(x))
        for name, make in KINDS.items()
    }
    model, path = keras.Model(x, parts), tmp_path / f"file{ending}"
    kc.export(model, path, verbose=False)
    answers = by_torch if ending == ".pt2" else run
    random = np.random.default_rng(0)
    for shape in ((1, 9, 9), (2, 10, 12), (3, 11, 8), (2, 64, 65)):
        image = random.normal(size=(*shape, 3)).astype("float32")
        expected = model.predict(image, verbose=0)
        found = answers(path, {"image": image})
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values, atol=1e-5)


@pytest.mark.parametrize("ending", [".pt2", ".onnx"])
def test_averages_that_a_file_cannot_have_are_an_error(
    ending, tmp_path, monkeypatch
):
    from keras_cascade.exporting import exporter

    monkeypatch.setattr(exporter, "backends_for", lambda _: ["torch"])
    x = keras.Input((None, None, 3), name="image")
    model = keras.Model(x, layers.AveragePooling2D(3, 2, **SAME)(x))
    match = r"Average pooling with padding='same'.*padding='valid'"
    with pytest.raises(RuntimeError, match=match):
        kc.export(model, tmp_path / f"file{ending}", verbose=False)
    assert not any(tmp_path.iterdir())
