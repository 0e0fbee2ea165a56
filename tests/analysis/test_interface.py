"""Tests check_interface against the cascades that building makes."""

import inspect
import json
from dataclasses import FrozenInstanceError

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc
from tests.analysis.networks import (
    encoder,
    expert,
    passing,
    severities,
    standardised,
)

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 6)).astype("float32")


def picture_network():
    x = inputs = keras.Input((4, 4, 3), name="image")
    x = layers.Conv2D(6, 1, name="conv")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(2, name="out")(x)
    return keras.Model(inputs, x, name="pictures")


def size_of(block):
    return sum(int(np.prod(weight.shape)) for weight in block.weights)


def test_the_arguments_are_those_of_build_cascade_and_data():
    own = dict(inspect.signature(kc.check_interface).parameters)
    assert own.pop("data").default is None
    theirs = inspect.signature(kc.build_cascade).parameters
    assert list(own) == list(theirs)
    assert [x.default for x in own.values()] == [
        x.default for x in theirs.values()
    ]
    assert [x.kind for x in own.values()] == [x.kind for x in theirs.values()]


# Counted by hand: a Dense layer from i to o has i · o + o parameters.
TABLE = {
    "vector to vector": (
        "vector",
        expert(10),
        "DenseAdapter(units=10)",
        7 * 10 + 10,
    ),
    "map to vector": ("map", expert(10), "DenseAdapter(units=10)", 60),
    "steps to vector": ("steps", expert(10), "DenseAdapter(units=10)", 60),
    "vector that fits": ("vector", expert(7), "nothing", 0),
    "map to map": (
        "map",
        picture_network(),
        "SpatialAdapter(size=(4, 4), channels=3)",
        5 * 3 + 3,
    ),
    "steps to map": (
        "steps",
        picture_network(),
        "TokenAdapter(to='map', size=(4, 4), channels=3, "
        "class_token=False, grid=(4, 4))",
        5 * 3 + 3,
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_an_automatic_adapter_is_announced_with_its_size(case):
    tap, downstream, adapter, parameters = TABLE[case]
    report = kc.check_interface(encoder(), downstream, taps={"a": tap})
    (row,) = report.rows
    assert str(row.adapter) == f"auto: {adapter}"
    assert row.adapter.parameters == parameters
    cascade = kc.build_cascade(encoder(), downstream, taps={"a": tap})
    built = cascade.blocks.get("adapters")
    assert (0 if built is None else size_of(built)) == parameters


def test_open_widths_are_shared_as_in_the_built_cascade():
    arguments = {
        "taps": {"a": "map", "b": "vector", "c": "steps"},
        "adapters": {"b": 4},
        "extra_inputs": {"side": (2,)},
    }
    report = kc.check_interface(encoder(), expert(17), **arguments)
    assert [str(row.adapter) for row in report.rows] == [
        "auto: DenseAdapter(units=6)",
        "given: DenseAdapter(units=4)",
        "auto: DenseAdapter(units=5)",
        "none",
    ]
    cascade = kc.build_cascade(encoder(), expert(17), **arguments)
    announced = {row.tap: row.adapter.parameters for row in report.rows}
    for name, adapter in cascade.adapters.items():
        assert announced.pop(name) == size_of(adapter)
    assert announced == {"side": 0}
    assert report.builds


def test_classes_and_settings_are_those_of_the_built_adapters():
    arguments = {
        "taps": ["map", "vector"],
        "adapters": [kc.adapters.PCAAdapter(3, whiten=True), "auto"],
    }
    report = kc.check_interface(encoder(), expert(12), **arguments)
    cascade = kc.build_cascade(encoder(), expert(12), **arguments)
    for row in report.rows:
        built = cascade.adapters[row.tap]
        assert row.adapter.layer == type(built).__name__
        config = built.get_config()
        assert row.adapter.settings.items() <= config.items()
    assert report.rows[0].adapter.settings == {
        "n_components": 3,
        "whiten": True,
    }


def test_a_row_has_path_shape_kind_and_destination():
    report = kc.check_interface(
        encoder("softmax"), expert(), taps={"a": "map", "b": "-1"}
    )
    a, b = report.rows
    assert (a.tap, a.path, a.shape, a.kind) == ("a", "map", (4, 4, 5), "map")
    assert a.places[0].path == "expert"
    assert a.places[0].merge == "concat"
    assert a.places[0].shape == (10,)
    assert a.values == "at least 0 (Dense 'wide')"
    assert (b.kind, b.path) == ("vector", "vector")
    assert b.values == "probabilities that sum to one (Dense 'vector')"


def test_a_given_layer_has_the_name_that_the_user_chose():
    adapters = {"a": layers.Dense(10, name="mine"), "b": layers.Dense(10)}
    report = kc.check_interface(
        encoder(),
        expert(20),
        taps={"a": "vector", "b": "vector"},
        adapters=adapters,
    )
    assert [str(row.adapter) for row in report.rows] == [
        "given: Dense(units=10) 'mine'",
        "given: Dense(units=10)",
    ]


@pytest.mark.parametrize(
    ("merge", "outside", "inside"),
    [
        ("add", 8, 0),
        ("multiply", 8, 0),
        ("film", 2 * 8 * 8, 0),
        ("concat", 8 * 8, 8 * 8),
        ("replace", 0, 0),
    ],
)
def test_the_parameters_of_a_merge_are_counted(merge, outside, inside):
    arguments = {
        "taps": {"a": "vector"},
        "inject": {"a": kc.Injection("low", merge=merge)},
    }
    report = kc.check_interface(encoder(), expert(), **arguments)
    (place,) = report.rows[0].places
    assert (place.path, place.merge) == ("low", merge)
    assert (place.parameters, place.inner_parameters) == (outside, inside)
    adapter = report.rows[0].adapter.parameters
    assert adapter == 7 * 8 + 8
    cascade = kc.build_cascade(encoder(), expert(), **arguments)
    assert size_of(cascade.blocks["adapters"]) == adapter + outside
    if merge != "replace":
        own = size_of(cascade.blocks["downstream"])
        assert own == size_of(expert()) + inside


def test_a_tap_injected_in_two_places_has_two_rows_and_adapters():
    report = kc.check_interface(
        encoder(), expert(), taps={"a": "vector"}, inject={"a": ["low", "out"]}
    )
    assert [row.places[0].path for row in report.rows] == ["low", "out"]
    assert [str(row.adapter) for row in report.rows] == [
        "auto: DenseAdapter(units=8)",
        "auto: DenseAdapter(units=3)",
    ]


def test_one_adapter_for_two_places_is_counted_once():
    arguments = {
        "taps": {"a": "vector"},
        "adapters": {"a": 8},
        "inject": {"a": ["low", "act"]},
    }
    report = kc.check_interface(encoder(), expert(), **arguments)
    (row,) = report.rows
    assert [place.path for place in row.places] == ["low", "act"]
    cascade = kc.build_cascade(encoder(), expert(), **arguments)
    announced = row.adapter.parameters + sum(p.parameters for p in row.places)
    assert size_of(cascade.blocks["adapters"]) == announced


def test_a_fusion_with_weights_and_joining_the_input_are_counted():
    arguments = {
        "taps": {"a": "vector"},
        "downstream_input": "both",
    }
    report = kc.check_interface(encoder(), expert(), **arguments)
    cascade = kc.build_cascade(encoder(), expert(), **arguments)
    fusion = size_of(cascade.blocks["fusion"])
    own = size_of(cascade.blocks["downstream"]) - size_of(expert())
    assert report.fusion_parameters == fusion + own == 2 * 10 * 10


def test_inputs_fed_by_name_have_their_own_adapters():
    left, right = (
        keras.Input((4,), name="left"),
        keras.Input((3,), name="right"),
    )
    both = layers.Concatenate()([left, right])
    decoder = keras.Model([left, right], both, name="decoder")
    report = kc.check_interface(
        encoder(), decoder, taps={"right": "vector", "left": "map"}, fusion=None
    )
    right, left = report.rows
    assert [right.places[0].path, left.places[0].path] == [
        "decoder/right",
        "decoder/left",
    ]
    assert [right.adapter.parameters, left.adapter.parameters] == [24, 24]
    assert right.places[0].merge is None


def test_a_tap_that_only_a_head_reads_has_a_row():
    report = kc.check_interface(
        encoder(),
        expert(),
        taps={"a": "vector", "aux": "flat"},
        inject={"a": "low"},
        downstream_input="inputs",
        head={"aux": 2},
    )
    assert report.rows[1].places[0].path == "head 'aux'"
    assert str(report.rows[1].adapter) == "none"


def test_without_a_downstream_features_become_vectors():
    report = kc.check_interface(encoder(), taps=["map", "vector"], head=2)
    assert [str(row.adapter) for row in report.rows] == [
        "auto: GlobalAveragePooling2D()",
        "auto: nothing",
    ]
    assert report.rows[0].places[0].path == "head"
    assert report.rows[0].places[0].shape is None


def message_of(build, *arguments, **options):
    with pytest.raises((ValueError, TypeError)) as caught:
        build(*arguments, **options)
    return str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"taps": "nowhere"},
        {"taps": "vector", "inject": {"vector": "nowhere"}},
        {"taps": "vector", "fusion": "mix"},
        {"taps": "vector", "adapters": {"other": 3}},
        {"taps": "vector", "preprocess": {"other": "resnet"}},
        {"taps": "vector", "preprocess": "resnot"},
        {"taps": "vector", "downstream_input": "everything"},
    ],
    ids=lambda options: "-".join(options),
)
def test_mistakes_in_the_arguments_raise_what_building_raises(options):
    arguments = (encoder(), expert())
    assert message_of(kc.check_interface, *arguments, **options) == message_of(
        kc.build_cascade, *arguments, **options
    )


