"""Low-rank updates of single layers, without a cascade around them."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_cascade.graph import low_rank

X = np.random.default_rng(0).normal(size=(5, 3)).astype("float32")


def numpy(x):
    return np.array(ops.convert_to_numpy(x))


def built(layer, shape=(None, 3)):
    layer.build(shape)
    return layer


def updated(**arguments):
    """A Dense layer with values in A and B, rank 2, alpha 8."""
    layer = built(layers.Dense(4, name="out", **arguments))
    low_rank.enable(layer, 2, 8)
    random = np.random.default_rng(1)
    for factor in low_rank.factors(layer):
        factor.assign(random.normal(size=factor.shape))
    return layer


def store_of(layer):
    store = {}
    layer.save_own_variables(store)
    return {key: numpy(value) for key, value in store.items()}


def test_kernel_bias_a_and_b_are_saved():
    layer = updated()
    store = store_of(layer)
    a, b = low_rank.factors(layer)
    expected = {
        "0": low_rank.base(layer),
        "1": layer.bias,
        "lora_a": a,
        "lora_b": b,
    }
    assert store.keys() == expected.keys()
    for key, variable in expected.items():
        np.testing.assert_array_equal(store[key], numpy(variable))


def test_saved_weights_are_loaded():
    layer, other = updated(), updated()
    for variable in other.variables:
        variable.assign(ops.ones(variable.shape))
    other.load_own_variables(store_of(layer))
    for found, expected in zip(other.variables, layer.variables, strict=True):
        np.testing.assert_array_equal(numpy(found), numpy(expected))


def test_weights_of_a_plain_layer_leave_a_and_set_b_to_zero():
    layer, plain = updated(), built(layers.Dense(4))
    a, b = low_rank.factors(layer)
    before = numpy(a)
    layer.load_own_variables(store_of(plain))
    np.testing.assert_array_equal(numpy(a), before)
    assert not numpy(b).any()
    np.testing.assert_array_equal(numpy(layer(X)), numpy(plain(X)))


def test_weights_of_another_rank_are_refused():
    layer = built(layers.Dense(4))
    low_rank.enable(layer, 3, 8)
    with pytest.raises(ValueError, match=r"expected float32 of shape \(3, 3\)"):
        layer.load_own_variables(store_of(updated()))


def test_a_layer_enabled_by_keras_keeps_its_a_and_gets_the_alpha():
    layer = built(layers.Dense(4, lora_rank=2))
    before = numpy(layer.lora_kernel_a)
    low_rank.enable(layer, 2, 8)
    np.testing.assert_array_equal(numpy(layer.lora_kernel_a), before)
    assert layer.lora_alpha == 8


def test_a_and_b_stand_beside_the_kernel():
    layer = layers.MultiHeadAttention(2, 3, name="heads")
    layer.build((None, 4, 3), (None, 4, 3))
    low_rank.enable(layer.query_dense, 2, 2)
    paths = [v.path for v in layer.query_dense.variables]
    parent = low_rank.base(layer.query_dense).path.removesuffix("/kernel")
    names = ("lora_kernel_a", "lora_kernel_b", "kernel", "bias")
    assert paths == [f"{parent}/{name}" for name in names]


def test_ranks_are_known_by_the_places_of_inner_layers():
    layer = layers.TimeDistributed(layers.Dense(4))
    built(layer, (None, 2, 3))
    assert low_rank.read_ranks(layer) == {}
    low_rank.enable(layer.layer, 2, 8)
    other = built(layers.TimeDistributed(layers.Dense(4)), (None, 2, 3))
    low_rank.restore_ranks(other, low_rank.read_ranks(layer))
    assert (other.layer.lora_rank, other.layer.lora_alpha) == (2, 8)


def test_the_merged_kernel_has_the_kernels_dtype():
    layer = updated(dtype="bfloat16")
    assert low_rank.merged(layer).dtype == low_rank.base(layer).value.dtype


def test_a_plain_layer_computes_the_same_after_merging():
    layer, plain = updated(), built(layers.Dense(4))
    low_rank.merge_into(layer, plain)
    np.testing.assert_array_equal(numpy(plain(X)), numpy(layer(X)))


def test_the_plain_variables_are_all_but_a_and_b():
    layer = keras.Sequential([keras.Input((3,)), layers.Dense(4, lora_rank=2)])
    found = low_rank.plain_variables(layer)
    assert [v.name for v in found] == ["kernel", "bias"]
