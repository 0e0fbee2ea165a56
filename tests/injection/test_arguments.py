"""The argument `inject`, normalised once."""

import keras
import pytest

import keras_cascade as kc
from keras_cascade.injection.arguments import Injection, normalise_injections

STREAMS = ["texture", "shape", "side"]


def error(kind, inject):
    with pytest.raises(kind) as caught:
        normalise_injections(inject, STREAMS)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_path_is_an_addition_that_starts_silent():
    found = normalise_injections({"texture": "conv"}, STREAMS)
    assert found == {"texture": (Injection("conv", "add", True),)}


def test_a_list_may_mix_paths_and_injections():
    film = Injection("norm", merge="film")
    found = normalise_injections(
        {"side": ["conv", film], "texture": (film,)}, STREAMS
    )
    assert found == {"side": (Injection("conv"), film), "texture": (film,)}


def test_none_is_no_injection():
    assert normalise_injections(None, STREAMS) == {}


def test_an_injection_is_public():
    assert kc.Injection is Injection


def test_an_injection_is_the_same_after_serialisation():
    injection = Injection("inner/conv", "concat", zero_init=False)
    config = keras.saving.serialize_keras_object(injection)
    assert keras.saving.deserialize_keras_object(config) == injection


def test_only_taps_and_extra_inputs_are_injected():
    message = error(ValueError, {"textur": "conv"})
    assert message == (
        "inject names 'textur', which is no tap and no extra input. Closest: "
        "'texture'. There are: 'texture', 'shape', 'side'."
    )


def test_an_empty_list_is_refused():
    assert "inject['shape'] lists nothing" in error(ValueError, {"shape": []})


@pytest.mark.parametrize("value", [3, None, {"path": "conv"}, ["conv", 3]])
def test_other_values_than_paths_and_injections_are_refused(value):
    message = error(TypeError, {"shape": value})
    assert "inject['shape'] must be a path in the downstream" in message
    assert "an Injection, or a list of these" in message


@pytest.mark.parametrize("value", ["conv", ["conv"], Injection("conv")])
def test_an_argument_that_is_no_mapping_is_refused(value):
    message = error(TypeError, value)
    assert "inject must be a mapping {tap or extra input: path" in message


def test_an_unknown_merge_lists_those_that_there_are():
    with pytest.raises(ValueError) as caught:
        Injection("conv", merge="flim")
    assert str(caught.value) == (
        "Injection('conv', merge='flim'): there is no such merge. Closest: "
        "'film'. Possible: 'add', 'multiply', 'film', 'concat', 'replace'."
    )


def test_the_path_of_an_injection_is_text():
    with pytest.raises(ValueError, match="as text; received 3"):
        Injection(3)
