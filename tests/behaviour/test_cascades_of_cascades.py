"""Tests cascades of cascades, three levels deep, as any other cascade."""

import keras
import numpy as np
import pytest
from keras import layers, ops, optimizers

import keras_cascade as kc
from keras_cascade.adapters import PCAAdapter
from keras_cascade.testing import check_cascade

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 6)).astype("float32")
Y = RNG.normal(size=(12, 2)).astype("float32")


def encoder(name="encoder"):
    x = inputs = keras.Input((6,), name="x")
    x = layers.Dense(8, activation="relu", name="conv1")(x)
    x = layers.BatchNormalization(momentum=0.5, name="norm")(x)
    x = layers.Dropout(0.5, name="drop")(x)
    x = layers.Dense(5, activation="tanh", name="conv2")(x)
    return keras.Model(inputs, x, name=name)


def expert(name="expert"):
    x = inputs = keras.Input((6,), name="x")
    x = layers.Dense(7, activation="tanh", name="hidden")(x)
    x = layers.BatchNormalization(momentum=0.5, name="norm")(x)
    x = layers.Dropout(0.5, name="drop")(x)
    return keras.Model(inputs, layers.Dense(2, name="out")(x), name=name)


def call(model, x, **arguments):
    return keras.tree.map_structure(ops.convert_to_numpy, model(x, **arguments))


def values(model):
    return {v.path: ops.convert_to_numpy(v) + 0 for v in model.variables}


def moved(before, model):
    after = values(model)
    return {p for p in before if not np.array_equal(before[p], after[p])}


def stage1(**arguments):
    """Returns a trained cascade: taps, a fitted PCA, injected features."""
    arguments = {
        "taps": {"t": "conv2"},
        "adapters": {"t": PCAAdapter(3)},
        "inject": {"t": "hidden"},
        "optimizer": optimizers.SGD(0.05, momentum=0.9),
        "loss": "mse",
        "name": "first",
        **arguments,
    }
    cascade = kc.build_cascade(encoder(), expert(), **arguments)
    cascade.adapt(X, verbose=False)
    cascade.fit(X, Y, epochs=2, verbose=0)
    return cascade


def stage2(first, **arguments):
    """Returns a cascade with the first one as downstream and as upstream."""
    arguments = {
        "taps": {"t": "conv1"},
        "inject": {"t": "downstream/hidden"},
        "trainable": {"downstream": False},
        "optimizer": optimizers.SGD(0.05, momentum=0.9),
        "loss": "mse",
        "name": "second",
        **arguments,
    }
    return kc.build_cascade(encoder("other"), first, **arguments)


def stage3(second, **arguments):
    arguments = {
        "taps": {
            "deep": "downstream/upstream/conv1",
            "answer": "-1",
        },
        "head": 2,
        "optimizer": optimizers.SGD(0.05, momentum=0.9),
        "loss": "mse",
        "name": "third",
        **arguments,
    }
    return kc.build_cascade(second, **arguments)


@pytest.fixture(scope="module")
def first():
    """Returns a cascade for reading only."""
    keras.utils.set_random_seed(0)
    return stage1()


@pytest.fixture(scope="module")
def second(first):
    """Returns a trained cascade for reading only."""
    cascade = stage2(first)
    cascade.fit(X, Y, epochs=2, verbose=0)
    return cascade


@pytest.fixture(scope="module")
def third(second):
    """Returns a trained cascade for reading only."""
    cascade = stage3(second)
    cascade.fit(X, Y, epochs=2, verbose=0)
    return cascade


def test_an_injection_into_an_inner_downstream_starts_silent(first):
    """The inner cascade has an input and a merge of the same name."""
    cascade = stage2(first)
    np.testing.assert_array_equal(call(cascade, X), call(first, X))
    for variable in cascade.blocks["adapters"].variables:
        variable.assign(ops.ones(variable.shape))
    assert not np.allclose(call(cascade, X), call(first, X))


@pytest.mark.parametrize(
    "path",
    [
        "upstream/conv2",
        "downstream/upstream/conv2",
        "adapters/t",
        "downstream/downstream/drop",
        "downstream/out",
    ],
)
@pytest.mark.parametrize("merge", ["add", "multiply", "film", "concat"])
def test_features_may_enter_any_block_of_the_inner_cascade(first, path, merge):
    cascade = stage2(first, inject={"t": kc.Injection(path, merge)})
    np.testing.assert_array_equal(call(cascade, X), call(first, X))


