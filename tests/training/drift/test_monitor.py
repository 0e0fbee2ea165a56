"""Compares DriftMonitor with distances and CKA by hand in float64."""

import gc
import tracemalloc

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_cascade as kc
from keras_cascade.training.drift.plot import draw

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 6, 6, 1)).astype("float32")
SIDE = RNG.normal(size=(40, 2)).astype("float32")
Y = RNG.normal(size=(40, 2)).astype("float32")
OLD_LABELS = RNG.integers(3, size=40)
INPUTS = {"inputs": X, "side": SIDE}


def encoder(name="encoder"):
    x = inputs = keras.Input((6, 6, 1), name="pixels")
    x = layers.Conv2D(4, 3, name="low", activation="relu")(x)
    x = layers.BatchNormalization(name="norm")(x)
    x = layers.Dropout(0.5, name="drop")(x)
    x = layers.Conv2D(5, 3, name="high", activation="tanh")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    x = layers.Dense(3, activation="softmax", name="letters")(x)
    return keras.Model(inputs, x, name=name)


def expert():
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(7, "tanh", name="hidden"),
            layers.Dense(2, name="out"),
        ],
        name="expert",
    )


def build(upstream, downstream, **arguments):
    keras.utils.set_random_seed(7)
    arguments = {
        "taps": {"texture": "low", "shape": "pool"},
        "adapters": {"texture": 3, "shape": 3},
        "extra_inputs": {"side": (2,)},
        "optimizer": keras.optimizers.SGD(0.1),
        "loss": "mse",
        **arguments,
    }
    return kc.build_cascade(upstream, downstream, **arguments)


def fit(cascade, *callbacks, epochs=2, **arguments):
    arguments = {"verbose": 0, "batch_size": 20, "shuffle": False, **arguments}
    history = cascade.fit(
        INPUTS, Y, epochs=epochs, callbacks=list(callbacks), **arguments
    )
    return history.history


def watching(cascade, data=INPUTS, **arguments):
    monitor = kc.DriftMonitor(data, **arguments)
    monitor.set_model(cascade)
    return monitor


def value(variable):
    return np.array(ops.convert_to_numpy(variable)).astype("float64")


def move(block, scale=0.1, seed=5):
    """Moves all weights of a block."""
    draw = np.random.default_rng(seed).normal
    for variable in block.weights:
        noise = scale * draw(size=tuple(variable.shape))
        variable.assign(ops.abs(ops.add(variable, noise)))


def features(network, layer, x=X):
    """Returns the output of a stock model at one of its layers."""
    inner = keras.Model(network.input, network.get_layer(layer).output)
    return inner.predict(x, verbose=0)


def cka(x, y):
    """Returns CKA by Kornblith 2019, equations 1 and 3."""
    x, y = (a.reshape(-1, a.shape[-1]).astype("float64") for a in (x, y))
    x, y = x - x.mean(0), y - y.mean(0)
    k, m = x @ x.T, y @ y.T
    return (k * m).sum() / np.sqrt((k * k).sum() * (m * m).sum())


def parameters(network, names):
    """Returns the parameters of layers, without moments, as one vector."""
    found = [
        value(v)
        for name in names
        for v in network.get_layer(name).weights
        if not v.path.split("/")[-1].startswith("moving")
    ]
    return np.concatenate([w.ravel() for w in found])


NAMES = ("low", "norm", "high")


def test_the_distance_is_that_of_all_parameters_as_one_vector():
    upstream, downstream = encoder(), expert()
    cascade = build(upstream, downstream)
    monitor = watching(cascade)
    block = cascade.blocks["upstream"]
    move(block)
    old, new = parameters(upstream, NAMES), parameters(block, NAMES)
    found = monitor.measure()
    expected = np.linalg.norm(new - old) / np.linalg.norm(old)
    assert found["drift/upstream"] == pytest.approx(expected, rel=1e-12)
    assert found["drift/downstream"] == 0.0


