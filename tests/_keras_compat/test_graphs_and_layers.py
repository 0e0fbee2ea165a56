"""Fails where Keras changes what is private and the package relies on."""

import random

import keras
import numpy as np
import pytest

from keras_cascade import _keras_compat
from keras_cascade._keras_compat import optimizers

layers = keras.layers


@pytest.fixture
def network():
    """Shares a layer, nests a network, has operations and keywords."""
    inner_x = keras.Input((4,), name="inner_x")
    inner = keras.Model(
        inner_x, layers.Dense(4, name="h")(inner_x), name="inner"
    )
    shared = layers.Dense(4, name="shared")
    x = keras.Input((4,), name="x")
    y = shared(inner(shared(x)) * 2.0)
    z = layers.Dropout(0.5, name="drop")(y, training=False)
    sums = layers.Add(name="add")([y, z])
    return keras.Model(x, [sums, layers.ReLU(name="relu")(y)], name="net")


@pytest.fixture
def rows():
    random = np.random.default_rng(0)
    return random.normal(size=(8, 4)).astype("float32")


def _numpy(x):
    return keras.ops.convert_to_numpy(x)


# --- Graphs ------------------------------------------------------------------


def _recorded(network):
    """The calls as the public `clone_model` goes through them."""
    recorded = []

    def call(operation, *args, **kwargs):
        outputs = operation(*args, **kwargs)
        given = [
            x
            for x in keras.tree.flatten((args, kwargs))
            if isinstance(x, keras.KerasTensor)
        ]
        flat = keras.tree.flatten(outputs)
        recorded.append((operation, len(given), [x.shape for x in flat]))
        return outputs

    keras.models.clone_model(
        keras.Model(network.inputs, network.outputs),
        clone_function=lambda layer: layer,
        call_function=call,
    )
    return recorded


def test_the_calls_are_those_that_clone_model_visits(network):
    calls = _keras_compat.functional_calls(network)
    found = [
        (
            call.operation,
            sum(
                isinstance(x, keras.KerasTensor)
                for x in keras.tree.flatten((call.args, call.kwargs))
            ),
            [x.shape for x in call.outputs],
        )
        for call in calls
        if not call.is_input
    ]
    recorded = _recorded(network)
    assert len(found) == len(recorded) == 7

    def order(entry):
        return entry[0].name, entry[1], str(entry[2])

    for one, other in zip(
        sorted(found, key=order), sorted(recorded, key=order), strict=True
    ):
        assert one[0] is other[0]
        assert one[1:] == other[1:]


def test_inputs_come_first_and_every_tensor_before_its_users(network):
    calls = _keras_compat.functional_calls(network)
    assert [call.operation.name for call in calls if call.is_input] == ["x"]
    assert calls[0].is_input
    made = set()
    for call in calls:
        for x in keras.tree.flatten((call.args, call.kwargs)):
            if isinstance(x, keras.KerasTensor) and not call.is_input:
                assert id(x) in made
        made.update(map(id, call.outputs))
    assert set(map(id, network.outputs)) <= made


def test_inputs_without_names_are_called_as_files_call_them(tmp_path):
    inputs = [keras.Input((2,)), keras.Input((2,), name="named")]
    model = keras.Model(inputs, layers.Add()(inputs))
    names = [_keras_compat.input_name(x) for x in model.inputs]
    assert names[1] == "named"
    # If Keras calls the tensor so too, the function has nothing to do.
    assert model.inputs[0].name != names[0]
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert [x.name for x in loaded.inputs] == names


def test_keyword_arguments_of_a_call_are_kept(network):
    calls = _keras_compat.functional_calls(network)
    (drop,) = [c for c in calls if c.operation.name == "drop"]
    assert drop.kwargs == {"training": False}