def test_a_replaced_block_of_the_inner_cascade_is_pruned(first):
    cascade = stage2(
        first, inject={"t": kc.Injection("upstream/conv2", "replace")}
    )
    paths = {v.path for v in cascade.variables}
    assert not any(p.startswith("downstream/upstream") for p in paths)
    assert "downstream/downstream/hidden/kernel" in paths


def test_a_tap_reads_an_inner_block(first):
    cascade = kc.build_cascade(
        first,
        taps={"raw": "upstream/conv1", "hidden": "downstream/hidden"},
        adapters=None,
        fusion=None,
    )
    result = call(cascade, X)
    upstream = first.blocks["upstream"]
    conv1 = upstream.get_layer("conv1")
    np.testing.assert_allclose(
        result["raw"], ops.convert_to_numpy(conv1(X)), atol=1e-6
    )
    hidden = first.blocks["downstream"].get_layer("hidden")
    np.testing.assert_allclose(
        result["hidden"], ops.convert_to_numpy(hidden(X)), atol=1e-6
    )
    # Layers after the taps are pruned, in the inner blocks as well.
    assert {v.path.rsplit("/", 1)[0] for v in cascade.variables} == {
        "upstream/upstream/conv1",
        "upstream/downstream/hidden",
    }


def test_each_stage_leaves_the_one_before_unchanged(first):
    before, answers = values(first), call(first, X)
    flags = [layer.trainable for layer in first._flatten_layers()]
    config = first.get_config()
    state = [ops.convert_to_numpy(v) + 0 for v in first.optimizer.variables]
    second = stage2(first, trainable=True)
    second.fit(X, Y, epochs=1, verbose=0)
    stage3(second, trainable=True).fit(X, Y, epochs=1, verbose=0)
    assert not moved(before, first)
    assert flags == [layer.trainable for layer in first._flatten_layers()]
    assert first.get_config() == config
    np.testing.assert_array_equal(call(first, X), answers)
    for value, variable in zip(state, first.optimizer.variables, strict=True):
        np.testing.assert_array_equal(value, ops.convert_to_numpy(variable))


def test_names_are_unique_and_begin_with_their_block(third):
    paths = [v.path for v in third.variables]
    assert len(set(paths)) == len(paths)
    assert {path.split("/")[0] for path in paths} == set(third.blocks) - {
        "fusion"
    }
    assert "upstream/downstream/upstream/conv1/kernel" in paths
    assert "upstream/downstream/downstream/out/kernel" in paths


def test_frozen_layers_stay_frozen_at_all_levels(second):
    cascade = stage3(second)
    before = values(cascade)
    cascade.fit(X, Y, epochs=2, verbose=0)
    assert {path.split("/")[0] for path in moved(before, cascade)} == {"head"}
    frozen = call(cascade.blocks["upstream"], X)
    for name, value in call(
        cascade.blocks["upstream"], X, training=True
    ).items():
        np.testing.assert_array_equal(value, frozen[name])


def test_one_layer_three_levels_down_is_trained_alone(second):
    cascade = stage3(
        second,
        trainable={
            "upstream/downstream/downstream/hidden": True,
            "head": False,
        },
    )
    before = values(cascade)
    cascade.fit(X, Y, epochs=1, verbose=0)
    assert moved(before, cascade) == {
        f"upstream/downstream/downstream/hidden/{kind}"
        for kind in ("kernel", "bias")
    }


def test_layers_frozen_by_an_inner_cascade_stay_frozen_in_a_downstream(first):
    """By default only the upstreams are frozen; the rest keeps its flags."""
    cascade = stage2(first, trainable=None)
    before = values(cascade)
    cascade.fit(X, Y, epochs=1, verbose=0)
    changed = moved(before, cascade)
    assert not any(p.startswith("downstream/upstream") for p in changed)
    assert any(p.startswith("downstream/downstream") for p in changed)


def test_an_inner_adapter_stays_fitted(first, third):
    inner = third.blocks["upstream"].get_layer("downstream")
    adapter = inner.get_layer("adapters").get_layer("t")
    assert adapter.fitted
    pairs = zip(adapter.weights, first.adapters["t"].weights, strict=True)
    for one, other in pairs:
        np.testing.assert_array_equal(*map(ops.convert_to_numpy, (one, other)))
    # Another pass over other data fits the outer adapters only.
    before = values(third)
    third.adapt(X + 1, verbose=False)
    assert not moved(before, third)


