"""Checks retention through training, files and rebuilding."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_cascade as kc
from keras_cascade.testing import check_cascade
from tests.training.retention import linear

RNG = np.random.default_rng(0)
X = RNG.normal(size=(12, 3)).astype("float32")
Y = RNG.integers(0, 2, 12)


@pytest.fixture
def classifier():
    """Returns a network with moments, dropout, and a head after the tap."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((3,))
    x = layers.Dense(4, "tanh", name="dense")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Dropout(0.5, seed=1, name="dropout")(x)
    x = layers.Dense(5, "softmax", name="old")(x)
    return keras.Model(inputs, x, name="classifier")


def methods():
    return {
        "upstream": kc.LwF(0.5),
        "upstream/dense": kc.L2SP(0.3),
        "upstream/norm": kc.EWC(2.0, X),
    }


def build(classifier, **arguments):
    arguments = {
        "taps": "dropout",
        "head": 2,
        "trainable": True,
        "retention": methods(),
        "optimizer": keras.optimizers.Adam(0.05),
        "loss": "sparse_categorical_crossentropy",
        **arguments,
    }
    return kc.build_cascade(classifier, **arguments)


def fit(cascade, **arguments):
    arguments = {"batch_size": 6, "shuffle": False, "verbose": 0, **arguments}
    return cascade.fit(X, Y, **arguments).history


def values(model):
    return {v.path: linear.value(v) for v in model.variables}


def assert_equal(first, second):
    assert list(first) == list(second)
    for path, value in first.items():
        np.testing.assert_array_equal(value, second[path], err_msg=path)


def kept(cascade):
    return [v.path for v in cascade.variables if "retention/" in v.path]


def test_training_continues_after_loading_bit_by_bit(classifier, tmp_path):
    """All three methods, in the middle of training."""
    cascade = build(classifier)
    fit(cascade)
    cascade.save(tmp_path / "cascade.keras")
    loaded = keras.models.load_model(tmp_path / "cascade.keras")
    assert_equal(values(cascade), values(loaded))
    assert fit(loaded, epochs=2) == fit(cascade, epochs=2)
    assert_equal(values(cascade), values(loaded))


def test_each_method_has_its_own_loss_in_the_logs(classifier):
    cascade = build(classifier)
    history = fit(cascade, epochs=2, validation_data=(X, Y))
    assert set(history) == {
        *("loss", "l2sp_loss", "ewc_loss", "lwf_loss"),
        *("val_loss", "val_l2sp_loss", "val_ewc_loss", "val_lwf_loss"),
    }
    now, then = values(cascade), classifier.get_layer("dense").get_weights()
    moved = [
        now["upstream/dense/kernel"] - then[0],
        now["upstream/dense/bias"] - then[1],
    ]
    distance = 0.15 * sum((part**2).sum() for part in moved)
    assert history["val_l2sp_loss"][-1] == pytest.approx(distance, rel=1e-5)
    fisher = now["retention/fishers/upstream/norm/gamma"]
    gamma = (fisher * (now["upstream/norm/gamma"] - 1) ** 2).sum()
    fisher = now["retention/fishers/upstream/norm/beta"]
    beta = (fisher * now["upstream/norm/beta"] ** 2).sum()
    assert history["val_ewc_loss"][-1] == pytest.approx(gamma + beta, rel=1e-5)


def test_the_loss_is_the_sum_of_the_task_and_the_logged_penalties(classifier):
    cascade = build(classifier)
    fit(cascade)
    found = cascade.evaluate(X, Y, verbose=0, return_dict=True)
    p = ops.convert_to_numpy(cascade(X)).astype("float64")
    task = -np.log(p[np.arange(len(Y)), Y]).mean()
    penalties = found["l2sp_loss"] + found["ewc_loss"] + found["lwf_loss"]
    assert penalties > 0
    assert found["loss"] == pytest.approx(task + penalties, rel=1e-5)