def test_calls_are_numbered_in_the_order_in_which_they_were_made():
    x = keras.Input((4,), name="x")
    shared = layers.Dense(4, name="shared")
    shared(keras.Input((4,)))  # in another network: this call counts as well
    first, second = shared(x), shared(x * 2.0)
    calls = _keras_compat.functional_calls(keras.Model(x, [second, first]))
    number = {id(c.outputs[0]): c.number for c in calls if not c.is_input}
    assert (number[id(first)], number[id(second)]) == (1, 2)


def test_reading_the_calls_adds_no_node(network):
    before = [len(op._inbound_nodes) for op in network.operations]
    _keras_compat.functional_calls(network)
    assert [len(op._inbound_nodes) for op in network.operations] == before


def test_networks_with_a_graph_differ_from_those_with_their_own_call(network):
    class Own(keras.Model):
        def call(self, inputs, training=None, mask=None):
            return super().call(inputs, training=training, mask=mask)

    class Subclassed(keras.Model):
        def call(self, inputs):
            return inputs

    x = keras.Input((4,))
    own = Own(x, layers.Dense(2)(x))
    sequential = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    assert _keras_compat.is_functional(network)
    assert not _keras_compat.is_functional(own)
    assert not _keras_compat.is_functional(Subclassed())
    assert not _keras_compat.is_functional(sequential)
    assert not _keras_compat.is_functional(layers.Dense(2))
    assert _keras_compat.has_inputs(network)
    assert _keras_compat.has_inputs(own)
    assert not _keras_compat.has_inputs(Subclassed())


def test_a_class_with_its_own_config_is_recognised(network):
    class Own(keras.Model):
        def get_config(self):
            return {"name": self.name}

    x = keras.Input((4,))
    assert _keras_compat.has_own_config(Own(x, layers.Dense(1)(x)))
    assert not _keras_compat.has_own_config(network)
    assert not _keras_compat.has_own_config(None)


def test_a_layer_that_forgets_its_calls_is_in_no_graph(network):
    dense = layers.Dense(4, name="before")
    shared = network.get_layer("shared")
    x = keras.Input((4,))
    shared(dense(x))
    _keras_compat.forget_calls(shared)
    _keras_compat.forget_calls(dense)
    with pytest.raises(AttributeError, match="output"):
        _ = dense.output
    y = keras.Model(x, shared(dense(x)))
    calls = _keras_compat.functional_calls(y)
    assert [call.number for call in calls] == [0, 0, 0]


def test_configs_are_empty_only_while_they_are_hidden(network):
    dense = network.get_layer("shared")
    before = network.get_config()
    with _keras_compat.with_configs([(dense, dict)]):
        hidden = network.get_config()
    entries = {entry["name"]: entry for entry in hidden["layers"]}
    assert entries["shared"]["config"] == {}
    assert entries["inner"]["config"] != {}
    assert network.get_config() == before


def test_a_changed_config_keeps_the_mark_that_keras_made_the_own_one():
    plain = layers.Layer(name="plain")
    assert plain.get_config._is_default
    with _keras_compat.with_configs([(plain, dict)]):
        assert plain.get_config._is_default
        assert plain.get_config() == {}


def test_layers_around_a_layer_find_its_call_on_the_layer_itself():
    inner = layers.Dense(2)
    inputs = keras.Input((3, 2))
    stepwise = layers.TimeDistributed(inner)
    network = keras.Model(inputs, stepwise(inner(inputs)))
    x, calls = np.ones((1, 3, 2), "float32"), []

    def call(tensor, **_):
        calls.append(tensor.shape)
        return tensor * 2

    with _keras_compat.with_methods("call", [(inner, call)]):
        np.testing.assert_array_equal(_numpy(network(x)), 4 * x)
    assert len(calls) == 4
    assert "call" not in vars(inner)


def test_running_a_graph_gives_what_the_network_gives(network, rows):
    called = []

    def as_it_is(operation):
        called.append(operation.name)
        return operation

    found = _keras_compat.run_graph(network, rows, None, as_it_is)
    for one, other in zip(found, network(rows), strict=True):
        np.testing.assert_array_equal(_numpy(one), _numpy(other))
    assert sorted(called)[:4] == ["add", "drop", "inner", "multiply"]
    assert called.count("shared") == 2
    assert "x" not in called


