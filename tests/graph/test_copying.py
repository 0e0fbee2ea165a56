import keras
import numpy as np
import pytest

import keras_cascade as kc
from keras_cascade.graph.block import Block
from keras_cascade.graph.copying import copy_network
from keras_cascade.graph.graph import read_graph
from keras_cascade.graph.pruning import find_needed

layers = keras.layers


def _numpy(x):
    return keras.tree.map_structure(keras.ops.convert_to_numpy, x)


def _paths(network):
    return [variable.path for variable in network.variables]


def _calls_of(cascade, inputs):
    """How often each layer with a `called` counter runs in one call."""
    Counting.called.clear()
    cascade(inputs)
    return sorted(Counting.called)


@keras.saving.register_keras_serializable(package="tests")
class Counting(layers.Dense):
    """Notes that it was called, by name."""

    called: list = []  # noqa: RUF012 - the tests clear it

    def call(self, inputs, training=None):
        Counting.called.append(self.name)
        return super().call(inputs, training=training)


@pytest.fixture
def counting():
    """A chain of four counting layers, the second in a nested network."""
    inner_x = keras.Input((4,), name="inner_x")
    inner = keras.Model(
        inner_x,
        Counting(4, name="after")(Counting(4, name="inside")(inner_x)),
        name="inner",
    )
    x = keras.Input((4,), name="x")
    y = Counting(4, name="first")(x)
    y = Counting(4, name="last")(inner(y))
    return keras.Model(x, y, name="counting")


# --- A copy of the whole -----------------------------------------------------


def _lambda():
    x = keras.Input((4,), name="x")
    y = layers.Lambda(lambda t, k: t * k, arguments={"k": 3.0}, name="l")(x)
    return keras.Model(x, y)


def _lambda_of_a_shape():
    x = keras.Input((4,))
    y = layers.Lambda(lambda t: t * 2.0, output_shape=lambda shape: shape)(x)
    return keras.Model(x, y)


def _operations():
    x = keras.Input((4,), name="x")
    y = keras.ops.concatenate([x * 2.0, -x], axis=-1)
    y = keras.ops.reshape(y, (-1, 2, 4)) + np.arange(4, dtype="float32")
    y = keras.ops.where(y > 0, y, keras.ops.square(y))
    return keras.Model(x, keras.ops.mean(y[:, 1:], axis=1))


def _sequential():
    return keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(5, activation="relu"),
            layers.BatchNormalization(),
            layers.Dense(2),
        ]
    )


def _nested():
    inner_x = keras.Input((4,), name="inner_x")
    y = layers.Dense(4, activation="tanh")(inner_x) * 2.0
    inner = keras.Model(inner_x, y + inner_x, name="inner")
    sequential = _sequential()
    x = keras.Input((4,), name="x")
    return keras.Model(x, sequential(inner(inner(x)) - 1.0))


def _shared_across_nesting():
    shared = layers.Dense(4, name="shared")
    inner_x = keras.Input((4,), name="inner_x")
    inner = keras.Model(inner_x, shared(inner_x), name="inner")
    x = keras.Input((4,), name="x")
    return keras.Model(x, shared(inner(x)))


def _mappings():
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    inner = keras.Model(
        {"a": a, "b": b},
        {"sum": a + b, "difference": layers.Subtract()([a, b])},
        name="inner",
    )
    x = keras.Input((4,), name="x")
    outputs = inner({"a": x, "b": layers.Dense(4)(x)})
    return keras.Model({"x": x}, {"z": outputs["sum"], **outputs})