def test_one_method_under_two_patterns_has_the_patterns_in_the_logs():
    cascade = linear.cascade(
        {"upstream": kc.L2SP(1.0), "downstream": kc.L2SP(2.0)},
        downstream=linear.network(),
        adapters=3,
        head=None,
        fusion="add",
        loss=None,
    )
    cascade.compile("sgd", "mse")
    names = [metric.name for metric in cascade.metrics]
    assert {"l2sp_loss/upstream", "l2sp_loss/downstream"} <= set(names)


def test_the_later_of_two_pulls_on_a_weight_counts(classifier):
    pulls = {"upstream": kc.L2SP(1.0), "upstream/norm": kc.EWC(1.0, X)}
    cascade = build(classifier, retention=pulls)
    assert kept(cascade) == [
        "retention/anchors/upstream/dense/kernel",
        "retention/anchors/upstream/dense/bias",
        "retention/anchors/upstream/norm/gamma",
        "retention/fishers/upstream/norm/gamma",
        "retention/anchors/upstream/norm/beta",
        "retention/fishers/upstream/norm/beta",
    ]


def test_no_flag_makes_retained_values_train(classifier):
    cascade = build(classifier)
    before = [v.path for v in cascade.trainable_variables]
    cascade.trainable = False
    cascade.trainable = True
    after = [v.path for v in cascade.trainable_variables]
    assert set(after) == set(before)
    assert not any(path.startswith("retention/") for path in after)


def test_frozen_weights_have_no_penalty_and_do_not_move(classifier):
    cascade = build(classifier, trainable=None)
    before = values(cascade)
    history = fit(cascade, epochs=2)
    assert history["l2sp_loss"] == history["ewc_loss"] == [0.0, 0.0]
    after = values(cascade)
    for path, value in before.items():
        if not path.startswith("head/"):
            np.testing.assert_array_equal(value, after[path], err_msg=path)


def test_the_keeper_is_no_block_no_layer_and_not_in_the_plain_model(classifier):
    cascade, without = build(classifier), build(classifier, retention=None)
    assert list(cascade.blocks) == list(without.blocks)
    assert [x.name for x in cascade.layers] == [x.name for x in without.layers]
    plain = cascade.to_plain()
    shapes = [v.shape for v in without.to_plain().variables]
    assert [v.shape for v in plain.variables] == shapes
    assert not any("old" in v.path for v in plain.variables)
    answers = [ops.convert_to_numpy(m(X)) for m in (plain, cascade)]
    np.testing.assert_array_equal(*answers)


def test_a_cascade_with_retention_passes_the_common_checks(classifier):
    assert check_cascade(build(classifier), X)


def test_exports_leave_the_keeper_out(classifier, tmp_path):
    tf = pytest.importorskip("tensorflow")
    if keras.backend.backend() != "tensorflow":
        pytest.skip("Keras's SavedModel of the running backend is TensorFlow's")
    cascade = build(classifier)
    before = kept(cascade)
    cascade.export(tmp_path / "saved", fold=False, verbose=False)
    stored = tf.saved_model.load(tmp_path / "saved").weights
    blocks = [v for v in cascade.variables if v.path not in before]
    assert len(stored) == len(blocks)
    assert kept(cascade) == before


def test_compile_replaces_retention_and_none_keeps_it(classifier):
    cascade = build(classifier)
    cascade.compile("sgd", "mse")
    assert len(kept(cascade)) == len(kept(build(classifier)))
    cascade.compile("sgd", "mse", retention={"upstream/dense": kc.L2SP(1.0)})
    assert [path.rsplit("/", 1)[1] for path in kept(cascade)] == [
        "kernel",
        "bias",
    ]
    assert list(cascade.spec.retention) == ["upstream/dense"]
    cascade.compile("sgd", "mse", retention={})
    assert kept(cascade) == []


def test_compile_retains_the_network_as_it_was_not_as_it_is(classifier):
    cascade = build(classifier, retention=None)
    fit(cascade)
    cascade.compile("sgd", "mse", retention={"upstream": kc.L2SP(1.0)})
    anchor = values(cascade)["retention/anchors/upstream/dense/kernel"]
    original = classifier.get_layer("dense").get_weights()[0]
    np.testing.assert_array_equal(anchor, original)
    assert (values(cascade)["upstream/dense/kernel"] != original).any()