def test_running_a_graph_can_change_how_each_operation_is_called(rows):
    x = keras.Input((4,))
    network = keras.Model(x, layers.Dropout(0.5, seed=1)(x))

    def training(operation):
        return lambda *args, **kwargs: operation(
            *args, **{**kwargs, "training": True}
        )

    found = _keras_compat.run_graph(network, rows, None, training)
    assert (_numpy(found) == 0).any()


def test_running_a_graph_passes_an_outer_mask_on(rows):
    x = keras.Input((4, 2))
    pooled = layers.GlobalAveragePooling1D()
    pooled.supports_masking = True
    network = keras.Model(x, pooled(x))
    sequences = np.arange(16, dtype="float32").reshape(2, 4, 2)
    mask = keras.ops.convert_to_tensor(
        np.array([[True, True, False, False]] * 2)
    )
    tensor = keras.ops.convert_to_tensor(sequences)
    found = _keras_compat.run_graph(network, tensor, mask, lambda op: op)
    expected = sequences[:, :2].mean(axis=1)
    np.testing.assert_allclose(_numpy(found), expected, rtol=1e-6)


def _sharing():
    """Returns a network of two networks that share a layer."""
    shared, parts = layers.Dense(4, name="shared"), []
    for name in "ab":
        x = keras.Input((4,))
        parts.append(keras.Model(x, shared(x), name=name))
    x = keras.Input((4,))
    return keras.Model(x, [part(x) for part in parts])


@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_keras_does_not_load_a_layer_that_networks_share(tmp_path):
    # When it does, `with_made_layers` and `inline_shared` can go.
    _sharing().save(tmp_path / "stock.keras")
    with pytest.raises(ValueError, match="could not be loaded"):
        keras.saving.load_model(tmp_path / "stock.keras")


def test_objects_of_one_number_are_one_object(rows):
    config = _sharing().get_config()
    for part in config["layers"][1:]:
        for entry in part["config"]["layers"]:
            if entry["name"] == "shared":
                entry[_keras_compat.SHARED] = "layer 0"
    with _keras_compat.share_objects(), _keras_compat.share_objects():
        parts = [
            keras.Model.from_config(
                _keras_compat.with_made_layers(part["config"], None)
            )
            for part in config["layers"][1:]
        ]
    one, other = (part.get_layer("shared") for part in parts)
    assert one is other
    np.testing.assert_array_equal(*(_numpy(part(rows)) for part in parts))
    np.testing.assert_array_equal(_numpy(one(rows)), _numpy(parts[1](rows)))


# --- Layers and variables ----------------------------------------------------


def test_sublayers_are_the_layer_and_its_inner_layers_parents_first():
    layer = layers.Bidirectional(layers.LSTM(2))
    layer.build((None, 5, 3))
    found = list(_keras_compat.sublayers(layer))
    assert found[0] is layer
    assert {id(layer.forward_layer), id(layer.backward_layer)} <= set(
        map(id, found)
    )
    cell = layer.forward_layer.cell
    positions = {id(x): number for number, x in enumerate(found)}
    assert positions[id(layer.forward_layer)] < positions[id(cell)]
    assert len(positions) == len(found)


def test_children_are_the_layers_directly_inside():
    layer = layers.Bidirectional(layers.LSTM(2))
    layer.build((None, 5, 3))
    found = {id(x) for x in _keras_compat.children(layer)}
    assert {id(layer.forward_layer), id(layer.backward_layer)} <= found
    assert id(layer.forward_layer.cell) not in found
    assert id(layer) not in found


def test_a_layer_without_inner_layers_is_its_only_sublayer():
    layer = layers.Dense(2)
    assert list(_keras_compat.sublayers(layer)) == [layer]