def test_an_unfitted_inner_adapter_is_fitted_by_the_outer_cascade():
    inner = kc.build_cascade(
        encoder(), taps={"t": "conv2"}, adapters=PCAAdapter(3), name="inner"
    )
    outer = kc.build_cascade(inner, adapters=None, head=2)
    with pytest.raises(ValueError, match="'upstream/adapters/t'"):
        outer.predict(X, verbose=0)
    outer.adapt(X, verbose=False)
    inner.adapt(X, verbose=False)
    fitted = outer.blocks["upstream"].get_layer("adapters").get_layer("t")
    for one, other in zip(
        fitted.weights, inner.adapters["t"].weights, strict=True
    ):
        np.testing.assert_allclose(
            *map(ops.convert_to_numpy, (one, other)), atol=1e-5
        )


def test_a_file_keeps_all_levels_and_the_optimizer(third, tmp_path):
    third.save(tmp_path / "third.keras")
    loaded = keras.saving.load_model(tmp_path / "third.keras")
    np.testing.assert_array_equal(call(loaded, X), call(third, X))
    assert [v.path for v in loaded.variables] == [
        v.path for v in third.variables
    ]
    pairs = zip(
        third.optimizer.variables, loaded.optimizer.variables, strict=True
    )
    for one, other in pairs:
        np.testing.assert_array_equal(*map(ops.convert_to_numpy, (one, other)))
    assert loaded.taps == third.taps


def test_a_loaded_stage_is_a_network_again(second, tmp_path):
    second.save(tmp_path / "second.keras")
    loaded = keras.saving.load_model(tmp_path / "second.keras")
    names = {"taps": "downstream/upstream/conv1", "adapters": None}
    np.testing.assert_array_equal(
        call(kc.build_cascade(loaded, **names), X),
        call(kc.build_cascade(second, **names), X),
    )
    from_file = kc.build_cascade(tmp_path / "second.keras", **names)
    np.testing.assert_array_equal(
        call(from_file, X), call(kc.build_cascade(second, **names), X)
    )


@pytest.mark.parametrize("stage", ["second", "third"])
def test_it_passes_check_cascade(stage, request):
    check_cascade(request.getfixturevalue(stage), X)


@pytest.mark.parametrize("stage", ["second", "third"])
def test_the_plain_model_predicts_the_same(stage, request):
    cascade = request.getfixturevalue(stage)
    np.testing.assert_allclose(
        call(cascade.to_plain(), X), call(cascade, X), atol=1e-6
    )


@pytest.mark.parametrize("stage", ["second", "third"])
def test_it_can_be_rebuilt(stage, request, tmp_path):
    cascade = request.getfixturevalue(stage)
    again = cascade.rebuild()
    np.testing.assert_array_equal(call(again, X), call(cascade, X))
    assert again.spec.reinitialized == ()
    cascade.save(tmp_path / "cascade.keras")
    loaded = keras.saving.load_model(tmp_path / "cascade.keras")
    again = loaded.rebuild()
    np.testing.assert_array_equal(call(again, X), call(cascade, X))
    assert list(again.taps) == list(cascade.taps)
    assert again.spec.inject == cascade.spec.inject
    assert [v.path for v in again.variables] == [
        v.path for v in cascade.variables
    ]


def test_a_cascade_is_upstream_and_downstream(first):
    with pytest.warns(UserWarning, match="train apart"):
        cascade = kc.build_cascade(
            first,
            first,
            taps={"t": "upstream/conv1"},
            inject={"t": "upstream/conv1"},
            name="both",
        )
    np.testing.assert_array_equal(call(cascade, X), call(first, X))
    paths = [v.path for v in cascade.variables]
    assert len(set(paths)) == len(paths)


def test_a_block_of_a_cascade_is_a_downstream(first):
    """A block that features entered has an input for them: the cascade's."""
    cascade = kc.build_cascade(
        encoder(),
        first.blocks["downstream"],
        taps={"t": "conv1"},
        inject={"t": "hidden"},
    )
    assert "t_into_hidden" in {x.name for x in cascade.inputs}
