"""Tests the boxes and links that are read off cascades."""

import math
from typing import Any

import keras
import pytest
from keras import layers

import keras_cascade as kc
from keras_cascade.display.picture.reading import read_diagram
from tests.display.picture.cascades import encoder, injected, plain, residual


def lines_of(diagram, key):
    (box,) = (box for box in diagram.boxes if box.key == key)
    return [line for row in box.rows for line in row.lines]


def links_of(diagram):
    return {(x.source, x.target) for x in diagram.links}


def entered(diagram, key):
    """Returns the source and the row of each link into a box."""
    (box,) = (box for box in diagram.boxes if box.key == key)
    rows = {port: row.lines[0] for row in box.rows for port in row.entering}
    return {
        (x.source, rows[x.entering]) for x in diagram.links if x.target == key
    }


@pytest.fixture(scope="module")
def features():
    return plain(), read_diagram(plain())


def test_streams_lead_from_taps_through_adapters_to_the_fusion(features):
    _, diagram = features
    assert links_of(diagram) == {
        ("input/inputs", "upstream"),
        ("upstream", "adapters/map"),
        ("upstream", "adapters/vector"),
        ("adapters/map", "fusion"),
        ("adapters/vector", "fusion"),
        ("input/side", "fusion"),
        ("fusion", "downstream"),
        ("downstream", "output/output"),
    }


def test_taps_leave_by_name_and_shape(features):
    _, diagram = features
    (box,) = (box for box in diagram.boxes if box.key == "upstream")
    leaving = {
        port.label: row.lines for row in box.rows for port in row.leaving
    }
    assert leaving == {
        ("map", "6 × 6 × 4"): ("conv1",),
        ("vector", "5"): ("conv2 … pool",),
    }


def test_boxes_say_parameters_and_rates(features):
    cascade, diagram = features
    assert lines_of(diagram, "upstream")[-2:] == ["225 parameters", "frozen"]
    expected = cascade.blocks["downstream"].count_params()
    assert lines_of(diagram, "downstream")[-2:] == [
        f"{expected} parameters",
        "trains at 0.0001",
    ]
    assert "not fitted" in lines_of(diagram, "adapters/map")
    assert "trains at 0.001" in lines_of(diagram, "adapters/vector")


@pytest.mark.parametrize("build", [plain, injected])
def test_a_loaded_cascade_has_the_same_boxes(build, tmp_path):
    cascade = build()
    cascade.save(tmp_path / "cascade.keras")
    again: Any = keras.saving.load_model(tmp_path / "cascade.keras")
    assert read_diagram(again) == read_diagram(cascade)


def test_injections_enter_where_they_are_merged():
    diagram = read_diagram(injected())
    assert entered(diagram, "downstream") == {
        ("input/image", "stem … block1_add"),
        ("adapters/edges_into_block1_add", "add at block1_add"),
        ("adapters/parts_into_block2_add", "film at block2_add"),
        ("adapters/parts_into_pool", "multiply at pool"),
    }


def test_features_that_join_an_input_enter_before_the_first_layer():
    cascade = kc.build_cascade(
        encoder(), residual(), taps="conv1", downstream_input="both"
    )
    rows = entered(read_diagram(cascade), "downstream")
    assert ("fusion", "concat at image") in rows


def test_one_network_for_two_upstreams_is_one_box():
    network = encoder()
    cascade = kc.build_cascade(
        {"left": network, "right": network},
        taps={"a": "left/pool", "b": "right/pool"},
        inputs={"left": "one", "right": "two"},
        head=3,
    )
    diagram = read_diagram(cascade)
    assert {("input/one", "left-right"), ("input/two", "left-right")} <= (
        links_of(diagram)
    )
    assert "one network, called 2 times" in lines_of(diagram, "left-right")


def test_preprocessing_is_a_line_of_its_network():
    halve = {"upstream": layers.Rescaling(0.5, name="halve")}
    cascade = kc.build_cascade(encoder(), head=2, preprocess=halve)
    diagram = read_diagram(cascade)
    assert "preprocessing: halve" in lines_of(diagram, "upstream")
    assert ("input/inputs", "upstream") in links_of(diagram)


def test_each_head_is_a_box_and_reads_its_tap():
    cascade = kc.build_cascade(
        encoder(),
        taps={"map": "conv1", "vector": "pool"},
        head={"kind": 3, "map": 1},
    )
    diagram = read_diagram(cascade)
    assert ("upstream", "head/map") in links_of(diagram)
    assert ("fusion", "head/kind") in links_of(diagram)
    assert "Dense, sigmoid" in lines_of(diagram, "head/map")


def test_low_rank_updates_are_a_state_of_their_own():
    cascade = kc.build_cascade(
        encoder(), head=2, trainable={"upstream": kc.LoRA(2)}, loss="mse"
    )
    (box,) = (x for x in read_diagram(cascade).boxes if x.key == "upstream")
    assert {row.state for row in box.rows} == {"", "lora"}
    trained = sum(
        math.prod(v.shape)
        for v in cascade.blocks["upstream"].trainable_variables
    )
    assert f"LoRA 2: {trained:,} train at 0.001" in lines_of(
        read_diagram(cascade), "upstream"
    )


def test_a_clone_that_lost_its_spec_has_the_same_links(features):
    cascade, diagram = features
    clone: Any = keras.models.clone_model(cascade)
    assert links_of(read_diagram(clone)) == links_of(diagram)