def test_metrics_of_a_layer_are_not_those_that_a_model_is_compiled_with():
    layer = layers.Dense(2)
    layer.several = [keras.metrics.Mean(name="own")]
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile("sgd", "mse", metrics=["mae"])
    model.fit(np.zeros((4, 3)), np.zeros((4, 2)), verbose=0)
    assert [m.name for m in _keras_compat.own_metrics(layer)] == ["own"]
    assert not _keras_compat.own_metrics(model)


@pytest.mark.skipif(
    keras.config.backend() != "jax", reason="is passed on so on JAX alone"
)
def test_losses_of_a_step_are_passed_on():
    seen = []

    class Watching(keras.Model):
        def compute_loss(self, *arguments, **named):
            seen.append(len(_keras_compat.losses_of_step(self)))
            return super().compute_loss(*arguments, **named)

    x = keras.Input((3,))
    y = layers.Dense(1, activity_regularizer="l2")(x)
    model = Watching(x, y)
    model.compile("sgd", "mse")
    model.fit(np.zeros((4, 3)), np.zeros((4, 1)), verbose=0)
    assert seen[-1] == 1  # the first calls are symbolic


@pytest.mark.parametrize("flag", [True, False])
def test_weights_are_told_from_moments_whatever_the_flag(flag):
    layer = layers.Bidirectional(layers.LSTM(2, dropout=0.5))
    norm = layers.BatchNormalization()
    for one in (layer, norm):
        one.build((None, 5, 3))
    trained = [v.path for x in (layer, norm) for v in x.trainable_variables]
    layer.trainable = norm.trainable = flag
    found = [
        variable.path
        for one in (layer, norm)
        for inner in _keras_compat.sublayers(one)
        for variable in _keras_compat.trainable_kind(inner)
    ]
    assert sorted(found) == sorted(trained)
    assert len(found) == 8


def test_a_variable_can_be_renamed():
    variable = keras.Variable(np.ones(2, "float32"), name="kernel")
    _keras_compat.set_variable_path(variable, "upstream/h/weight")
    assert variable.path == "upstream/h/weight"
    assert variable.name == "weight"


def test_a_renamed_variable_is_found_by_its_new_name():
    layer = layers.Dense(2, name="h")
    layer.build((None, 4))
    _keras_compat.set_variable_path(layer.kernel, "upstream/h/special")
    optimizer = keras.optimizers.SGD(0.1)
    optimizer.exclude_from_weight_decay(var_names=["special"])
    optimizer.build(layer.variables)
    assert optimizers.undecayed(optimizer, layer.variables) == (0,)
    assert "upstream/h/special" in [w.path for w in layer.weights]


def test_the_mask_of_a_tensor_is_the_one_that_its_layer_computed():
    layer = layers.Embedding(5, 2, mask_zero=True)
    tokens = np.array([[1, 2, 0]])
    np.testing.assert_array_equal(
        _numpy(_keras_compat.keras_mask(layer(tokens))), tokens != 0
    )
    assert _keras_compat.keras_mask(keras.ops.ones((2, 2))) is None


def test_a_layer_uses_a_mask_that_was_set_on_a_tensor():
    tensor = keras.ops.convert_to_tensor(np.array([[[1.0], [2.0], [4.0]]]))
    mask = keras.ops.convert_to_tensor(np.array([[True, True, False]]))
    _keras_compat.set_keras_mask(tensor, mask)
    mean = layers.GlobalAveragePooling1D()(tensor)
    np.testing.assert_allclose(_numpy(mean), [[1.5]])


# --- LoRA --------------------------------------------------------------------


def _dense(rank=2, alpha=8):
    layer = layers.Dense(4, name="out")
    layer.build((None, 3))
    layer.enable_lora(rank, lora_alpha=alpha)
    layer.lora_kernel_b.assign(np.ones((rank, 4)))
    return layer


def _store_of(layer):
    store = {}
    layer.save_own_variables(store)
    return {key: _numpy(value) for key, value in store.items()}


