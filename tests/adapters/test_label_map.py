"""LabelMapAdapter against matrices and counts written out in NumPy."""

import zipfile

import keras
import numpy as np
import pytest
from scipy.special import log_softmax, softmax

import keras_cascade as kc
from keras_cascade.adapters import LabelMapAdapter
from keras_cascade.testing import check_adapter

# Five source classes; the last has no target.
MATRIX = np.array([[1, 0, 0], [2, 2, 0], [0, 1, 3], [0, 0, 5], [0, 0, 0]])
SHARES = np.array(
    [[1, 0, 0], [0.5, 0.5, 0], [0, 0.25, 0.75], [0, 0, 1], [0, 0, 0]]
)
MAPPING = {0: 0, 1: [0, 1], 2: {1: 1, 2: 3}, 3: {2: 5}}


def to_numpy(x):
    return np.array(keras.ops.convert_to_numpy(keras.ops.cast(x, "float32")))


def probabilities(shape: tuple = (40, 5), seed: int = 0) -> np.ndarray:
    logits = np.random.default_rng(seed).normal(scale=3, size=shape)
    return softmax(logits, axis=-1).astype("float32")


def mapped(given: np.ndarray, shares: np.ndarray = SHARES) -> np.ndarray:
    """Returns the distribution over the target classes, in float64."""
    x = given.astype("float64") @ shares
    return x / x.sum(axis=-1, keepdims=True)


@pytest.mark.parametrize(
    "mapping",
    [MAPPING, MATRIX, MATRIX.tolist(), MATRIX.astype("float32")],
    ids=["dict", "matrix", "lists", "float32"],
)
def test_dicts_and_matrices_distribute_each_source_class(mapping):
    given = probabilities()
    result = to_numpy(LabelMapAdapter(mapping)(given))
    np.testing.assert_allclose(result, mapped(given), rtol=1e-6, atol=1e-7)


def test_classes_are_given_by_name_as_well():
    adapter = LabelMapAdapter(
        {"pug": "dog", "husky": {"dog": 3, "wolf": 1}, 2: "cat"},
        source_classes=["pug", "husky", "siamese"],
        target_classes=["cat", "dog", "wolf"],
    )
    shares = np.array([[0, 1, 0], [0, 0.75, 0.25], [1, 0, 0]])
    given = probabilities((9, 3))
    np.testing.assert_allclose(
        to_numpy(adapter(given)), mapped(given, shares), rtol=1e-6
    )


@pytest.mark.parametrize(
    ("unmapped", "row"),
    [("renormalize", [0, 0, 0]), ("spread", [1 / 3] * 3), (1, [0, 1, 0])],
)
def test_probability_without_a_target_goes_where_unmapped_says(unmapped, row):
    given = probabilities()
    shares = SHARES.copy()
    shares[4] = row
    result = to_numpy(LabelMapAdapter(MAPPING, unmapped=unmapped)(given))
    np.testing.assert_allclose(result, mapped(given, shares), rtol=1e-6)


def test_without_any_mapped_probability_all_targets_are_equally_likely():
    nowhere = np.eye(5, dtype="float32")[4:]
    result = to_numpy(LabelMapAdapter(MAPPING)(nowhere))
    np.testing.assert_allclose(result, [[1 / 3] * 3], rtol=1e-6)


@pytest.mark.parametrize("output", ["log_probabilities", "logits"])
def test_logarithms_are_finite_and_give_the_distribution_back(output):
    given = np.concatenate([probabilities(), np.eye(5, dtype="float32")])
    result = to_numpy(LabelMapAdapter(MAPPING, output=output)(given))
    assert np.isfinite(result).all()
    expected = np.concatenate([mapped(given[:-1]), [[1 / 3] * 3]])
    result = result.astype("float64")
    np.testing.assert_allclose(softmax(result, axis=1), expected, atol=1e-6)
    if output == "log_probabilities":
        np.testing.assert_allclose(np.exp(result).sum(axis=1), 1.0, atol=1e-5)
        np.testing.assert_allclose(
            result[:40], np.log(expected[:40]), rtol=1e-5, atol=1e-6
        )
    else:
        np.testing.assert_allclose(result.mean(axis=1), 0.0, atol=1e-5)


