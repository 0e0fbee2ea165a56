"""Training on cached features is live training, computed once."""

import keras
import numpy as np
import pytest

import keras_cascade as kc

EVERYTHING_ONCE = 44
# A last batch of another size is compiled once more: the first test has one.
EVEN = 11


def test_a_frozen_upstream(compiled, same_training, images, labels, computed):
    _, _, history = same_training(
        compiled, images, labels, batch_size=8, validation_split=0.25
    )
    assert sum(computed) == EVERYTHING_ONCE
    assert history["loss"][-1] < history["loss"][0]


@pytest.mark.parametrize("noise_shape", [None, (None, 1, 1, 1)])
def test_a_partly_frozen_upstream(
    compiled, network, same_training, images, labels, noise_shape
):
    def build():
        upstream = network(noise_shape=noise_shape)
        return compiled(upstream, trainable={"upstream/conv2..": True})

    same_training(build, images, labels, batch_size=EVEN)


def test_injections_from_frozen_taps(
    compiled, network, same_training, images, labels
):
    def build():
        return compiled(
            network(),
            kc.build_cascade(network(seed=1), head=3),
            taps={"edges": "relu1", "style": "-1"},
            inject={
                "edges": "upstream/conv2",
                "style": kc.Injection("upstream/relu1", "film"),
            },
            trainable={"downstream": True},
        )

    same_training(build, images, labels, batch_size=EVEN)


def test_two_upstreams_one_of_them_frozen(
    compiled, network, head, same_training, images, labels
):
    def build():
        return compiled(
            {"fixed": network(), "free": network(seed=1)},
            head(12),
            trainable={"free": True},
        )

    same_training(build, images, labels, batch_size=EVEN)


def test_extra_inputs_and_a_pca(
    compiled, network, head, same_training, images, labels
):
    side = np.random.default_rng(2).normal(size=(44, 2)).astype("float32")
    x = {"inputs": images, "side": side}

    def build():
        cascade = compiled(
            network(),
            head(7),
            adapters=kc.adapters.PCAAdapter(5),
            extra_inputs={"side": (2,)},
        )
        return cascade.adapt(x, verbose=False)

    same_training(build, x, labels, batch_size=8)


def test_each_stage_has_a_cut_of_its_own(
    compiled, same_training, images, labels, computed
):
    same_training(
        compiled,
        images,
        labels,
        epochs=5,
        batch_size=EVEN,
        unfreeze={2: "upstream/conv2..", 4: "upstream"},
    )
    # Twice everything: for two cuts. In the last stage nothing is frozen.
    assert sum(computed) == 2 * EVERYTHING_ONCE


def test_a_stage_with_the_same_cut_computes_nothing_again(
    compiled, network, same_training, images, labels, computed
):
    def build():
        return compiled(network(), trainable={"downstream/out": False})

    same_training(
        build, images, labels, batch_size=EVEN, unfreeze={1: "downstream"}
    )
    assert sum(computed) == EVERYTHING_ONCE


def test_tensors_of_both_cuts_are_read_in_the_next_stage(
    compiled, network, head, same_training, images, labels, computed
):
    def build():
        return compiled({"one": network(), "other": network(seed=1)}, head(12))

    same_training(build, images, labels, batch_size=EVEN, unfreeze={1: "other"})
    assert sum(computed) == EVERYTHING_ONCE


def test_weights_and_class_weights(compiled, same_training, images, labels):
    weights = np.random.default_rng(3).uniform(size=44).astype("float32")
    same_training(compiled, images, labels, batch_size=8, sample_weight=weights)
    same_training(
        compiled, images, labels, batch_size=8, class_weight={0: 3, 1: 1, 2: 2}
    )


def test_moving_averages_come_at_the_end(
    compiled, same_training, images, labels
):
    def build():
        return compiled(optimizer=keras.optimizers.SGD(0.05, use_ema=True))

    same_training(build, images, labels, batch_size=8)


def test_every_epoch_has_another_order(compiled, images, labels):
    seen = []

    class Spy(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(float(logs["loss"]))

    cascade = compiled(optimizer=keras.optimizers.SGD(0.0))
    cascade.compile(
        keras.optimizers.SGD(0.0), "sparse_categorical_crossentropy"
    )
    cascade.fit(
        images,
        labels,
        batch_size=8,
        epochs=3,
        verbose=0,
        cache_features=True,
        callbacks=[Spy()],
    )
    first, second, third = np.split(np.array(seen), 3)
    assert not np.allclose(first, second) and not np.allclose(second, third)


def test_evaluate_and_predict_answer_the_same(
    compiled, images, labels, computed
):
    cascade, cache = compiled(), kc.FeatureCache()
    plain = cascade.evaluate(images, labels, verbose=0)
    answers = cascade.predict(images, verbose=0)
    for _ in range(2):
        found = cascade.evaluate(
            images, labels, verbose=0, cache_features=cache
        )
        np.testing.assert_allclose(found, plain, rtol=1e-5)
        np.testing.assert_allclose(
            cascade.predict(images, verbose=0, cache_features=cache),
            answers,
            rtol=1e-5,
            atol=1e-6,
        )
    assert sum(computed) == EVERYTHING_ONCE


def test_the_cascade_takes_inputs_while_it_trains_on_features(
    compiled, images, labels
):
    cascade, answers = compiled(), []

    class Asks(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            answers.append(self.model.predict(images, verbose=0))

    cascade.fit(
        images,
        labels,
        epochs=2,
        verbose=0,
        cache_features=True,
        callbacks=[Asks()],
    )
    np.testing.assert_allclose(
        answers[-1], cascade.predict(images, verbose=0), atol=1e-6
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_the_bytes_are_nearly_the_same(
    compiled, images, labels, tmp_path, dtype
):
    arguments = {"epochs": 3, "batch_size": 8, "verbose": 0, "shuffle": False}
    histories, sizes = [], []
    for kind in ("float32", dtype):
        cache = kc.FeatureCache(tmp_path / kind, dtype=kind)
        keras.utils.set_random_seed(3)
        histories.append(
            compiled()
            .fit(images, labels, cache_features=cache, **arguments)
            .history["loss"]
        )
        files = (tmp_path / kind).rglob("*.npy")
        sizes.append(
            sum(x.stat().st_size for x in files if "ids" not in x.name)
        )
    np.testing.assert_allclose(*histories, rtol=2e-2)
    assert histories[0] != histories[1]
    assert sizes[1] - 128 == (sizes[0] - 128) / 2  # less the header


def test_a_cascade_that_is_not_compiled_says_so(network, images, labels):
    cascade = kc.build_cascade(network(), head=3)
    with pytest.raises(ValueError, match="compile"):
        cascade.fit(images, labels, verbose=0, cache_features=True)


def test_adapters_that_are_not_fitted_say_so(
    compiled, network, head, images, labels
):
    cascade = compiled(network(), head(5), adapters=kc.adapters.PCAAdapter(5))
    with pytest.raises(ValueError, match="adapt"):
        cascade.fit(images, labels, verbose=0, cache_features=True)
