"""The inputs of a cascade: which are shared, and what they are called."""

import keras
import pytest
from keras import layers

import keras_cascade as kc
from keras_cascade.graph.graph import read_graph
from keras_cascade.planning.inputs import (
    network_inputs,
    normalise_inputs,
    plan_inputs,
)


def network(*shapes, names=None, dtype=None):
    names = names or [f"in{i}" for i in range(len(shapes))]
    inputs = [
        keras.Input(shape, name=name, dtype=dtype)
        for shape, name in zip(shapes, names, strict=True)
    ]
    flat = [layers.Flatten()(x) for x in inputs]
    x = layers.Concatenate()(flat) if len(flat) > 1 else flat[0]
    return keras.Model(inputs if len(inputs) > 1 else inputs[0], x)


def known(data_format=None, **networks):
    return {
        name: network_inputs(read_graph(net), name, data_format)
        for name, net in networks.items()
    }


def planned(inputs, names=None, taken=None):
    """Cascade input to its shape, and the network inputs that it feeds."""
    found = normalise_inputs(names, inputs)
    flat = [one for several in inputs.values() for one in several]
    return {
        x.name: (
            tuple(x.tensor.shape[1:]),
            [f"{fed.network}/{fed.name}" for fed in x.feeds],
        )
        for x in plan_inputs(flat, found, taken or {})
    }


def error(kind, inputs, names, taken=None):
    with pytest.raises(kind) as caught:
        planned(inputs, names, taken)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_single_input_is_called_inputs():
    assert planned(known(a=network((3,), names=["pixels"]))) == {
        "inputs": ((3,), ["a/pixels"])
    }


def test_several_inputs_keep_their_names():
    net = network((3,), (4,), names=["text", "image"])
    assert list(planned(known(a=net))) == ["text", "image"]


def test_names_that_keras_numbers_are_never_used():
    net = network((3,), (4,), (5,), names=[None, "image", None])
    assert list(planned(known(a=net))) == ["inputs", "image", "inputs_1"]


def test_one_input_of_one_shape_is_shared():
    inputs = known(
        a=network((3,), names=["x"]), b=network((3,), names=["pixels"])
    )
    assert planned(inputs) == {"inputs": ((3,), ["a/x", "b/pixels"])}


def test_what_is_open_fits_what_is_known():
    inputs = known(a=network((None, 3)), b=network((7, 3)))
    assert planned(inputs) == {"inputs": ((7, 3), ["a/in0", "b/in0"])}


def test_other_shapes_are_called_after_their_networks():
    inputs = known(a=network((3,)), b=network((4,)))
    assert planned(inputs) == {
        "a_inputs": ((3,), ["a/in0"]),
        "b_inputs": ((4,), ["b/in0"]),
    }


def test_other_dtypes_are_called_after_their_networks():
    inputs = known(a=network((3,)), b=network((3,), dtype="int32"))
    assert list(planned(inputs)) == ["a_inputs", "b_inputs"]


def test_equal_names_of_other_shapes_are_called_after_network_and_input():
    inputs = known(
        a=network((3,), (2,), names=["text", "image"]),
        b=network((4,), (2,), names=["text", "image"]),
    )
    assert planned(inputs) == {
        "a_text": ((3,), ["a/text"]),
        "image": ((2,), ["a/image", "b/image"]),
        "b_text": ((4,), ["b/text"]),
    }


def test_one_name_given_to_several_networks_is_shared():
    inputs = known(a=network((3,)), b=network((3,)))
    names = {"a": "left", "b": "right"}
    assert list(planned(inputs, names)) == ["left", "right"]
    assert list(planned(inputs, {"a": "both", "b": "both"})) == ["both"]


def test_a_network_that_is_left_out_keeps_to_the_rules():
    inputs = known(a=network((3,)), b=network((3,)), c=network((3,)))
    assert planned(inputs, {"b": "other"}) == {
        "inputs": ((3,), ["a/in0", "c/in0"]),
        "other": ((3,), ["b/in0"]),
    }


def test_inputs_of_one_network_are_named_one_by_one():
    inputs = known(
        a=network((3,), (4,), names=["text", "image"]), b=network((4,))
    )
    names = {"a": {"image": "photo"}, "b": "photo"}
    assert planned(inputs, names) == {
        "text": ((3,), ["a/text"]),
        "photo": ((4,), ["a/image", "b/in0"]),
    }


def test_images_that_are_shared_are_taken_at_the_largest():
    inputs = known(a=network((8, 6, 3)), b=network((4, 10, 3)))
    names = {"a": "image", "b": "image"}
    assert planned(inputs, names) == {"image": ((8, 10, 3), ["a/in0", "b/in0"])}


