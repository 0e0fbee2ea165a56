import inspect
from dataclasses import MISSING, fields

import keras
import pytest

import keras_cascade as kc
from keras_cascade.planning.arguments import Arguments


def _network(name="net"):
    x = keras.Input((4,))
    return keras.Model(x, keras.layers.Dense(3)(x), name=name)


def _fields():
    return {
        f.name: inspect.Parameter.empty if f.default is MISSING else f.default
        for f in fields(Arguments)
    }


def test_build_cascade_has_the_fields_as_parameters():
    parameters = inspect.signature(kc.build_cascade).parameters
    assert {n: p.default for n, p in parameters.items()} == _fields()
    assert list(parameters) == list(_fields())


def test_check_interface_shows_the_same_parameters_and_data():
    parameters = inspect.signature(kc.check_interface).parameters
    defaults = {n: p.default for n, p in parameters.items()}
    assert defaults == {**_fields(), "data": None}


def test_rebuild_shows_the_parameters_as_unchanged():
    cascade = kc.build_cascade(_network(), head=2)
    parameters = inspect.signature(cascade.rebuild).parameters
    assert list(parameters) == list(_fields())
    assert {repr(p.default) for p in parameters.values()} == {"unchanged"}


def test_export_of_a_cascade_has_the_signature_of_export():
    cascade = kc.build_cascade(_network(), head=2)
    _, *parameters = inspect.signature(kc.export).parameters.values()
    bound = inspect.signature(cascade.export).parameters.values()
    assert [(p.name, p.kind, p.default) for p in bound] == [
        (p.name, p.kind, p.default) for p in parameters
    ]


@pytest.mark.parametrize("call", ["check_interface", "rebuild"])
def test_a_misspelt_argument_is_named_with_the_closest(call):
    network = _network()
    cascade = kc.build_cascade(network, head=2)
    with pytest.raises(TypeError) as caught:
        if call == "rebuild":
            cascade.rebuild(tap="dense")
        else:
            kc.check_interface(network, tap="dense")
    message = f"{call}() has no argument 'tap'. Closest: 'taps'"
    assert str(caught.value).startswith(message)


def test_networks_have_the_names_of_their_blocks():
    a, b = _network("a"), _network("b")
    assert Arguments(upstream=a).networks == {"upstream": a}
    several = Arguments(upstream={"x": a}, downstream=b)
    assert several.networks == {"x": a, "downstream": b}
    with pytest.raises(ValueError, match="names no network"):
        _ = Arguments(upstream={}).networks