def test_a_taps_cka_is_that_of_full_gram_matrices():
    upstream, downstream = encoder(), expert()
    cascade = build(upstream, downstream)
    monitor = watching(cascade, batch_size=16)
    move(cascade.blocks["upstream"])
    found = monitor.measure()
    now = cascade.blocks["upstream"].predict(X, verbose=0)
    for tap, layer in (("texture", "low"), ("shape", "pool")):
        expected = cka(now[tap], features(upstream, layer))
        assert expected < 0.999, tap
        assert found[f"cka/{tap}"] == pytest.approx(expected, rel=1e-5), tap


def test_a_downstream_is_compared_on_its_present_features():
    upstream, downstream = encoder(), expert()
    cascade = build(upstream, downstream)
    monitor = watching(cascade)
    move(cascade.blocks["adapters"])
    found = monitor.measure()
    assert found["cka/downstream"] == pytest.approx(1.0, abs=1e-12)
    move(cascade.blocks["downstream"], scale=0.5)
    features = cascade_features(cascade)
    expected = cka(
        cascade.blocks["downstream"].predict(features, verbose=0),
        downstream.predict(features, verbose=0),
    )
    assert expected < 0.999
    assert monitor.measure()["cka/downstream"] == pytest.approx(
        expected, rel=1e-5
    )


def cascade_features(cascade):
    """Returns the inputs of the downstream, computed block by block."""
    taps = cascade.blocks["upstream"].predict(X, verbose=0)
    inputs = cascade.blocks["adapters"].inputs
    order = [x.name.removesuffix("_input") for x in inputs]
    adapted = cascade.blocks["adapters"].predict(
        [taps[name] for name in order], verbose=0
    )
    return np.concatenate([adapted["texture"], adapted["shape"], SIDE], axis=1)


def test_history_has_a_column_for_each_block_tap_and_task():
    upstream, downstream = encoder(), expert()
    cascade = build(upstream, downstream, trainable=True)
    monitor = kc.DriftMonitor(INPUTS, old_task=(X, OLD_LABELS))
    assert repr(monitor) == "<DriftMonitor every epoch: nothing measured yet>"
    history = fit(cascade, monitor, epochs=3, validation_split=0.5)
    last = ", ".join(f"{name} {history[name][-1]:.3g}" for name in history)
    assert repr(monitor).endswith(f"after 3 epochs {last.split(', ', 2)[2]}>")
    names = [
        "drift/upstream",
        "drift/downstream",
        "cka/texture",
        "cka/shape",
        "cka/downstream",
        "old_task/upstream",
    ]
    assert list(history) == ["loss", "val_loss", *names]
    table = monitor.to_dict()
    assert list(table) == ["epochs", *names]
    assert table["epochs"] == [0, 1, 2, 3]
    for name in names:
        assert table[name][1:] == history[name]
        assert all(type(x) is float for x in table[name])
    drift = table["drift/upstream"]
    assert drift[0] == 0.0 < drift[1] < drift[2] < drift[3]
    assert table["cka/shape"][0] == pytest.approx(1.0, abs=1e-12)
    assert table["cka/shape"][3] < 1 - 1e-6


class Batches(keras.utils.PyDataset):
    def __init__(self, count=2, repeats=1, labels=True):
        super().__init__()
        self.count, self.repeats, self.labels = count, repeats, labels

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        rows = slice(20 * (index % 2), 20 * (index % 2 + 1))
        inputs = {
            name: np.concatenate([x[rows]] * self.repeats)
            for name, x in INPUTS.items()
        }
        return (inputs, Y[rows]) if self.labels else (inputs,)


def test_reference_and_training_data_may_be_data_sets():
    """The same batches, so the same values as from arrays."""
    upstream, downstream = encoder(), expert()
    tables = []
    for reference, x, y in [(INPUTS, INPUTS, Y), (Batches(), Batches(), None)]:
        cascade = build(upstream, downstream, trainable={"downstream": True})
        monitor = kc.DriftMonitor(reference, batch_size=20)
        cascade.fit(
            x, y, batch_size=20, shuffle=False, verbose=0, callbacks=[monitor]
        )
        tables.append(monitor.to_dict())
    for name, column in tables[0].items():
        assert tables[1][name] == pytest.approx(column, rel=1e-6), name


