import time

import keras
import pytest

from keras_cascade._reporting.messages import closest
from keras_cascade.graph.graph import read_graph
from keras_cascade.graph.paths import all_addresses, is_exact, names_of, select

TOP = [
    "x",
    "conv1_a",
    "conv1_b",
    "inner:0",
    "shared:0",
    "shared:1",
    "inner:1",
    "multiply",
]
INNER = ["inner_x", "dense_in", "dense_out"]


def _select(network, pattern):
    addresses = select(read_graph(network), pattern)
    return ["/".join(address) for address in addresses]


@pytest.mark.parametrize(
    ("pattern", "selected"),
    [
        # exact
        ("conv1_a", ["conv1_a"]),
        ("x", ["x"]),
        ("multiply", ["multiply"]),
        # globs
        ("conv1_*", ["conv1_a", "conv1_b"]),
        ("conv1_?", ["conv1_a", "conv1_b"]),
        ("conv1_[b-z]", ["conv1_b"]),
        ("*", TOP),
        # from the end
        ("-1", ["multiply"]),
        ("-2", ["inner:1"]),
        ("-8", ["x"]),
        # ranges
        ("conv1_a..shared:0", TOP[1:5]),
        ("..conv1_a", TOP[:2]),
        ("shared:1..", TOP[5:]),
        ("-2..", TOP[-2:]),
        ("-4..-2", TOP[-4:-1]),
        ("..", TOP),
        ("conv1_a..conv1_a", ["conv1_a"]),
        ("shared..shared", ["shared:0", "shared:1"]),
        # calls
        ("shared", ["shared:0", "shared:1"]),
        ("shared:0", ["shared:0"]),
        ("shared:1", ["shared:1"]),
        ("shared:*", ["shared:0", "shared:1"]),
        ("*:1", ["shared:1", "inner:1"]),
        # nested
        ("inner:1/dense_in", ["inner:1/dense_in"]),
        ("inner/dense_in", ["inner:0/dense_in", "inner:1/dense_in"]),
        ("inner:1/-1", ["inner:1/dense_out"]),
        ("-2/dense_*", ["inner:1/dense_in", "inner:1/dense_out"]),
        ("inner:0/..dense_in", ["inner:0/inner_x", "inner:0/dense_in"]),
        ("*/dense_out", ["inner:0/dense_out", "inner:1/dense_out"]),
        # any depth
        ("**/conv1_a", ["conv1_a"]),
        ("**/dense_out", ["inner:0/dense_out", "inner:1/dense_out"]),
        ("**/**/dense_out", ["inner:0/dense_out", "inner:1/dense_out"]),
        ("inner:0/**", [f"inner:0/{name}" for name in INNER]),
        # nothing
        ("nothing", []),
        ("nothing*", []),
        ("conv1_a/inside", []),
        ("inner/nothing", []),
        ("-9", []),
        ("nothing..", []),
        ("conv1_b..conv1_a", []),
        ("shared:2", []),
        ("CONV1_A", []),
    ],
)
def test_a_pattern_selects(grammar, pattern, selected):
    assert _select(grammar, pattern) == selected


def test_two_stars_select_every_call_at_every_depth(grammar):
    inside = {f"inner:{i}/{name}" for i in (0, 1) for name in INNER}
    selected = _select(grammar, "**")
    assert set(selected) == {*TOP, *inside}
    assert len(selected) == len(TOP) + len(inside)
    addresses = all_addresses(read_graph(grammar))
    assert set(selected) == {"/".join(address) for address in addresses}


def test_two_stars_go_any_number_of_levels_down():
    x = keras.Input((4,), name="x")
    network = keras.Sequential([x, keras.layers.Dense(4, name="leaf")])
    network.name = "level0"
    for level in (1, 2):
        x = keras.Input((4,), name="x")
        network = keras.Model(x, network(x), name=f"level{level}")
    assert _select(network, "**/leaf") == ["level1/level0/leaf"]
    assert _select(network, "level1/**/leaf") == ["level1/level0/leaf"]
    assert _select(network, "-1/-1/-1") == ["level1/level0/leaf"]


