"""Each output of an operation that gives several has a path."""

import keras
import numpy as np
import pytest

import keras_cascade as kc

layers = keras.layers
ROWS = np.random.default_rng(0).normal(size=(3, 5, 4)).astype("float32")


def recurrent():
    inputs = keras.Input((5, 4))
    lstm = layers.LSTM(4, return_sequences=True, return_state=True, name="lstm")
    return keras.Model(inputs, list(lstm(inputs)), name="encoder")


def attending():
    inputs = keras.Input((5, 4))
    attention = layers.MultiHeadAttention(2, 3, name="attention")
    found = attention(inputs, inputs, return_attention_scores=True)
    return keras.Model(inputs, found, name="attending")


def splitting():
    inputs = keras.Input((5, 4))
    return keras.Model(inputs, keras.ops.split(inputs, 2, -1), name="halves")


def choosing():
    inputs = keras.Input((5, 4))
    values, places = keras.ops.top_k(inputs, 2)
    places = keras.ops.cast(places, "float32")
    return keras.Model(inputs, [values, places], name="best")


def nested():
    inner, inputs = recurrent(), keras.Input((5, 4))
    return keras.Model(inputs, inner(inputs), name="outer")


CASES = {
    "lstm": (recurrent, ["lstm:out0", "lstm:out1", "lstm:out2"]),
    "attention": (attending, ["attention:out0", "attention:out1"]),
    "split": (splitting, ["split:out0", "split:out1"]),
    "top_k": (choosing, ["top_k:out0"]),
    "nested": (nested, ["encoder/lstm:out0", "encoder/lstm:out2"]),
    "nested call": (nested, ["encoder:out0", "encoder:out1", "encoder:out2"]),
}
POSITIONS = {"nested": [0, 2]}


@pytest.mark.parametrize("case", CASES)
def test_each_output_can_be_tapped_saved_and_rebuilt(case, tmp_path):
    make, paths = CASES[case]
    network = make()
    outputs = [keras.ops.convert_to_numpy(x) for x in network(ROWS)]
    wanted = [outputs[i] for i in POSITIONS.get(case, range(len(paths)))]
    taps = {f"tap{number}": path for number, path in enumerate(paths)}
    cascade = kc.build_cascade(network, taps=taps, adapters=None, fusion=None)
    assert cascade.taps == taps
    cascade.save(tmp_path / "cascade.keras")
    again = keras.saving.load_model(tmp_path / "cascade.keras")
    for model in (cascade, again, again.rebuild(), again.rebuild().rebuild()):
        found = model(ROWS)
        for name, expected in zip(taps, wanted, strict=True):
            array = keras.ops.convert_to_numpy(found[name])
            np.testing.assert_allclose(array, expected, atol=1e-6)


@pytest.mark.parametrize("case", CASES)
def test_the_list_has_all_outputs_and_each_can_be_tapped(case):
    network = CASES[case][0]()
    listed = [tap.path for tap in kc.list_taps(network)]
    for pattern in CASES[case][1]:
        assert len(kc.list_taps(network, pattern)) == 1
    cascade = kc.build_cascade(network, taps=listed, adapters=None, fusion=None)
    assert len(cascade.taps) == len(listed)


def test_a_glob_selects_all_outputs_and_unnamed_taps_have_their_names():
    cascade = kc.build_cascade(
        recurrent(), taps=["lstm:out*"], adapters=None, fusion=None
    )
    assert list(cascade.taps) == ["lstm_out0", "lstm_out1", "lstm_out2"]


def test_outputs_of_a_list_have_names_as_without_taps():
    network = recurrent()
    named = kc.build_cascade(
        network, taps={"h": "output_1", "c": "output_2"}, fusion=None
    )
    by_default = kc.build_cascade(network, adapters=None, fusion=None)
    expected, found = by_default(ROWS), named(ROWS)
    for name, output in (("h", "output_1"), ("c", "output_2")):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(found[name]),
            keras.ops.convert_to_numpy(expected[output]),
        )


def test_a_second_call_has_outputs_of_its_own():
    inputs = keras.Input((5, 4))
    lstm = layers.LSTM(4, return_sequences=True, return_state=True, name="lstm")
    x, _, _ = lstm(inputs)
    _, h, c = lstm(x)
    network = keras.Model(inputs, [h, c])
    cascade = kc.build_cascade(
        network, taps={"c": "lstm:1:out2"}, adapters=None, fusion=None
    )
    expected = keras.ops.convert_to_numpy(network(ROWS)[1])
    found = keras.ops.convert_to_numpy(cascade(ROWS)["c"])
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_a_missing_output_is_an_error_that_names_the_others():
    with pytest.raises(ValueError, match=r"'lstm:out3'.*'lstm:out2'"):
        kc.build_cascade(recurrent(), taps="lstm:out3")
    with pytest.raises(ValueError, match=r"3 tensors.*'lstm:out1'"):
        kc.build_cascade(recurrent(), taps="lstm")


def test_features_enter_one_output_of_several(tmp_path):
    inputs = keras.Input((5, 4))
    first, second = keras.ops.split(inputs, 2, -1)
    x = layers.Concatenate(name="joined")([second, first])
    decoder = keras.Model(inputs, x, name="decoder")
    feature = keras.Input((5, 2), name="feature")
    upstream = keras.Model(feature, layers.Identity(name="same")(feature))
    injection = kc.Injection("split:out1", "add", zero_init=False)
    cascade = kc.build_cascade(
        {"up": upstream},
        decoder,
        adapters=None,
        inject={"output": injection},
        inputs={"up": "feature", "downstream": "rows"},
    )
    extra = ROWS[..., :2] * 3
    data = {"feature": extra, "rows": ROWS}
    cascade.save(tmp_path / "cascade.keras")
    again = keras.saving.load_model(tmp_path / "cascade.keras")
    (gate,) = cascade.blocks["adapters"].weights
    added = extra * keras.ops.convert_to_numpy(gate)
    expected = np.concatenate([ROWS[..., 2:] + added, ROWS[..., :2]], -1)
    for model in (cascade, again, again.rebuild()):
        found = keras.ops.convert_to_numpy(model(data))
        np.testing.assert_allclose(found, expected, atol=1e-5)
