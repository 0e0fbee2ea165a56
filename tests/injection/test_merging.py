"""Merges: their formulas, silence at step 0, and the weights that train."""

import keras
import numpy as np
import pytest
from keras import layers, ops, optimizers

import keras_cascade as kc
from keras_cascade.graph.block import Block
from keras_cascade.testing import check_cascade

MERGES = ("add", "multiply", "film", "concat", "replace")
SILENT = MERGES[:-1]
RNG = np.random.default_rng(0)
# The shape of an inner layer's output, and the axis of its channels.
KINDS = {
    "vector": ((5,), -1),
    "sequence": ((3, 5), -1),
    "map": ((2, 3, 5), -1),
    "map with channels first": ((5, 2, 3), 1),
    "volume": ((2, 1, 2, 5), -1),
}


def array(*shape):
    return RNG.normal(size=shape).astype("float32")


def pooling(shape, axis):
    data_format = "channels_last" if axis == -1 else "channels_first"
    kinds = {
        2: layers.GlobalAveragePooling1D,
        3: layers.GlobalAveragePooling2D,
        4: layers.GlobalAveragePooling3D,
    }
    if len(shape) == 1:
        return layers.Identity(name="pool")
    return kinds[len(shape)](data_format=data_format, name="pool")


def expert(shape, axis=-1):
    """tanh, where features enter, the mean over positions, a dense layer."""
    inputs = keras.Input(shape, name="x")
    x = layers.Activation("tanh", name="hidden")(inputs)
    x = pooling(shape, axis)(x)
    return keras.Model(inputs, layers.Dense(2, name="out")(x), name="expert")


def encoder(shape, axis=-1):
    """Gives its input as it is, as a map of the format that is asked for."""
    inputs = keras.Input(shape, name="y")
    x = layers.Identity(name="features")(inputs)
    return keras.Model(inputs, [x, pooling(shape, axis)(x)], name="encoder")


def build(shape, axis, features, merge, zero_init=True):
    return kc.build_cascade(
        encoder(features, axis),
        expert(shape, axis),
        taps={"texture": "features"},
        adapters=None,
        inject={"texture": kc.Injection("hidden", merge, zero_init)},
        inputs={"upstream": "features", "downstream": "x"},
    )


def weights(model):
    """Variables by the end of their path, as arrays."""
    return {
        v.path.split("/", 1)[1]: np.array(ops.convert_to_numpy(v))
        for v in model.variables
    }


def weight(model, name):
    """The weight of the injection whose path has this in it."""
    (found,) = [v for path, v in weights(model).items() if name in path]
    return found


def channels_last(x, axis):
    return np.moveaxis(x, axis, -1)


def merged(model, merge, x, f):
    """The table in merging.py, in NumPy, channels last."""
    if f.ndim < x.ndim:
        f = f.reshape(len(f), *[1] * (x.ndim - 2), -1)
    same = f.shape[-1] == x.shape[-1]
    if merge in ("add", "multiply"):
        kernel = weight(model, "gate" if same else "projection")
        g = f * kernel if same else f @ kernel
        return x + g if merge == "add" else x * (1 + g)
    if merge == "film":
        s, t = weight(model, "scaling"), weight(model, "shifting")
        return x * (1 + f @ s) + f @ t
    if merge == "concat":
        own, side = weight(model, "own"), weight(model, "projection")
        joined = np.concatenate(
            [x, np.broadcast_to(f, (*x.shape[:-1], f.shape[-1]))], -1
        )
        return x + joined @ np.concatenate([own, side])
    return f


def answer(model, x):
    """The expert's answer for its inner layer's tensor."""
    found = weights(model)
    pooled = x.reshape(len(x), -1, x.shape[-1]).mean(1)
    return pooled @ found["out/kernel"] + found["out/bias"]


def randomise(model):
    for variable in model.variables:
        variable.assign(RNG.normal(size=variable.shape))