def test_frozen_blocks_have_distance_0_and_cka_1_while_the_rest_trains():
    upstream, downstream = encoder(), expert()
    cascade = build(upstream, downstream, trainable={"downstream": False})
    monitor = kc.DriftMonitor(INPUTS)
    before = value(cascade.blocks["adapters"].weights[0])
    history = fit(cascade, monitor)
    assert (value(cascade.blocks["adapters"].weights[0]) != before).any()
    for name, column in history.items():
        if name.startswith("drift/"):
            assert column == [0.0, 0.0], name
        if name.startswith("cka/"):
            assert column == pytest.approx([1.0, 1.0], abs=1e-12), name


def test_existing_sources_are_the_reference_also_after_training():
    upstream, downstream = encoder(), expert()
    cascade = build(upstream, downstream)
    move(cascade.blocks["upstream"])
    assert watching(cascade).measure()["drift/upstream"] > 0.01


def test_without_sources_the_weights_at_the_first_fit_are_the_reference():
    cascade = build(encoder(), expert())
    gc.collect()
    assert cascade.source("upstream") is None
    move(cascade.blocks["upstream"])
    monitor = watching(cascade)
    assert monitor.measure()["drift/upstream"] == 0.0
    move(cascade.blocks["upstream"])
    moved = monitor.measure()["drift/upstream"]
    assert moved > 0.01
    fit(cascade, monitor, epochs=1)
    assert monitor.to_dict()["drift/upstream"] == [moved, moved]


def test_a_loaded_cascade_is_compared_with_networks_that_are_passed(tmp_path):
    upstream, downstream = encoder(), expert()
    cascade = build(upstream, downstream)
    move(cascade.blocks["upstream"])
    cascade.save(tmp_path / "cascade.keras")
    loaded = keras.saving.load_model(tmp_path / "cascade.keras")
    found = watching(loaded, pretrained={"upstream": upstream}).measure()
    expected = watching(cascade).measure()
    assert expected["drift/upstream"] > 0.01
    assert found == pytest.approx(expected)


def test_shared_layers_are_compared_with_their_weights_at_the_first_fit():
    upstream, downstream = encoder(), expert()
    cascade = build(upstream, downstream, copy=False)
    monitor = watching(cascade, old_task=(X, OLD_LABELS))
    assert monitor.measure()["drift/upstream"] == 0.0
    old = parameters(upstream, NAMES)
    move(upstream)
    new = parameters(upstream, NAMES)
    expected = np.linalg.norm(new - old) / np.linalg.norm(old)
    assert monitor.measure()["drift/upstream"] == pytest.approx(expected)


class Stop(Exception):  # noqa: N818
    pass


def stop_in_third_epoch(epoch, logs):
    if epoch == 2:
        raise Stop


@pytest.mark.parametrize("first", ["monitor", "backup"])
def test_a_resumed_fit_continues_as_if_it_had_not_stopped(tmp_path, first):
    """The reference is the cascade before the backup was restored."""

    def new(*others):
        keras.utils.set_random_seed(6)
        cascade = build(encoder(), expert(), trainable={"downstream": True})
        gc.collect()
        monitor = kc.DriftMonitor(INPUTS)
        backup = keras.callbacks.BackupAndRestore(tmp_path / first)
        pair = [monitor, backup] if first == "monitor" else [backup, monitor]
        return cascade, monitor, [*pair, *others]

    cascade, expected, _ = new()
    fit(cascade, expected, epochs=4)
    stop = keras.callbacks.LambdaCallback(on_epoch_begin=stop_in_third_epoch)
    cascade, _, callbacks = new(stop)
    with pytest.raises(Stop):
        fit(cascade, *callbacks, epochs=4)
    cascade, monitor, callbacks = new()
    fit(cascade, *callbacks, epochs=4)
    table = monitor.to_dict()
    assert table["epochs"] == [2, 3, 4]
    for name, column in expected.to_dict().items():
        assert table[name] == pytest.approx(column[2:], rel=1e-5), name