def test_keras_writes_the_merged_kernel_and_loads_zeros():
    layer = _dense()
    store = _store_of(layer)
    assert sorted(store) == ["0", "1"]
    expected = _numpy(layer._kernel) + 4 * _numpy(layer.lora_kernel_a).sum(
        axis=1, keepdims=True
    )
    np.testing.assert_allclose(store["0"], expected, rtol=1e-5, atol=1e-6)
    layer.load_own_variables(store)
    assert not _numpy(layer.lora_kernel_a).any()
    assert not _numpy(layer.lora_kernel_b).any()


def test_keras_makes_a_layer_with_alpha_2_of_a_config_with_alpha_8():
    layer = _dense()
    again = layers.Dense.from_config(layer.get_config())
    again.build((None, 3))
    assert (layer.lora_alpha, again.lora_alpha) == (8, 2)


def test_the_frozen_kernel_trains_again_once_the_layers_flag_is_set():
    layer = _dense()
    assert not layer._kernel.trainable
    layer.trainable = False
    layer.trainable = True
    assert layer._kernel.trainable


def test_the_flag_does_not_reach_a_variable_that_never_trains():
    layer = _dense()
    before = layer.variables
    _keras_compat.never_train(layer, [layer._kernel, layer.bias])
    layer.trainable = False
    layer.trainable = True
    factors = [layer.lora_kernel_a, layer.lora_kernel_b]
    assert [id(v) for v in layer.trainable_variables] == [*map(id, factors)]
    assert {id(v) for v in layer.variables} == {id(v) for v in before}
    assert layer._tracker.locked


# Keras's layers with low-rank updates, and the shapes they are built on.
UPDATED = {
    "Conv1D": (layers.Conv1D(4, 2), (None, 5, 3)),
    "Conv2D": (layers.Conv2D(4, 2), (None, 5, 5, 3)),
    "Conv3D": (layers.Conv3D(4, 2), (None, 5, 5, 5, 3)),
    "Dense": (layers.Dense(4), (None, 3)),
    "EinsumDense": (
        layers.EinsumDense("ab,bc->ac", output_shape=4, bias_axes="c"),
        (None, 3),
    ),
    "Embedding": (layers.Embedding(3, 4), (None, 3)),
    "ReversibleEmbedding": (
        layers.ReversibleEmbedding(3, 4, tie_weights=False),
        (None, 3),
    ),
}


def test_no_other_layer_of_keras_has_low_rank_updates():
    found = {
        name
        for name in dir(layers)
        if hasattr(getattr(layers, name), "enable_lora")
        and not name.startswith("Convolution")
    }
    assert found == set(UPDATED)


@pytest.mark.parametrize("name", UPDATED)
def test_a_hidden_update_is_in_neither_kernel_nor_store(name):
    original, shape = UPDATED[name]
    layer = type(original).from_config(original.get_config())
    layer.build(shape)
    what = "embeddings" if "Embedding" in name else "kernel"
    before = _store_of(layer)
    layer.enable_lora(2, lora_alpha=8)
    kernel = getattr(layer, f"_{what}")
    b = getattr(layer, f"lora_{what}_b")
    b.assign(np.ones(b.shape))
    with _keras_compat.low_rank_hidden(layer):
        assert getattr(layer, what) is kernel
        hidden = _store_of(layer)
    assert hidden.keys() == before.keys()
    for key, value in before.items():
        np.testing.assert_array_equal(hidden[key], value)
    # Entry 0 is the kernel, which afterwards is written merged again.
    np.testing.assert_array_equal(hidden["0"], _numpy(kernel))
    assert np.abs(_store_of(layer)["0"] - hidden["0"]).max() > 0.1


def test_a_config_can_leave_the_update_out():
    layer = _dense()
    with _keras_compat.without_low_rank_configs([layer]):
        config = layer.get_config()
    assert "lora_rank" not in config
    assert layer.get_config()["lora_rank"] == 2


