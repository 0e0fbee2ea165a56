"""Taps of several upstreams: the first segment of a path names which."""

import keras
import pytest
from keras import layers

from keras_cascade.graph.graph import read_graph
from keras_cascade.graph.taps import resolve_all_taps


def network(*names, name="net"):
    x = inputs = keras.Input((3,), name="x")
    for layer in names:
        x = layers.Dense(3, name=layer)(x)
    return keras.Model(inputs, x, name=name)


@pytest.fixture(scope="module")
def graphs():
    return {
        "shape": read_graph(network("conv1", "conv2", "only_shape")),
        "colour": read_graph(network("conv1", "conv2")),
    }


def resolved(graphs, taps):
    return {
        tap.name: (tap.network, tap.path)
        for tap in resolve_all_taps(graphs, taps)
    }


def error(graphs, taps):
    with pytest.raises(ValueError) as caught:
        resolve_all_taps(graphs, taps)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_path_begins_with_its_upstream(graphs):
    assert resolved(graphs, {"a": "shape/conv1", "b": "colour/-1"}) == {
        "a": ("shape", "shape/conv1"),
        "b": ("colour", "colour/conv2"),
    }


def test_a_reference_is_one_in_its_own_network(graphs):
    (tap,) = resolve_all_taps(graphs, "colour/conv1")
    assert tap.reference == ("conv1", 0)
    assert tap.shape == (None, 3)


def test_a_glob_in_the_first_segment_means_several_upstreams(graphs):
    assert resolved(graphs, ["*/conv*"]) == {
        "conv1": ("shape", "shape/conv1"),
        "conv2": ("shape", "shape/conv2"),
        "conv1_1": ("colour", "colour/conv1"),
        "conv2_1": ("colour", "colour/conv2"),
    }


def test_none_is_every_output_of_every_upstream(graphs):
    assert resolved(graphs, None) == {
        "output": ("shape", "shape/only_shape"),
        "output_1": ("colour", "colour/conv2"),
    }


def test_taps_keep_the_order_in_which_they_were_given(graphs):
    taps = resolve_all_taps(graphs, ["colour/conv2", "shape/conv1"])
    assert [tap.path for tap in taps] == ["colour/conv2", "shape/conv1"]


def test_a_tap_that_two_patterns_select_is_one(graphs):
    taps = resolve_all_taps(graphs, ["*/conv1", "colour/conv*"])
    assert [tap.path for tap in taps] == [
        "shape/conv1",
        "colour/conv1",
        "colour/conv2",
    ]


@pytest.mark.parametrize("path", ["conv1", "upstream/conv1"])
def test_with_one_upstream_its_name_may_be_left_out(path):
    graphs = {"upstream": read_graph(network("conv1"))}
    assert resolved(graphs, path) == {"conv1": ("upstream", "conv1")}


def test_a_single_upstream_may_have_a_name_of_its_own():
    graphs = {"shape": read_graph(network("conv1"))}
    expected = {"conv1": ("shape", "conv1")}
    assert resolved(graphs, "shape/conv1") == expected
    assert resolved(graphs, "conv1") == expected


def test_a_path_that_names_no_upstream_says_which_there_are(graphs):
    assert error(graphs, "shap/conv1") == (
        "Tap 'shap/conv1' names no upstream. Closest: 'shape'. There are "
        "several, 'shape', 'colour': a path begins with one of them, such as "
        "'shape/conv1'."
    )


def test_a_path_without_an_upstream_says_how_to_write_it(graphs):
    message = error(graphs, ["conv1"])
    assert "Tap 'conv1' names no upstream" in message
    assert "such as 'shape/conv1'." in message


def test_a_named_tap_is_in_one_upstream(graphs):
    message = error(graphs, {"a": "*/conv1"})
    assert "Tap 'a': '*/conv1' means 2 upstreams ('shape', 'colour')" in message


def test_a_layer_that_is_not_there_is_looked_for_in_its_upstream(graphs):
    message = error(graphs, "colour/conv3")
    assert "No tap at 'conv3' in colour 'net'. Closest: 'conv" in message


def test_a_glob_may_match_in_some_upstreams_only(graphs):
    expected = {"only_shape": ("shape", "shape/only_shape")}
    assert resolved(graphs, ["*/only*"]) == expected
    assert resolved(graphs, {"only_shape": "*/only*"}) == expected


def test_a_glob_that_matches_in_none_is_an_error(graphs):
    assert "No tap matches 'pool*' in shape 'net'" in error(graphs, "*/pool*")


@pytest.mark.parametrize("taps", [[3], {"a": 3}])
def test_a_tap_is_text(graphs, taps):
    message = error(graphs, taps)
    assert "A tap is a path as text; received 3" in message
    assert "'shape', 'colour'" in message


@pytest.mark.parametrize("taps", [[], {}, ""])
def test_nothing_is_no_tap(graphs, taps):
    assert f"taps={taps!r} selects nothing" in error(graphs, taps)


def test_taps_are_none_text_a_list_or_a_mapping(graphs):
    with pytest.raises(TypeError, match="taps must be None, a path, a list"):
        resolve_all_taps(graphs, 3)


def test_the_name_of_a_tap_is_an_identifier(graphs):
    assert "Tap name 'a b' is no identifier" in error(
        graphs, {"a b": "shape/conv1"}
    )
