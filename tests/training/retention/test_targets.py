"""Checks which weights and networks are covered, and the errors."""

import keras
import pytest
from keras import layers

import keras_cascade as kc
from tests.training.retention import linear


def kept(cascade):
    return {
        variable.path
        for variable in cascade.variables
        if variable.path.startswith("retention/anchors/")
    }


def build(retention, **arguments):
    return linear.cascade(retention, loss=None, **arguments)


@pytest.mark.parametrize("pattern", ["upstream", "upstream/*", "upstream/-1"])
def test_a_pattern_covers_all_below_its_matches(pattern):
    assert kept(build({pattern: kc.L2SP(1.0)})) == {
        "retention/anchors/upstream/dense/kernel",
        "retention/anchors/upstream/dense/bias",
    }


def test_upstream_means_every_upstream():
    cascade = kc.build_cascade(
        {"a": linear.network(), "b": linear.network()},
        retention={"upstream": kc.L2SP(1.0)},
    )
    assert {path.split("/")[2] for path in kept(cascade)} == {"a", "b"}


def test_inner_networks_are_covered_by_their_paths():
    inner = linear.network()
    inputs = keras.Input((3,))
    outputs = layers.Dense(4, name="other")(inner(inputs))
    source = keras.Model(inputs, outputs, name="outer")
    cascade = build({"upstream/linear": kc.L2SP(1.0)}, source=source)
    assert kept(cascade) == {
        "retention/anchors/upstream/linear/dense/kernel",
        "retention/anchors/upstream/linear/dense/bias",
    }


def test_moments_are_not_pulled():
    source = keras.Sequential(
        [keras.Input((3,)), layers.BatchNormalization(name="norm")]
    )
    cascade = build({"upstream": kc.L2SP(1.0)}, source=source, trainable=None)
    assert kept(cascade) == {
        "retention/anchors/upstream/norm/gamma",
        "retention/anchors/upstream/norm/beta",
    }


@pytest.mark.parametrize("pattern", ["head", "head/out", "**"])
def test_a_randomly_initialised_block_has_nothing_to_keep(pattern):
    message = r"covers .*'head', which is randomly .*Possible .*: 'upstream'"
    with pytest.raises(ValueError, match=message):
        build({pattern: kc.L2SP(1.0)})


def test_lwf_of_a_randomly_initialised_block_names_the_networks():
    with pytest.raises(ValueError, match=r"Give it one of: 'upstream'"):
        build({"adapters": kc.LwF(1.0)})


def test_a_pattern_that_matches_nothing_names_the_closest():
    with pytest.raises(
        ValueError, match=r"retention names 'upstream/dens'.*'up"
    ):
        build({"upstream/dens": kc.L2SP(1.0)})


def test_a_pattern_without_weights_is_an_error():
    source = keras.Sequential([keras.Input((3,)), layers.ReLU(name="relu")])
    with pytest.raises(ValueError, match=r"'upstream/relu'. covers no weights"):
        build({"upstream/relu": kc.L2SP(1.0)}, source=source)


def test_a_pattern_that_later_ones_override_is_an_error():
    pulls = {"upstream/dense": kc.L2SP(1.0), "upstream": kc.L2SP(2.0)}
    with pytest.raises(ValueError, match=r"'upstream/dense' changes nothing"):
        build(pulls)


def test_ewc_of_two_networks_cannot_read_a_generator_twice():
    pulls = {"upstream": kc.EWC(1.0, iter([linear.X]))}
    with pytest.raises(ValueError, match=r"EWC of 2 networks.*generator"):
        kc.build_cascade(
            {"a": linear.network(), "b": linear.network()}, retention=pulls
        )


def test_loaded_ewc_needs_data():
    saved = keras.saving.serialize_keras_object(kc.EWC(1.0, linear.X))
    loaded = keras.saving.deserialize_keras_object(saved)
    with pytest.raises(ValueError, match=r"EWC without data"):
        build({"upstream": loaded})


def test_lwf_needs_all_inputs_of_the_network():
    a, b = keras.Input((3,), name="a"), keras.Input((3,), name="b")
    hidden = layers.Dense(2, name="hidden")(a)
    both = layers.Concatenate()([hidden, b])
    source = keras.Model([a, b], layers.Dense(2, "softmax")(both))
    with pytest.raises(ValueError, match=r"does not feed its input 'b'"):
        build({"upstream": kc.LwF(1.0)}, source=source, taps="hidden")


@pytest.mark.parametrize("retention", [kc.L2SP(1.0), ["upstream"], 0.1])
def test_retention_that_is_no_mapping_is_an_error(retention):
    with pytest.raises(TypeError, match=r"retention must be a mapping"):
        build(retention)


def test_a_value_that_is_no_method_is_an_error():
    with pytest.raises(
        TypeError, match=r"retention\['upstream'\] must be a met"
    ):
        build({"upstream": 0.1})


def test_a_pattern_that_is_no_text_is_an_error():
    with pytest.raises(TypeError, match=r"retention names 3; a path pattern"):
        build({3: kc.L2SP(1.0)})