def call(model, *args, **kwargs):
    return keras.tree.map_structure(
        ops.convert_to_numpy, model(*args, **kwargs)
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("merge", "width"),
    [*((merge, 5) for merge in MERGES), *((merge, 4) for merge in SILENT)],
)
def test_a_merge_computes_its_formula(merge, width, kind):
    shape, axis = KINDS[kind]
    features = list(shape)
    features[axis if axis == -1 else 0] = width
    model = build(shape, axis, features, merge)
    randomise(model)
    x, f = array(4, *shape), array(4, *features)
    inputs = {"features": f, "x": x}
    inputs = f if merge == "replace" else inputs
    expected = merged(
        model, merge, channels_last(np.tanh(x), axis), channels_last(f, axis)
    )
    np.testing.assert_allclose(
        call(model, inputs), answer(model, expected), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("width", [5, 4])
@pytest.mark.parametrize("kind", ["sequence", "map with channels first"])
@pytest.mark.parametrize("merge", SILENT)
def test_a_vector_is_merged_at_all_positions(merge, kind, width):
    shape, axis = KINDS[kind]
    model = build(shape, axis, (width,), merge)
    randomise(model)
    x, f = array(4, *shape), array(4, width)
    expected = merged(model, merge, channels_last(np.tanh(x), axis), f)
    np.testing.assert_allclose(
        call(model, {"features": f, "x": x}),
        answer(model, expected),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("merge", SILENT)
def test_a_merge_starts_silent(merge, kind):
    shape, axis = KINDS[kind]
    model = build(shape, axis, shape, merge)
    x, f = array(4, *shape), array(4, *shape)
    pooled = channels_last(np.tanh(x), axis)
    without = call(model, {"features": np.zeros_like(f), "x": x})
    np.testing.assert_array_equal(call(model, {"features": f, "x": x}), without)
    np.testing.assert_allclose(without, answer(model, pooled), atol=1e-6)


@pytest.mark.parametrize(
    ("merge", "expected"),
    [("add", lambda x, f: x + f), ("multiply", lambda x, f: x * (1 + f))],
)
def test_without_zero_init_a_gate_is_open(merge, expected):
    model = build((5,), -1, (5,), merge, zero_init=False)
    x, f = array(4, 5), array(4, 5)
    np.testing.assert_allclose(
        call(model, {"features": f, "x": x}),
        answer(model, expected(np.tanh(x), f)),
        rtol=1e-5,
        atol=1e-6,
    )


@pytest.mark.parametrize("merge", ["film", "concat"])
def test_without_zero_init_a_projection_is_glorots(merge):
    model = build((5,), -1, (5,), merge, zero_init=False)
    limit = np.sqrt(6 / (5 + 5))
    names = {"film": ("scaling", "shifting"), "concat": ("own", "projection")}
    for name in names[merge]:
        kernel = weight(model, name)
        assert 0 < np.abs(kernel).max() <= limit
    x, f = array(4, 5), array(4, 5)
    np.testing.assert_allclose(
        call(model, {"features": f, "x": x}),
        answer(model, merged(model, merge, np.tanh(x), f)),
        rtol=1e-5,
        atol=1e-6,
    )


def test_film_is_that_of_perez():
    """FiLM(F_c | γ_c, β_c) = γ_c F_c + β_c: γ and β are affine in features."""
    model = build((2, 3, 5), -1, (4,), "film")
    randomise(model)
    x, f = array(4, 2, 3, 5), array(4, 4)
    gamma = 1 + f @ weight(model, "scaling")
    beta = f @ weight(model, "shifting")
    expected = np.einsum("nhwc,nc->nhwc", np.tanh(x), gamma)
    expected += beta[:, None, None, :]
    np.testing.assert_allclose(
        call(model, {"features": f, "x": x}),
        answer(model, expected),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("shape", [(None, 5), (None, None, 5)])
@pytest.mark.parametrize("merge", MERGES)
def test_open_sizes_stay_open(merge, shape):
    model = build(shape, -1, shape, merge)
    randomise(model)
    for size in (2, 4):
        full = [size if n is None else n for n in shape]
        x, f = array(3, *full), array(3, *full)
        inputs = f if merge == "replace" else {"features": f, "x": x}
        np.testing.assert_allclose(
            call(model, inputs),
            answer(model, merged(model, merge, np.tanh(x), f)),
            rtol=1e-4,
            atol=1e-5,
        )


@pytest.mark.parametrize("merge", SILENT)
def test_a_mask_passes_the_merge(merge):
    tokens = keras.Input((4,), dtype="int32", name="tokens")
    x = layers.Embedding(6, 5, mask_zero=True, name="embed")(tokens)
    x = layers.LSTM(3, name="lstm")(x)
    reader = keras.Model(tokens, x, name="reader")
    cascade = kc.build_cascade(
        encoder((7,)),
        reader,
        taps={"style": "features"},
        inject={"style": kc.Injection("embed", merge)},
        inputs={"upstream": "style_input", "downstream": "tokens"},
    )
    padded = np.array([[1, 2, 0, 0], [3, 4, 5, 0]], "int32")
    expected = call(reader, padded)
    full = keras.Model(tokens, reader.get_layer("embed").output)
    unmasked = ops.convert_to_tensor(call(full, padded))
    assert not np.allclose(expected, call(reader.get_layer("lstm"), unmasked))
    inputs = {"style_input": array(2, 7), "tokens": padded}
    np.testing.assert_array_equal(call(cascade, inputs), expected)


@pytest.mark.parametrize("merge", SILENT)
def test_a_mask_of_the_features_does_not_enter(merge):
    """Other steps are padding there: at step 0 that changes nothing."""

    def reader(name):
        tokens = keras.Input((4,), dtype="int32", name=f"{name}_tokens")
        x = layers.Embedding(6, 5, mask_zero=True, name="embed")(tokens)
        return keras.Model(tokens, layers.LSTM(3, name="lstm")(x), name=name)

    first, second = reader("first"), reader("second")
    cascade = kc.build_cascade(
        first,
        second,
        taps={"style": "embed"},
        adapters=7,
        inject={"style": kc.Injection("embed", merge)},
        inputs={"upstream": "style_tokens", "downstream": "tokens"},
    )
    tokens = np.array([[1, 2, 0, 0]], "int32")
    for other in ([[0, 3, 0, 1]], [[1, 2, 3, 4]]):
        inputs = {"style_tokens": np.array(other, "int32"), "tokens": tokens}
        np.testing.assert_array_equal(
            call(cascade, inputs), call(second, tokens)
        )


# A small network of images, with a residual connection and a nested network.


def image_encoder(name="encoder"):
    x = inputs = keras.Input((8, 8, 3), name="pixels")
    x = layers.Conv2D(4, 3, padding="same", activation="relu", name="conv1")(x)
    x = layers.MaxPooling2D(name="pool")(x)
    x = layers.Conv2D(6, 3, padding="same", activation="relu", name="conv2")(x)
    return keras.Model(inputs, x, name=name)


def deepest():
    x = inputs = keras.Input((8, 8, 5), name="d")
    x = layers.Conv2D(5, 1, activation="tanh", name="leaf")(x)
    return keras.Model(
        inputs, layers.Add(name="skip")([x, inputs]), name="deep"
    )


def inner():
    x = inputs = keras.Input((8, 8, 5), name="i")
    x = layers.Conv2D(5, 1, name="before")(x)
    x = deepest()(x)
    return keras.Model(
        inputs, layers.Add(name="skip")([x, inputs]), name="inner"
    )


def image_expert():
    x = inputs = keras.Input((8, 8, 3), name="image")
    x = layers.Conv2D(5, 3, padding="same", name="stem")(x)
    y = layers.Conv2D(5, 3, padding="same", name="branch")(x)
    y = layers.BatchNormalization(name="norm")(y)
    x = layers.Add(name="residual")([x, y])
    x = inner()(x) * 0.5
    x = layers.Dropout(0.5, name="drop")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(4, name="dense")(x)
    return keras.Model(inputs, layers.Softmax(name="out")(x), name="expert")


X = array(6, 8, 8, 3)
Y = RNG.integers(0, 4, 6)


@pytest.fixture(scope="module")
def networks():
    """Read only."""
    keras.utils.set_random_seed(0)
    return image_encoder(), image_expert()


PLACES = {
    "the input layer": "image",
    "a convolution": "stem",
    "a residual branch": "branch",
    "a normalisation": "norm",
    "a residual sum": "residual",
    "a nested network": "inner",
    "a nested network's input": "inner/i",
    "inside a nested network": "inner/before",
    "two levels down": "inner/deep/leaf",
    "an operation that is no layer": "multiply",
    "a dropout": "drop",
    "a vector": "pool",
    "the output layer": "out",
    "the output, counted from the end": "-1",
}


@pytest.mark.parametrize("place", PLACES)
def test_wherever_features_enter_the_cascade_starts_as_the_downstream(
    networks, place
):
    for merge in SILENT:
        cascade = kc.build_cascade(
            *networks,
            taps={"texture": "conv2"},
            inject={"texture": kc.Injection(PLACES[place], merge)},
        )
        np.testing.assert_array_equal(
            call(cascade, X), call(networks[1], X), err_msg=merge
        )
        # And it did enter: other weights, another answer.
        for variable in cascade.blocks["adapters"].variables:
            variable.assign(ops.ones(variable.shape))
        assert not np.allclose(call(cascade, X), call(networks[1], X)), merge


def injected(networks, **arguments):
    arguments = {
        "taps": {"low": "conv1", "high": "conv2"},
        "inject": {
            "low": ["stem", kc.Injection("inner/deep/leaf", "film")],
            "high": [
                kc.Injection("stem", "multiply"),
                kc.Injection("pool", "concat"),
            ],
        },
        "optimizer": optimizers.SGD(0.1, momentum=0.9),
        "loss": "sparse_categorical_crossentropy",
        **arguments,
    }
    return kc.build_cascade(*networks, **arguments)


def test_several_taps_are_injected_at_once(networks):
    cascade = injected(networks)
    np.testing.assert_array_equal(call(cascade, X), call(networks[1], X))
    sides = {
        path.split("/")[1]
        for path in weights(cascade)
        if path.startswith("injections/")
    }
    assert sides == {
        "low_into_stem_gate",
        "low_into_leaf_scaling",
        "low_into_leaf_shifting",
        "high_into_stem_gate",
        "high_into_pool_projection",
    }


def test_two_injections_into_one_layer_follow_each_other():
    """The later merges into the result of the earlier: (x + g) (1 + h)."""
    x = inputs = keras.Input((5,), name="y")
    first = layers.Identity(name="first")(x)
    second = layers.Activation("sigmoid", name="second")(x)
    network = keras.Model(inputs, [first, second], name="encoder")
    cascade = kc.build_cascade(
        network,
        expert((5,)),
        taps=["first", "second"],
        adapters=None,
        inject={
            "first": kc.Injection("hidden", zero_init=False),
            "second": kc.Injection("hidden", "multiply", zero_init=False),
        },
    )
    x = array(4, 5)
    expected = (np.tanh(x) + x) * (1 + 1 / (1 + np.exp(-x)))
    np.testing.assert_allclose(
        call(cascade, x), answer(cascade, expected), rtol=1e-5, atol=1e-6
    )


def test_one_tap_enters_several_layers_each_by_a_gate_of_its_own():
    x = inputs = keras.Input((5,), name="x")
    x = layers.Activation("tanh", name="one")(x)
    x = layers.Activation("sigmoid", name="two")(x)
    network = keras.Model(inputs, layers.Dense(2, name="out")(x), name="two")
    cascade = kc.build_cascade(
        encoder((5,)),
        network,
        taps={"f": "features"},
        adapters=None,
        inject={
            "f": [
                kc.Injection(path, zero_init=False) for path in ("one", "two")
            ]
        },
    )
    gates = [v for path, v in weights(cascade).items() if "gate" in path]
    assert len(gates) == 2
    x = array(4, 5)
    expected = 1 / (1 + np.exp(-(np.tanh(x) + x))) + x
    np.testing.assert_allclose(
        call(cascade, x), answer(cascade, expected), rtol=1e-5, atol=1e-6
    )


def test_of_a_shared_layer_only_the_call_that_is_named_is_entered():
    inputs = keras.Input((5,), name="x")
    shared = layers.Dense(5, activation="tanh", name="shared")
    x = shared(shared(inputs))
    network = keras.Model(inputs, layers.Dense(2, name="out")(x), name="twice")
    cascade = kc.build_cascade(
        encoder((5,)),
        network,
        taps={"f": "features"},
        adapters=None,
        inject={"f": kc.Injection("shared:1", zero_init=False)},
    )
    found = weights(cascade)
    x = array(4, 5)

    def dense(x):
        return np.tanh(x @ found["shared/kernel"] + found["shared/bias"])

    np.testing.assert_allclose(
        call(cascade, x),
        answer(cascade, dense(dense(x)) + x),
        rtol=1e-5,
        atol=1e-6,
    )


def test_a_residual_connection_carries_features_that_entered_before_it():
    """(x + g) + Dense(x + g): both branches see it."""
    inputs = keras.Input((5,), name="x")
    x = layers.Activation("tanh", name="hidden")(inputs)
    y = layers.Dense(5, name="branch")(x)
    x = layers.Add(name="sum")([x, y])
    network = keras.Model(inputs, layers.Dense(2, name="out")(x), name="res")
    cascade = kc.build_cascade(
        encoder((5,)),
        network,
        taps={"f": "features"},
        adapters=None,
        inject={"f": kc.Injection("hidden", zero_init=False)},
    )
    found = weights(cascade)
    x = array(4, 5)
    entered = np.tanh(x) + x
    expected = entered + entered @ found["branch/kernel"] + found["branch/bias"]
    np.testing.assert_allclose(
        call(cascade, x), answer(cascade, expected), rtol=1e-5, atol=1e-6
    )


def moved(cascade, before):
    after = weights(cascade)
    return {
        path.split("/")[0 if "injections" not in path else 1]
        for path in before
        if not np.array_equal(before[path], after[path])
    }


@pytest.mark.parametrize("merge", SILENT)
def test_gradients_reach_the_gate_at_once_and_the_adapter_next(merge):
    cascade = kc.build_cascade(
        encoder((7,)),
        expert((3, 5)),
        taps={"f": "features"},
        adapters={"f": kc.adapters.DenseAdapter(5)},
        inject={"f": kc.Injection("hidden", merge)},
        inputs={"upstream": "f_input", "downstream": "x"},
        trainable={"downstream": False},
        optimizer=optimizers.SGD(0.1),
        loss="mse",
    )
    x = {"f_input": array(4, 7), "x": array(4, 3, 5)}
    y, start = array(4, 2), weights(cascade)
    cascade.train_on_batch(x, y)
    first = moved(cascade, start)
    assert first and all(name.startswith("f_into_hidden") for name in first)
    cascade.train_on_batch(x, y)
    assert "f" in moved(cascade, start)


def test_a_frozen_downstream_stays_bit_identical_while_adapters_move(networks):
    cascade = injected(networks, trainable={"downstream": False})
    before = {v.path: ops.convert_to_numpy(v) + 0 for v in cascade.variables}
    cascade.fit(X, Y, epochs=3, batch_size=3, verbose=0)
    after = {v.path: ops.convert_to_numpy(v) for v in cascade.variables}
    changed = {p for p in before if not np.array_equal(before[p], after[p])}
    adapters = {p for p in before if p.startswith("adapters/")}
    assert changed == adapters
    # In training mode too: normalisation and dropout are frozen.
    np.testing.assert_array_equal(
        call(cascade, X, training=True), call(cascade, X)
    )


@pytest.fixture(scope="module")
def trained(networks):
    """Read only."""
    cascade = injected(networks)
    cascade.fit(X, Y, epochs=2, batch_size=3, verbose=0)
    return cascade


def test_training_leaves_the_networks_as_they_were(networks, trained):
    keras.utils.set_random_seed(0)
    again = image_encoder(), image_expert()
    for network, fresh in zip(networks, again, strict=True):
        for one, other in zip(network.variables, fresh.variables, strict=True):
            np.testing.assert_array_equal(
                *map(ops.convert_to_numpy, (one, other))
            )
        assert all(layer.trainable for layer in network.layers)
        assert network.get_config()["layers"] == fresh.get_config()["layers"]


def test_a_file_keeps_answers_and_optimizer(trained, tmp_path):
    trained.save(tmp_path / "cascade.keras")
    loaded = keras.saving.load_model(tmp_path / "cascade.keras")
    np.testing.assert_array_equal(call(loaded, X), call(trained, X))
    assert loaded.spec.inject == trained.spec.inject
    assert [v.path for v in loaded.variables] == [
        v.path for v in trained.variables
    ]
    pairs = zip(
        loaded.optimizer.variables, trained.optimizer.variables, strict=True
    )
    for one, other in pairs:
        assert one.path == other.path
        np.testing.assert_array_equal(*map(ops.convert_to_numpy, (one, other)))


def test_in_stock_layers_the_cascade_answers_the_same(trained):
    plain = trained.to_plain()
    inner = plain.get_layer("downstream").get_layer("inner")
    assert not any(isinstance(m, Block) for m in (plain, inner))
    np.testing.assert_allclose(call(plain, X), call(trained, X), atol=1e-6)


def test_the_cascade_passes_the_checks_of_cascades(trained):
    check_cascade(trained, X)


def test_in_half_precision_the_cascade_starts_as_the_downstream():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        networks = image_encoder(), image_expert()
        for merge in SILENT:
            cascade = kc.build_cascade(
                *networks,
                taps={"texture": "conv2"},
                inject={
                    "texture": [
                        kc.Injection("stem", merge),
                        kc.Injection("inner/deep/leaf", merge),
                        kc.Injection("dense", merge),
                    ]
                },
            )
            result = cascade(X)
            assert keras.backend.standardize_dtype(result.dtype) == "float16"
            np.testing.assert_array_equal(
                ops.convert_to_numpy(result), call(networks[1], X)
            )
            side = [
                v
                for v in cascade.variables
                if "injections/" in v.path or "_own" in v.path
            ]
            assert {v.dtype for v in side} == {"float32"}
    finally:
        keras.config.set_dtype_policy("float32")


def test_a_downstream_in_half_precision_takes_features_in_full():
    encoder_network = image_encoder()
    keras.config.set_dtype_policy("mixed_float16")
    try:
        network = image_expert()
    finally:
        keras.config.set_dtype_policy("float32")
    cascade = kc.build_cascade(
        encoder_network,
        network,
        taps={"texture": "conv2"},
        inject={"texture": kc.Injection("residual", "film")},
    )
    np.testing.assert_array_equal(call(cascade, X), call(network, X))


# replace: the layers before it are gone.


def parameters(*shapes):
    return sum(int(np.prod(shape)) for shape in shapes)


def test_replace_prunes_the_layers_before_it():
    network = image_expert()
    cascade = kc.build_cascade(
        image_encoder(),
        network,
        taps={"texture": "conv2"},
        inject={"texture": kc.Injection("residual", "replace")},
    )
    block = cascade.blocks["downstream"]
    found = {v.path.split("/")[1] for v in block.variables}
    # Dropout's seed stays; stem, branch and norm are gone.
    assert found == {"inner", "drop", "dense"}
    left = parameters((1, 1, 5, 5), 5, (1, 1, 5, 5), 5, (5, 4), 4)
    assert sum(int(np.prod(w.shape)) for w in block.trainable_weights) == left
    assert [x.name for x in cascade.inputs] == ["inputs"]
    features = cascade.blocks["upstream"](X)
    adapted = cascade.blocks["adapters"](list(features.values()))
    rest = keras.Model(
        network.get_layer("inner").input, network.get_layer("inner").output
    )
    x = rest(next(iter(adapted.values()))) * 0.5
    expected = network.get_layer("out")(
        network.get_layer("dense")(network.get_layer("pool")(x))
    )
    np.testing.assert_allclose(
        call(cascade, X), ops.convert_to_numpy(expected), atol=1e-6
    )


def test_replace_of_one_branch_leaves_the_other():
    network = image_expert()
    cascade = kc.build_cascade(
        image_encoder(),
        network,
        taps={"texture": "conv2"},
        inject={"texture": kc.Injection("norm", "replace")},
    )
    found = {v.path.split("/")[1] for v in cascade.blocks["downstream"].weights}
    assert found == {"stem", "inner", "dense"}
    # It still sees the image, which feeds the other branch.
    assert "image" in [x.name for x in cascade.blocks["downstream"].inputs]


def test_replace_inside_a_nested_network_keeps_its_own_skip():
    cascade = kc.build_cascade(
        image_encoder(),
        image_expert(),
        taps={"texture": "conv2"},
        inject={"texture": kc.Injection("inner/before", "replace")},
    )
    found = {
        v.path.split("/", 1)[1] for v in cascade.blocks["downstream"].weights
    }
    assert not any("before" in path for path in found)
    assert any(path.startswith("stem/") for path in found)
    assert any(path.startswith("inner/deep/leaf/") for path in found)


def test_replace_by_a_vector_needs_a_rule():
    cascade = kc.build_cascade(
        image_encoder(),
        image_expert(),
        taps={"texture": "conv2"},
        inject={"texture": kc.Injection("pool", "replace")},
    )
    found = {v.path.split("/")[1] for v in cascade.blocks["downstream"].weights}
    assert found == {"dense"}
    assert cascade.output_shape == (None, 4)
