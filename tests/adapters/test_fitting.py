"""Cascade.adapt against scikit-learn and NumPy on the original's features."""

import itertools

import keras
import numpy as np
import pytest
from keras import layers, ops
from sklearn.decomposition import PCA

import keras_cascade as kc
from keras_cascade.adapters import Adapter, DenseAdapter, PCAAdapter

RNG = np.random.default_rng(0)
X = RNG.normal(size=(50, 6)).astype("float32")
SIDE = RNG.normal(loc=3, scale=2, size=(50, 4)).astype("float32")


def to_numpy(x):
    return np.array(ops.convert_to_numpy(x))


@pytest.fixture(scope="module")
def network():
    """Read only: a cascade works on copies."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((6,), name="x")
    x = layers.Dense(8, activation="tanh", name="hidden")(x)
    x = layers.Dense(5, activation="tanh", name="features")(x)
    return keras.Model(inputs, x, name="encoder")


def features(network, name, x=X):
    inner = keras.Model(network.inputs, network.get_layer(name).output)
    return inner.predict(x, verbose=0)


class CountedBatches(keras.utils.PyDataset):
    """Counts how often its batches are read."""

    def __init__(self, x, size=16):
        super().__init__()
        self.x, self.size, self.reads = x, size, 0

    def __len__(self):
        return -(-len(X) // self.size)

    def __getitem__(self, index):
        self.reads += 1
        rows = slice(index * self.size, (index + 1) * self.size)
        return keras.tree.map_structure(lambda x: x[rows], self.x)

    @property
    def passes(self):
        return self.reads / len(self)


@keras.saving.register_keras_serializable(package="tests_of_adaptation")
class Centre(Adapter):
    """An adapter of a user: subtracts the mean of the data."""

    needs_data = True

    def build(self, input_shape):
        super().build(input_shape)
        self.mean = self.add_weight(
            name="mean",
            shape=input_shape[-1:],
            initializer="zeros",
            trainable=False,
        )

    def reset_state(self):
        self.sum, self.count = 0.0, 0

    def update_state(self, batch):
        self.sum = self.sum + batch.sum(axis=0)
        self.count = self.count + len(batch)

    def finalize_state(self):
        self.mean.assign(self.sum / self.count)
        super().finalize_state()

    def call(self, inputs):
        return inputs - self.mean


def test_adapt_equals_scikit_learns_pca_of_the_originals_features(network):
    cascade = kc.build_cascade(
        network, taps={"low": "hidden"}, adapters=PCAAdapter(3)
    )
    assert cascade.adapt(X, batch_size=16, verbose=False) is cascade
    given = features(network, "hidden")
    reference = PCA(3, svd_solver="full").fit(given.astype("float64"))
    adapter = cascade.adapters["low"]
    np.testing.assert_allclose(
        adapter.explained_variance_ratio_,
        reference.explained_variance_ratio_,
        rtol=1e-5,
    )
    np.testing.assert_allclose(
        cascade.predict(X, verbose=0), reference.transform(given), atol=1e-5
    )


def test_one_pass_serves_all_adapters_of_a_level(network):
    cascade = kc.build_cascade(
        network,
        taps={"low": "hidden", "high": "features", "twice": "hidden"},
        adapters={
            "low": PCAAdapter(3),
            "high": layers.Normalization(),
            "twice": Centre(),
            "side": PCAAdapter(2),
        },
        extra_inputs={"side": (4,)},
        fusion=None,
    )
    data = CountedBatches({"inputs": X, "side": SIDE})
    cascade.adapt(data, verbose=False)
    assert data.passes == 1
    result = cascade.predict({"inputs": X, "side": SIDE}, verbose=0)
    low, high = features(network, "hidden"), features(network, "features")
    expected = {
        "low": PCA(3, svd_solver="full").fit_transform(low),
        "high": (high - high.mean(axis=0)) / high.std(axis=0),
        "twice": low - low.mean(axis=0),
        "side": PCA(2, svd_solver="full").fit_transform(SIDE),
    }
    assert set(result) == set(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(result[name], value, atol=2e-5, err_msg=name)


@pytest.fixture
def cascade_of_a_cascade(network):
    """An unfitted PCA inside a network, and another on its output."""
    inner = kc.build_cascade(
        network, taps={"low": "hidden"}, adapters=PCAAdapter(4)
    )
    return kc.build_cascade(
        inner, taps={"compressed": "-1"}, adapters=PCAAdapter(2), name="outer"
    )


def test_an_adapter_that_reads_another_is_fitted_after_it(
    network, cascade_of_a_cascade
):
    data = CountedBatches(X)
    cascade_of_a_cascade.adapt(data, verbose=False)
    assert data.passes == 2
    first = PCA(4, svd_solver="full").fit_transform(features(network, "hidden"))
    second = PCA(2, svd_solver="full").fit_transform(first)
    result = cascade_of_a_cascade.predict(X, verbose=0)
    np.testing.assert_allclose(np.abs(result), np.abs(second), atol=1e-5)


def test_adapters_inside_a_network_stay_fitted(network):
    inner = kc.build_cascade(
        network, taps={"low": "hidden"}, adapters=PCAAdapter(4)
    ).adapt(X, verbose=False)
    outer = kc.build_cascade(inner, adapters=PCAAdapter(2))
    data = CountedBatches(X[::-1] * 2)
    outer.adapt(data, verbose=False)
    assert data.passes == 1
    kept = outer.blocks["upstream"].get_layer("adapters").get_layer("low")
    expected = inner.adapters["low"].get_weights()
    for value, other in zip(kept.get_weights(), expected, strict=True):
        np.testing.assert_array_equal(value, other)


def test_a_generator_is_refused_unread_where_passes_depend_on_one_another(
    cascade_of_a_cascade,
):
    generator = iter([X, X])
    with pytest.raises(ValueError, match="adapt needs 2 passes"):
        cascade_of_a_cascade.adapt(generator, verbose=False)
    assert len(list(generator)) == 2


def test_a_generator_serves_one_level(network):
    cascade = kc.build_cascade(network, adapters=PCAAdapter(2))
    halves = ((x, np.zeros(len(x))) for x in (X[:30], X[30:]))
    cascade.adapt(halves, verbose=False)
    expected = PCA(2, svd_solver="full").fit_transform(
        features(network, "features")
    )
    np.testing.assert_allclose(
        cascade.predict(X, verbose=0), expected, atol=1e-5
    )


def test_only_the_inputs_that_are_needed_are_read(network):
    cascade = kc.build_cascade(
        network, adapters=PCAAdapter(2), extra_inputs={"side": (4,)}
    )
    cascade.adapt({"inputs": X}, verbose=False)
    assert cascade.adapters["output"].fitted


def test_an_adapter_that_was_adapted_before_keeps_its_state(network):
    given = features(network, "features")
    adapter = PCAAdapter(2).adapt(given)
    cascade = kc.build_cascade(network, adapters=adapter)
    expected = PCA(2, svd_solver="full").fit_transform(given)
    np.testing.assert_allclose(
        cascade.predict(X, verbose=0), expected, atol=1e-5
    )
    cascade.adapt(X[:20] + 1, verbose=False)
    again = PCA(2, svd_solver="full").fit(
        features(network, "features", X[:20] + 1)
    )
    np.testing.assert_allclose(
        to_numpy(cascade.adapters["output"].mean), again.mean_, atol=1e-6
    )
    np.testing.assert_allclose(
        to_numpy(adapter.mean), given.mean(axis=0), atol=1e-6
    )


def test_a_fitted_fraction_of_variance_has_a_width(network):
    given = features(network, "hidden")
    adapter = PCAAdapter(0.9).adapt(given)
    cascade = kc.build_cascade(network, taps="hidden", adapters=adapter)
    expected = PCA(0.9, svd_solver="full").fit_transform(given)
    assert cascade.output_shape == (None, expected.shape[1])
    np.testing.assert_allclose(
        cascade.predict(X, verbose=0), expected, atol=1e-5
    )


def test_predictions_change_when_adapted_again(network):
    cascade = kc.build_cascade(network, adapters=PCAAdapter(2))
    cascade.adapt(X, verbose=False)
    cascade.predict(X, verbose=0)
    cascade.adapt(X[:20], verbose=False)
    again = PCA(2, svd_solver="full").fit(features(network, "features", X[:20]))
    expected = again.transform(features(network, "features"))
    np.testing.assert_allclose(
        np.abs(cascade.predict(X, verbose=0)), np.abs(expected), atol=1e-5
    )


def test_adapt_learns_from_features_in_inference_mode():
    """Holds also for an upstream that is trainable."""
    network = keras.Sequential(
        [
            keras.Input((6,)),
            layers.BatchNormalization(name="norm"),
            layers.Dropout(0.5, name="dropout"),
        ]
    )
    cascade = kc.build_cascade(network, adapters=Centre(), trainable=True)
    cascade.adapt(X + 5, verbose=False)
    # In inference mode, an untrained BatchNormalization only scales a little.
    expected = (X + 5).mean(axis=0) / np.sqrt(1 + 1e-3)
    np.testing.assert_allclose(
        to_numpy(cascade.adapters["output"].mean), expected, rtol=1e-5
    )


def masked_network(width=4):
    ids = keras.Input((None,), dtype="int32", name="ids")
    x = layers.Embedding(9, width, mask_zero=True, name="embedding")(ids)
    return keras.Model(ids, x, name="reader")


def sequences():
    """Returns rows of ids that end in padding of different lengths."""
    ids = RNG.integers(1, 9, size=(40, 6))
    lengths = RNG.integers(1, 7, size=(40, 1))
    return np.where(np.arange(6) < lengths, ids, 0).astype("int32")


@pytest.mark.parametrize("pool", ["auto", "max", None])
def test_masked_steps_are_not_learned_from_in_a_cascade(pool):
    network, ids = masked_network(), sequences()
    cascade = kc.build_cascade(
        network,
        taps={"words": "embedding"},
        adapters=PCAAdapter(3, pool=pool),
        fusion=None,
    )
    cascade.adapt(ids, batch_size=16, verbose=False)
    table = to_numpy(network.get_layer("embedding").embeddings)
    words = [table[row[row != 0]] for row in ids]
    rows = {
        "auto": lambda: np.stack([w.mean(axis=0) for w in words]),
        "max": lambda: np.stack([w.max(axis=0) for w in words]),
        None: lambda: np.concatenate(words),
    }[pool]()
    reference = PCA(3, svd_solver="full").fit(rows)
    adapter = cascade.adapters["words"]
    np.testing.assert_allclose(
        to_numpy(adapter.mean), reference.mean_, atol=1e-6
    )
    np.testing.assert_allclose(
        adapter.explained_variance_ratio_,
        reference.explained_variance_ratio_,
        rtol=1e-4,
    )
    result = cascade.predict(ids, verbose=0)["words"]
    result = result[ids != 0] if pool is None else result
    np.testing.assert_allclose(result, reference.transform(rows), atol=1e-5)


def test_a_mask_from_inside_a_nested_network_is_seen():
    inner = masked_network()
    ids = keras.Input((None,), dtype="int32")
    outer = keras.Model(ids, layers.Activation("linear")(inner(ids)))
    cascade = kc.build_cascade(
        outer, taps={"words": "reader/embedding"}, adapters=PCAAdapter(2)
    )
    rows = sequences()
    cascade.adapt(rows, verbose=False)
    table = to_numpy(inner.get_layer("embedding").embeddings)
    pooled = np.stack([table[row[row != 0]].mean(axis=0) for row in rows])
    np.testing.assert_allclose(
        to_numpy(cascade.adapters["words"].mean), pooled.mean(0), atol=1e-6
    )


def discretized(x):
    cuts = np.quantile(x, [0.25, 0.5, 0.75])
    return np.searchsorted(cuts, x)


def test_a_layer_with_adapt_alone_gets_the_data_whole():
    network = keras.Sequential([keras.Input((1,)), layers.Identity(name="out")])
    cascade = kc.build_cascade(
        network,
        taps={"out": "out"},
        adapters=layers.Discretization(num_bins=4, epsilon=1e-4),
    )
    x = np.linspace(0, 8, 80, dtype="float32")[:, None]
    RNG.shuffle(x)
    cascade.adapt(x, batch_size=32, verbose=False)
    result = cascade.predict(x, verbose=0)
    assert (result == discretized(x)).mean() > 0.9
    assert set(result.ravel().tolist()) == {0, 1, 2, 3}


def test_normalization_must_be_fitted_first(network):
    cascade = kc.build_cascade(network, adapters=layers.Normalization())
    with pytest.raises(ValueError, match="fitted: 'adapters/output'"):
        cascade.predict(X, verbose=0)
    given = kc.build_cascade(
        network, adapters=layers.Normalization(mean=0.5, variance=4.0)
    )
    expected = (features(network, "features") - 0.5) / 2
    np.testing.assert_allclose(given.predict(X, verbose=0), expected, atol=1e-6)


def test_a_template_is_copied_for_each_tap(network):
    template = PCAAdapter(2)
    cascade = kc.build_cascade(
        network, taps=["hidden", "features"], adapters=template
    )
    cascade.adapt(X, verbose=False)
    assert not template.built
    first, second = cascade.adapters.values()
    assert first is not template
    assert first is not second
    assert [first.mean.shape[0], second.mean.shape[0]] == [8, 5]


def test_a_layer_or_a_network_can_be_an_adapter(network):
    layer = layers.Dense(3, name="mine")
    small = keras.Sequential(
        [keras.Input((5,)), layers.Dense(2, "tanh", name="inner")], name="small"
    )
    cascade = kc.build_cascade(
        network,
        taps={"low": "hidden", "high": "features"},
        adapters={"low": layer, "high": small},
        fusion=None,
    )
    assert not layer.built
    assert "adapters/high/inner/kernel" in [v.path for v in cascade.variables]
    result = cascade.predict(X, verbose=0)
    expected = small.predict(features(network, "features"), verbose=0)
    np.testing.assert_allclose(result["high"], expected, atol=1e-6)
    kernel, bias = map(to_numpy, cascade.adapters["low"].weights)
    np.testing.assert_allclose(
        result["low"], features(network, "hidden") @ kernel + bias, atol=1e-5
    )


def test_the_number_of_batches_need_not_be_known(network):
    cascade = kc.build_cascade(network, adapters=PCAAdapter(2))
    cascade.adapt(itertools.chain([X[:30]], [X[30:]]), verbose=False)
    np.testing.assert_allclose(
        to_numpy(cascade.adapters["output"].mean),
        features(network, "features").mean(axis=0),
        atol=1e-6,
    )


def test_a_failure_leaves_every_adapter_as_it_was(network):
    cascade = kc.build_cascade(
        network,
        taps={"low": "hidden", "high": "features", "twice": "hidden"},
        adapters={
            "low": PCAAdapter(2),
            "high": layers.Normalization(),
            "twice": PCAAdapter(5),
        },
        fusion=None,
    )
    with pytest.raises(ValueError, match="'twice': 5 components need"):
        cascade.adapt(X[:4], verbose=False)
    assert not cascade.adapters["low"].fitted
    cascade.adapt(X, verbose=False)
    before = cascade.predict(X, verbose=0)
    with pytest.raises(ValueError, match="'twice': 5 components need"):
        cascade.adapt(X[:4] * 3, verbose=False)
    after = cascade.predict(X, verbose=0)
    for name, value in before.items():
        np.testing.assert_array_equal(after[name], value, err_msg=name)


def test_nothing_to_learn_reads_nothing(network):
    data = CountedBatches(X)
    cascade = kc.build_cascade(network, adapters=DenseAdapter(3))
    cascade.adapt(data, verbose=False)
    assert data.reads == 0


LABELS = RNG.integers(0, 3, 50)


@keras.saving.register_keras_serializable(package="tests_of_adaptation")
class CentreOfClass(Centre):
    """An adapter of a user: subtracts the mean of the rows of class 0."""

    def update_state(self, batch, labels):
        super().update_state(batch[labels == 0])


@keras.saving.register_keras_serializable(package="tests_of_adaptation")
class CentreOfClassIfKnown(CentreOfClass):
    """Uses the mean of all rows if there are no labels."""

    def update_state(self, batch, labels=None):
        known = np.zeros(len(batch)) if labels is None else labels
        super().update_state(batch, known)


def labelled_generator():
    yield X[:30], LABELS[:30]
    yield X[30:], LABELS[30:]


@pytest.mark.parametrize(
    "make",
    [
        lambda: (X, LABELS),
        lambda: ({"inputs": X}, {"kind": LABELS}),
        lambda: CountedBatches((X, LABELS)),
        labelled_generator,
    ],
    ids=["arrays", "dicts of one", "PyDataset", "generator"],
)
def test_a_learner_from_labels_gets_those_of_the_batch(network, make):
    cascade = kc.build_cascade(
        network,
        taps={"low": "hidden", "high": "features"},
        adapters={"low": CentreOfClass(), "high": PCAAdapter(2)},
        fusion=None,
    )
    cascade.adapt(make(), batch_size=16, verbose=False)
    low, high = features(network, "hidden"), features(network, "features")
    np.testing.assert_allclose(
        to_numpy(cascade.adapters["low"].mean),
        low[LABELS == 0].mean(axis=0),
        atol=1e-6,
    )
    np.testing.assert_allclose(
        to_numpy(cascade.adapters["high"].mean), high.mean(axis=0), atol=1e-6
    )


def test_missing_labels_are_an_error_at_the_first_batch(network):
    cascade = kc.build_cascade(
        network,
        taps={"low": "hidden", "high": "features"},
        adapters={"low": CentreOfClass(), "high": PCAAdapter(2)},
    )
    data = CountedBatches(X)
    message = r"'adapters/low' \(CentreOfClass\) learns from labels.*has none"
    with pytest.raises(ValueError, match=message):
        cascade.adapt(data, verbose=False)
    assert data.reads == 1
    assert not cascade.adapters["high"].fitted


def test_labels_that_stop_on_the_way_leave_all_as_it_was(network):
    cascade = kc.build_cascade(network, adapters=CentreOfClass())
    with pytest.raises(ValueError, match="data has none"):
        cascade.adapt(iter([(X, LABELS), X]), verbose=False)
    assert not cascade.adapters["output"].fitted


def test_labels_are_left_out_where_they_are_optional(network):
    cascade = kc.build_cascade(network, adapters=CentreOfClassIfKnown())
    given = features(network, "features")
    for data, rows in ((X, given), ((X, LABELS), given[LABELS == 0])):
        cascade.adapt(data, verbose=False)
        np.testing.assert_allclose(
            to_numpy(cascade.adapters["output"].mean),
            rows.mean(axis=0),
            atol=1e-6,
        )


@pytest.mark.parametrize(
    ("labels", "received"),
    [
        ({"kind": LABELS, "size": LABELS}, "a dict of 'kind', 'size'"),
        ([LABELS, LABELS], "2 arrays"),
    ],
    ids=["dict", "list"],
)
def test_several_labels_are_an_error_where_one_is_learned_from(
    network, labels, received
):
    cascade = kc.build_cascade(network, adapters=CentreOfClass())
    with pytest.raises(ValueError, match=f"one array of labels.*{received}"):
        cascade.adapt((X, labels), verbose=False)
    unaffected = kc.build_cascade(network, adapters=Centre())
    unaffected.adapt((X, labels), verbose=False)


@keras.saving.register_keras_serializable(package="tests_of_adaptation")
class CentreOfNeededClass(Centre):
    """Has the signature of `Adapter.update_state`, and needs labels."""

    needs_labels = True

    def update_state(self, batch, labels=None, mask=None):
        super().update_state(batch[labels == 0])


def test_an_adapter_says_that_it_needs_labels(network):
    cascade = kc.build_cascade(network, adapters=CentreOfNeededClass())
    with pytest.raises(ValueError, match=r"learns from labels.*has none"):
        cascade.adapt(X, verbose=False)
    cascade.adapt((X, LABELS), verbose=False)
    given = features(network, "features")
    np.testing.assert_allclose(
        to_numpy(cascade.adapters["output"].mean),
        given[LABELS == 0].mean(axis=0),
        atol=1e-6,
    )


def test_an_adapter_says_that_it_does_not_use_labels(network):
    """Several arrays of labels are an error for an adapter that uses them."""
    cascade = kc.build_cascade(network, adapters=PCAAdapter(2))
    cascade.adapt((X, {"kind": LABELS, "size": LABELS}), verbose=False)
    assert cascade.adapters["output"].fitted


def test_an_adapter_alone_gets_its_labels_too():
    adapter = CentreOfClass().adapt((X, LABELS), batch_size=16)
    np.testing.assert_allclose(
        to_numpy(adapter.mean), X[LABELS == 0].mean(axis=0), atol=1e-6
    )
    with pytest.raises(ValueError, match="learns from labels"):
        CentreOfClass().adapt(X)