def test_keras_saves_and_loads_with_the_functions_of_one_layer(tmp_path):
    layer = layers.Dense(4, name="out")
    model = keras.Sequential([keras.Input((3,)), layer])
    kernel = _numpy(layer.kernel).copy()

    def save(self, store):
        store["mine"] = self.kernel

    def load(self, store):
        self.kernel.assign(store["mine"] + (1.0 if "mine" in store else 0.0))

    _keras_compat.save_and_load_with(layer, save, load)
    model.save_weights(tmp_path / "own.weights.h5")
    model.load_weights(tmp_path / "own.weights.h5")
    np.testing.assert_array_equal(_numpy(layer.kernel), kernel + 1.0)


# --- Compiling and random states ---------------------------------------------


def test_compile_arguments_are_the_objects_that_were_passed():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    given = {
        "optimizer": keras.optimizers.SGD(),
        "loss": lambda y, y_pred: y - y_pred,
        "loss_weights": [0.5],
        "metrics": [keras.metrics.MeanSquaredError()],
        "weighted_metrics": ["mae"],
        "run_eagerly": True,
        "steps_per_execution": 1,
        "jit_compile": False,
    }
    model.compile(**given)
    found = _keras_compat.compile_arguments(model)
    assert list(found) == list(given)
    assert all(found[name] is value for name, value in given.items())


def test_the_global_seed_can_be_restored():
    keras.random.normal((2,))
    before = _keras_compat.global_seed()
    first = _numpy(keras.random.normal((3,)))
    assert not np.array_equal(_keras_compat.global_seed(), before)
    assert not np.array_equal(_numpy(keras.random.normal((3,))), first)
    _keras_compat.set_global_seed(before)
    np.testing.assert_array_equal(_numpy(keras.random.normal((3,))), first)


def test_the_global_seed_can_be_reset_to_never_drawn():
    """The next draw then starts from Python's random state."""
    keras.random.normal((2,))
    draws = []
    for _ in range(2):
        _keras_compat.set_global_seed(None)
        assert _keras_compat.global_seed() is None
        random.seed(4)
        draws.append(_numpy(keras.random.normal((3,))))
    np.testing.assert_array_equal(*draws)


def test_the_epoch_to_resume_with_is_taken_once(tmp_path):
    def model():
        keras.utils.set_random_seed(0)
        built = keras.Sequential(
            [keras.layers.Input((2,)), keras.layers.Dense(1)]
        )
        built.compile("sgd", "mse")
        return built

    class Fails(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    x, y = np.ones((4, 2)), np.ones((4, 1))
    backup = keras.callbacks.BackupAndRestore(tmp_path / "backup")
    with pytest.raises(KeyboardInterrupt):
        model().fit(x, y, epochs=4, verbose=0, callbacks=[backup, Fails()])
    again = model()
    assert _keras_compat.take_resumed_epoch(again) is None
    backup = keras.callbacks.BackupAndRestore(
        tmp_path / "backup", delete_checkpoint=False
    )
    again.fit(x, y, epochs=0, verbose=0, callbacks=[backup])
    assert _keras_compat.take_resumed_epoch(again) == 3
    assert _keras_compat.take_resumed_epoch(again) is None


def test_only_jax_passes_the_arrays_of_a_step_on_in_an_attribute():
    passed_on = []

    class Watched(keras.Sequential):
        def __setattr__(self, name, value):
            if _keras_compat.is_passed_on(name) and value:
                passed_on.append(sorted(value))
            super().__setattr__(name, value)

    model = Watched([keras.layers.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.ones((4, 2)), np.ones((4, 1)), batch_size=2, verbose=0)
    kinds = ("metrics", "non_trainable", "optimizer", "trainable")
    state = [f"{kind}_variables" for kind in kinds]
    jax = keras.config.backend() == "jax"
    assert passed_on == ([state, state] if jax else [])


def test_only_an_optional_input_may_be_none():
    optional, needed = keras.Input((2,), optional=True), keras.Input((2,))
    found = (optional, needed, optional + needed, keras.KerasTensor((2,)))
    assert [*map(_keras_compat.may_be_none, found)] == [True, *[False] * 3]
