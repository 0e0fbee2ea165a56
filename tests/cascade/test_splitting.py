"""The two parts together are the cascade, on its own variables."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc
from keras_cascade import _keras_compat as compat


def as_arrays(tensors):
    return [keras.ops.convert_to_numpy(x) for x in keras.tree.flatten(tensors)]


def network(name="network"):
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, name="conv")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, x, name=name)


IMAGES = np.random.default_rng(0).normal(size=(6, 8, 8, 3)).astype("float32")


def test_together_they_answer_as_the_cascade():
    cascade = kc.build_cascade(
        network(), head={"kind": 3, "age": 1}, extra_inputs={"side": (2,)}
    )
    side = np.ones((6, 2), "float32")
    frozen, trainable = kc.split(cascade)
    x = {"inputs": IMAGES, "side": side}
    answers = trainable({**frozen(x), "side": side})
    assert list(answers) == list(cascade(x))
    for one, other in zip(
        as_arrays(answers), as_arrays(cascade(x)), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_they_share_the_variables():
    cascade = kc.build_cascade(network(), head=3)
    frozen, trainable = kc.split(cascade)
    own = {id(v) for v in cascade.variables}
    assert {id(v) for v in (*frozen.variables, *trainable.variables)} == own
    assert not frozen.trainable_variables
    assert [v.path for v in trainable.trainable_variables] == [
        v.path for v in cascade.trainable_variables
    ]


def test_in_training_mode_too():
    cascade = kc.build_cascade(
        network(), network_of_vectors(), trainable={"downstream": True}
    )
    frozen, trainable = kc.split(cascade)
    before = [keras.ops.convert_to_numpy(v) for v in cascade.variables]
    expected = as_arrays(cascade(IMAGES, training=True))[0]
    moved = [keras.ops.convert_to_numpy(v) for v in cascade.variables]
    for variable, value in zip(cascade.variables, before, strict=True):
        variable.assign(value)
    found = as_arrays(trainable(frozen(IMAGES), training=True))[0]
    np.testing.assert_array_equal(found, expected)
    for variable, value in zip(cascade.variables, moved, strict=True):
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(variable), value
        )


def network_of_vectors():
    x = inputs = keras.Input((4,), name="features")
    x = layers.BatchNormalization(name="norm")(x)
    return keras.Model(inputs, layers.Dense(2, name="out")(x), name="vectors")


def test_masks_pass_the_cut():
    x = inputs = keras.Input((5,), dtype="int32", name="words")
    x = layers.Embedding(7, 4, mask_zero=True, name="words_in")(x)
    x = layers.Dense(2, name="dense")(x)
    upstream = keras.Model(inputs, x, name="embedding")
    x = inputs = keras.Input((5, 2), name="sequence")
    x = layers.LSTM(3, name="lstm")(x)
    downstream = keras.Model(inputs, x, name="down")
    cascade = kc.build_cascade(upstream, downstream, adapters=None)
    words = np.array([[1, 2, 0, 0, 0], [3, 0, 0, 0, 0], [4, 5, 6, 1, 2]])
    frozen, trainable = kc.split(cascade)
    features = {
        name: keras.ops.convert_to_numpy(x) for name, x in frozen(words).items()
    }
    assert any(name.endswith(":mask") for name in features)
    expected = as_arrays(cascade(words))[0]
    np.testing.assert_array_equal(as_arrays(trainable(features))[0], expected)
    unmasked = {k: v for k, v in features.items() if not k.endswith(":mask")}
    assert not np.allclose(as_arrays(trainable(unmasked))[0], expected)


def test_the_cascade_stays_as_it_is(tmp_path):
    cascade = kc.build_cascade(network(), head=3)
    paths, flags = [v.path for v in cascade.variables], cascade.flags()
    answers = as_arrays(cascade(IMAGES))[0]
    kc.split(cascade)
    assert [v.path for v in cascade.variables] == paths
    assert cascade.flags() == flags
    cascade.save(tmp_path / "cascade.keras")
    again = keras.saving.load_model(tmp_path / "cascade.keras")
    np.testing.assert_array_equal(as_arrays(again(IMAGES))[0], answers)


def test_a_part_cannot_be_saved_by_itself(tmp_path):
    frozen, _ = kc.split(kc.build_cascade(network(), head=3))
    with pytest.raises(NotImplementedError, match="Save the cascade"):
        frozen.get_config()


def test_what_is_cheaper_than_to_store_is_no_frozen_part():
    inputs = keras.Input((3,), dtype="int32", name="few")
    words = layers.Embedding(5, 8, name="words", trainable=False)
    x = layers.Dense(2, name="out")(words(inputs))
    with pytest.raises(ValueError, match="next to nothing"):
        kc.split(keras.Model(inputs, x, name="reading"))


def test_without_a_frozen_part_it_says_why():
    with pytest.raises(ValueError, match="all of it trains"):
        kc.split(kc.build_cascade(network(), head=3, trainable=True))
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(4, 3, name="conv")(layers.RandomFlip(name="flip")(x))
    augmented = keras.Model(inputs, x, name="augmented")
    with pytest.raises(ValueError, match="RandomFlip 'upstream/flip'"):
        kc.split(kc.build_cascade(augmented, head=3))


def agree(model, x, training=False):
    """The parts give what the model gives, in its structure, to the bit."""
    frozen, trainable = kc.split(model)
    given = dict(x) if isinstance(x, dict) else {}
    found = trainable({**given, **frozen(x)}, training=training)
    equal(found, model(x, training=training))
    return frozen, trainable


@pytest.mark.parametrize(
    "outputs",
    [
        lambda y, z: y,
        lambda y, z: [y],
        lambda y, z: [z, y],
        lambda y, z: [y, y, z],
        lambda y, z: {"z": z, "y": y},
        lambda y, z: {"b": [y, z], "a": (z,)},
    ],
    ids=["tensor", "one", "list", "twice", "dict", "deep"],
)
def test_what_it_gives_has_the_structure_of_what_the_model_gives(outputs):
    inputs = keras.Input((4,), name="x")
    x = layers.Dense(5, trainable=False, name="frozen")(inputs)
    y, z = layers.Dense(3, name="y")(x), x * 2.0
    agree(keras.Model(inputs, outputs(y, z)), VECTORS)


VECTORS = np.random.default_rng(1).normal(size=(6, 4)).astype("float32")


def several_inputs(structure):
    a = keras.Input((4,), name="a")
    b = keras.Input((1,), name="b")
    x = layers.Dense(5, trainable=False, name="frozen")(a)
    x = layers.Concatenate(name="both")([x, b])
    return keras.Model(structure(a, b), layers.Dense(3, name="out")(x))


def test_the_frozen_part_takes_all_that_the_model_takes():
    b = np.arange(6, dtype="float32")
    model = several_inputs(lambda a, b: {"b": b, "a": a})
    x = {"a": VECTORS, "b": b[:, None]}
    agree(model, x)
    frozen, trainable = kc.split(model)
    # Numbers without their last axis, as a Functional takes them.
    features = {**frozen(x), "b": b}
    equal(trainable(features), model(x))
    frozen, _ = kc.split(several_inputs(lambda a, b: [b, a]))
    equal(frozen([b, VECTORS]), frozen([VECTORS]))


def equal(found, expected):
    keras.tree.assert_same_structure(found, expected)
    for one, other in zip(as_arrays(found), as_arrays(expected), strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_is_missing_is_named():
    frozen, trainable = kc.split(several_inputs(lambda a, b: [a, b]))
    with pytest.raises(ValueError, match="lacks 'b'"):
        trainable(frozen([VECTORS]))
    with pytest.raises(ValueError, match="it has 3 arrays without names"):
        frozen([VECTORS, VECTORS, VECTORS])


def test_masks_pass_the_cut_to_outputs_as_well():
    inputs = keras.Input((5,), dtype="int32", name="words")
    x = layers.Embedding(7, 4, mask_zero=True, name="embed")(inputs)
    x = layers.LSTM(3, return_sequences=True, name="lstm")(x)
    model = keras.Model(inputs, {"seen": x, "out": layers.Dense(2)(x)})
    model.get_layer("embed").trainable = False
    model.get_layer("lstm").trainable = False
    words = np.array([[1, 2, 0, 0, 0], [3, 0, 0, 0, 0]])
    frozen, trainable = kc.split(model)
    features = {
        name: keras.ops.convert_to_numpy(x) for name, x in frozen(words).items()
    }
    np.testing.assert_array_equal(features["lstm:mask"], words != 0)
    found, expected = trainable(features), model(words)
    for name in expected:
        one, other = (
            keras.ops.convert_to_numpy(compat.keras_mask(x[name]))
            for x in (found, expected)
        )
        np.testing.assert_array_equal(one, other)


def test_in_half_precision_they_agree_too():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        x = inputs = keras.Input((8, 8, 3), name="image", dtype="float32")
        x = layers.Rescaling(1 / 255, dtype="float32", name="scale")(x)
        x = layers.Conv2D(4, 3, name="conv", trainable=False)(x)
        x = layers.GlobalAveragePooling2D(name="pool")(x)
        model = keras.Model(inputs, layers.Dense(2, name="out")(x))
        frozen, _ = agree(model, 200 * IMAGES)
    finally:
        keras.config.set_dtype_policy("float32")
    (pooled,) = frozen(IMAGES).values()
    assert keras.backend.standardize_dtype(pooled.dtype) == "float16"


def test_the_parts_predict_and_train_as_models_do():
    cascade = kc.build_cascade(network(), head=3)
    frozen, trainable = kc.split(cascade)
    features = frozen.predict(IMAGES, verbose=0)
    expected = cascade.predict(IMAGES, verbose=0)
    found = trainable.predict(features, verbose=0)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    before = as_arrays(frozen.variables), as_arrays(trainable.variables)
    trainable.compile("sgd", "sparse_categorical_crossentropy")
    trainable.fit(features, np.arange(6) % 3, verbose=0)
    for one, other in zip(as_arrays(frozen.variables), before[0], strict=True):
        np.testing.assert_array_equal(one, other)
    assert any(
        (one != other).any()
        for one, other in zip(
            as_arrays(trainable.variables), before[1], strict=True
        )
    )
    moved = cascade.predict(IMAGES, verbose=0)
    assert np.abs(moved - expected).max() > 1e-6
    np.testing.assert_allclose(
        trainable.predict(features, verbose=0), moved, rtol=1e-5, atol=1e-6
    )