def test_logits_become_probabilities_first():
    logits = np.random.default_rng(0).normal(size=(8, 5)).astype("float32")
    result = to_numpy(
        LabelMapAdapter(MAPPING, from_probabilities=False)(logits)
    )
    expected = mapped(softmax(logits.astype("float64"), axis=1))
    np.testing.assert_allclose(result, expected, rtol=2e-6)


def test_each_position_has_a_distribution_of_its_own():
    given = probabilities((3, 4, 6, 5))
    adapter = LabelMapAdapter(MAPPING)
    assert adapter.compute_output_shape((None, 4, 6, 5)) == (None, 4, 6, 3)
    np.testing.assert_allclose(
        to_numpy(adapter(given)), mapped(given), rtol=1e-6, atol=1e-7
    )


@pytest.mark.parametrize("dtype", ["mixed_float16", "mixed_bfloat16"])
def test_half_precision_loses_no_more_than_rounding_its_outputs(dtype: str):
    given = probabilities((10, 5))
    adapter = LabelMapAdapter(MAPPING, output="log_probabilities", dtype=dtype)
    result = adapter(given)
    assert keras.backend.standardize_dtype(result.dtype) == dtype[6:]
    np.testing.assert_allclose(
        to_numpy(result), np.log(mapped(given)), rtol=1e-2, atol=1e-5
    )
    assert np.isfinite(to_numpy(adapter(np.eye(5, dtype="float32")))).all()


def learned_shares(given, targets, smoothing: float) -> np.ndarray:
    """Returns P(target | source), by a loop over samples."""
    counts = np.full((given.shape[1], targets.shape[1]), smoothing)
    counts /= targets.shape[1]
    for p, target in zip(given.astype("float64"), targets, strict=True):
        counts += np.outer(p, target)
    return counts / counts.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("batch_size", [7, 256])
@pytest.mark.parametrize("smoothing", [0.0, 1.0, 5.0])
def test_it_learns_the_conditional_distribution(smoothing, batch_size):
    given = probabilities((60, 5))
    labels = np.random.default_rng(1).integers(0, 3, 60)
    adapter = LabelMapAdapter(target_classes=3, smoothing=smoothing)
    adapter.adapt((given, labels), batch_size)
    shares = learned_shares(given, np.eye(3)[labels], smoothing)
    np.testing.assert_allclose(to_numpy(adapter.shares), shares, rtol=1e-5)
    np.testing.assert_allclose(
        to_numpy(adapter(given)), mapped(given, shares), rtol=1e-5
    )


def test_labels_come_as_a_column_or_as_rows():
    given = probabilities((60, 5))
    rng = np.random.default_rng(1)
    soft = rng.dirichlet(np.ones(3), 60)
    adapter = LabelMapAdapter(target_classes=["a", "b", "c"])
    adapter.adapt((given, soft))
    np.testing.assert_allclose(
        to_numpy(adapter.shares), learned_shares(given, soft, 1.0), rtol=1e-5
    )
    labels = rng.integers(0, 3, (60, 1))
    np.testing.assert_allclose(
        to_numpy(adapter.adapt((given, labels)).shares),
        learned_shares(given, np.eye(3)[labels[:, 0]], 1.0),
        rtol=1e-5,
    )


def test_it_learns_from_logits_and_leaves_masked_positions_out():
    logits = np.random.default_rng(0).normal(size=(6, 9, 4)).astype("float32")
    labels = np.random.default_rng(1).integers(0, 3, (6, 9))
    mask = np.arange(9) < np.random.default_rng(2).integers(1, 9, (6, 1))
    adapter = LabelMapAdapter(target_classes=3, from_probabilities=False)
    adapter.update_state(logits, np.where(mask, labels, -1), mask=mask)
    adapter.finalize_state()
    given = softmax(logits.astype("float64"), axis=-1)[mask]
    np.testing.assert_allclose(
        to_numpy(adapter.shares),
        learned_shares(given, np.eye(3)[labels[mask]], 1.0),
        rtol=1e-5,
    )


