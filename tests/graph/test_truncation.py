import keras
import numpy as np
import pytest

import keras_cascade as kc


def test_the_network_ends_where_the_path_says(grammar, rows, same):
    expected = keras.Model(grammar.input, grammar.get_layer("conv1_b").output)(
        rows
    )
    result = kc.truncate(grammar, "conv1_b")
    same(expected, result(rows))
    assert result.name == "grammar"


def test_the_layers_after_it_are_gone(grammar):
    result = kc.truncate(grammar, "conv1_b")
    assert [variable.path for variable in result.variables] == [
        "grammar/conv1_a/kernel",
        "grammar/conv1_a/bias",
        "grammar/conv1_b/kernel",
        "grammar/conv1_b/bias",
    ]


def test_the_original_stays_as_it_is(grammar, state, same):
    before = state(grammar)
    result = kc.truncate(grammar, "inner:0/dense_in")
    for variable in result.variables:
        variable.assign(np.zeros(variable.shape, variable.dtype))
    same(before, state(grammar))


def test_a_network_can_end_inside_a_nested_one(grammar, rows, same):
    hidden = keras.Model(grammar.input, grammar.get_layer("conv1_b").output)(
        rows
    )
    expected = grammar.get_layer("inner").get_layer("dense_in")(hidden)
    result = kc.truncate(grammar, "inner:0/dense_in")
    same(expected, result(rows))
    assert not any("dense_out" in v.path for v in result.variables)


def test_the_result_is_stock_keras_and_loads(grammar, rows, same, tmp_path):
    result = kc.truncate(grammar, "shared:0")
    assert type(result) is keras.Model or "Functional" in type(result).__name__
    assert not any(
        type(layer).__module__.startswith("keras_cascade")
        for layer in result._flatten_layers()
    )
    result.save(tmp_path / "part.keras")
    loaded = keras.saving.load_model(tmp_path / "part.keras")
    same(result(rows), loaded(rows))


def test_a_file_can_be_truncated(grammar, rows, same, tmp_path):
    grammar.save(tmp_path / "network.keras")
    result = kc.truncate(str(tmp_path / "network.keras"), "conv1_a")
    same(grammar.get_layer("conv1_a")(rows), result(rows))


def test_inputs_that_are_not_needed_are_gone():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    low = keras.layers.Dense(3, name="low")(a)
    high = keras.layers.Concatenate(name="high")([low, b])
    result = kc.truncate(keras.Model([a, b], high), "low")
    assert [x.name for x in result.inputs] == ["a"]


def test_a_truncated_network_can_be_trained_and_truncated_again(grammar, rows):
    result = kc.truncate(kc.truncate(grammar, "conv1_b"), "conv1_a")
    result.compile("sgd", "mse")
    result.fit(rows, np.zeros((8, 4), "float32"), verbose=0)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("nope", "No tap at 'nope'"),
        ("conv1_*", "selects 2 operations"),
        ("shared", "called 2 times"),
    ],
)
def test_a_path_must_select_one_tensor(grammar, path, message):
    with pytest.raises(ValueError, match=message):
        kc.truncate(grammar, path)