@pytest.mark.parametrize("pattern", ["", "/", "a//b", "/a", "a/"])
def test_a_path_with_an_empty_segment_is_refused(grammar, pattern):
    with pytest.raises(ValueError, match=r"is no path.*empty segments"):
        _select(grammar, pattern)


def test_minus_one_needs_a_network_with_one_output():
    x = keras.Input((4,), name="x")
    ends = [keras.layers.Dense(2, name=name)(x) for name in ("p", "q")]
    network = keras.Model(x, ends, name="fork")
    with pytest.raises(ValueError, match=r"'fork' has 2.*'p', 'q'"):
        _select(network, "-1")


def test_counting_from_the_end_goes_on_where_there_are_several_outputs():
    x = keras.Input((4,), name="x")
    hidden = keras.layers.Dense(4, name="hidden")(x)
    out = keras.layers.Dense(2, name="out")(hidden)
    network = keras.Model(x, [hidden, out])
    assert _select(network, "-2") == ["hidden"]
    assert _select(network, "-3..-2") == ["x", "hidden"]


@pytest.mark.parametrize(
    ("pattern", "exact"),
    [
        ("conv1", True),
        ("a/b", True),
        ("-1", True),
        ("layer:1", True),
        ("conv*", False),
        ("conv?", False),
        ("conv[12]", False),
        ("**", False),
        ("a..b", False),
        ("a/..", False),
    ],
)
def test_exact_patterns_select_one_operation_only(pattern, exact):
    assert is_exact(pattern) is exact


def test_a_layers_path_has_no_numbers_of_calls():
    assert names_of(("inner:1", "shared:0", "out")) == (
        "inner",
        "shared",
        "out",
    )


def test_a_colon_in_a_layers_name_is_no_call():
    assert names_of(("block:conv", "a:b:1")) == ("block:conv", "a:b")


def test_the_closest_paths_are_named():
    paths = ["block1_conv1", "block1_conv2", "pool"]
    assert "'block1_conv1'" in closest("block1_conv", paths)
    assert "'block1_conv2'" in closest("block1_conv", paths)
    assert "pool" not in closest("block1_conv", paths)
    assert "'block1_conv1'" in closest("conv1", paths)
    assert closest("zzz", paths) == ""


def test_levels_that_are_left_open_many_times_are_one():
    inputs = keras.Input((2,), name="x")
    deep = keras.layers.Dense(2, name="deep")(inputs)
    inner = keras.Model(inputs, deep, name="inner")
    network = keras.Model(inputs, inner(inputs))
    every = [*_select(network, "*"), "inner/x", "inner/deep"]
    assert sorted(_select(network, "**/" * 5000 + "*")) == sorted(every)
    assert _select(network, "**/*/" * 5000 + "*") == []


def test_a_pattern_that_matches_in_many_ways_is_quick():
    x = keras.Input((2,), name="x")
    model = keras.Model(x, keras.layers.ReLU(name="leaf")(x))
    for depth in range(24):
        model.name = f"level_{depth}"
        outer = keras.Input((2,), name="x")
        model = keras.Model(outer, model(outer))
    start = time.monotonic()
    found = _select(model, "**/*/" * 12 + "leaf")
    assert found == [
        "/".join([f"level_{i}" for i in range(23, -1, -1)] + ["leaf"])
    ]
    assert _select(model, "**/*/" * 500 + "leaf") == []
    assert time.monotonic() - start < 20


@pytest.mark.parametrize(
    ("pattern", "selected"),
    [
        ("block.0.conv", ["block-0-conv"]),
        ("block.*", ["block-0-conv", "block-1"]),
        ("block.0.conv..block.1", ["block-0-conv", "block-1"]),
        ("block-1", ["block-1"]),
        ("block..1", []),
    ],
)
def test_paths_of_pytorch_have_dots(pattern, selected):
    x = keras.Input((3,), name="x")
    y = keras.layers.Dense(3, name="block-0-conv")(x)
    network = keras.Model(x, keras.layers.ReLU(name="block-1")(y))
    assert _select(network, pattern) == selected
