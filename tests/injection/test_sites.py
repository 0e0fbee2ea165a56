"""Where features enter: which call, its shape, its channels, its label."""

import keras
import pytest
from keras import layers

from keras_cascade.graph.graph import read_graph
from keras_cascade.injection.arguments import Injection
from keras_cascade.injection.sites import find_sites, site_at_input


def network():
    tokens = keras.Input((4,), dtype="int32", name="tokens")
    inner_x = keras.Input((4, 6), name="inner_x")
    inner = keras.Model(
        inner_x, layers.Dense(6, name="dense")(inner_x), name="inner"
    )
    other_x = keras.Input((4, 6), name="other_x")
    other = keras.Model(
        other_x, layers.Dense(6, name="dense")(other_x), name="other"
    )
    shared = layers.Dense(6, name="shared")
    x = layers.Embedding(9, 6, name="embed")(tokens)
    x = other(inner(x))
    x = inner(shared(shared(x)))
    x, state = layers.GRU(6, return_state=True, name="gru")(x)
    x = layers.Add(name="sum")([x, state])
    return keras.Model(tokens, layers.Dense(2, name="out")(x), name="reader")


@pytest.fixture(scope="module")
def graph():
    return read_graph(network())


def find(graph, path, merge="add"):
    injections = {"style": (Injection(path, merge),)}
    (site,) = find_sites(graph, injections, "downstream")
    return site


def error(graph, path):
    with pytest.raises(ValueError) as caught:
        find(graph, path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("inject['style']")
    return message


@pytest.mark.parametrize(
    ("path", "address"),
    [
        ("embed", ("embed",)),
        ("downstream/embed", ("embed",)),
        ("other/dense", ("other", "dense")),
        ("downstream/other/dense", ("other", "dense")),
        ("shared:1", ("shared:1",)),
        ("inner:0", ("inner:0",)),
        ("emb*", ("embed",)),
        ("-1", ("out",)),
        ("-2", ("sum",)),
    ],
)
def test_a_path_is_one_call(graph, path, address):
    assert find(graph, path).address == address


def test_a_site_has_the_shape_of_the_calls_output(graph):
    site = find(graph, "embed")
    assert (site.shape, site.width, site.channel_axis) == ((4, 6), 6, -1)


def test_labels_name_what_enters_where_and_are_unique(graph):
    injections = {
        "style": (
            Injection("embed"),
            Injection("shared:1"),
            Injection("embed"),
        ),
        "tone": (Injection("other/dense"), Injection("out")),
    }
    sites = find_sites(graph, injections, "downstream")
    assert [site.label for site in sites] == [
        "style_into_embed",
        "style_into_shared_1",
        "style_into_embed_1",
        "tone_into_dense",
        "tone_into_out",
    ]


@pytest.mark.parametrize(
    ("data_format", "axis"), [("channels_last", -1), ("channels_first", 0)]
)
def test_a_map_has_the_data_format_of_its_network(data_format, axis):
    x = inputs = keras.Input((3, 3, 3))
    x = layers.Activation("relu", name="hidden")(x)
    x = layers.GlobalAveragePooling2D(data_format=data_format)(x)
    site = find(read_graph(keras.Model(inputs, x)), "hidden")
    assert (site.data_format, site.channel_axis) == (data_format, axis)


def test_a_layer_that_merges_has_the_dtype_policy_of_its_layer():
    inputs = keras.Input((3,))
    x = layers.Dense(3, dtype="mixed_float16", name="half")(inputs)
    site = find(read_graph(keras.Model(inputs, x)), "half")
    assert keras.dtype_policies.get(site.dtype).name == "mixed_float16"


def test_features_join_an_input_by_concatenation():
    inputs = keras.Input((3,), name="x")
    graph = read_graph(keras.Model(inputs, layers.Dense(2)(inputs)))
    site = site_at_input(graph, 0)
    assert site.address == ("x",)
    assert site.injection.merge == "concat"


def test_an_unknown_layer_names_the_closest(graph):
    assert error(graph, "embd") == (
        "inject['style'] names 'embd', which is no layer of downstream "
        "'reader'. Closest: 'embed'. list_taps(network) shows them all."
    )


def test_a_pattern_must_mean_one_operation(graph):
    message = error(graph, "*e*")
    assert "which is" in message
    assert "operations of downstream 'reader' ('tokens', 'embed'" in message
    assert message.endswith("Give a list with one for each.")


def test_a_layer_called_twice_needs_the_number_of_the_call(graph):
    message = error(graph, "shared")
    assert "2 operations of downstream 'reader' ('shared:0', 'shared:1')" in (
        message
    )
    assert message.endswith("Say which call.")


def test_the_inside_of_a_network_called_twice_cannot_be_entered(graph):
    message = error(graph, "inner:0/dense")
    assert "the network 'inner' is called 2 times" in message
    assert "Inject after a call as a whole: 'inner:0' or 'inner:1'." in message


def test_a_network_inside_two_others_cannot_be_entered():
    x = keras.Input((4, 6))
    core = keras.Model(x, layers.Dense(6, name="leaf")(x), name="core")
    sides = []
    for name in ("left", "right"):
        x = keras.Input((4, 6))
        sides.append(keras.Model(x, core(x), name=name))
    x = keras.Input((4, 6))
    pair = layers.Subtract()([side(x) for side in sides])
    message = error(read_graph(keras.Model(x, pair)), "left/core/leaf")
    assert "the network 'core' is called 2 times" in message
    assert "as a whole: 'left/core' or 'right/core'." in message


def test_a_call_that_gives_several_tensors_cannot_be_entered(graph):
    message = error(graph, "gru")
    assert "enters 'gru', which gives 2 tensors" in message
    assert "Say which: 'gru:out0', 'gru:out1'." in message


def test_a_layer_without_floats_cannot_be_entered(graph):
    message = error(graph, "tokens")
    assert "enters 'tokens', which gives int32; features are floats" in message
    assert "such as an Embedding" in message


def test_an_open_width_cannot_be_entered():
    inputs = keras.Input((None,), name="x")
    x = layers.Activation("relu", name="hidden")(inputs)
    site = find(read_graph(keras.Model(inputs, x)), "hidden")
    with pytest.raises(ValueError) as caught:
        _ = site.width
    message = str(caught.value)
    assert "inject['style'] enters 'hidden', whose width is open: (None,)" in (
        message
    )