def test_a_source_class_that_is_never_seen_is_unmapped_without_smoothing():
    given = np.eye(3, dtype="float32")[[0, 1, 0, 1]]
    adapter = LabelMapAdapter(target_classes=2, smoothing=0, unmapped="spread")
    adapter.adapt((given, np.array([1, 0, 1, 1])))
    np.testing.assert_allclose(
        to_numpy(adapter.shares), [[0, 1], [0.5, 0.5], [0.5, 0.5]]
    )


def upstream_of_1000():
    """Ends in a softmax over 1,000 classes."""
    keras.utils.set_random_seed(3)
    inputs = keras.Input((12,), name="x")
    x = keras.layers.Dense(1000, kernel_initializer="random_normal")(inputs)
    return keras.Model(inputs, keras.layers.Softmax()(x), name="classifier")


def downstream_of_10():
    """Takes ten log probabilities."""
    return keras.Sequential(
        [keras.Input((10,), name="log_p"), keras.layers.Dense(2, name="out")],
        name="expert",
    )


def test_a_softmax_over_1000_classes_feeds_a_network_of_10():
    upstream, downstream = upstream_of_1000(), downstream_of_10()
    mapping = {source: source % 11 for source in range(900) if source % 11 < 10}
    cascade = kc.build_cascade(
        upstream,
        downstream,
        adapters={
            "output": kc.adapters.LabelMapAdapter(
                mapping, output="log_probabilities"
            )
        },
    )
    x = np.random.default_rng(0).normal(size=(6, 12)).astype("float32")
    kernel, bias = (to_numpy(w).astype("float64") for w in upstream.weights)
    chances = softmax(x @ kernel + bias, axis=1)
    sums = np.stack(
        [
            chances[:, :900][:, np.arange(900) % 11 == t].sum(1)
            for t in range(10)
        ]
    ).T
    expected = np.log(sums / sums.sum(axis=1, keepdims=True))
    inner = cascade.adapters["output"](upstream(x))
    np.testing.assert_allclose(to_numpy(inner), expected, rtol=1e-5)
    kernel, bias = (to_numpy(w).astype("float64") for w in downstream.weights)
    np.testing.assert_allclose(
        cascade.predict(x, verbose=0), expected @ kernel + bias, rtol=1e-4
    )


@pytest.fixture(scope="module")
def learned_cascade():
    """A cascade that learned its mapping from labels, and inputs for it."""
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(50, 12)).astype("float32")
    labels = np.random.default_rng(1).integers(0, 10, 50)
    cascade = kc.build_cascade(
        upstream_of_1000(),
        downstream_of_10(),
        adapters=LabelMapAdapter(target_classes=10, output="log_probabilities"),
    )
    cascade.adapt((x, labels), batch_size=16, verbose=False)
    return cascade, x, labels


def test_a_cascade_learns_the_mapping_from_its_labels(learned_cascade):
    cascade, x, labels = learned_cascade
    given = upstream_of_1000().predict(x, verbose=0)
    np.testing.assert_allclose(
        to_numpy(cascade.adapters["output"].shares),
        learned_shares(given, np.eye(10)[labels], 1.0),
        rtol=1e-4,
    )


def test_the_learned_mapping_is_saved_and_loaded(learned_cascade, tmp_path):
    cascade, x, _ = learned_cascade
    cascade.save(tmp_path / "cascade.keras")
    again = keras.models.load_model(tmp_path / "cascade.keras")
    np.testing.assert_array_equal(
        again.predict(x, verbose=0), cascade.predict(x, verbose=0)
    )


