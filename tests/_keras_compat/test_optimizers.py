"""Fails where Keras changes what the learning rates of blocks rely on."""

import sys

import keras
import numpy as np
import pytest

from keras_cascade._keras_compat import optimizers as compat


def _numpy(variable):
    return keras.ops.convert_to_numpy(variable)


def _all_optimizer_classes():
    return {
        name: value
        for name, value in vars(keras.optimizers).items()
        if isinstance(value, type)
        and issubclass(value, keras.optimizers.Optimizer)
        and name not in ("Optimizer", "LossScaleOptimizer", "MultiOptimizer")
    }


def test_keras_calls_the_hooks_that_block_rates_need():
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
    optimizer = compat.copy_with_rates(
        keras.optimizers.SGD(0.1, weight_decay=0.5), Rates()
    )
    optimizer.began_at = keras.Variable([0], dtype="int", trainable=False)
    optimizer.apply([keras.ops.ones((2,))], [variable])
    assert sorted(called) == ["rate_at", "rates_at"]
    # Decayed by 0.5 * 0.5, then moved by 0.5.
    np.testing.assert_allclose(variable.numpy(), [0.25, 0.25], rtol=1e-6)


class OneRate:
    def group_of(self, key):
        return 0

    def rates_at(self, own_rate, step):
        return [own_rate]

    def rate_at(self, group, own_rate, step):
        return own_rate


@pytest.mark.parametrize(
    "name",
    [
        "Adam",
        "AdamW",
        "Adafactor",
        "Adamax",
        "Lamb",
        "Muon",
        "ScheduleFreeAdamW",
    ],
)
def test_bias_corrections_count_the_steps_of_the_variable_updated(name):
    """A variable that joined at step 2 moves like one of a new optimizer."""
    kind = getattr(keras.optimizers, name)
    start = np.random.default_rng(0).normal(size=(3, 4)).astype("float32")
    late, fresh = keras.Variable(start), keras.Variable(start)
    early = keras.Variable(start)
    optimizer = compat.copy_with_rates(kind(0.01), OneRate())
    optimizer.build([early, late])
    optimizer.began_at = keras.Variable([0, 2], dtype="int", trainable=False)
    gradient = keras.ops.convert_to_tensor(start[::-1].copy())
    for _ in range(2):
        optimizer.apply([gradient], [early])
    alone = kind(0.01)
    for _ in range(2):
        optimizer.apply([gradient, gradient], [early, late])
        alone.apply([gradient], [fresh])
    np.testing.assert_array_equal(_numpy(late), _numpy(fresh))
    assert (_numpy(early) != _numpy(late)).any()


@pytest.mark.parametrize(
    "name",
    [
        "SGD",
        "Adam",
        "AdamW",
        "Lion",
        "RMSprop",
        "Adagrad",
        "Adadelta",
        "Adamax",
        "Ftrl",
        "Adafactor",
        "Lamb",
        "Muon",
        "ScheduleFreeAdamW",
    ],
)
def test_the_slots_of_every_optimizer_can_be_copied(name):
    """An optimizer on more variables continues as if nothing had happened."""
    arguments = {"momentum": 0.9} if name == "SGD" else {}
    kind = getattr(keras.optimizers, name)
    draw = np.random.default_rng(0).normal
    start, other = (draw(size=(3, 4)).astype("float32") for _ in range(2))
    mine, plain = keras.Variable(start), keras.Variable(start)
    gradients = [keras.ops.convert_to_tensor(start * k) for k in (1, -2, 3)]
    optimizer = compat.copy_with_rates(kind(0.01, **arguments), OneRate())
    optimizer.build([mine])
    optimizer.began_at = keras.Variable([0], dtype="int", trainable=False)
    optimizer.apply(gradients[:1], [mine])
    new = compat.copy_with_rates(kind(0.01, **arguments), OneRate())
    new.build([keras.Variable(other), mine])
    compat.copy_slots(optimizer, new)
    new.began_at = keras.Variable([0, 0], dtype="int", trainable=False)
    reference = kind(0.01, **arguments)
    reference.apply(gradients[:1], [plain])
    for gradient in gradients[1:]:
        new.apply([gradient], [mine])
        reference.apply([gradient], [plain])
    np.testing.assert_array_equal(_numpy(mine), _numpy(plain))


def test_only_nadam_has_a_state_that_all_variables_share():
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
    config = compat.serialize_optimizer(optimizer)
    assert config["module"] == "keras.optimizers"
    assert config["class_name"] == name
    loaded = keras.saving.deserialize_keras_object(config)
    assert type(loaded) is type(optimizer)


def test_exclusions_from_decay_are_copied():
    variables = [keras.Variable(np.ones((2,)), name=n) for n in ("a", "bias")]
    source = keras.optimizers.AdamW(0.1)
    source.exclude_from_weight_decay(variables[:1], ["bias"])
    target = keras.optimizers.AdamW(0.1)
    assert compat.undecayed(target, variables) == ()
    target = keras.optimizers.AdamW(0.1)
    compat.copy_decay_exclusions(source, target)
    assert compat.undecayed(target, variables) == (0, 1)


def test_an_interrupted_step_leaves_no_state_of_it():
    """On JAX it would be of a trace, which nothing later can read."""
    variable = keras.Variable(np.ones((2,), "float32"))
    optimizer = compat.copy_with_rates(
        keras.optimizers.AdamW(0.1, weight_decay=0.5), OneRate()
    )
    optimizer.began_at = keras.Variable([0], dtype="int", trainable=False)
    gradients = [keras.ops.ones((2,))]
    optimizer.apply(gradients, [variable])
    at = 0
    while interrupted(at := at + 1, lambda: optimizer.apply(gradients)):
        assert optimizer._own_steps is None
        assert optimizer._decaying_group is None
    assert at > 10


def interrupted(at, call):
    """Calls, and returns whether it came to a line of the module to stop at."""
    lines = []

    def trace(frame, event, arg):
        if frame.f_code.co_filename != compat.__file__:
            return None
        if event == "line":
            lines.append(frame.f_lineno)
            if len(lines) == at:
                raise KeyboardInterrupt
        return trace

    former = sys.gettrace()  # that of coverage, say
    sys.settrace(trace)
    try:
        call()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(former)
    return False
