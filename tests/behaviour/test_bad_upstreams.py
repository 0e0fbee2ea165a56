"""Tests that mistakes with several upstreams are explained."""

import keras
import pytest
from keras import layers

from tests.behaviour.mistaken_networks import (
    message_of,
    upstream,
)


@pytest.mark.parametrize(
    "name", ["adapters", "fusion", "downstream", "head", "preprocessing"]
)
def test_an_upstream_cannot_have_the_name_of_another_block(name):
    message = message_of(ValueError, {name: upstream()})
    assert f"An upstream cannot be called '{name}'" in message


@pytest.mark.parametrize("name", ["two words", "", 3, "a/b"])
def test_the_name_of_an_upstream_is_an_identifier(name):
    message = message_of(ValueError, {name: upstream()})
    assert f"Upstream name {name!r} is no identifier" in message


def test_no_upstream_is_an_error():
    assert message_of(ValueError, {}) == "upstream={} names no network."


def pair(**arguments):
    return message_of(
        ValueError, {"shape": upstream(), "colour": upstream()}, **arguments
    )


def test_a_tap_that_names_no_upstream_lists_the_upstreams():
    message = pair(taps=["colr/hidden"])
    assert "Tap 'colr/hidden' names no upstream. Closest: 'colour'" in message
    assert "'shape', 'colour'" in message


def test_an_upstream_that_no_tap_reads_is_an_error():
    assert pair(taps=["shape/hidden"]) == (
        "No tap reads the upstream 'colour'. Give it one, or leave the network "
        "out."
    )


def test_inputs_with_an_unknown_network_is_an_error():
    message = pair(taps=["*/hidden"], inputs={"color": "x"})
    assert "inputs names 'color', which is no network" in message
    assert "Closest: 'colour'" in message


def test_inputs_with_an_unknown_input_is_an_error():
    message = pair(taps=["*/hidden"], inputs={"shape": {"y": "image"}})
    assert "inputs['shape'] names 'y', which is no input of it" in message
    assert "There are: 'x'" in message


def test_inputs_that_cannot_be_shared_are_an_error():
    other = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    message = message_of(
        ValueError,
        {"shape": upstream(), "colour": other},
        inputs={"shape": "image", "colour": "image"},
    )
    assert "inputs gives one name, 'image', to inputs that differ" in message
    assert "'shape' (6,) float32, 'colour' (4,) float32" in message


def test_an_input_cannot_have_the_name_of_a_block():
    message = pair(taps=["*/hidden"], inputs={"shape": "colour"})
    assert "The input 'colour' of the cascade, which feeds 'shape/x'" in message
    assert "has the name of a block of the cascade" in message
