import re

import keras
import numpy as np
import pytest

import keras_cascade as kc
from keras_cascade.graph.graph import read_graph
from keras_cascade.graph.tap_listing import list_taps
from keras_cascade.graph.taps import resolve_taps

layers = keras.layers


def _taps(network, taps):
    found = resolve_taps(read_graph(network), taps, "upstream")
    return {tap.name: tap.path for tap in found}


# --- Words -------------------------------------------------------------------


def test_a_path_is_one_tap_called_after_its_operation(grammar):
    assert _taps(grammar, "conv1_a") == {"conv1_a": "conv1_a"}
    assert _taps(grammar, "-1") == {"multiply": "multiply"}


def test_a_list_gives_a_tap_a_match_in_its_order(grammar):
    assert _taps(grammar, ["multiply", "conv1_*"]) == {
        "multiply": "multiply",
        "conv1_a": "conv1_a",
        "conv1_b": "conv1_b",
    }


def test_a_tensor_that_two_patterns_select_is_one_tap(grammar):
    assert list(_taps(grammar, ["conv1_b", "conv1_*"])) == [
        "conv1_b",
        "conv1_a",
    ]


def test_a_mapping_names_its_taps(grammar):
    taps = {"low": "conv1_a", "deep": "inner:1/dense_in", "last": "*tiply"}
    assert _taps(grammar, taps) == {
        "low": "conv1_a",
        "deep": "inner:1/dense_in",
        "last": "multiply",
    }


def test_two_names_may_mean_one_tensor(grammar, rows):
    cascade = kc.build_cascade(
        grammar,
        taps={"one": "conv1_a", "two": "conv1_a"},
        adapters=None,
        fusion=None,
    )
    outputs = cascade(rows)
    np.testing.assert_array_equal(
        keras.ops.convert_to_numpy(outputs["one"]),
        keras.ops.convert_to_numpy(outputs["two"]),
    )


@pytest.mark.parametrize(
    "path", ["upstream/conv1_a", "upstream/inner:0/dense_in", "upstream/-1"]
)
def test_paths_may_begin_with_the_block(grammar, path):
    short = path.removeprefix("upstream/")
    assert _taps(grammar, path) == _taps(grammar, short)


def test_a_network_called_upstream_keeps_its_inside():
    x = keras.Input((4,), name="x")
    inner_x = keras.Input((4,), name="inner_x")
    leaf = layers.Dense(2, name="leaf")(inner_x)
    inner = keras.Model(inner_x, leaf, name="upstream")
    network = keras.Model(x, inner(x))
    assert _taps(network, "upstream/leaf") == {"leaf": "upstream/leaf"}


def test_names_that_collide_are_numbered(grammar):
    taps = _taps(grammar, ["inner:0/dense_in", "inner:1/dense_in"])
    assert taps == {
        "dense_in": "inner:0/dense_in",
        "dense_in_1": "inner:1/dense_in",
    }


def test_names_are_made_identifiers():
    x = keras.Input((4,), name="x")
    y = layers.Dense(4, name="1x1-conv")(x)
    network = keras.Model(x, layers.Dense(4, name="block-out")(y))
    assert _taps(network, ["1x1-conv", "block-out"]) == {
        "tap_1x1_conv": "1x1-conv",
        "block_out": "block-out",
    }


def test_calls_get_names_of_their_own(grammar):
    assert _taps(grammar, ["shared:*"]) == {
        "shared_0": "shared:0",
        "shared_1": "shared:1",
    }


def test_no_taps_are_every_output():
    x = keras.Input((4,), name="x")
    p, q = (layers.Dense(2, name=name)(x) for name in ("p", "q"))
    assert _taps(keras.Model(x, p), None) == {"output": "p"}
    assert _taps(keras.Model(x, [p, q]), None) == {
        "output": "p",
        "output_1": "q",
    }
    assert _taps(keras.Model(x, {"b": p, "a": q}), None) == {"b": "p", "a": "q"}


def test_each_output_of_a_layer_with_several_is_a_tap_of_its_own(rows):
    x = keras.Input((5, 4), name="x")
    outputs = layers.LSTM(3, return_state=True, name="lstm")(x)
    network = keras.Model(x, outputs)
    cascade = kc.build_cascade(network, adapters=None, fusion=None)
    x = np.stack([rows] * 5, axis=1)
    expected = network(x)
    given = cascade(x)
    assert list(given) == ["output", "output_1", "output_2"]
    for one, other in zip(expected, given.values(), strict=True):
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(one),
            keras.ops.convert_to_numpy(other),
            rtol=1e-5,
            atol=1e-6,
        )


def test_a_tap_knows_its_shape_and_dtype(grammar):
    (tap,) = resolve_taps(read_graph(grammar), ["conv1_a"], "upstream")
    assert tap.shape == (None, 4)
    assert tap.dtype == "float32"


def test_the_resolved_path_of_a_numbered_operation_is_kept(rows):
    def network():
        x = keras.Input((4,), name="x")
        return keras.Model(x, layers.Dense(4, name="h")(x * 2.0) + 1.0)

    first, second = network(), network()
    for net in (first, second):
        assert _taps(net, ["multiply", "add"]) == {
            "multiply": "multiply",
            "add": "add",
        }
    names = [op.name for op in second.operations]
    assert "multiply" not in names


