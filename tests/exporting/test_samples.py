"""The user's data as checked batches in files."""

import keras
import numpy as np
import pytest

from keras_cascade.exporting.samples import open_samples, store_samples
from keras_cascade.graph.program import Port

A = np.arange(40, dtype="float32").reshape(10, 4)
B = np.arange(10, dtype="int32")
ONE = (Port("a", (None, 4), "float32", ("a", 0)),)
TWO = (*ONE, Port("b", (None,), "int32", ("b", 0)))


class Batches(keras.utils.PyDataset):
    @property
    def num_batches(self):
        return 3

    def __getitem__(self, index):
        rows = slice(4 * index, 4 * index + 4)
        return {"a": A[rows], "b": B[rows]}, B[rows] % 2


def generator():
    for start in range(0, 10, 4):
        yield {"b": B[start : start + 4], "a": A[start : start + 4]}


@pytest.fixture
def stored(tmp_path):
    """Function: stores data, with its name for errors."""

    def stored(data, ports=TWO, limit=None):
        return store_samples(data, ports, tmp_path / "x", "check_data", limit)

    return stored


def whole(samples):
    batches = list(samples)
    return {k: np.concatenate([x[k] for x in batches]) for k in batches[0]}


@pytest.mark.parametrize(
    "make",
    [
        lambda: {"a": A, "b": B},
        lambda: [A, B],
        lambda: ({"a": A, "b": B}, B % 2),
        lambda: ([A, B], B % 2),
        lambda: {"a": A, "b": B, "unused": A},
        generator,
        Batches,
        lambda: {"a": keras.ops.convert_to_tensor(A), "b": B.astype("int64")},
    ],
    ids=[
        "dict",
        "list",
        "labelled-dict",
        "labelled-list",
        "more",
        "generator",
        "PyDataset",
        "tensor",
    ],
)
def test_every_kind_of_data_gives_the_inputs_by_name(stored, make):
    samples = stored(make())
    assert samples.rows == 10
    found = whole(samples)
    np.testing.assert_array_equal(found["a"], A)
    np.testing.assert_array_equal(found["b"], B)
    assert found["b"].dtype == "int32"


def test_one_input_is_an_array(stored):
    np.testing.assert_array_equal(whole(stored(A, ONE))["a"], A)


def test_labels_are_kept(stored):
    samples = stored(Batches())
    assert samples.has_labels
    np.testing.assert_array_equal(np.concatenate(samples.labels), B % 2)


def test_structures_of_labels_are_kept(stored):
    samples = stored((A, {"y": B, "z": 2 * B}), ONE, limit=3)
    (labels,) = samples.labels
    np.testing.assert_array_equal(labels["y"], B[:3])
    np.testing.assert_array_equal(labels["z"], 2 * B[:3])


def test_without_labels_there_are_none(stored):
    assert not stored(generator()).has_labels


@pytest.mark.parametrize("limit", [1, 4, 6, 10, 99])
def test_no_more_is_stored_than_the_limit(stored, limit):
    samples = stored(Batches(), limit=limit)
    assert samples.rows == min(limit, 10)
    np.testing.assert_array_equal(whole(samples)["a"], A[:limit])
    assert len(np.concatenate(samples.labels)) == samples.rows


def test_no_batch_is_read_after_the_limit(stored):
    read = []

    def endless():
        while True:
            read.append(1)
            yield {"a": A[:4], "b": B[:4]}

    assert stored(endless(), limit=6).rows == 6
    assert len(read) == 2


def test_a_file_holds_one_batch(stored):
    samples = stored(Batches())
    sizes = []
    for path in sorted(samples.folder.iterdir()):
        with np.load(path) as arrays:
            sizes.append([len(arrays[key]) for key in arrays.files])
    assert sizes == [[4, 4], [4, 4], [2, 2]]


def test_single_samples_come_one_by_one(stored):
    samples = stored(Batches())
    singles = list(samples.single())
    assert [x["a"].shape for x in singles] == [(1, 4)] * 10
    np.testing.assert_array_equal(np.concatenate([x["b"] for x in singles]), B)


