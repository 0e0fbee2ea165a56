"""Checks that LoRA trains A and B in W + alpha / rank · A B only."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_cascade as kc
from keras_cascade.graph import low_rank
from keras_cascade.training.lora import LoRA

RNG = np.random.default_rng(0)
X = RNG.normal(size=(16, 6)).astype("float32")
Y = RNG.normal(size=(16, 2)).astype("float32")


def numpy(x):
    return np.array(ops.convert_to_numpy(x))


def values(model):
    return {v.path: numpy(v) for v in model.variables}


def network():
    """Returns layers that take low-rank updates, and some that do not."""
    x = inputs = keras.Input((6,), name="x")
    x = layers.Dense(8, activation="tanh", name="hidden")(x)
    x = layers.BatchNormalization(momentum=0.5, name="norm")(x)
    x = layers.Dropout(0.5, name="dropout")(x)
    x = layers.Dense(5, name="features")(x)
    return keras.Model(inputs, x, name="encoder")


def linear(**arguments):
    """Returns a single Dense layer, which trains by low-rank updates."""
    inputs = keras.Input((6,), name="x")
    bias = keras.initializers.RandomNormal(seed=1)
    outputs = layers.Dense(2, bias_initializer=bias, name="out")(inputs)
    return kc.build_cascade(
        keras.Model(inputs, outputs, name="linear"),
        trainable={"upstream": LoRA(2, alpha=6)},
        optimizer=keras.optimizers.SGD(0.1),
        loss="mse",
        **arguments,
    )


def build(trainable, **arguments):
    """Returns a cascade with adapters and a head."""
    return kc.build_cascade(
        network(), head=2, adapters=4, trainable=trainable, **arguments
    )


def give_values(cascade):
    """Sets A and B of every layer to values as after training."""
    random = np.random.default_rng(1)
    for variable in cascade.variables:
        if "/lora_" in variable.path:
            variable.assign(random.normal(size=variable.shape))


def merged(found, path, scale, what="kernel"):
    """Returns W + scale · A B, in float64."""
    w, a, b = (
        found[f"{path}/{name}"].astype("float64")
        for name in (what, f"lora_{what}_a", f"lora_{what}_b")
    )
    return w + scale * a @ b


def over(inner, shape, dtype="float32", **arguments):
    """Returns a cascade of one layer, with values in its A and B."""
    inputs = keras.Input(shape, dtype=dtype, name="x")
    cascade = kc.build_cascade(
        keras.Model(inputs, inner(inputs), name="one"),
        trainable={"upstream": LoRA(2, alpha=6)},
        adapters=None,
        **arguments,
    )
    give_values(cascade)
    return cascade


def test_only_low_rank_updates_of_the_pattern_train():
    cascade = build({"upstream": LoRA(3)})
    trained = [v.path for v in cascade.blocks["upstream"].trainable_variables]
    assert sorted(trained) == [
        f"upstream/{layer}/lora_kernel_{factor}"
        for layer in ("features", "hidden")
        for factor in "ab"
    ]


def test_a_later_pattern_overrides_lora():
    cascade = build({"upstream": LoRA(3), "upstream/hidden": False})
    paths = [v.path for v in cascade.blocks["upstream"].variables]
    updates = [path for path in paths if "lora" in path]
    assert updates == [f"upstream/features/lora_kernel_{x}" for x in "ab"]


def test_adapters_and_head_train_as_without_lora():
    rest = [
        [
            v.path
            for v in build(trainable).trainable_variables
            if not v.path.startswith("upstream")
        ]
        for trainable in ({"upstream": LoRA(3)}, None)
    ]
    assert rest[0] == rest[1] != []


def test_at_first_the_outputs_do_not_change():
    original = network()
    cascade = kc.build_cascade(original, trainable={"upstream": LoRA(3)})
    np.testing.assert_array_equal(numpy(cascade(X)), numpy(original(X)))
    assert not any("lora" in v.path for v in original.variables)


def test_a_dense_layer_computes_the_formula():
    cascade = linear()
    give_values(cascade)
    found = values(cascade)
    expected = X.astype("float64") @ merged(found, "upstream/out", 3.0)
    np.testing.assert_allclose(
        numpy(cascade(X)), expected + found["upstream/out/bias"], rtol=1e-4
    )


@pytest.mark.parametrize("alpha", [None, 2])
def test_without_alpha_the_factor_is_one(alpha):
    inputs = keras.Input((6,), name="x")
    cascade = kc.build_cascade(
        keras.Model(inputs, layers.Dense(2, name="out")(inputs)),
        trainable={"upstream": LoRA(2, alpha)},
    )
    give_values(cascade)
    expected = X @ merged(values(cascade), "upstream/out", 1.0)
    np.testing.assert_allclose(
        numpy(cascade(X)), expected, rtol=1e-4, atol=1e-5
    )


def test_a_convolution_computes_the_formula():
    cascade = over(layers.Conv2D(3, (1, 2), name="conv"), (2, 4, 2))
    kernel = merged(values(cascade), "upstream/conv", 3.0)
    x = RNG.normal(size=(5, 2, 4, 2)).astype("float32")
    windows = np.stack([x[:, :, :-1], x[:, :, 1:]], axis=-2)
    expected = np.einsum("bhwkc,kcf->bhwf", windows, kernel[0])
    np.testing.assert_allclose(
        numpy(cascade(x)), expected, rtol=1e-4, atol=1e-5
    )


def test_an_embedding_computes_the_formula():
    cascade = over(layers.Embedding(7, 4, name="words"), (3,), "int32")
    table = merged(values(cascade), "upstream/words", 3.0, "embeddings")
    words = RNG.integers(0, 7, size=(5, 3)).astype("int32")
    np.testing.assert_allclose(
        numpy(cascade(words)), table[words], rtol=1e-4, atol=1e-5
    )


class Encoder(layers.Layer):
    """An encoder layer with attention, and weights of its own."""

    def build(self, shape):
        self.attention = layers.MultiHeadAttention(2, 3, name="attention")
        self.attention.build(shape, shape)
        self.norm = layers.BatchNormalization(name="norm")
        self.norm.build(shape)
        self.place = self.add_weight(shape=shape[1:], name="place")

    def call(self, inputs):
        x = inputs + self.place
        return self.norm(inputs + self.attention(x, x))


def test_lora_reaches_layers_inside_composite_layers():
    cascade = over(Encoder(name="encoder"), (4, 6))
    parts = ("query", "key", "value", "attention_output")
    assert sorted(v.path for v in cascade.trainable_variables) == sorted(
        f"upstream/encoder/attention/{part}/lora_kernel_{factor}"
        for part in parts
        for factor in "ab"
    )


def test_lora_trains_inside_a_layer_that_was_frozen_in_part():
    inputs = keras.Input((4, 6), name="x")
    encoder = Encoder(name="encoder")
    original = keras.Model(inputs, encoder(inputs), name="one")
    encoder.attention.trainable = False
    cascade = kc.build_cascade(
        original, trainable={"upstream": LoRA(2)}, adapters=None
    )
    assert len(cascade.trainable_variables) == 8
    assert not encoder.attention.trainable


def test_attention_computes_with_merged_kernels():
    cascade = over(Encoder(name="encoder"), (4, 6))
    found = values(cascade)
    stock = Encoder()
    x = RNG.normal(size=(5, 4, 6)).astype("float32")
    stock(x)
    for variable in stock.variables:
        *_, parent, name = variable.path.split("/")
        path = f"upstream/encoder/attention/{parent}"
        if f"{path}/lora_kernel_a" in found and name == "kernel":
            variable.assign(merged(found, path, 3.0))
    stock.place.assign(found["upstream/encoder/place"])
    np.testing.assert_allclose(
        numpy(cascade(x)), numpy(stock(x)), rtol=1e-4, atol=1e-5
    )


def test_two_steps_of_sgd_are_those_by_hand():
    cascade = linear()
    start = values(cascade)
    w, bias = start["upstream/out/kernel"], start["upstream/out/bias"]
    a, b = (
        start[f"upstream/out/lora_kernel_{x}"].astype("float64") for x in "ab"
    )
    assert (b == 0).all()
    assert (a != 0).all()
    for _ in range(2):
        cascade.train_on_batch(X, Y)
        error = X @ (w + 3.0 * a @ b) + bias - Y
        slope = 3.0 * X.T.astype("float64") @ (2 * error / Y.size)
        a, b = a - 0.1 * slope @ b.T, b - 0.1 * a.T @ slope
    end = values(cascade)
    assert np.abs(a - start["upstream/out/lora_kernel_a"]).max() > 1e-3
    for factor, expected in (("a", a), ("b", b)):
        found = end[f"upstream/out/lora_kernel_{factor}"]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_training_moves_nothing_but_a_and_b():
    cascade = build(
        {"upstream": LoRA(3), "adapters": False, "head": False},
        optimizer=keras.optimizers.AdamW(0.01, weight_decay=0.1),
        loss="mse",
    )
    before = values(cascade)
    cascade.fit(X, Y, batch_size=8, epochs=2, verbose=0)
    after = values(cascade)
    moved = [p for p in before if not np.array_equal(before[p], after[p])]
    assert sorted(moved) == sorted(p for p in before if "lora" in p) != []


def test_layers_without_an_update_run_in_inference_mode():
    cascade = build({"upstream": LoRA(3)})
    give_values(cascade)
    np.testing.assert_array_equal(
        numpy(cascade(X, training=True)), numpy(cascade(X, training=False))
    )


def test_weight_decay_reaches_a_and_b():
    cascade = linear()
    give_values(cascade)
    cascade.compile(
        keras.optimizers.SGD(0.1, weight_decay=0.5), "mse", run_eagerly=True
    )
    plain = linear()
    plain.set_weights(cascade.get_weights())
    plain.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=True)
    start = numpy(cascade.trainable_variables[0]).astype("float64")
    for model in (cascade, plain):
        model.train_on_batch(X, Y)
    # Loshchilov & Hutter 2019: it takes rate · decay of what was there.
    np.testing.assert_allclose(
        numpy(plain.trainable_variables[0])
        - numpy(cascade.trainable_variables[0]),
        0.1 * 0.5 * start,
        rtol=1e-3,
        atol=1e-5,
    )


def test_a_and_b_have_the_rate_of_their_block():
    cascade = build(
        {"upstream": LoRA(3)}, learning_rates={"upstream": 1e-5}, loss="mse"
    )
    rates = cascade.learning_rates()
    assert rates["upstream/hidden/lora_kernel_a"] == pytest.approx(1e-5)
    assert rates["upstream/hidden/lora_kernel_b"] == pytest.approx(1e-5)
    assert "upstream/hidden/kernel" not in rates


@pytest.mark.parametrize("flag", [True, False])
def test_a_flag_sets_whether_a_and_b_train(flag):
    cascade = over(Encoder(name="encoder"), (4, 6))
    layer = cascade.blocks["upstream"].get_layer("encoder")
    layer.trainable = not flag
    low_rank.set_flag(layer, flag)
    expected = [v.path for v in layer.variables if "lora" in v.path]
    assert [v.path for v in layer.trainable_variables] == expected * flag


def test_a_flag_sets_a_layer_without_lora_as_in_keras():
    layer = layers.Dense(2)
    layer.build((None, 3))
    low_rank.set_flag(layer, False)
    assert layer.trainable_variables == []
    low_rank.set_flag(layer, True)
    assert len(layer.trainable_variables) == 2


def test_a_flag_set_by_hand_leaves_the_kernel_frozen():
    cascade = linear()
    cascade.trainable = False
    for layer in cascade.blocks["upstream"].layers:
        layer.trainable = True
    trained = [v.path for v in cascade.blocks["upstream"].variables]
    assert [v.path for v in cascade.variables if v.trainable] == [
        path for path in trained if "lora" in path
    ]


def test_the_stock_model_has_merged_kernels():
    cascade = over(layers.Dense(2, name="out"), (6,))
    plain = cascade.to_plain()
    assert [v.path for v in plain.variables] == ["out/kernel", "out/bias"]
    np.testing.assert_allclose(
        numpy(plain.variables[0]),
        merged(values(cascade), "upstream/out", 3.0),
        rtol=1e-5,
        atol=1e-6,
    )


def test_the_stock_model_has_the_same_outputs():
    cascade = over(Encoder(name="encoder"), (4, 6))
    x = RNG.normal(size=(5, 4, 6)).astype("float32")
    plain = cascade.to_plain()
    np.testing.assert_array_equal(numpy(plain(x)), numpy(cascade(x)))


def test_a_cascade_that_is_used_again_is_merged():
    cascade = build({"upstream": LoRA(3)})
    give_values(cascade)
    outer = kc.build_cascade(cascade)
    np.testing.assert_array_equal(numpy(outer(X)), numpy(cascade(X)))
    assert not any("lora" in v.path for v in outer.variables)


def test_a_network_of_the_users_is_merged_into_the_copy():
    original = network()
    original.get_layer("hidden").enable_lora(2, lora_alpha=8)
    give_values(original)
    before = values(original)
    copy = kc.build_cascade(original, trainable={"upstream": LoRA(3)})
    np.testing.assert_array_equal(numpy(copy(X)), numpy(original(X)))
    shapes = {v.path: tuple(v.shape) for v in copy.variables}
    assert shapes["upstream/hidden/lora_kernel_a"] == (6, 3)
    assert values(original).keys() == before.keys()


def test_a_layer_of_the_users_may_have_lora_of_its_own():
    cascade = kc.build_cascade(
        network(),
        adapters=layers.Dense(4, lora_rank=2, name="mine"),
        head=layers.Dense(2, lora_rank=3),
    )
    trained = [v.path.rsplit("/", 1)[-1] for v in cascade.trainable_variables]
    assert trained == ["lora_kernel_a", "lora_kernel_b"] * 2


def test_a_cascade_with_lora_passes_the_common_checks():
    cascade = build({"upstream": LoRA(3)})
    give_values(cascade)
    assert kc.testing.check_cascade(cascade, X) != []


def test_a_clone_of_keras_has_lora_as_well():
    cascade = build({"upstream": LoRA(3, alpha=8)})
    give_values(cascade)
    clone = keras.models.clone_model(cascade)
    clone.set_weights(cascade.get_weights())
    np.testing.assert_array_equal(numpy(clone(X)), numpy(cascade(X)))


def test_a_kernels_regulariser_applies_to_a_and_b_instead():
    cascade = over(layers.Dense(2, kernel_regularizer="l2", name="out"), (6,))
    squares = [
        np.square(numpy(v).astype("float64")).sum()
        for v in cascade.trainable_variables
    ]
    np.testing.assert_allclose(
        sum(map(numpy, cascade.losses)), 0.01 * sum(squares), rtol=1e-5
    )


@pytest.mark.parametrize("rank", [0, -1, 2.0, True, "8", None])
def test_a_rank_is_a_positive_int(rank):
    with pytest.raises(ValueError, match=r"the rank must be an int of at"):
        LoRA(rank)


@pytest.mark.parametrize("alpha", [0, -1.0, float("inf"), True, "8"])
def test_alpha_is_a_positive_number(alpha):
    with pytest.raises(ValueError, match="alpha must be a positive number"):
        LoRA(8, alpha=alpha)


def test_a_bare_value_is_explained():
    with pytest.raises(TypeError, match=r"trainable={'upstream': LoRA\(rank"):
        build(LoRA(8))


def test_a_pattern_without_layers_for_lora_is_an_error():
    with pytest.raises(ValueError) as caught:
        build({"upstream/norm": LoRA(8)})
    assert str(caught.value) == (
        "trainable['upstream/norm'] is LoRA(rank=8, alpha=None), and no layer "
        "there takes low-rank updates: Dense, EinsumDense, convolutions and "
        "Embedding do, adapters do not. In this cascade: 'upstream/hidden', "
        "'upstream/features', 'head/dense'."
    )


def test_a_kernel_with_a_constraint_is_an_error_with_its_name():
    inputs = keras.Input((6,), name="x")
    bound = layers.Dense(2, kernel_constraint="max_norm", name="bound")
    with pytest.raises(ValueError, match=r"'upstream/bound', which has a c"):
        kc.build_cascade(
            keras.Model(inputs, bound(inputs)),
            trainable={"upstream": LoRA(2)},
        )


def test_another_rank_than_a_layer_has_is_an_error():
    with pytest.raises(ValueError, match="has LoRA of rank 3 already"):
        kc.build_cascade(
            network(),
            head=layers.Dense(2, lora_rank=3),
            trainable={"head": LoRA(2)},
        )


def quantised(*, has_lora=False):
    inputs = keras.Input((6,), name="x")
    layer = layers.Dense(4, name="out")
    model = keras.Model(inputs, layer(inputs))
    layer.quantize("int8")
    if has_lora:
        layer.enable_lora(2)
    return model


def test_a_quantised_layer_is_an_error_with_its_name():
    with pytest.raises(ValueError, match=r"'upstream/out', which is quanti"):
        kc.build_cascade(quantised(), trainable={"upstream": LoRA(2)})


def test_lora_on_a_quantised_layer_cannot_be_merged():
    with pytest.raises(ValueError, match=r"'out' is quantised \(int8\) and"):
        kc.build_cascade(quantised(has_lora=True))


def test_shared_layers_get_no_lora():
    with pytest.raises(ValueError, match=r"LoRA.*Build with copy=True"):
        build({"upstream": LoRA(2)}, copy=False)


def test_a_network_with_lora_is_not_shared():
    original = network()
    original.get_layer("hidden").enable_lora(2)
    with pytest.raises(ValueError, match=r"'hidden' of 'upstream' has LoRA"):
        kc.build_cascade(original, copy=False)
