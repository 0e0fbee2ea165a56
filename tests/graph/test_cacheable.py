"""Cacheable steps, and the layers that end them, with the reason."""

import keras
import pytest
from keras import layers

from keras_cascade.graph.cacheable import find_cacheable
from keras_cascade.graph.flattening import as_program


class Sampling(layers.Layer):
    """Draws whatever mode it is in."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed = keras.random.SeedGenerator(1)

    def call(self, inputs):
        shape = keras.ops.shape(inputs)
        return inputs + keras.random.normal(shape, seed=self.seed)


class Logging(layers.Layer):
    """Has a metric of its own."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seen = [keras.metrics.Mean(name="seen")]

    def call(self, inputs):
        return inputs


class Around(layers.Layer):
    """Contains a layer, to which Keras passes `training` on."""

    def __init__(self, inner, **kwargs):
        super().__init__(**kwargs)
        self.inner = inner

    def call(self, inputs):
        return self.inner(inputs)


def found(layer, shape=(6, 4), **arguments):
    """The cacheable steps of a layer between two frozen ones."""
    x = inputs = keras.Input(shape, name="input", **arguments)
    x = layers.Rescaling(0.5, name="before")(x)
    x = layer(x)
    x = layers.Rescaling(2.0, name="after")(x)
    return find_cacheable(as_program(keras.Model(inputs, x)))


def frozen(layer):
    layer.trainable = False
    return layer


WHOLE = ["before", "middle", "after"]


@pytest.mark.parametrize(
    "layer",
    [
        lambda: frozen(layers.Dense(3, name="middle")),
        lambda: frozen(layers.Dropout(0.5, name="middle")),
        lambda: frozen(layers.BatchNormalization(name="middle")),
        lambda: frozen(layers.LSTM(3, dropout=0.5, name="middle")),
        lambda: frozen(Around(layers.Dropout(0.5), name="middle")),
        # What Keras never trains, and runs the same way in both modes.
        lambda: layers.ReLU(name="middle"),
        lambda: layers.Normalization(mean=0, variance=1, name="middle"),
        lambda: Around(layers.ReLU(), name="middle"),
    ],
    ids=range(8),
)
def test_layers_that_neither_train_nor_change_are_cacheable(layer):
    cacheable = found(layer())
    assert [step.name for step in cacheable.steps] == WHOLE
    assert cacheable.blocked == ()


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.Resizing(4, 4, name="middle"),
        lambda: layers.CenterCrop(4, 4, name="middle"),
        lambda: layers.AutoContrast((0, 255), name="middle"),
    ],
    ids=["resizing", "crop", "contrast"],
)
def test_image_layers_that_do_the_same_in_both_modes_are_cacheable(layer):
    assert [x.name for x in found(layer(), (8, 8, 3)).steps] == WHOLE
    # Keras calls it with the mode, and the mode makes no difference.
    images = keras.random.uniform((2, 8, 8, 3), 0, 255)
    middle = layer()
    one, other = (middle(images, training=mode) for mode in (True, False))
    assert keras.ops.all(one == other)


def test_an_adapted_layer_is_cacheable_whatever_its_flag():
    middle = layers.Normalization(name="middle")
    middle.adapt(keras.random.normal((8, 6, 4)))
    assert middle.trainable and middle.variables
    assert [step.name for step in found(middle).steps] == WHOLE