MISFITS = {
    "no rule": {
        "taps": {"a": "vector", "b": "steps"},
        "fusion": None,
        "downstream": "decoder",
    },
    "widths": {"taps": {"a": "vector", "b": "map"}, "adapters": 6},
    "nothing left": {
        "taps": {"a": "vector", "b": "map"},
        "adapters": {"b": 10},
    },
    "fixed adapter": {
        "taps": {"a": "vector", "b": "map"},
        "adapters": {"b": layers.Conv1D(2, 1)},
    },
    "merge": {
        "taps": {"a": "vector", "b": "map"},
        "inject": {"a": kc.Injection("low", merge="replace")},
        "downstream_input": "both",
        "adapters": {"a": 5},
    },
    "head": {
        "taps": {"a": "vector", "b": "map"},
        "head": [layers.Conv2D(2, 1)],
    },
}


def decoder():
    """Returns a network with an input for sequences of any length."""
    a = keras.Input((None, 4), name="a")
    b = keras.Input((3,), name="b")
    pooled = layers.GlobalAveragePooling1D()(a)
    return keras.Model([a, b], layers.Concatenate()([pooled, b]), name="two")


@pytest.mark.parametrize("case", MISFITS)
def test_a_misfit_is_a_finding_with_the_message_of_building(case):
    options = dict(MISFITS[case])
    downstream = decoder() if options.pop("downstream", None) else expert()
    report = kc.check_interface(encoder(), downstream, **options)
    errors = [f for f in report.findings if f.severity == "error"]
    message = message_of(kc.build_cascade, encoder(), downstream, **options)
    assert [error.what for error in errors] == [message]
    assert not report.builds
    assert [row.tap for row in report.rows] == ["a", "b"]