def test_images_with_channels_first_are_shared_too():
    inputs = known("channels_first", a=network((3, 8, 8)), b=network((3, 4, 4)))
    names = {"a": "image", "b": "image"}
    assert planned(inputs, names)["image"][0] == (3, 8, 8)


def test_images_of_integers_and_floats_are_shared_as_floats():
    nets = {"a": network((4, 4, 3)), "b": network((4, 4, 3), dtype="uint8")}
    flat = [one for several in known(**nets).values() for one in several]
    names = {name: {"in0": "image"} for name in nets}
    (image,) = plan_inputs(flat, names, {})
    assert image.tensor.dtype == "float32"


@pytest.mark.parametrize(
    "shapes",
    [
        {"a": (3,), "b": (4,)},
        {"a": (8, 8, 3), "b": (8, 8, 1)},
        {"a": (8, 8, 3), "b": (192,)},
    ],
    ids=["vectors", "other channels", "another rank"],
)
def test_what_cannot_be_shared_is_an_error(shapes):
    inputs = known(**{name: network(shape) for name, shape in shapes.items()})
    message = error(ValueError, inputs, {"a": "x", "b": "x"})
    assert message.startswith(
        "inputs gives one name, 'x', to inputs that differ"
    )
    assert f"'a' {shapes['a']} float32, 'b' {shapes['b']} float32" in message
    assert message.endswith("else give each its own name.")


def test_tokens_and_numbers_are_not_shared():
    inputs = known(a=network((4,)), b=network((4,), dtype="int32"))
    message = error(ValueError, inputs, {"a": "x", "b": "x"})
    assert "'a' (4,) float32, 'b' (4,) int32" in message


def test_images_whose_channels_are_in_other_places_are_not_shared():
    inputs = known("channels_first", a=network((3, 8, 8)))
    inputs |= known("channels_last", b=network((8, 8, 3)))
    message = error(ValueError, inputs, {"a": "x", "b": "x"})
    assert "'a' (3, 8, 8) float32, 'b' (8, 8, 3) float32" in message


def test_an_unknown_network_names_those_that_there_are():
    message = error(ValueError, known(shape=network((3,))), {"shap": "x"})
    assert message == (
        "inputs names 'shap', which is no network of the cascade. Closest: "
        "'shape'. There are: 'shape'."
    )


def test_an_unknown_input_names_those_that_there_are():
    inputs = known(a=network((3,), (4,), names=["text", "image"]))
    message = error(ValueError, inputs, {"a": {"txt": "x"}})
    assert message == (
        "inputs['a'] names 'txt', which is no input of it. Closest: 'text'. "
        "There are: 'text', 'image'."
    )


def test_one_name_for_a_network_of_several_inputs_is_an_error():
    inputs = known(a=network((3,), (4,), names=["text", "image"]))
    message = error(ValueError, inputs, {"a": "x"})
    assert "the network has 2 inputs ('text', 'image')" in message
    assert message.endswith("Give {its input: name}.")


@pytest.mark.parametrize("name", ["two words", "", 3, None])
def test_a_name_is_an_identifier(name):
    message = error(ValueError, known(a=network((3,))), {"a": {"in0": name}})
    assert f"must be an identifier; received {name!r}" in message


@pytest.mark.parametrize("names", ["x", ["x"]])
def test_names_are_a_mapping(names):
    message = error(TypeError, known(a=network((3,))), names)
    assert "inputs must be a mapping {network: name}" in message


@pytest.mark.parametrize("value", [3, None, ["x"]])
def test_the_names_of_one_network_are_a_name_or_a_mapping(value):
    message = error(TypeError, known(a=network((3,))), {"a": value})
    assert "inputs['a'] must be a name or a mapping" in message


def test_a_name_that_something_else_has_names_both():
    message = error(
        ValueError,
        known(a=network((3,), names=["pixels"])),
        {"a": "side"},
        {"side": "the extra input 'side'"},
    )
    assert message == (
        "The input 'side' of the cascade, which feeds 'a/pixels', has the "
        "name of the extra input 'side'. Call it otherwise, by inputs={'a': "
        "name}, or rename the other."
    )


def test_an_input_that_no_tap_needs_is_none_of_the_cascades():
    text, image = (
        keras.Input((3,), name="text"),
        keras.Input((4,), name="image"),
    )
    read = layers.Dense(2, name="read")(text)
    seen = layers.Dense(2, name="seen")(image)
    both = layers.Add(name="both")([read, seen])
    net = keras.Model({"text": text, "image": image}, both, name="two")
    cascade = kc.build_cascade(
        net, taps="seen", inputs={"upstream": {"image": "photo"}}
    )
    assert [x.name for x in cascade.inputs] == ["photo"]
    cascade = kc.build_cascade(net, taps="both")
    assert sorted(x.name for x in cascade.inputs) == ["image", "text"]
