"""Which inputs and outputs of a file are integers, and which are pixels."""

import importlib.util
import json

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc
from keras_cascade.exporting.integer_types import integer_types, pixel_inputs
from keras_cascade.exporting.samples import store_samples
from keras_cascade.graph.flattening import as_program

DTYPES = {"image": "float32", "ids": "int32", "side": "float32"}
random = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("float32", {}),
        ("uint8", {"image": "uint8", "side": "uint8"}),
        ({"image": "uint8"}, {"image": "uint8"}),
        ({"image": "uint8", "side": "float32"}, {"image": "uint8"}),
        ({"side": "int8", "ids": "int32"}, {"side": "int8"}),
        ({}, {}),
    ],
)
def test_ids_stay_ids(given, found):
    assert integer_types("input_dtype", given, DTYPES) == found


@pytest.mark.parametrize(
    ("given", "dtypes", "message"),
    [
        ({"img": "uint8"}, DTYPES, "no input 'img'. There are: 'image', 'i"),
        ({"ids": "uint8"}, DTYPES, "'ids' is int32.*can be 'int32'; received"),
        (
            {"side": "int4"},
            DTYPES,
            "'side' is float32.*'uint8'; received 'int4'",
        ),
        ("int8", {"ids": "int32"}, "'ids' are integers already"),
    ],
)
def test_other_dtypes_are_an_error(given, dtypes, message):
    with pytest.raises(ValueError, match=message):
        integer_types("input_dtype", given, dtypes)


def pixels(top, *shape):
    return np.floor(random.uniform(0, top + 1, (8, *shape))).astype("float32")


SCALED = [layers.Rescaling(1 / 127.5, -1)]
CASES = {
    "bright": (pixels(255, 4, 4, 3), [], True),
    "dark": (pixels(120, 4, 4, 3), [], True),
    "resized, so that they are fractions": (
        random.uniform(0, 120, (8, 4, 4, 3)),
        [],
        True,
    ),
    "nearly black, but scaled": (pixels(9, 4, 4, 3), SCALED, True),
    "scaled after a change of shape": (
        random.uniform(0, 90, (8, 4, 4)),
        [layers.Reshape((4, 4, 1)), *SCALED],
        True,
    ),
    "flat": (pixels(255, 16), [], True),
    "scaled before": (random.uniform(0, 1, (8, 4, 4, 3)), [], False),
    "scaled before, and again": (pixels(1, 4, 4, 3) / 2, SCALED, False),
    "centred": (pixels(255, 4, 4, 3) - 128, SCALED, False),
    "measurements": (random.uniform(0, 90, (8, 5)), [], False),
    "features": (random.uniform(0, 90, (8, 4, 4, 16)), [], False),
    "16 bits": (pixels(4000, 4, 4, 1), [], False),
}


@pytest.mark.parametrize("case", CASES)
def test_pixels_are_recognised(case, tmp_path):
    data, first, expected = CASES[case]
    x = keras.Input(data.shape[1:], name="x")
    y = x
    for layer in first:
        y = layer(y)
    program = as_program(keras.Model(x, layers.Flatten()(y)))
    folder = tmp_path / "samples"
    samples = store_samples(data, program.inputs, folder, "calibration_data")
    found = pixel_inputs(program, samples, ["x"])
    assert found == (("x",) if expected else ())
    assert pixel_inputs(program, samples, []) == ()


@pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None,
    reason="LiteRT files are written by TensorFlow, which is not installed",
)
@pytest.mark.parametrize(
    "image", ["uint8", pytest.param("int8", marks=pytest.mark.large)]
)
def test_a_file_takes_bytes_of_dark_images_beside_ids(image, tmp_path):
    from ai_edge_litert.interpreter import Interpreter

    keras.utils.set_random_seed(0)
    seen = keras.Input((6, 6, 3), name="seen")
    side = keras.Input((3,), name="side")
    ids = keras.Input((2,), dtype="int32", name="ids")
    y = layers.Conv2D(4, 3)(layers.Rescaling(1 / 127.5, -1)(seen))
    parts = [layers.Embedding(9, 4, embeddings_initializer="normal")(ids), y]
    parts = [side, *map(layers.Flatten(), parts)]
    y = layers.Dense(5)(layers.Concatenate()(parts))
    model = keras.Model({"seen": seen, "side": side, "ids": ids}, y)
    data = {
        "seen": np.floor(random.uniform(0, 121, (32, 6, 6, 3))),
        "side": random.normal(size=(32, 3)),
        "ids": random.integers(0, 9, (32, 2)),
    }
    path = tmp_path / "file.tflite"
    report = kc.export(
        model,
        path,
        quantize="int8",
        calibration_data=data,
        check_data=data,
        input_dtype={"seen": image, "side": "int8"},
        output_dtype="uint8",
        verbose=False,
    )
    zero = {"uint8": 0, "int8": -128}[image]
    found = report.integers["inputs"]["seen"]
    assert (found.dtype, found.scale, found.zero_point) == (image, 1.0, zero)
    assert f"{image}, scale 1, zero point {zero}" in str(report)
    card = kc.read_card(path)["integers"]
    assert card["inputs"]["seen"]["scale"] == 1
    assert json.loads(json.dumps(report.to_dict()))["integers"] == card
    runner = Interpreter(str(path)).get_signature_runner()
    (result,) = runner.get_output_details()
    numbers = {**card["inputs"], **card["outputs"]}
    given = {
        "seen": (data["seen"] + zero).astype(image),
        "ids": data["ids"].astype("int32"),
        "side": np.clip(
            np.round(data["side"] / numbers["side"]["scale"])
            + numbers["side"]["zero_point"],
            -128,
            127,
        ).astype("int8"),
    }
    answers = runner(**given)[result].astype("float32")
    assert runner(**given)[result].dtype == "uint8"
    answers -= numbers[result]["zero_point"]
    answers *= numbers[result]["scale"]
    expected = model.predict(data, verbose=0)
    assert np.abs(answers - expected).mean() < 0.05 * expected.std(0).mean()