def test_flags_that_change_between_layers_of_one_shape_are_noticed():
    """JAX compiles for shapes: variables must not be mixed up."""
    inputs = keras.Input((4,), name="x")
    one = layers.Dense(4, "tanh", name="one")
    two = layers.Dense(4, "tanh", name="two")
    upstream = keras.Model(inputs, two(one(inputs)))
    cascade = kc.build_cascade(
        upstream,
        taps={"one": "one", "two": "two"},
        adapters=2,
        head=1,
        trainable={"upstream/one": True},
    )
    x = RNG.normal(size=(30, 4)).astype("float32")
    monitor = watching(cascade, x)
    move(cascade.blocks["upstream"].get_layer("one"), 0.5)
    before = monitor.measure()
    cascade.blocks["upstream"].get_layer("one").trainable = False
    cascade.blocks["upstream"].get_layer("two").trainable = True
    after = monitor.measure()
    assert before["cka/one"] < 0.99
    assert after == pytest.approx(before, rel=1e-6)


def test_the_old_task_is_scored_with_the_old_head_and_present_weights():
    upstream, downstream = encoder(), expert()
    cascade = build(upstream, downstream)
    monitor = watching(cascade, old_task=(X, OLD_LABELS))
    before = monitor.measure()["old_task/upstream"]
    probabilities = upstream.predict(X, verbose=0)
    assert before == pytest.approx(
        (probabilities.argmax(1) == OLD_LABELS).mean()
    )
    head = [value(v) for v in upstream.get_layer("letters").weights]
    move(cascade.blocks["upstream"], 2.0)
    features = cascade.blocks["upstream"].predict(X, verbose=0)["shape"]
    logits = features @ head[0] + head[1]
    expected = (logits.argmax(1) == OLD_LABELS).mean()
    assert expected != before
    assert monitor.measure()["old_task/upstream"] == pytest.approx(expected)
    np.testing.assert_array_equal(upstream.predict(X, verbose=0), probabilities)


def test_the_old_task_has_the_metric_that_was_passed():
    upstream, downstream = encoder(), expert()
    cascade = build(upstream, downstream)
    one_hot = np.eye(3)[OLD_LABELS]
    metric = keras.metrics.MeanSquaredError()
    found = watching(
        cascade,
        old_task={"upstream": (X, one_hot), "downstream": (X8, Y)},
        metric=metric,
    ).measure()
    for block, network, x, y in (
        ("upstream", upstream, X, one_hot),
        ("downstream", downstream, X8, Y),
    ):
        error = network.predict(x, verbose=0) - y
        assert found[f"old_task/{block}"] == pytest.approx(
            (error**2).mean(), rel=1e-5
        )
    assert float(metric.total) == 0.0


X8 = RNG.normal(size=(40, 8)).astype("float32")


def test_several_upstreams_nested_networks_and_equal_layers_are_told_apart():
    inputs = keras.Input((6, 6, 1), name="pixels")
    nested = keras.Model(inputs, encoder("inner")(inputs), name="nested")
    networks = {"first": encoder(), "second": nested}
    cascade = kc.build_cascade(
        networks,
        taps={"a": "first/low", "b": "second/inner/low"},
        head=2,
    )
    monitor = watching(cascade, X)
    move(cascade.blocks["second"])
    found = monitor.measure()
    assert list(found) == ["drift/first", "drift/second", "cka/a", "cka/b"]
    assert found["drift/first"] == 0.0
    assert found["cka/a"] == pytest.approx(1.0, abs=1e-12)
    old, new = (
        np.concatenate([value(v).ravel() for v in layer.weights])
        for layer in (
            nested.get_layer("inner").get_layer("low"),
            cascade.blocks["second"].get_layer("inner").get_layer("low"),
        )
    )
    expected = np.linalg.norm(new - old) / np.linalg.norm(old)
    assert found["drift/second"] == pytest.approx(expected)