def test_another_process_opens_the_same_samples(stored):
    samples = stored(Batches())
    opened = open_samples(samples.folder)
    assert opened.rows == 10
    assert not opened.has_labels
    np.testing.assert_array_equal(whole(opened)["a"], A)


def test_inputs_may_have_names_that_numpy_uses(tmp_path):
    ports = tuple(
        Port(x, (None, 4), "float32", (x, 0)) for x in ("file", "x/y")
    )
    data = {"file": A, "x/y": 2 * A}
    found = whole(store_samples(data, ports, tmp_path / "x", "check_data"))
    np.testing.assert_array_equal(found["file"], A)
    np.testing.assert_array_equal(found["x/y"], 2 * A)


def test_a_last_axis_of_one_may_be_left_out_as_in_fit(stored):
    column = (Port("a", (None, 1), "float32", ("a", 0)),)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    assert model.predict(A[:, 0], verbose=0).shape == (10, 1)
    assert whole(stored(A[:, 0], column))["a"].shape == (10, 1)


def test_a_last_axis_of_one_may_be_added_as_in_fit(stored):
    assert whole(stored([A, B[:, None]]))["b"].shape == (10,)


def test_empty_batches_are_skipped(stored):
    samples = stored(iter([{"a": A[:0], "b": B[:0]}, {"a": A, "b": B}]))
    assert (samples.rows, len(samples.labels)) == (10, 1)


WORDS = np.array([["a", "b", "c", "d"]])


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (A, ValueError, "'a', 'b': it has 1 arrays"),
        ([A, B, B], ValueError, "it has 3 arrays"),
        ({"a": A}, ValueError, "it has 'a' and lacks 'b'"),
        ([A[:, :3], B], ValueError, r"'a' has samples of shape \(3,\)"),
        ([A[..., None, None], B], ValueError, r"the model takes \(4,\)"),
        ([WORDS, B[:1]], ValueError, "input 'a' holds values of dtype <U1"),
        ([A * 1j, B], ValueError, "input 'a' holds values of dtype complex"),
        ([A, B[:9]], ValueError, r"same number of rows, received \[10, 9\]"),
        (iter([]), ValueError, "The data is empty"),
        ([A[:0], B[:0]], ValueError, "The data is empty"),
        (iter([{"a": A[:0], "b": B[:0]}]), ValueError, "have no rows"),
        ("digits", TypeError, "Received an object of type str"),
        (["x", "y"], TypeError, "object of type str where an array should"),
        (None, TypeError, "object of type NoneType"),
        (iter([{"a": A, "b": B[:9]}]), ValueError, "received 'a' 10, 'b' 9"),
    ],
)
def test_data_that_does_not_fit_is_an_error_that_names_the_argument(
    stored, data, kind, message
):
    with pytest.raises(kind, match=message) as error:
        stored(data)
    assert str(error.value).startswith("check_data")


def test_a_later_batch_that_does_not_fit_is_an_error(stored):
    with pytest.raises(ValueError, match="check_data: input 'a'"):
        stored(iter([A, A[:, :2]]), ONE)


@pytest.mark.parametrize("make", [generator, Batches])
@pytest.mark.parametrize(("size", "rows"), [(1, 10), (3, 9), (4, 8), (7, 7)])
def test_samples_come_in_batches_of_a_size(make, size, rows, tmp_path):
    """Whatever batches the data has; those that are left over are not used."""
    found = store_samples(
        make(), TWO, tmp_path / "x", "check_data", batch_size=size
    )
    assert [len(batch["a"]) for batch in found] == [size] * (rows // size)
    np.testing.assert_array_equal(whole(found)["a"], A[:rows])
    if make is Batches:
        labels = np.concatenate(found.labels)
        np.testing.assert_array_equal(labels, B[:rows] % 2)
    singles = [len(batch["a"]) for batch in found.single()]
    assert singles == [size] * (rows // size)


def test_fewer_samples_than_a_batch_are_an_error(tmp_path):
    with pytest.raises(ValueError, match="fewer samples than the 11 of a batc"):
        store_samples(
            generator(), TWO, tmp_path / "x", "check_data", batch_size=11
        )