def test_compile_without_the_network_says_what_to_do(classifier, tmp_path):
    cascade = build(classifier, retention=None)
    cascade.save(tmp_path / "cascade.keras")
    loaded = keras.models.load_model(tmp_path / "cascade.keras")
    with pytest.raises(ValueError, match=r"of 'upstream' no longer.*rebui"):
        loaded.compile("sgd", "mse", retention={"upstream": kc.L2SP(1.0)})


def test_compile_of_shared_layers_says_what_to_do(classifier):
    cascade = build(classifier, retention=None, copy=False)
    with pytest.raises(
        ValueError, match=r"copy=False.*Give retention to build"
    ):
        cascade.compile("sgd", "mse", retention={"upstream": kc.L2SP(1.0)})


def test_shared_layers_are_pulled_to_their_first_values(classifier):
    then = classifier.get_layer("dense").get_weights()[0]
    retention = {"upstream/dense": kc.L2SP(2.0)}
    cascade = build(classifier, retention=retention, copy=False)
    kernel, bias = classifier.get_layer("dense").get_weights()
    classifier.get_layer("dense").set_weights([kernel + 1, bias])
    found = cascade.evaluate(X, Y, verbose=0, return_dict=True)
    assert found["l2sp_loss"] == pytest.approx(then.size, rel=1e-5)


def test_a_rebuilt_cascade_retains_the_networks_as_they_were(classifier):
    cascade = build(classifier)
    fit(cascade)
    again = cascade.rebuild(head=layers.Dense(2, "softmax", name="other"))
    before, after = values(cascade), values(again)
    for path in kept(cascade):
        np.testing.assert_array_equal(before[path], after[path], err_msg=path)
    assert again.spec.reinitialized == ("head/other/kernel", "head/other/bias")


def test_a_loaded_cascade_is_rebuilt_without_the_old_data(classifier, tmp_path):
    cascade = build(classifier)
    fit(cascade)
    cascade.save(tmp_path / "cascade.keras")
    loaded = keras.models.load_model(tmp_path / "cascade.keras")
    assert loaded.spec.retention["upstream/norm"].data is None
    again = loaded.rebuild()
    before, after = values(cascade), values(again)
    assert kept(again) == kept(cascade)
    for path in kept(cascade):
        np.testing.assert_array_equal(before[path], after[path], err_msg=path)


def test_new_retention_of_a_loaded_cascade_needs_the_networks(
    classifier, tmp_path
):
    cascade = build(classifier, retention={"upstream/dense": kc.L2SP(1.0)})
    cascade.save(tmp_path / "cascade.keras")
    loaded = keras.models.load_model(tmp_path / "cascade.keras")
    with pytest.raises(ValueError, match=r"'upstream' no longer exist"):
        loaded.rebuild(retention={"upstream": kc.L2SP(1.0)})
    again = loaded.rebuild(
        upstream=classifier, retention={"upstream": kc.L2SP(1.0)}
    )
    assert "retention/anchors/upstream/norm/gamma" in kept(again)


def test_a_replaced_network_is_retained_with_its_own_weights(classifier):
    cascade = build(classifier, retention={"upstream/dense": kc.L2SP(1.0)})
    other = keras.models.clone_model(classifier)
    again = cascade.rebuild(upstream=other)
    anchor = values(again)["retention/anchors/upstream/dense/kernel"]
    np.testing.assert_array_equal(anchor, other.get_layer("dense").kernel)