def _unnamed_weights():
    @keras.saving.register_keras_serializable(package="tests")
    class Scale(layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(shape=shape[-1:], initializer="normal")

        def call(self, inputs):
            return inputs * self.scale

    x = keras.Input((4,), name="x")
    return keras.Model(x, Scale(name="scale")(x))


NETWORKS = {
    "lambda": _lambda,
    "lambda of a shape": _lambda_of_a_shape,
    "operations": _operations,
    "sequential": _sequential,
    "nested": _nested,
    "shared across nesting": _shared_across_nesting,
    "mappings": _mappings,
    "unnamed weights": _unnamed_weights,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_a_copy_computes_what_the_original_does(name, rows, same, state):
    network = NETWORKS[name]()
    for variable in network.variables:  # so that nothing is at its default
        if "kernel" not in variable.path and "seed" not in variable.path:
            variable.assign(variable + 0.3)
    before = state(network)
    copy = copy_network(network, "copy")
    inputs = {"x": rows} if name == "mappings" else rows
    same(network(inputs), copy(inputs))
    same(before, state(network))
    paths = [variable.path for variable in copy.variables]
    assert len(set(paths)) == len(paths)
    assert all(path.startswith("copy/") for path in paths)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_copy_has_the_same_paths_whenever_it_is_made(name):
    paths = []
    for _ in range(2):
        copy = copy_network(NETWORKS[name](), "copy")
        paths.append([variable.path for variable in copy.variables])
    assert paths[0] == paths[1]


def test_a_copy_can_be_copied(grammar, rows, same):
    first = copy_network(grammar, "first")
    second = copy_network(first, "second")
    same(grammar(rows), second(rows))
    assert [v.path.removeprefix("second/") for v in second.variables] == [
        v.path.removeprefix("first/") for v in first.variables
    ]


def test_a_shared_layer_stays_one_layer():
    copy = copy_network(_shared_across_nesting(), "copy")
    inner = copy.get_layer("inner")
    assert inner.get_layer("shared") is copy.get_layer("shared")
    assert len(copy.variables) == 2


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_calls_keep_their_numbers_in_copies_and_files(
    order, rows, same, tmp_path
):
    # The first call comes after the second in Keras's order by depth.
    x = keras.Input((4,), name="x")
    shared = layers.Dense(4, name="shared")
    first = shared(layers.Dense(4, name="before")(x))
    second = shared(x)
    deep = layers.Dense(4, name="d2")(layers.Dense(4, name="d1")(second))
    ends = [(first, deep)[i] for i in order]
    network = keras.Model(x, layers.Add(name="add")(ends))
    expected = dict(
        zip(
            ["shared_0", "shared_1"],
            keras.Model(x, [first, second])(rows),
            strict=True,
        )
    )
    copy = copy_network(network, "copy")
    copy.save(tmp_path / "copy.keras")
    loaded = keras.saving.load_model(tmp_path / "copy.keras")
    for one in (network, copy, loaded):
        cascade = kc.build_cascade(
            one, taps=["shared:0", "shared:1"], adapters=None, fusion=None
        )
        same(expected, cascade(rows))


def test_masks_pass_from_an_embedding_to_a_recurrent_layer(same):
    x = keras.Input((6,), dtype="int32", name="x")
    y = layers.Embedding(10, 4, mask_zero=True, name="embedding")(x)
    network = keras.Model(x, layers.LSTM(3, name="lstm")(y))
    tokens = np.array([[1, 2, 3, 0, 0, 0], [4, 5, 6, 7, 8, 9]])
    cut = copy_network(network, "copy")
    expected, given = _numpy(network(tokens)), _numpy(cut(tokens))
    np.testing.assert_allclose(given, expected, rtol=1e-5, atol=1e-6)
    # The mask counts: hidden values do not matter.
    alone = _numpy(network.get_layer("lstm")(cut.layers[1](tokens[:, :3])))
    np.testing.assert_allclose(given[0], alone[0], rtol=1e-5, atol=1e-6)


def test_a_tap_between_a_mask_and_its_user_keeps_the_mask():
    x = keras.Input((6,), dtype="int32", name="x")
    y = layers.Embedding(10, 4, mask_zero=True, name="embedding")(x)
    y = layers.LSTM(3, return_sequences=True, name="one")(y)
    network = keras.Model(x, layers.LSTM(3, name="two")(y))
    tokens = np.array([[1, 2, 3, 0, 0, 0], [4, 5, 6, 7, 8, 9]])
    cascade = kc.build_cascade(
        network, taps=["one", "two"], adapters=None, fusion=None
    )
    tensors = [network.get_layer("one").output, network.output]
    reference = keras.Model(x, tensors)
    for expected, given in zip(
        reference(tokens), cascade(tokens).values(), strict=True
    ):
        np.testing.assert_allclose(
            _numpy(given), _numpy(expected), rtol=1e-5, atol=1e-6
        )


def test_weights_and_flags_equal_the_originals(same):
    network = _nested()
    network.get_layer("inner").layers[1].trainable = False
    copy = copy_network(network, "copy")
    same(
        [w.shape for w in network.trainable_weights],
        [w.shape for w in copy.trainable_weights],
    )
    same(network.get_weights(), copy.get_weights())


def test_flags_inside_a_composite_layer_are_copied():
    x = keras.Input((5, 4))
    layer = layers.Bidirectional(layers.LSTM(2), name="both")
    network = keras.Model(x, layer(x))
    layer.forward_layer.trainable = False
    copy = copy_network(network, "copy").get_layer("both")
    assert not copy.forward_layer.trainable
    assert copy.backward_layer.trainable


def test_random_layers_continue_from_their_state(rows, same):
    x = keras.Input((4,))
    network = keras.Model(x, layers.Dropout(0.5, seed=3)(x))
    network(rows, training=True)  # its seed moves
    copy = copy_network(network, "copy")
    same(network(rows, training=True), copy(rows, training=True))


def test_without_a_copy_the_layers_are_the_networks_own(grammar, rows, same):
    shared = copy_network(grammar, "upstream", share=True)
    assert shared.get_layer("conv1_a") is grammar.get_layer("conv1_a")
    same(grammar(rows), shared(rows))
    same([id(v) for v in grammar.variables], [id(v) for v in shared.variables])


def test_a_layer_that_cannot_be_copied_is_named():
    class Own(layers.Layer):
        def __init__(self, table, **kwargs):
            super().__init__(**kwargs)
            self.table = table

        def call(self, inputs):
            return inputs * self.table

    x = keras.Input((4,))
    network = keras.Model(x, Own(object.__new__(_Two), name="own")(x))
    with pytest.raises(
        ValueError, match=r"'own' \(Own\).*get_config\(\).*copy=False"
    ) as error:
        kc.build_cascade(network)
    assert "\n" not in str(error.value)


class _Two:
    """Multiplies by a number that no config can contain, two."""

    def __rmul__(self, other):
        return other * 2.0


# --- A part ------------------------------------------------------------------


def test_layers_that_no_tap_needs_are_not_in_the_copy(grammar, part):
    block = part(grammar, "conv1_b")
    assert [variable.path for variable in block.variables] == [
        f"upstream/{layer}/{weight}"
        for layer in ("conv1_a", "conv1_b")
        for weight in ("kernel", "bias")
    ]


def test_inner_layers_that_no_tap_needs_are_not_in_the_copy(grammar, part):
    block = part(grammar, "inner:0/dense_in")
    assert {path.rsplit("/", 1)[0] for path in _paths(block)} == {
        "upstream/conv1_a",
        "upstream/conv1_b",
        "upstream/inner/dense_in",
    }


def test_a_nested_network_that_is_called_twice_stays_one(grammar, rows, same):
    cascade = kc.build_cascade(
        grammar,
        taps={"early": "inner:0/dense_in", "late": "inner:1/dense_in"},
        adapters=None,
        fusion=None,
    )
    inner = grammar.get_layer("inner")
    shared = grammar.get_layer("shared")
    y = grammar.get_layer("conv1_b")(grammar.get_layer("conv1_a")(rows))
    early = inner.get_layer("dense_in")(y)
    late = inner.get_layer("dense_in")(shared(shared(inner(y))))
    same({"early": early, "late": late}, cascade(rows))
    assert len(cascade.variables) == len(grammar.variables)


def test_inputs_that_no_tap_needs_are_not_asked_for(rows, same):
    a, b = keras.Input((4,), name="a"), keras.Input((4,), name="b")
    low = layers.Dense(3, name="low")(a)
    network = keras.Model([a, b], layers.Concatenate()([low, b]))
    cascade = kc.build_cascade(network, taps="low", adapters=None, fusion=None)
    same(network.get_layer("low")(rows), cascade(rows)["low"])
    assert [x.name for x in cascade.inputs] == ["a"]


def test_an_input_of_a_nested_network_that_is_not_needed_is_dropped(rows, same):
    p, q = keras.Input((4,), name="p"), keras.Input((4,), name="q")
    low = layers.Dense(3, name="low")(p)
    inner = keras.Model([p, q], layers.Concatenate()([low, q]), name="inner")
    x = keras.Input((4,), name="x")
    network = keras.Model(x, inner([x, layers.Dense(4, name="side")(x)]))
    cascade = kc.build_cascade(
        network, taps="inner/low", adapters=None, fusion=None
    )
    same(inner.get_layer("low")(rows), cascade(rows)["low"])
    assert not any("side" in v.path for v in cascade.variables)


def test_all_taps_come_from_one_forward_pass(counting, rows):
    cascade = kc.build_cascade(
        counting,
        taps=["first", "inner/inside", "inner", "last"],
        adapters=None,
        fusion=None,
    )
    assert _calls_of(cascade, rows) == ["after", "first", "inside", "last"]


def test_layers_that_no_tap_needs_do_not_run(counting, rows):
    cascade = kc.build_cascade(
        counting, taps=["inner/inside"], adapters=None, fusion=None
    )
    assert _calls_of(cascade, rows) == ["first", "inside"]


def test_an_input_can_be_tapped(grammar, rows, same):
    cascade = kc.build_cascade(
        grammar, taps=["x", "conv1_a"], adapters=None, fusion=None
    )
    same(rows, cascade(rows)["x"])


def test_the_input_of_a_nested_network_can_be_tapped(grammar, rows, same):
    y = grammar.get_layer("conv1_b")(grammar.get_layer("conv1_a")(rows))
    cascade = kc.build_cascade(
        grammar, taps={"t": "inner:0/inner_x"}, adapters=None, fusion=None
    )
    same(y, cascade(rows)["t"])


def test_all_calls_of_a_network_compute_what_any_is_needed_for():
    graph = read_graph(_twice())
    ref = ("inner:0", "low", 0)
    together = find_needed(graph, [ref, ("inner:1", "high", 0)])
    assert set(together.inside) == {"inner"}
    assert find_needed(graph, [ref]).nodes == {"x", "inner:0"}


def _twice():
    inner_x = keras.Input((4,), name="inner_x")
    y = layers.Dense(4, name="low")(inner_x)
    inner = keras.Model(inner_x, layers.Dense(4, name="high")(y), name="inner")
    x = keras.Input((4,), name="x")
    return keras.Model(x, inner(inner(x)))


# --- Nothing of yours is touched ---------------------------------------------


def test_training_the_cascade_leaves_the_original_alone(
    grammar, rows, state, same
):
    # On JAX a training step gives its arrays away: a shared one would be
    # deleted.
    before = state(grammar)
    cascade = kc.build_cascade(
        grammar, head=keras.layers.Dense(1), trainable=True, loss="mse"
    )
    cascade.fit(rows, np.ones((8, 1), "float32"), verbose=0)
    same(before, state(grammar))
    grammar(rows)
    moved = cascade.blocks["upstream"].get_weights()
    assert any(
        np.any(a != b) for a, b in zip(before["values"], moved, strict=True)
    )


def test_training_the_original_leaves_the_cascade_alone(grammar, rows, same):
    cascade = kc.build_cascade(grammar)
    before = [w.copy() for w in cascade.get_weights()]
    grammar.compile("sgd", "mse")
    grammar.fit(rows, np.ones((8, 4), "float32"), verbose=0)
    same(before, cascade.get_weights())
    cascade(rows)


def test_a_compiled_network_stays_compiled(grammar, rows):
    grammar.compile("sgd", "mse")
    optimizer = grammar.optimizer
    cascade = kc.build_cascade(grammar)
    assert grammar.optimizer is optimizer
    assert not cascade.compiled


def test_building_twice_gives_the_same_cascade_twice(grammar, rows, same):
    one, two = (
        kc.build_cascade(grammar, taps=["conv1_*"], adapters=None)
        for _ in range(2)
    )
    same([v.path for v in one.variables], [v.path for v in two.variables])
    same(one.get_weights(), two.get_weights())
    same(one(rows), two(rows))


def test_one_network_may_be_upstream_and_downstream(grammar, rows, same):
    cascade = kc.build_cascade(grammar, grammar, adapters=None)
    same(grammar(grammar(rows)), cascade(rows))
    paths = [variable.path for variable in cascade.variables]
    assert len(set(paths)) == len(paths) == len(grammar.variables)
    assert {path.split("/")[0] for path in paths} == {"upstream"}


def test_two_networks_may_have_equal_layer_names(rows, same):
    def network():
        x = keras.Input((4,), name="x")
        return keras.Model(x, layers.Dense(4, name="h")(x), name="net")

    one, two = network(), network()
    cascade = kc.build_cascade(one, two, adapters=None)
    same(two(one(rows)), cascade(rows))
    assert [variable.path for variable in cascade.variables] == [
        "upstream/h/kernel",
        "upstream/h/bias",
        "downstream/h/kernel",
        "downstream/h/bias",
    ]


def test_a_copy_is_a_block_at_every_level(grammar):
    copy = copy_network(grammar, "copy")
    assert isinstance(copy, Block)
    assert isinstance(copy.get_layer("inner"), Block)


@keras.saving.register_keras_serializable(package="tests_copying")
class ChangesWhenWritten(layers.Layer):
    """Brings one of its variables up to date when it is written."""

    def build(self, shape):
        self.used = self.add_weight(shape=(4,), name="used")
        self.kept = self.add_weight(shape=(4,), name="kept")

    def call(self, x):
        return x * self.used

    def save_own_variables(self, store):
        self.kept.assign(self.used * 2.0)
        super().save_own_variables(store)

    def load_own_variables(self, store):
        self.kept.assign(store["1"])
        self.used.assign(store["1"] * 0.4)


def test_a_layer_that_changes_when_it_is_saved_gets_its_values_back(
    rows, same, state
):
    x = keras.Input((4,), name="x")
    network = keras.Model(x, ChangesWhenWritten(name="own")(x))
    network.set_weights([np.full(4, 3.0), np.full(4, 5.0)])
    before = state(network)
    copy = copy_network(network, "copy")
    same(state(network), before)
    # Such a layer does not load what it saved: the copy has the values.
    same(copy.get_weights(), network.get_weights())
    same(copy(rows), network(rows))