def test_the_rest_of_the_report_stands_where_one_tap_fails():
    report = kc.check_interface(
        encoder(), decoder(), taps={"a": "vector", "b": "steps"}, fusion=None
    )
    a, b = report.rows
    assert a.adapter.parameters is None
    assert b.adapter.parameters == 5 * 3 + 3
    assert report.findings[0].where == ("a",)


def test_of_several_taps_that_share_a_width_the_one_that_fails_is_named():
    inputs = keras.Input((6,), name="x")
    deep = layers.Reshape((1, 1, 1, 1, 6), name="deep")(inputs)
    network = keras.Model(inputs, [deep, layers.Dense(4, name="v")(inputs)])
    report = kc.check_interface(
        network, expert(), taps={"deep": "deep", "v": "v"}
    )
    assert [(f.severity, f.where) for f in report.findings] == [
        ("error", ("deep",))
    ]
    deep_row, v_row = report.rows
    assert str(deep_row.adapter) == "auto: ?"
    assert str(v_row.adapter) == "auto: DenseAdapter(units=5)"


def test_probabilities_into_standardised_features_are_a_warning():
    downstream = standardised([0.0] * 7, [1.0] * 7, beta=[0.1] * 7)
    report = kc.check_interface(encoder("softmax"), downstream)
    (found,) = report.findings
    assert found.severity == "warning"
    assert found.where == ("output", "expert")
    assert "LogitsAdapter" in found.advice
    report = kc.check_interface(
        encoder("softmax"), downstream, adapters=kc.adapters.LogitsAdapter()
    )
    assert report.findings == []