def test_stock_layers_compute_the_same_and_name_no_class_of_ours(
    learned_cascade, tmp_path
):
    cascade, x, _ = learned_cascade
    path = tmp_path / "plain.keras"
    cascade.to_plain().save(path)
    with zipfile.ZipFile(path) as archive:
        assert b"keras_cascade" not in archive.read("config.json")
    plain = keras.models.load_model(path)
    np.testing.assert_allclose(
        plain.predict(x, verbose=0),
        cascade.predict(x, verbose=0),
        rtol=1e-5,
        atol=1e-6,
    )


def test_the_config_passes_through_json_with_its_names(tmp_path):
    adapter = LabelMapAdapter(
        {"a": {"yes": 2, "no": 1}, "b": "no"},
        source_classes=("a", "b", "c"),
        target_classes=["no", "yes"],
        unmapped="yes",
        name="answers",
    )
    model = keras.Sequential([keras.Input((3,)), adapter])
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras").layers[0]
    assert again.get_config() == adapter.get_config()
    expected = [[1 / 3, 2 / 3], [1, 0], [0, 1]]
    np.testing.assert_allclose(to_numpy(again.shares), expected, rtol=1e-6)


@pytest.mark.parametrize(
    "adapter",
    [
        LabelMapAdapter(MAPPING),
        LabelMapAdapter(MATRIX, output="logits", unmapped="spread"),
        LabelMapAdapter(target_classes=3, output="log_probabilities"),
        LabelMapAdapter(MAPPING, trainable=True),
    ],
    ids=["dict", "matrix", "learned", "trainable"],
)
def test_cascades_can_rely_on_it(adapter):
    given = probabilities((64, 5))
    assert "stock_layers_give_the_same" in check_adapter(
        adapter, data=given, labels=given.argmax(axis=1) % 3
    )


def test_training_moves_the_shares_only_if_trainable():
    given, target = probabilities(), np.eye(3)[np.zeros(40, int)]
    adapter = LabelMapAdapter(MAPPING, output="logits", trainable=True)
    model = keras.Sequential([keras.Input((5,)), adapter])
    model.compile("sgd", keras.losses.CategoricalCrossentropy(from_logits=True))
    before = model.evaluate(given, target, verbose=0)
    model.fit(given, target, epochs=3, verbose=0)
    assert model.evaluate(given, target, verbose=0) < before
    frozen = LabelMapAdapter(MAPPING)
    frozen.build((None, 5))
    assert frozen.trainable_weights == []


def test_gradients_pass_through_to_the_network_before_it():
    upstream = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(5, name="dense")]
    )
    upstream.add(keras.layers.Softmax())
    adapter = LabelMapAdapter(MAPPING, output="log_probabilities")
    model = keras.Sequential([upstream, adapter])
    x = np.eye(4, dtype="float32")
    target = np.eye(3, dtype="float32")[[0, 1, 2, 0]]

    def cross_entropy(y_true, y_pred):
        return -keras.ops.sum(y_true * y_pred, axis=-1)

    kernel, bias = map(to_numpy, upstream.weights)
    model.compile(keras.optimizers.SGD(1.0), cross_entropy)
    model.fit(x, target, batch_size=4, verbose=0)

    def loss(weights):
        chances = np.exp(log_softmax(x @ weights + bias, axis=1))
        return -(target * np.log(mapped(chances))).sum(axis=1).mean()

    # Finite differences of the loss in float64, weight by weight.
    slope, step = np.zeros((4, 5)), 1e-6
    for index in np.ndindex(4, 5):
        shift = np.zeros((4, 5))
        shift[index] = step
        wide = loss(kernel + shift) - loss(kernel - shift)
        slope[index] = wide / (2 * step)
    moved = to_numpy(upstream.weights[0]) - kernel
    np.testing.assert_allclose(moved, -slope, atol=1e-5)