@pytest.mark.parametrize("alive", [True, False])
def test_layers_that_an_injection_adds_do_not_count_as_drift(alive):
    upstream, downstream = encoder(), expert()
    cascade = build(
        upstream,
        downstream,
        adapters={"texture": 3, "shape": 5},
        inject={"shape": kc.Injection("hidden", merge="concat")},
        downstream_input="features",
        extra_inputs={"side": (5,)},
    )
    if not alive:
        del upstream, downstream
        gc.collect()
        assert cascade.source("downstream") is None
    data = {"inputs": X, "side": RNG.normal(size=(40, 5)).astype("float32")}
    monitor = watching(cascade, data)
    added = [
        v for v in cascade.blocks["downstream"].weights if "_own" in v.path
    ]
    assert len(added) == 1
    added[0].assign(np.full((7, 7), 0.5))
    found = monitor.measure()
    assert found["drift/downstream"] == 0.0
    assert found["cka/downstream"] == pytest.approx(1.0, abs=1e-12)


def test_masked_positions_are_left_out():
    inputs = keras.Input((5,), dtype="int32", name="words")
    x = layers.Embedding(9, 4, mask_zero=True, name="embed")(inputs)
    x = layers.Dense(3, name="dense")(x)
    upstream = keras.Model(inputs, layers.LSTM(2, name="lstm")(x))
    cascade = kc.build_cascade(upstream, taps={"words": "dense"}, head=2)
    words = RNG.integers(1, 9, size=(20, 5)).astype("int32")
    words[:, 3:] = 0
    monitor = watching(cascade, words)
    move(cascade.blocks["upstream"])
    now = cascade.blocks["upstream"].predict(words, verbose=0)["words"]
    then = features(upstream, "dense", words)
    expected = cka(now[:, :3], then[:, :3])
    assert abs(expected - cka(now, then)) > 1e-3
    assert monitor.measure()["cka/words"] == pytest.approx(expected, rel=1e-5)


def test_channels_that_come_first_are_the_features():
    inputs = keras.Input((2, 4, 4), name="pixels")
    x = layers.ZeroPadding2D(data_format="channels_first", name="pad")(inputs)
    x = layers.PReLU(shared_axes=[2, 3], name="act")(x)
    cascade = kc.build_cascade(
        keras.Model(inputs, x), taps={"map": "act"}, fusion=None, adapters=None
    )
    x = RNG.normal(size=(10, 2, 4, 4)).astype("float32")
    monitor = watching(cascade, x)
    alpha = cascade.blocks["upstream"].get_layer("act").weights[0]
    alpha.assign(np.array([0.9, 0.1]).reshape(2, 1, 1))
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    now = np.where(padded > 0, padded, padded * ops.convert_to_numpy(alpha))
    last = [np.moveaxis(a, 1, -1) for a in (now, np.maximum(padded, 0))]
    expected = cka(*last)
    assert expected < 0.99
    assert monitor.measure()["cka/map"] == pytest.approx(expected, rel=1e-5)


def test_the_monitor_does_not_change_the_training():
    """Dropout without a seed and shuffling draw the same numbers."""
    upstream, downstream = encoder(), expert()
    losses = []
    for watched in (False, True):
        cascade = build(upstream, downstream, trainable=True)
        keras.utils.set_random_seed(11)
        data = loader() if keras.backend.backend() == "torch" else INPUTS
        monitors = [kc.DriftMonitor(data, old_task=(X, OLD_LABELS))]
        history = fit(cascade, *monitors[: int(watched)], shuffle=True)
        losses.append(history["loss"])
    assert losses[0] == losses[1]


def loader():
    import torch

    rows = [({k: v[i] for k, v in INPUTS.items()}, Y[i]) for i in range(40)]
    return torch.utils.data.DataLoader(rows, batch_size=20, shuffle=True)


def test_every_other_epoch_is_measured_and_the_last():
    upstream, downstream = encoder(), expert()
    cascade = build(upstream, downstream, trainable={"downstream": False})
    monitor = kc.DriftMonitor(INPUTS, every=2)
    history = fit(cascade, monitor, epochs=4)
    assert monitor.history["epochs"] == [0, 1, 3, 4]
    assert len(history["drift/upstream"]) == 3
    assert len(history["loss"]) == 4


def test_ten_times_the_reference_data_take_no_more_memory():
    upstream, downstream = encoder(), expert()
    cascade = build(upstream, downstream)

    def peak(batches):
        data = Batches(batches, repeats=10, labels=False)
        monitor = watching(cascade, data)
        monitor.measure()
        tracemalloc.start()
        try:
            monitor.measure()
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    # The smaller of two: when Python collects its garbage is by chance.
    few, many = (min(peak(n), peak(n)) for n in (2, 20))
    assert many < 1.2 * few


