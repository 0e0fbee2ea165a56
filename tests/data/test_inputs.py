"""A batch is sorted as Keras's `predict` sorts it, or the error says why."""

import warnings

import keras
import numpy as np
import pytest

from keras_cascade.data.inputs import (
    as_input,
    check_shape,
    fit_last_axis,
    input_paths,
    sort_inputs,
)

A, B = np.zeros((6, 2), "float32"), np.ones((6, 2), "float32")


def model(structure):
    """A model whose answer tells its inputs apart."""
    a, b = keras.Input((2,), name="a"), keras.Input((2,), name="b")
    with warnings.catch_warnings():
        # Keras would have the keys of a dict be the names.
        warnings.simplefilter("ignore")
        return keras.Model(structure(a, b), a * 2 + b * 3 + 1)


STRUCTURES = {
    "list": lambda a, b: [a, b],
    "reversed list": lambda a, b: [b, a],
    "dict by the names": lambda a, b: {"a": a, "b": b},
    "dict by other keys": lambda a, b: {"second": a, "first": b},
    "nested dict": lambda a, b: {"x": {"first": b}, "y": a},
}
BATCHES = {
    "list": ([A, B], [B, A]),
    "reversed list": ([B, A], (B, A), {"a": A, "b": B, "unused": A}),
    "dict by the names": ({"b": B, "a": A},),
    "dict by other keys": ({"second": A, "first": B},),
    "nested dict": ({"x": {"first": B}, "y": A},),
}


@pytest.mark.parametrize("structure", STRUCTURES)
def test_a_batch_is_sorted_as_predict_sorts_it(structure):
    network = model(STRUCTURES[structure])
    for batch in BATCHES[structure]:
        found = sort_inputs(batch, input_paths(network.input), "x")
        np.testing.assert_array_equal(
            network.predict(batch, verbose=0),
            found["a"] * 2 + found["b"] * 3 + 1,
        )


@pytest.mark.parametrize("structure", STRUCTURES)
def test_the_names_of_the_inputs_serve_whatever_the_structure(structure):
    network = model(STRUCTURES[structure])
    found = sort_inputs({"a": A, "b": B}, input_paths(network.input), "x")
    assert found["a"] is A and found["b"] is B


def test_keys_count_before_names():
    paths = input_paths(model(lambda a, b: {"b": a, "a": b}).input)
    found = sort_inputs({"a": A, "b": B}, paths, "x")
    assert found["b"] is A and found["a"] is B


def test_a_single_array_is_the_only_input():
    tensor = keras.Input((2,), name="a")
    for structure in (tensor, [tensor], {"key": tensor}):
        found = sort_inputs(A, input_paths(structure), "x")
        assert found["a"] is A


def test_a_dict_may_lack_inputs_that_are_not_needed_but_a_list_may_not():
    paths = input_paths(model(STRUCTURES["list"]).input)
    assert list(sort_inputs({"b": B}, paths, "x", ["b"])) == ["b"]
    assert sort_inputs([A, B], paths, "x", ["b"])["b"] is B
    with pytest.raises(ValueError, match="1 arrays without names"):
        sort_inputs(B, paths, "x", ["b"])
    assert sort_inputs(B, paths, "x", ["b"], alone=True)["b"] is B


@pytest.mark.parametrize(
    ("structure", "batch", "message"),
    [
        ("list", A, "inputs of the model, 'a', 'b': it has 1 arrays without"),
        ("list", [A, B, B], "it has 3 arrays without names"),
        ("list", {"a": A, "c": B}, "it has 'a', 'c' and lacks 'b'"),
        ("list", {}, "it has none and lacks 'a', 'b'"),
        (
            "dict by other keys",
            {"first": B},
            "'second'.*lacks 'second'",
        ),
        ("nested dict", {"y": A}, "'x/first', 'y'.*lacks 'x/first'"),
    ],
)
def test_a_mismatch_names_what_was_received_and_what_is_possible(
    structure, batch, message
):
    paths = input_paths(model(STRUCTURES[structure]).input)
    with pytest.raises(
        ValueError, match=f"check_data does.*{message}"
    ) as error:
        sort_inputs(batch, paths, "check_data")
    assert str(error.value).startswith("check_data does not fit")
    assert "Pass a dict with an array for each" in str(error.value)


@pytest.mark.parametrize("given", [(6,), (6, 1), (6, 1, 1)])
@pytest.mark.parametrize("taken", [(None,), (None, 1)])
def test_the_last_axis_is_fitted_as_a_functional_fits_it(given, taken):
    tensor = keras.Input(batch_shape=taken)
    network = keras.Model(tensor, tensor * 1)
    x = np.arange(6, dtype="float64").reshape(given)
    fitted = as_input(x, taken, "float32")
    if len(given) - len(taken) > 1:
        assert fitted.shape == given
        return
    expected = network.predict(x, verbose=0)
    np.testing.assert_array_equal(fitted, expected)
    assert fitted.dtype == "float32" and fitted.shape == expected.shape
    tensor = fit_last_axis(keras.ops.convert_to_tensor(x), taken)
    assert tuple(tensor.shape) == expected.shape


def test_open_sizes_take_any_shape():
    check_shape(A, (None, None), "a", "x")
    with pytest.raises(ValueError, match=r"x: input 'a'.*\(2,\).*takes \(3,\)"):
        check_shape(A, (None, 3), "a", "x")