def test_a_mismatch_through_a_learned_gate_is_a_note():
    options = {"taps": {"a": "vector"}, "inject": {"a": "norm"}}
    report = kc.check_interface(encoder("softmax"), expert(), **options)
    assert severities(report) == ["note"]


@pytest.mark.parametrize("copy", [True, False])
def test_nothing_of_the_user_is_changed(copy):
    network, downstream = encoder(), expert()
    adapter = layers.Dense(8, name="mine")
    before = [
        ([np.copy(w) for w in net.get_weights()], net.get_config())
        for net in (network, downstream)
    ]
    flags = [layer.trainable for layer in network.layers]
    kc.check_interface(
        network,
        downstream,
        taps={"a": "vector", "b": "map"},
        adapters={"a": adapter},
        inject={"a": "low"},
        downstream_input="both",
        trainable=False,
        copy=copy,
        data={
            "upstream_inputs": X,
            "downstream_inputs": np.zeros((40, 10), "float32"),
        }
        if not copy
        else None,
    )
    for net, (weights, config) in zip(
        (network, downstream), before, strict=True
    ):
        assert net.get_config() == config
        for now, then in zip(net.get_weights(), weights, strict=True):
            np.testing.assert_array_equal(now, then)
    assert [layer.trainable for layer in network.layers] == flags
    assert not adapter.built


def test_it_prints_as_a_table_with_its_findings():
    report = kc.check_interface(
        encoder(), expert(), taps={"a": "vector", "b": "map"}, adapters=6
    )
    text = str(report)
    for part in (
        "a: vector",
        "4 × 4 × 5 (map)",
        "given: DenseAdapter(units=6)",
    ):
        assert part in text
    assert "error: a, b: Widths do not fit: 6 + 6 = 12" in text


def test_the_dict_is_plain_json():
    report = kc.check_interface(
        encoder(),
        expert(),
        taps={"a": "vector", "b": "steps"},
        inject={"a": "low"},
        downstream_input="both",
        data={
            "upstream_inputs": X,
            "downstream_inputs": np.zeros((40, 10), "float32"),
        },
    )
    found = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert [row["tap"] for row in found["streams"]] == ["a", "b"]
    assert found["streams"][0]["places"][0]["merge"] == "add"
    assert found["streams"][1]["shape"] == [16, 5]
    assert found["streams"][1]["measured"]["values"] == 40 * 16 * 5


def test_findings_are_frozen_and_the_worst_come_first():
    rows = X.copy()
    rows[0, 0] = np.inf
    report = kc.check_interface(
        passing(6), standardised([9.0] * 6, [1.0] * 6), data=rows
    )
    assert severities(report) == ["error", "warning"]
    with pytest.raises(FrozenInstanceError):
        report.findings[0].severity = "note"
