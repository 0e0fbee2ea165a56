"""Layers that cannot be cached are named, and train live."""

import keras
import numpy as np
import pytest
from keras import layers

import keras_cascade as kc


@keras.saving.register_keras_serializable(package="tests")
class Noise(layers.Layer):
    """Adds noise, whatever mode it is in."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed_generator = keras.random.SeedGenerator(1)

    def call(self, x):
        noise = keras.random.normal(
            keras.ops.shape(x), seed=self.seed_generator
        )
        return x + noise

    def compute_output_shape(self, shape):
        return shape


@keras.saving.register_keras_serializable(package="tests")
class Counter(layers.Layer):
    """Counts its calls."""

    def build(self, shape):
        self.calls = self.add_weight(name="calls", trainable=False)

    def call(self, x):
        self.calls.assign_add(1.0)
        return x


@keras.saving.register_keras_serializable(package="tests")
class Penalty(layers.Layer):
    """Adds a loss of its own."""

    def call(self, x):
        self.add_loss(keras.ops.mean(x**2))
        return x


@keras.saving.register_keras_serializable(package="tests")
class Logging(layers.Layer):
    """Logs the share of positive values, in a layer inside or by itself."""

    def __init__(self, inside=False, **kwargs):
        super().__init__(**kwargs)
        self.inside = inside
        self.inner = Logging(name="inner") if inside else None
        if not inside:
            self.share = keras.metrics.Mean(name="share")

    def call(self, x):
        if self.inside:
            return self.inner(x)
        self.share.update_state(x > 0)
        return x

    def get_config(self):
        return {**super().get_config(), "inside": self.inside}


@keras.saving.register_keras_serializable(package="tests")
class Centered(layers.Layer):
    """Subtracts what a batch has in common."""

    def call(self, x):
        return x - keras.ops.mean(x, axis=0, keepdims=True)


@keras.saving.register_keras_serializable(package="tests")
class Numbered(layers.Layer):
    """Scales a sample by its place in the batch."""

    def call(self, x):
        places = keras.ops.arange(keras.ops.shape(x)[0], dtype=x.dtype)
        return x * (1 + keras.ops.reshape(places, (-1, 1, 1, 1)) / 10)


@keras.saving.register_keras_serializable(package="tests")
class Halves(layers.Layer):
    """Gives two rows for each sample."""

    def call(self, x):
        _, height, width, channels = x.shape
        return keras.ops.reshape(x, (-1, height // 2, width, channels))


def with_layer(layer):
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((8, 8, 1), name="image")
    x = layers.Conv2D(4, 3, name="conv1")(x)
    x = layer(x)
    x = layers.Conv2D(6, 3, name="conv2")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    return keras.Model(inputs, x, name="network")


@pytest.mark.parametrize("kind", [Counter, Penalty])
def test_a_random_layer_is_named_and_the_cut_is_before_it(
    compiled, images, labels, computed, kind
):
    cascade = compiled(with_layer(kind(name="odd")))
    with pytest.warns(UserWarning, match="'upstream/odd' is frozen and"):
        cascade.fit(images, labels, verbose=0, epochs=2, cache_features=True)
    # What lies before it is computed once, all the same.
    assert sum(computed) == len(images)


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.skipif(
    keras.config.backend() == "jax", reason="stock Keras fails on JAX too"
)
def test_metrics_of_frozen_layers_are_logged_in_every_epoch(
    compiled, same_training, images, labels, computed, inside
):
    def build():
        return compiled(with_layer(Logging(inside)))

    _, _, history = same_training(build, images, labels, batch_size=11)
    assert all(0 < share < 1 for share in history["share"])
    assert sum(computed) == len(images)


def test_losses_of_frozen_layers_count_in_every_epoch(
    compiled, same_training, images, labels
):
    with pytest.warns(UserWarning, match="adds a loss of its own"):
        same_training(
            lambda: compiled(with_layer(Penalty(name="odd"))),
            images,
            labels,
            batch_size=11,
        )


def test_losses_of_layers_after_the_cut_count(
    compiled, same_training, images, labels, computed
):
    def build():
        keras.utils.set_random_seed(0)
        x = inputs = keras.Input((6,))
        x = layers.Dense(4, kernel_regularizer="l2", activity_regularizer="l2")(
            x
        )
        x = Penalty()(x)
        outputs = layers.Dense(3, activation="softmax")(x)
        return compiled(downstream=keras.Model(inputs, outputs))

    same_training(build, images, labels, batch_size=11)
    assert sum(computed) == len(images)


def mean_of_the_batch(x):
    return keras.ops.subtract(x, keras.ops.mean(x, axis=0, keepdims=True))


@pytest.mark.parametrize("kind", [Centered, Numbered, mean_of_the_batch])
def test_a_layer_that_depends_on_the_batch_is_computed_in_each_epoch(
    compiled, same_training, images, labels, computed, kind
):
    def build():
        is_layer = isinstance(kind, type)
        return compiled(with_layer(kind(name="odd") if is_layer else kind))

    with pytest.warns(UserWarning, match="answers by the other samples"):
        same_training(build, images, labels, batch_size=11)
    assert sum(computed) == len(images)


def test_outputs_without_a_row_for_each_sample_are_not_cached(
    compiled, same_training, images, labels, computed
):
    def build():
        keras.utils.set_random_seed(0)
        x = inputs = keras.Input((8, 8, 1), name="image")
        x = layers.Conv2D(4, 3, name="conv1")(x)
        x = Halves(name="halves")(x)
        x = layers.Conv2D(6, 3, padding="same", name="conv2")(x)
        x = keras.ops.reshape(x, (-1, 6, 6, 6))
        x = layers.GlobalAveragePooling2D(name="pool")(x)
        network = keras.Model(inputs, x, name="network")
        return compiled(network, trainable={"upstream/conv2": True})

    with pytest.warns(UserWarning, match="'upstream/halves' is frozen and giv"):
        same_training(build, images, labels, batch_size=11)
    assert sum(computed) == len(images)


def test_layers_of_a_random_kind_are_named(
    compiled, images, labels, computed, capsys
):
    cascade = compiled(with_layer(Noise(name="odd")))
    cascade.fit(images, labels, verbose=2, epochs=2, cache_features=True)
    said = " ".join(capsys.readouterr().out.split())
    assert "up to Noise 'upstream/odd', which draws random numbers" in said
    assert sum(computed) == len(images)


def test_augmentation_before_all_frozen_layers_trains_live(
    compiled, same_training, images, labels, computed
):
    def build():
        keras.utils.set_random_seed(0)
        x = inputs = keras.Input((8, 8, 1), name="image")
        x = layers.RandomFlip(seed=1, name="flip")(x)
        x = layers.Conv2D(6, 3, name="conv")(x)
        x = layers.GlobalAveragePooling2D(name="pool")(x)
        return compiled(keras.Model(inputs, x, name="augmented"))

    with pytest.warns(
        UserWarning, match="RandomFlip 'upstream/flip', which is aug"
    ):
        same_training(build, images, labels, batch_size=11)
    assert not computed


def test_augmentation_after_frozen_layers_stays_active(
    compiled, same_training, images, labels, computed
):
    def build():
        return compiled(with_layer(layers.RandomFlip(seed=1, name="flip")))

    same_training(build, images, labels, batch_size=11)
    assert sum(computed) == len(images)


def test_a_cascade_that_trains_wholly_warns(compiled, images, labels):
    cascade = compiled(trainable=True)
    with pytest.warns(UserWarning, match="all of it trains"):
        cascade.fit(images, labels, verbose=0, cache_features=True)


def test_masks_are_kept(same_training):
    words = np.random.default_rng(0).integers(0, 5, (24, 6))
    labels = words[:, 0] > 2

    def build():
        keras.utils.set_random_seed(0)
        x = inputs = keras.Input((6,), dtype="int32", name="words")
        x = layers.Embedding(5, 4, mask_zero=True, name="embedding")(x)
        x = layers.Dense(3, name="dense")(x)
        upstream = keras.Model(inputs, x, name="embedded")
        x = inputs = keras.Input((6, 3), name="sequence")
        x = layers.LSTM(4, name="lstm")(x)
        x = layers.Dense(1, activation="sigmoid", name="out")(x)
        built = kc.build_cascade(
            upstream,
            keras.Model(inputs, x, name="reader"),
            adapters=None,
            optimizer=keras.optimizers.SGD(0.1),
            loss="binary_crossentropy",
        )
        keras.utils.set_random_seed(2)
        return built

    same_training(build, words, labels, batch_size=12)


def test_lwf_trains_live(compiled, images, labels, computed):
    cascade = compiled(
        trainable={"upstream/conv2..": True},
        retention={"upstream": kc.LwF(1.0, outputs="softmax_logits")},
    )
    with pytest.warns(UserWarning, match="LwF"):
        cascade.fit(images, labels, verbose=0, cache_features=True)
    assert not computed


@pytest.mark.parametrize("max_bytes", [1, 500])
def test_max_bytes_ends_the_caching_and_not_the_training(
    compiled, images, labels, computed, tmp_path, max_bytes
):
    cache = kc.FeatureCache(tmp_path / "features", max_bytes=max_bytes)
    cascade = compiled()
    with pytest.warns(UserWarning, match="bytes of features are needed"):
        history = cascade.fit(
            images, labels, epochs=2, verbose=0, cache_features=cache
        )
    assert len(history.history["loss"]) == 2
    assert not computed
    assert not list(tmp_path.rglob("*.npy"))


def test_a_stream_that_outgrows_max_bytes_continues_live(
    compiled, images, labels, tmp_path
):
    def batches():
        for start in range(0, len(images), 8):
            yield images[start : start + 8], labels[start : start + 8]

    cache = kc.FeatureCache(tmp_path / "few", max_bytes=2000, key="stream")
    with pytest.warns(UserWarning) as found:
        history = compiled().fit(batches(), verbose=0, cache_features=cache)
    said = [str(warning.message) for warning in found]
    assert any("Training goes on without the cache" in text for text in said)
    assert len(history.history["loss"]) == 1


def test_weights_that_a_callback_changes_are_an_error(compiled, images, labels):
    class Loads(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            kernel = self.model.blocks["upstream"].get_layer("conv1").kernel
            kernel.assign(kernel * 2)

    with pytest.raises(RuntimeError, match="weights of frozen layers"):
        compiled().fit(
            images,
            labels,
            epochs=3,
            verbose=0,
            cache_features=True,
            callbacks=[Loads()],
        )