def test_a_downstream_is_distilled_on_the_features_that_it_gets(classifier):
    """The divergence moves the downstream, not the layers that feed it."""
    encoder = linear.network("tanh")
    cascade = kc.build_cascade(
        encoder,
        linear.network("softmax", units=2),
        adapters=layers.Dense(3, name="to_features"),
        trainable=True,
        retention={"downstream": kc.LwF(0.7, 1.0)},
        optimizer="sgd",
        loss="mse",
    )
    linear.move(cascade, "downstream/dense/kernel")
    now = values(cascade)
    hidden = np.tanh(X @ linear.KERNEL + linear.BIAS)
    adapter = "adapters/output/"
    features = hidden @ now[f"{adapter}kernel"] + now[f"{adapter}bias"]
    kernel = linear.KERNEL[:, :2]
    old, new = (
        linear.softmax(features @ k + linear.BIAS[:2])
        for k in (kernel, kernel + linear.MOVED[:, :2])
    )
    expected = 0.7 * (old * np.log(old / new)).sum(axis=1).mean()
    zeros = np.zeros((len(X), 2), "float32")
    found = cascade.evaluate(X, zeros, verbose=0, return_dict=True)
    assert found["lwf_loss"] == pytest.approx(expected, rel=1e-4)


def test_several_inputs_are_found_by_their_names(classifier):
    cascade = build(classifier, extra_inputs={"side": (2,)})
    x = {"side": np.ones((12, 2), "float32"), "inputs": X}
    history = cascade.fit(x, Y, verbose=0).history
    assert history["lwf_loss"][0] >= 0


def test_retention_works_in_mixed_precision_and_with_accumulation(classifier):
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        x = inputs = keras.Input((3,))
        x = layers.Dense(4, name="dense")(x)
        x = layers.Dense(5, "softmax", name="old")(x)
        network = keras.Model(inputs, x, name="classifier")
        cascade = build(
            network,
            taps="dense",
            retention={"upstream": kc.LwF(1.0), "upstream/dense": kc.L2SP(1.0)},
            optimizer=keras.optimizers.Adam(
                0.05, gradient_accumulation_steps=2
            ),
        )
    finally:
        keras.config.set_dtype_policy("float32")
    history = cascade.fit(
        X, Y, batch_size=3, epochs=2, verbose=0, sample_weight=np.ones(12)
    ).history
    assert history["l2sp_loss"][-1] > 0
    assert np.isfinite(history["loss"]).all()


def test_a_cascade_used_as_a_network_leaves_its_keeper_behind(classifier):
    inner = build(classifier)
    retention = {"upstream": kc.LwF(1.0), "upstream/upstream": kc.L2SP(1.0)}
    outer = kc.build_cascade(
        inner, taps="upstream/dense", head=2, retention=retention
    )
    assert [path for path in kept(outer) if "teachers" not in path] == [
        "retention/anchors/upstream/upstream/dense/kernel",
        "retention/anchors/upstream/upstream/dense/bias",
    ]
    assert "retention/teachers/upstream/head/dense/kernel" in kept(outer)
    assert not any("old" in variable.path for variable in outer.variables)


def test_a_kernel_with_a_low_rank_update_is_pulled_with_the_update():
    """0.5 * strength * |alpha / rank * A B|^2; the bias does not move."""
    cascade = kc.build_cascade(
        keras.Sequential([keras.Input((5,)), layers.Dense(4, name="low")]),
        head=1,
        trainable={"upstream": kc.LoRA(2, alpha=8)},
        retention={"upstream": kc.L2SP(0.3)},
        loss="mse",
    )
    layer = cascade.blocks["upstream"].get_layer("low")
    x = np.ones((2, 5), "float32")
    zeros = np.zeros((2, 1), "float32")
    plain = ops.convert_to_numpy(
        cascade.compute_loss(x=x, y=zeros, y_pred=ops.zeros((2, 1)))
    )
    assert plain == 0
    b = np.arange(8, dtype="float32").reshape(2, 4)
    layer.lora_kernel_b.assign(b)
    a = ops.convert_to_numpy(layer.lora_kernel_a)
    expected = 0.5 * 0.3 * np.square(4.0 * (a.astype("float64") @ b)).sum()
    loss = cascade.compute_loss(x=x, y=zeros, y_pred=ops.zeros((2, 1)))
    np.testing.assert_allclose(ops.convert_to_numpy(loss), expected, rtol=1e-5)
