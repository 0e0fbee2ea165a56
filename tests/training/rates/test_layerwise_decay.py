"""Compares rates that fall with depth with depths counted by hand."""

import keras
import numpy as np
import pytest
from keras import layers, optimizers

import keras_cascade as kc
from keras_cascade.graph.graph import read_graph
from keras_cascade.training.rates.layerwise_decay import (
    depths_of,
    groups_by_depth,
)
from tests.training.test_rates_of_cascades import (
    PATHS,
    X,
    Y,
    fit,
    gradients_by_hand,
    linear,
    values,
)


def branched():
    """Returns a short path of one layer beside a long one of three."""
    last = layers.Dense(4, name="last")
    short = layers.Dense(4, name="short")
    long = [layers.Dense(4, name=f"long{i}") for i in (3, 2, 1)]
    first = layers.Dense(4, name="first")
    inputs = keras.Input((4,), name="x")
    x = layers.Dropout(0.1, name="drop")(first(inputs))
    y = x
    for layer in reversed(long):
        y = layers.Activation("tanh", name=f"act_{layer.name}")(layer(y))
    return keras.Model(inputs, last(layers.Add(name="sum")([short(x), y])))


def cascade_of(network, **arguments):
    return kc.build_cascade(
        network, head=2, optimizer="sgd", loss="mse", **arguments
    )


def graph_of(cascade):
    return read_graph(cascade, keep_names=True)


def test_depth_is_the_longest_path_through_layers_with_weights():
    depths, weighted = depths_of(graph_of(cascade_of(branched())), "upstream")
    found = {path[1]: depths[path] for path in weighted}
    assert found == {
        "last": 0,
        "short": 1,
        "long3": 1,
        "long2": 2,
        "long1": 3,
        "first": 4,
    }


def test_over_several_blocks_depth_counts_from_the_end_of_the_cascade():
    cascade = cascade_of(branched(), adapters=3)
    ends = [("head", "dense"), ("upstream", "last")]
    assert groups_by_depth(graph_of(cascade), ends, 12) == dict(
        zip(ends, (0, 2), strict=True)
    )
    depths, _ = depths_of(graph_of(cascade), None)
    assert depths["adapters", "output"] == 1
    assert depths["upstream", "last"] == 2


def test_layers_are_divided_into_groups_of_equal_depth():
    cascade = cascade_of(branched())
    paths = [("upstream", x.name) for x in branched().layers[1:]]
    groups = groups_by_depth(graph_of(cascade), paths, 3)
    assert {name: group for (_, name), group in groups.items()} == {
        "last": 0,
        "sum": 0,
        "short": 0,
        "act_long3": 0,
        "long3": 0,
        "act_long2": 1,
        "long2": 1,
        "act_long1": 1,
        "long1": 1,
        "drop": 2,
        "first": 2,
    }


def test_each_group_has_the_rate_of_the_one_above_times_the_factor():
    decay = kc.LayerwiseDecay(1e-3, 0.5)
    cascade = cascade_of(
        branched(), trainable=True, learning_rates={"upstream": decay}
    )
    found = cascade.learning_rates()
    for name, depth in {"last": 0, "short": 1, "long1": 3, "first": 4}.items():
        rate = found[f"upstream/{name}/kernel"]
        assert rate == pytest.approx(1e-3 * 0.5**depth)
    assert found["head/dense/kernel"] == pytest.approx(0.01)


def test_the_top_layer_of_a_pattern_has_the_rate_itself():
    rates = {"upstream/long*": kc.LayerwiseDecay(1e-3, 0.1)}
    cascade = cascade_of(branched(), trainable=True, learning_rates=rates)
    found = cascade.learning_rates()
    assert found["upstream/long3/kernel"] == pytest.approx(1e-3)
    assert found["upstream/long1/kernel"] == pytest.approx(1e-5)
    assert found["upstream/first/kernel"] == pytest.approx(0.01)


def test_a_step_of_each_layer_is_its_rate_times_its_gradient():
    rates = {"upstream": kc.LayerwiseDecay(3e-2, 0.5)}
    cascade = linear(rates, optimizers.SGD(0.1))
    before = values(cascade.variables)
    fit(cascade, batch_size=len(X))
    after = values(cascade.variables)
    gradients = gradients_by_hand(before, X, Y)
    wanted = np.repeat([1.5e-2, 3e-2, 0.1, 0.1], 2)
    for old, new, g, rate, path in zip(
        before, after, gradients, wanted, PATHS, strict=True
    ):
        np.testing.assert_allclose(old - new, rate * g, atol=3e-7, err_msg=path)


def test_a_schedule_is_scaled_and_survives_a_file(tmp_path):
    schedule = optimizers.schedules.ExponentialDecay(1e-2, 6, 0.5)
    rates = {"upstream": kc.LayerwiseDecay(schedule, 0.1, groups=2)}
    cascade = linear(rates, optimizers.SGD(0.1))
    fit(cascade)  # six steps
    cascade.save(tmp_path / "cascade.keras")
    loaded = keras.saving.load_model(tmp_path / "cascade.keras")
    for model in (cascade, loaded):
        found = model.learning_rates()
        assert found["upstream/high/kernel"] == pytest.approx(5e-3)
        assert found["upstream/low/kernel"] == pytest.approx(5e-4)
    assert loaded.rates["upstream"].decay_rate == 0.1
    fit(cascade)
    fit(loaded)
    for old, new in zip(cascade.variables, loaded.variables, strict=True):
        np.testing.assert_array_equal(*values([old, new]))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((-1e-3, 0.5), "The learning rate of .*LayerwiseDecay"),
        ((1e-3, 0.0), "decay_rate=...\\) must be above 0"),
        ((1e-3, 1.5), "decay_rate=...\\) must be above 0 and at most 1"),
        ((1e-3, 0.5, 0), "groups=...\\) must be a whole number"),
        ((1e-3, 0.5, 2.5), "groups=...\\) must be a whole number"),
    ],
)
def test_invalid_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        kc.LayerwiseDecay(*arguments)