def test_a_trainable_layer_ends_the_cacheable_steps_and_is_not_blocked():
    cacheable = found(layers.Dense(3, name="middle"))
    assert [step.name for step in cacheable.steps] == ["before"]
    assert cacheable.blocked == ()


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (lambda: layers.Dropout(0.5, name="middle"), "not frozen"),
        (
            lambda: layers.BatchNormalization(
                scale=False, center=False, name="middle"
            ),
            "not frozen",
        ),
        (lambda: Around(layers.Dropout(0.5), name="middle"), "not frozen"),
        (lambda: Sampling(name="middle"), "draws random numbers"),
        (lambda: frozen(Sampling(name="middle")), "draws random numbers"),
        (
            lambda: layers.ActivityRegularization(l2=0.1, name="middle"),
            "adds a loss",
        ),
        (
            lambda: frozen(
                layers.Dense(3, activity_regularizer="l2", name="middle")
            ),
            "adds a loss",
        ),
        (
            lambda: frozen(
                Around(
                    layers.Dense(3, activity_regularizer="l2"), name="middle"
                )
            ),
            "adds a loss",
        ),
        (lambda: frozen(Logging(name="middle")), "updates a metric"),
        (
            lambda: frozen(Around(Logging(), name="middle")),
            "updates a metric",
        ),
    ],
    ids=range(10),
)
def test_a_frozen_layer_that_is_not_cacheable_is_named_with_the_reason(
    layer, reason
):
    middle = layer()
    cacheable = found(middle)
    assert [step.name for step in cacheable.steps] == ["before"]
    (blocked,) = cacheable.blocked
    assert (blocked.name, blocked.kind) == ("middle", type(middle).__name__)
    assert reason in blocked.reason


def test_a_state_kept_between_batches_ends_the_cacheable_steps():
    cacheable = found(
        frozen(layers.LSTM(3, stateful=True, name="middle")), batch_size=2
    )
    assert "from one batch to the next" in cacheable.blocked[0].reason


@pytest.mark.parametrize("flag", [True, False])
@pytest.mark.parametrize(
    "layer",
    [
        layers.RandomFlip,
        lambda name: layers.RandomRotation(0.1, name=name),
        lambda name: layers.Pipeline([layers.RandomFlip()], name=name),
        lambda name: layers.RandAugment(name=name),
    ],
    ids=["flip", "rotation", "pipeline", "randaugment"],
)
def test_no_flag_makes_augmentation_cacheable(layer, flag):
    middle = layer(name="middle")
    middle.trainable = flag
    cacheable = found(middle, (8, 8, 3))
    assert [step.name for step in cacheable.steps] == ["before"]
    assert "augmentation" in cacheable.blocked[0].reason


def test_only_the_first_blocked_step_on_each_way_is_named():
    inputs = keras.Input((4,), name="input")
    one = layers.GaussianNoise(0.1, name="one")(inputs)
    one = layers.Dropout(0.5, name="after_one")(one)
    other = layers.Dense(4, name="other", trainable=False)(inputs)
    other = layers.Dropout(0.5, name="after_other")(other)
    trained = layers.Dropout(0.5, name="after_dense")(
        layers.Dense(4, name="dense")(inputs)
    )
    model = keras.Model(inputs, [one, other, trained])
    cacheable = find_cacheable(as_program(model))
    assert {x.name for x in cacheable.blocked} == {"one", "after_other"}
    assert [step.name for step in cacheable.steps] == ["other"]


def test_nondeterministic_steps_are_not_cacheable():
    x = inputs = keras.Input((4,), name="input")
    x = layers.ReLU(name="first")(x)
    x = layers.ReLU(name="second")(x)
    program = as_program(keras.Model(inputs, x))
    cacheable = find_cacheable(
        program, {"second": "gives something else each time"}
    )
    assert [step.name for step in cacheable.steps] == ["first"]
    assert cacheable.blocked[0].reason == "gives something else each time"


def test_the_flags_of_now_count():
    x = inputs = keras.Input((4,), name="input")
    model = keras.Model(inputs, layers.Dense(2, name="dense")(x))
    program = as_program(model)
    assert find_cacheable(program).steps == ()
    model.get_layer("dense").trainable = False
    assert [step.name for step in find_cacheable(program).steps] == ["dense"]


def test_text_is_not_cacheable():
    x = inputs = keras.Input((1,), dtype="string", name="input")
    x = Lower(name="lower")(x)
    x = layers.Reshape((1, 1), name="after")(x)
    cacheable = find_cacheable(as_program(keras.Model(inputs, x)))
    assert cacheable.steps == ()
    assert cacheable.blocked[0].reason == "gives text, which is not kept"


class Lower(layers.Layer):
    """Gives text; no backend is asked to."""

    def call(self, inputs):
        raise NotImplementedError

    def compute_output_spec(self, inputs):
        return keras.KerasTensor(inputs.shape, inputs.dtype)