def test_the_plot_has_a_panel_for_each_kind_with_named_lines():
    pytest.importorskip("matplotlib")
    upstream, downstream = encoder(), expert()
    cascade = build(upstream, downstream, trainable={"downstream": True})
    monitor = kc.DriftMonitor(INPUTS, old_task=(X, OLD_LABELS))
    fit(cascade, monitor, epochs=1)
    figure = monitor.plot()
    lines = [
        {line.get_label(): line.get_ydata() for line in axis.get_lines()}
        for axis in figure.axes
    ]
    assert [list(panel) for panel in lines] == [
        ["upstream", "downstream"],
        ["texture", "shape", "downstream"],
        ["upstream"],
    ]
    table = monitor.to_dict()
    assert list(lines[0]["downstream"]) == table["drift/downstream"]
    assert list(lines[1]["shape"]) == table["cka/shape"]
    assert [axis.get_xlabel() for axis in figure.axes] == [
        "epochs of training"
    ] * 3
    assert all(axis.get_legend() is not None for axis in figure.axes)


def test_the_plot_does_not_magnify_rounding_errors():
    pytest.importorskip("matplotlib")
    table = {
        "epochs": [0, 1],
        "drift/upstream": [0.0, 0.0],
        "cka/shape": [1.0, 1.0 + 1e-15],
        "old_task/upstream": [0.5, 0.5],
    }
    for axis in draw(table).axes:
        low, high = axis.get_ylim()
        assert high - low >= 0.01
    diverged = {**table, "cka/shape": [np.nan, np.nan]}
    assert len(draw(diverged).axes) == 3


def bad(data=INPUTS, upstream=None, model=None, **arguments):
    upstream = upstream or encoder()
    cascade = model or build(upstream, expert())
    return lambda: watching(cascade, data, **arguments)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: bad(model=encoder()), TypeError, "build_cascade makes"),
        (lambda: bad(np.zeros((0, 6, 6, 1))), ValueError, "is empty"),
        (lambda: bad({"inputs": X}), ValueError, "'side'.*has 'inputs'"),
        (lambda: bad(X), ValueError, "'inputs', 'side': it has 1 arrays"),
        (
            lambda: bad({"inputs": X[:, :5], "side": SIDE}),
            ValueError,
            r"'inputs' has samples.*\(5, 6, 1\).*takes \(6, 6, 1\)",
        ),
        (lambda: bad(iter([X])), ValueError, "gives one pass"),
        (lambda: bad(7), TypeError, "object of type int"),
        (lambda: bad(every=0), ValueError, "every must be .* received 0"),
        (lambda: bad(batch_size=1.5), ValueError, "batch_size .* received 1.5"),
        (
            lambda: bad(pretrained={"head": encoder()}),
            ValueError,
            "pretrained names 'head'.*'upstream', 'downstream'",
        ),
        (
            lambda: bad(old_task={"adapters": (X, OLD_LABELS)}),
            ValueError,
            "old_task names 'adapters'",
        ),
        (
            lambda: bad(old_task=iter([(X, OLD_LABELS)])),
            ValueError,
            "old_task of 'upstream' is read after every epoch",
        ),
        (
            lambda: bad(pretrained={"upstream": encoder()}, old_task=X),
            ValueError,
            "one array of labels",
        ),
    ],
)
def test_mistakes_are_explained_before_the_first_step(make, error, message):
    with pytest.raises(error, match=message):
        make()()


def test_an_old_task_without_its_network_says_what_to_keep():
    cascade = build(encoder(), expert())
    gc.collect()
    with pytest.raises(ValueError, match="original network of 'upstream'"):
        watching(cascade, old_task=(X, OLD_LABELS))


def test_a_monitor_without_measurements_raises_an_error():
    monitor = kc.DriftMonitor(INPUTS)
    assert monitor.to_dict() == {}
    for method in (monitor.plot, monitor.measure):
        with pytest.raises(ValueError, match=r"fit\(callbacks="):
            method()
