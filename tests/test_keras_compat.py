"""What is private in Keras and the package stands on, as it is today."""

import keras
import numpy as np
import pytest

from keras_cascade import _keras_compat

# --- Optimizers --------------------------------------------------------------


def _all_optimizer_classes():
    return {
        name: value
        for name, value in vars(keras.optimizers).items()
        if isinstance(value, type)
        and issubclass(value, keras.optimizers.Optimizer)
        and name not in ("Optimizer", "LossScaleOptimizer", "MultiOptimizer")
    }


def test_the_hooks_that_block_rates_need_are_still_called():
    called = []

    class Rates:
        def group_of(self, key):
            return 1

        def rates_at(self, own_rate, step):
            called.append("rates_at")
            return [own_rate, 0.5]

        def rate_at(self, group, own_rate, step):
            called.append("rate_at")
            return 0.5

    variable = keras.Variable(np.ones((2,), "float32"))
    optimizer = _keras_compat.copy_with_rates(
        keras.optimizers.SGD(0.1, weight_decay=0.5), Rates()
    )
    optimizer.apply([keras.ops.ones((2,))], [variable])
    assert sorted(called) == ["rate_at", "rates_at"]
    # decayed by 0.5 * 0.5, then moved by 0.5
    np.testing.assert_allclose(variable.numpy(), [0.25, 0.25], rtol=1e-6)


def test_only_nadam_shares_a_state_between_the_variables_of_a_step():
    shapes = [(2, 3), (2, 3)]
    for name, optimizer_class in _all_optimizer_classes().items():
        one, two = optimizer_class(0.1), optimizer_class(0.1)
        variables = [keras.Variable(np.ones(s, "float32")) for s in shapes]
        one.build(variables[:1])
        two.build(variables)
        slots = len(two.variables) - len(one.variables)
        shared = len(one.variables) - slots - 2  # iteration, learning rate
        assert shared == (1 if name == "Nadam" else 0), name


@pytest.mark.parametrize("name", sorted(_all_optimizer_classes()))
def test_a_serialized_optimizer_names_its_public_class(name):
    optimizer = getattr(keras.optimizers, name)(0.1)
    config = _keras_compat.serialize_optimizer(optimizer)
    assert config["module"] == "keras.optimizers"
    assert config["class_name"] == name
    loaded = keras.saving.deserialize_keras_object(config)
    assert type(loaded) is type(optimizer)


def test_exclusions_from_decay_are_copied():
    variables = [keras.Variable(np.ones((2,)), name=n) for n in ("a", "bias")]
    source = keras.optimizers.AdamW(0.1)
    source.exclude_from_weight_decay(variables[:1], ["bias"])
    target = keras.optimizers.AdamW(0.1)
    assert _keras_compat.undecayed(target, variables) == ()
    target = keras.optimizers.AdamW(0.1)
    _keras_compat.copy_decay_exclusions(source, target)
    assert _keras_compat.undecayed(target, variables) == (0, 1)
