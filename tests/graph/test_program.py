"""A program answers as its model does, and leaves the model alone."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_cascade.graph.flattening import as_program

ROWS = np.random.default_rng(0).normal(size=(6, 4)).astype("float32")
WORDS = np.array([[1, 2, 0, 0], [3, 0, 0, 0], [4, 1, 2, 3]], "int32")


@pytest.fixture
def agree(answers, own_answers):
    """Function: checks that a model and its program answer alike."""

    def agree(model, inputs):
        program = as_program(model)
        found = answers(program, *keras.tree.flatten(inputs))
        own = own_answers(model, inputs)
        assert len(found) == len(own)
        for one, other in zip(found.values(), own, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-6)
        return program

    return agree


def nested():
    """x -> (inner: tanh Dense, then x * 2) twice -> after."""
    inner_x = keras.Input((4,), name="y")
    hidden = layers.Dense(4, activation="tanh", name="first")(inner_x)
    inner = keras.Model(inner_x, hidden * 2.0, name="inner")
    x = keras.Input((4,), name="x")
    return keras.Model(x, layers.Dense(2, name="after")(inner(inner(x))))


def several(outputs):
    """Two inputs by name, and outputs made of their sum and difference."""
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    both = layers.Dense(3, name="sum")(layers.Add(name="add")([a, b]))
    apart = layers.Dense(2, name="apart")(layers.Subtract(name="minus")([a, b]))
    return keras.Model({"b": b, "a": a}, outputs(both, apart))


def masked(inside=False):
    """An embedding that masks zeros, read by an LSTM."""
    words = keras.Input((4,), dtype="int32", name="words")
    y = layers.Embedding(5, 3, mask_zero=True, name="embed")(words)
    if inside:
        given = keras.Input((4, 3), name="given")
        read = layers.LSTM(2, name="lstm")(given)
        return keras.Model(words, keras.Model(given, read, name="reader")(y))
    return keras.Model(words, layers.LSTM(2, name="lstm")(y))


def test_a_nested_model_that_is_called_twice(agree):
    program = agree(nested(), ROWS)
    assert [step.name for step in program.steps] == [
        "inner:0/first",
        "inner:0/multiply",
        "inner:1/first",
        "inner:1/multiply",
        "after",
    ]


def test_a_layer_that_is_called_twice(agree):
    x = keras.Input((4,), name="x")
    shared = layers.Dense(4, activation="tanh", name="shared")
    program = agree(keras.Model(x, shared(shared(x) + x)), ROWS)
    assert len(program.layers) == 1


@pytest.mark.parametrize(
    ("outputs", "names"),
    [
        (lambda y, z: {"z": z, "y": y}, {"y", "z"}),
        (lambda y, z: [y, z], {"sum", "apart"}),
        (lambda y, z: [y, y], {"sum", "sum_1"}),
        (lambda y, z: {"deep": [y, {"er": z}]}, {"deep_0", "deep_1_er"}),
    ],
    ids=["dict", "list", "twice", "deep"],
)
def test_several_inputs_and_outputs(agree, outputs, names):
    program = agree(several(outputs), {"a": ROWS, "b": 1 - ROWS})
    assert [port.name for port in program.inputs] == ["a", "b"]
    assert set(program.outputs) == names


def test_inputs_as_a_list(agree):
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    model = keras.Model([b, a], layers.Subtract(name="minus")([b, a]))
    program = agree(model, [ROWS, 2 * ROWS])
    assert [port.name for port in program.inputs] == ["b", "a"]
    assert list(program.outputs) == ["minus"]


# Keras says so of every nested model, and hands the mask to its layers.
@pytest.mark.filterwarnings("ignore:Layer 'reader' .* was passed an input with")
@pytest.mark.parametrize("inside", [False, True], ids=["flat", "nested"])
def test_masks_arrive_at_the_layers_that_read_them(agree, own_answers, inside):
    model = masked(inside)
    agree(model, WORDS)
    # The mask counts: without it the zeros are read too.
    zeros, first = np.zeros_like(WORDS), WORDS.copy()
    first[:, 1:] = 0
    short = own_answers(model, first)[0]
    assert np.abs(short - own_answers(model, zeros)[0]).max() > 1e-4
    alone = own_answers(model, np.repeat(WORDS[:, :1], 4, axis=1))[0]
    assert np.abs(short - alone).max() > 1e-4


def test_operations_that_are_no_layers(agree):
    x = keras.Input((4,), name="x")
    y = keras.ops.concatenate([x * 2.0, keras.ops.exp(x[:, 1:3])], axis=-1)
    model = keras.Model(x, keras.ops.where(y > 0.0, y, 0.5 - y))
    agree(model, ROWS)


def test_layers_with_several_outputs(agree):
    x = keras.Input((5, 4), name="x")
    whole, state, carry = layers.LSTM(
        3, return_sequences=True, return_state=True, name="lstm"
    )(x)
    model = keras.Model(x, {"carry": carry, "both": whole[:, -1] + state})
    series = np.random.default_rng(1).normal(size=(2, 5, 4)).astype("float32")
    agree(model, series)


def test_layers_that_take_keyword_tensors(agree):
    x = keras.Input((5, 4), name="x")
    attention = layers.MultiHeadAttention(2, 2, name="attention")
    model = keras.Model(x, attention(query=x, value=x[:, :3], key=x[:, :3]))
    series = np.random.default_rng(1).normal(size=(2, 5, 4)).astype("float32")
    agree(model, series)


def test_open_dimensions_stay_open(agree, answers):
    x = keras.Input((None, None, 2), name="x")
    y = layers.Conv2D(3, 3, padding="same", name="conv")(x)
    model = keras.Model(x, layers.GlobalMaxPooling2D(name="pool")(y))
    image = np.random.default_rng(2).normal(size=(1, 5, 7, 2))
    program = agree(model, image.astype("float32"))
    assert program.inputs[0].shape == (None, None, None, 2)
    assert program.shapes[program.inputs[0].reference] == (None, None, None, 2)
    wide = np.zeros((2, 9, 4, 2), "float32")
    assert answers(program, wide)["pool"].shape == (2, 3)


def test_training_mode_is_left_out(agree):
    x = keras.Input((4,), name="x")
    y = layers.BatchNormalization(name="norm")(x, training=True)
    agree(keras.Model(x, layers.Dropout(0.5)(y)), 3 + 2 * ROWS)


def test_a_sequential_model(agree):
    made = [layers.Dense(3, activation="tanh", name="a"), layers.Dense(2)]
    program = agree(
        keras.Sequential([keras.Input((4,), name="x"), *made]), ROWS
    )
    assert [port.name for port in program.inputs] == ["x"]


def test_an_output_that_is_an_input(agree):
    x = keras.Input((4,), name="x")
    program = agree(keras.Model(x, [x, layers.Dense(2, name="y")(x)]), ROWS)
    assert list(program.outputs) == ["x", "y"]


def test_steps_that_only_other_outputs_need_are_pruned(answers):
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    common = layers.Dense(4, name="common")(a)
    one = layers.Dense(3, name="one")(common)
    two = layers.Dense(2, name="two")(layers.Concatenate()([common, b]))
    model = keras.Model([a, b], {"one": one, "two": two})
    pruned = as_program(model).pruned(["one"])
    assert [port.name for port in pruned.inputs] == ["a"]
    assert [step.name for step in pruned.steps] == ["common", "one"]
    first, last = model.get_layer("common"), model.get_layer("one")
    by_hand = (ROWS @ first.get_weights()[0]) @ last.get_weights()[0]
    np.testing.assert_allclose(
        answers(pruned, ROWS)["one"], by_hand, rtol=1e-5, atol=1e-6
    )
    assert set(as_program(model).outputs) == {"one", "two"}


def test_outputs_come_in_the_order_asked_for():
    program = as_program(several(lambda y, z: {"y": y, "z": z}))
    assert list(program.pruned(["z", "y"]).outputs) == ["z", "y"]


def test_the_model_stays_as_it_is(answers):
    model = nested()
    model.layers[1].trainable = False
    everything = [*model.operations, *model.layers[1].operations]
    before = [len(x._inbound_nodes) for x in everything]
    weights, flags = model.get_weights(), [x.trainable for x in model.layers]
    answers(as_program(model), ROWS)
    assert [len(x._inbound_nodes) for x in everything] == before
    assert [x.trainable for x in model.layers] == flags
    for one, other in zip(model.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(one, other)


def test_running_in_training_moves_no_weights(answers):
    x = keras.Input((4,), name="x")
    norm = layers.BatchNormalization(name="norm")
    model = keras.Model(x, norm(x, training=True))
    before = norm.get_weights()
    answers(as_program(model), 3 + ROWS)
    for one, other in zip(norm.get_weights(), before, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_number_of_tensors_must_fit(answers):
    with pytest.raises(ValueError, match="zip"):
        answers(as_program(nested()), ROWS, ROWS)


def test_in_training_each_layer_runs_in_the_mode_of_its_flag():
    x = keras.Input((4,), name="x")
    first = layers.BatchNormalization(name="first", momentum=0.5)
    second = layers.BatchNormalization(name="second", momentum=0.5)
    model = keras.Model(x, second(layers.Dropout(0.9, name="drop")(first(x))))
    first.trainable = model.get_layer("drop").trainable = False
    program = as_program(model)
    rows = keras.ops.convert_to_tensor(3 + ROWS)
    (answer,) = program(rows, training=True).values()
    # The first is the identity up to its epsilon, and the dropout is off.
    seen = (3 + ROWS) / np.sqrt(1 + first.epsilon)
    expected = (seen - seen.mean(0)) / np.sqrt(seen.var(0) + second.epsilon)
    answer = keras.ops.convert_to_numpy(answer)
    np.testing.assert_allclose(answer, expected, rtol=1e-4, atol=1e-4)
    moved = keras.ops.convert_to_numpy(second.moving_mean)
    np.testing.assert_allclose(moved, seen.mean(0) / 2, rtol=1e-5)
    assert not keras.ops.convert_to_numpy(first.moving_mean).any()


def test_in_training_augmentation_is_active_whatever_its_flag():
    x = keras.Input((8, 8, 1), name="x")
    flip = layers.RandomFlip(seed=1, name="flip")
    model = keras.Model(x, flip(x))
    flip.trainable = False
    program = as_program(model)
    images = np.random.default_rng(0).normal(size=(16, 8, 8, 1))
    images = keras.ops.convert_to_tensor(images.astype("float32"))
    (same,) = program(images).values()
    (flipped,) = program(images, training=True).values()
    assert keras.ops.all(same == images)
    assert not keras.ops.all(flipped == images)