# --- Mistakes ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("taps", "message"),
    [
        ("conv1_aa", "No tap at 'conv1_aa'.*Closest: 'conv1_a'.*list_taps"),
        ("conv9_*", r"No tap matches 'conv9_\*'.*list_taps"),
        (["conv1_a", "nope"], "No tap at 'nope'"),
        ({"low": "nope/inside"}, "No tap at 'nope/inside'"),
        ("conv1_a/inside", "'conv1_a' is a Dense, which has no graph"),
        ("-99", "No tap at '-99'"),
        ("shared", "called 2 times; say which call: 'shared:0' or 'shared:1'"),
        ("inner/dense_in", "'inner:0/dense_in' or 'inner:1/dense_in'"),
        ({"low": "conv1_*"}, r"'conv1_\*' selects 2 .*Spell the path out"),
        ({"1low": "conv1_a"}, "'1low' is no identifier"),
        ({"a/b": "conv1_a"}, "'a/b' is no identifier"),
        ({"": "conv1_a"}, "'' is no identifier"),
        ({3: "conv1_a"}, "3 is no identifier"),
        ([], "selects nothing"),
        ({}, "selects nothing"),
        ("", "selects nothing"),
        ([3], "a path as text; received 3"),
        ("a//b", "is no path"),
    ],
)
def test_a_mistaken_tap_is_explained_in_one_line(grammar, taps, message):
    with pytest.raises(ValueError, match=message) as error:
        kc.build_cascade(grammar, taps=taps)
    assert "\n" not in str(error.value)
    if taps:
        assert re.search(r"'grammar'|identifier|path|called", str(error.value))


def test_an_argument_of_another_type_is_a_type_error(grammar):
    with pytest.raises(TypeError, match="taps must be None, a path"):
        kc.build_cascade(grammar, taps=3)


def test_of_an_operation_with_several_tensors_one_is_tapped():
    x = keras.Input((5, 4), name="x")
    outputs = layers.LSTM(3, return_state=True, name="lstm")(x)
    network = keras.Model(x, outputs[0], name="states")
    with pytest.raises(ValueError, match=r"'lstm'.*gives 3 tensors"):
        kc.build_cascade(network, taps="lstm")
    outputs = [f"lstm:out{number}" for number in range(3)]
    assert [tap.path for tap in list_taps(network)] == ["x", *outputs]


def test_a_name_that_keras_gives_to_another_layer_warns():
    layers.Dense(2)
    x = keras.Input((4,), name="x")
    y = layers.Dense(4)(x)
    network = keras.Model(x, layers.Dense(4)(y))
    # Keras: dense_1, dense_2; within the network: dense, dense_1.
    assert [layer.name for layer in network.layers[1:]] == [
        "dense_1",
        "dense_2",
    ]
    with pytest.warns(UserWarning, match="'dense_1' is the operation that"):
        taps = resolve_taps(read_graph(network), ["dense_1"], "upstream")
    assert taps[0].reference == ("dense_1", 0)
    graph = read_graph(network)
    assert graph.by_key["dense_1"].operation is network.layers[2]
    assert _taps(network, "dense") == {"dense": "dense"}  # nothing to warn of


# --- Names that the network has for its tensors -----------------------------


def test_levels_of_a_pyramid_are_tapped_by_their_names(pyramid):
    images = np.random.default_rng(0).normal(size=(2, 8, 8, 3))
    reference = keras.Model(pyramid.input, pyramid.pyramid_outputs)(images)
    cascade = kc.build_cascade(
        pyramid, taps=["P3", "P4"], adapters=None, fusion=None
    )
    given = cascade(images)
    assert list(given) == ["P3", "P4"]
    for name, expected in reference.items():
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(given[name]),
            keras.ops.convert_to_numpy(expected),
        )


def test_a_name_of_the_network_may_be_given_another_name(pyramid):
    assert _taps(pyramid, {"deep": "P4", "shallow": "P3"}) == {
        "deep": "P4",
        "shallow": "low",
    }


def test_a_glob_selects_names_where_no_operation_matches(pyramid):
    assert list(_taps(pyramid, ["P[34]"])) == ["P3", "P4"]


def test_an_output_that_is_given_by_name_is_tapped_by_it(pyramid):
    (tap,) = resolve_taps(read_graph(pyramid), "sum", "upstream")
    assert (tap.name, tap.path) == ("sum", "add")


def test_an_operation_of_that_name_takes_precedence(pyramid):
    pyramid.pyramid_outputs = {"high": pyramid.get_layer("low").output}
    assert _taps(pyramid, "high") == {"high": "high"}


def test_names_inside_a_nested_network_are_paths_too(pyramid):
    x = keras.Input((8, 8, 3), name="image")
    outer = keras.Model(x, pyramid(x)["sum"], name="outer")
    assert _taps(outer, "pyramid/P4") == {"P4": "pyramid/P4"}
    assert _taps(outer, "pyramid/P3") == {"P3": "pyramid/low"}


def test_a_wrong_name_is_answered_with_the_networks_names(pyramid):
    with pytest.raises(ValueError, match=r"No tap at 'P5'.*'P[34]'"):
        _taps(pyramid, "P5")


def test_a_call_of_several_tensors_is_answered_with_their_names(pyramid):
    with pytest.raises(ValueError, match=r"gives 2 tensors.*names: 'P4'"):
        _taps(pyramid, "split")


def test_outputs_below_a_key_are_numbered():
    x = keras.Input((4,), name="x")
    states = [layers.Dense(2, name=name)(x) for name in ("a", "b")]
    network = keras.Model(x, {"last": states[-1], "states": states})
    assert _taps(network, None) == {
        "last": "b",
        "states_0": "a",
        "states_1": "b",
    }