@pytest.mark.parametrize(
    ("mapping", "arguments", "message"),
    [
        ({}, {}, "mapping is empty"),
        (np.zeros((3, 2)), {}, "mapping is empty"),
        ({0: {}}, {}, "mapping is empty"),
        ({0: -1}, {}, "class -1, which is not one of `target_classes`"),
        ({0: 10}, {"target_classes": 10}, "class 10.* indices are 0 to 9"),
        ({3: 0}, {"source_classes": 3}, "class 3.*`source_classes`.*0 to 2"),
        ({0: {1: -0.5}}, {}, r"one of 0 for 1 is -0\.5"),
        ({0: {1: "much"}}, {}, "is 'much'"),
        ([[1, 0], [0, -2]], {}, r"at \(1, 1\) is -2\.0"),
        ([[1, np.nan]], {}, "nan"),
        ([1, 0, 1], {}, r"\(any, any\); received \(3,\)"),
        (MATRIX, {"target_classes": 4}, r"\(any, 4\); received \(5, 3\)"),
        (MATRIX, {"source_classes": 7}, r"\(7, any\); received \(5, 3\)"),
        ("animals", {}, "received 'animals'"),
        ({"pug": 0}, {}, r"names the class 'pug'.*source_classes=\["),
        (
            {"pugg": 0},
            {"source_classes": ["cat", "pug"]},
            "no class 'pugg' in `source_classes`. Closest: 'pug'",
        ),
        (
            {"pug": 0, 1: 0},
            {"source_classes": ["cat", "pug"]},
            "class 1 twice, as 'pug' and as 1",
        ),
        ({True: 0}, {}, "index or its name, received True"),
        ({0: 1.5}, {}, r"received 1\.5"),
        (MAPPING, {"source_classes": ["a", "a"]}, r"\['a'\] twice"),
        (MAPPING, {"target_classes": 0}, "positive int or a list of names"),
        (MAPPING, {"target_classes": "abc"}, "received 'abc'"),
        (MAPPING, {"unmapped": "drop"}, "'spread' or a target class"),
        (MAPPING, {"unmapped": 3}, "target class, received 3"),
        (MAPPING, {"output": "softmax"}, "'log_probabilities'.*'softmax'"),
        (MAPPING, {"smoothing": -1}, "at least 0, received -1"),
        (None, {}, "must know how many target"),
    ],
)
def test_impossible_arguments_are_explained(mapping, arguments, message):
    with pytest.raises(ValueError, match=f"'species'.*{message}"):
        LabelMapAdapter(mapping, name="species", **arguments)


def test_a_source_class_that_the_input_lacks_is_an_error():
    with pytest.raises(ValueError, match=r"source class 3.*0 to 2"):
        LabelMapAdapter(MAPPING)(keras.Input((3,)))
    with pytest.raises(ValueError, match=r"maps 5 source classes.* has 6"):
        LabelMapAdapter(MATRIX)(keras.Input((6,)))


def test_labels_outside_the_map_are_an_error():
    adapter = LabelMapAdapter(target_classes=3, name="species")
    labels = np.arange(40) % 4
    message = (
        "'species', batch 0: 10 of 40 labels are outside the 3 classes, "
        "whose ids are 0 to 2: 3"
    )
    with pytest.raises(ValueError, match=message):
        adapter.adapt((probabilities(), labels))


def test_unusable_data_is_an_error():
    adapter = LabelMapAdapter(target_classes=3, name="species")
    given, labels = probabilities(), np.zeros(40, int)
    with pytest.raises(
        ValueError, match=r"40 of 40 rows are no prob.*sums are 2"
    ):
        adapter.adapt((2 * given, labels))
    with pytest.raises(ValueError, match=r"'species' \(LabelMapAdapter\)"):
        adapter.adapt(given)
    with pytest.raises(ValueError, match="has seen no data"):
        LabelMapAdapter(target_classes=3).finalize_state()
    logits = LabelMapAdapter(target_classes=3, from_probabilities=False)
    with pytest.raises(ValueError, match="40 of 40 rows hold NaN"):
        logits.adapt((given * np.nan, labels))
