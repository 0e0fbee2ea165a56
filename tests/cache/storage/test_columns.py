"""Columns, in memory and on disk, hold each sample's row once."""

import linecache
import sys
import threading

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_cascade.cache.storage import columns
from keras_cascade.cache.storage.disk import DiskStore
from keras_cascade.cache.storage.stores import MemoryStore
from tests.cache.storage.samples import digests, features

# No backend takes part in it.
pytestmark = pytest.mark.once

DTYPES = [
    "float32",
    "float16",
    "bfloat16",
    "float64",
    "float8_e4m3fn",
    "int32",
    "int64",
    "uint8",
    "bool",
]


@pytest.fixture(params=["memory", "disk"])
def store(request, tmp_path, monkeypatch):
    """Either store; pieces and shards of a few rows."""
    monkeypatch.setattr(columns, "_FIRST_BYTES", 400)
    if request.param == "memory":
        return MemoryStore()
    return DiskStore(tmp_path / "features", shard_bytes=400)


def small_store(kind, folder):
    if kind == "memory":
        return MemoryStore()
    return DiskStore(folder, shard_bytes=400)


@pytest.mark.parametrize("shape", [(4, 3), (5,), ()])
@pytest.mark.parametrize("dtype", DTYPES)
def test_rows_come_back_bit_for_bit_in_any_order(store, dtype, shape):
    ids = digests(50)
    rows = features(ids, shape, dtype)
    column = store.column("a1", shape, dtype, {})
    order = np.random.default_rng(0).permutation(50)
    with store.writing():
        column.append(ids[:30], rows[:30])
        column.append(ids[30:], rows[30:])
        during = column.read(column.positions(ids[order]))
    after = column.read(column.positions(ids[order]))
    for read in (during, after):
        assert read.dtype == rows.dtype == column.dtype
        assert read.tobytes() == rows[order].tobytes()
    assert column.row_bytes == rows.nbytes // 50 + 16
    assert len(column) == 50


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(["memory", "disk"]),
    batches=st.lists(st.lists(st.integers(0, 19), max_size=15), max_size=8),
)
def test_each_sample_keeps_its_first_row(
    kind, batches, tmp_path_factory: pytest.TempPathFactory
):
    store = small_store(kind, tmp_path_factory.mktemp("features"))
    column = store.column("a1", (4, 3), "int32", {})
    ids, reference = digests(20), {}
    with store.writing():
        for number, batch in enumerate(batches):
            rows = features(ids[batch], dtype="int32") + 1000 * number
            column.append(ids[batch], rows)
            for sample, row in zip(batch, rows, strict=True):
                reference.setdefault(sample, row)
            found = column.positions(ids)
            assert (found >= 0).tolist() == [x in reference for x in range(20)]
            assert len(column) == len(reference)
    there = np.array(sorted(reference), np.int64)
    read = column.read(column.positions(ids[there]))
    wanted = np.array([reference[x] for x in there]).reshape(-1, 4, 3)
    np.testing.assert_array_equal(read, wanted)


def test_rows_that_are_read_are_copies(store):
    column = store.column("a1", (4, 3), "float32", {})
    ids = digests(25)
    with store.writing():
        column.append(ids, features(ids))
    first = column.read(column.positions(ids))
    first[:] = -1
    np.testing.assert_array_equal(
        column.read(column.positions(ids)), features(ids)
    )


def test_rows_that_are_appended_are_copied(store):
    column = store.column("a1", (4, 3), "float32", {})
    ids = digests(5)
    rows = features(ids)
    with store.writing():
        column.append(ids, rows)
        rows[:] = -1
        np.testing.assert_array_equal(
            column.read(column.positions(ids)), features(ids)
        )


def test_a_missing_row_cannot_be_read(store):
    column = store.column("a1", (2,), "float32", {})
    assert column.positions(digests(2)).tolist() == [-1, -1]
    with pytest.raises(IndexError, match="no row -1: there are 0"):
        column.read(column.positions(digests(2)))
    assert column.read(np.array([], np.int64)).shape == (0, 2)


def test_rows_have_room_in_one_piece_if_their_number_is_known():
    column = MemoryStore().column("a1", (4, 3), "float32", {})
    column.reserve(100)
    column.append(digests(10), features(digests(10)))
    column.reserve(50)
    column.append(digests(100), features(digests(100)))
    assert len(column._segments()) == 1
    read = column.read(column.positions(digests(100)))
    np.testing.assert_array_equal(read, features(digests(100)))


@pytest.mark.parametrize("stored", ["float16", "bfloat16", "float32"])
def test_floats_are_converted_as_numpy_does(store, stored):
    ids = digests(30)
    rows = np.random.default_rng(0).normal(size=(30, 7)).astype("float32")
    column = store.column("a1", (7,), stored, {})
    with store.writing():
        column.append(ids, rows)
    read = column.read(column.positions(ids))
    assert read.tobytes() == rows.astype(stored).tobytes()
    assert (np.abs(read.astype("float32") - rows) < 0.02).all()


@pytest.mark.parametrize(
    ("ids", "rows", "message"),
    [
        (digests(3), features(digests(2)), r"3 rows of shape \(4, 3\)"),
        (digests(2), features(digests(2), (3, 4)), r"\(2, 3, 4\)"),
        (digests(2), features(digests(2), dtype="int32"), "are of int32"),
        (digests(2).view("S16"), features(digests(2)), "a vector of"),
        (digests(2)[None], features(digests(2)), r"\(1, 2\)"),
    ],
)
def test_rows_that_do_not_fit_the_column_are_refused(store, ids, rows, message):
    column = store.column("a1", (4, 3), "float32", {})
    with store.writing(), pytest.raises(ValueError, match=message):
        column.append(ids, rows)
    assert len(column) == 0


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((2, None), "float32", "positive sizes"),
        ((0,), "float32", "positive sizes"),
        ((2,), object, "numbers or truth values"),
        ((2,), "S3", "numbers or truth values"),
        ((2,), "datetime64[s]", "numbers or truth values"),
    ],
)
def test_a_column_of_something_else_is_refused(store, shape, dtype, message):
    with pytest.raises(ValueError, match=message):
        store.column("a1", shape, dtype, {})


def test_a_key_stands_for_one_shape_and_dtype(store):
    column = store.column("a1", (2, 3), "float32", {})
    assert store.column("a1", [2, 3], np.float32, {}) is column
    for shape, dtype in [((3, 2), "float32"), ((2, 3), ml_dtypes.bfloat16)]:
        with pytest.raises(ValueError, match="is asked for"):
            store.column("a1", shape, dtype, {})


def test_one_thread_reads_while_another_appends(store):
    column = store.column("a1", (4, 3), "float32", {})
    ids = digests(600)
    done, wrong = threading.Event(), []

    def read():
        while not done.is_set():
            there = ids[column.positions(ids) >= 0]
            rows = column.read(column.positions(there))
            if (rows != features(there)).any():
                wrong.append(len(there))

    reader = threading.Thread(target=read)
    with store.writing():
        reader.start()
        for start in range(0, 600, 3):
            part = ids[start : start + 3]
            column.append(part, features(part))
        done.set()
        reader.join()
    assert wrong == []


class InterruptAt:
    """Raises KeyboardInterrupt at a line of the package that is run."""

    def __init__(self, line):
        self._left = line

    def __enter__(self):
        self._former = sys.gettrace()
        sys.settrace(self._trace)

    def __exit__(self, kind, error, trace):
        sys.settrace(self._former)

    def _trace(self, frame, event, argument):
        name = frame.f_code.co_filename
        if "keras_cascade/cache" not in name.replace("\\", "/"):
            return None
        # A tracer could raise between the end of a `with` and its release of
        # a lock, where Python takes no signal.
        source = linecache.getline(name, frame.f_lineno)
        if event == "line" and not source.lstrip().startswith("with "):
            self._left -= 1
            if self._left == 0:
                raise KeyboardInterrupt
        return self._trace


@pytest.mark.parametrize("kind", ["memory", "disk"])
def test_interrupted_at_any_line_no_sample_gets_another_s_row(
    kind, tmp_path, monkeypatch
):
    monkeypatch.setattr(columns, "_FIRST_BYTES", 400)
    ids = digests(30)
    rows = features(ids)
    line, interrupted = 0, True
    while interrupted:
        line += 1
        interrupted = False
        store = small_store(kind, tmp_path / str(line))
        column = store.column("a1", (4, 3), "float32", {})
        with store.writing():
            column.append(ids[:4], rows[:4])
            try:
                with InterruptAt(line):
                    column.append(ids[4:11], rows[4:11])
            except KeyboardInterrupt:
                interrupted = True
            column.append(ids[11:25], rows[11:25])
            column.append(ids, rows)
            read = column.read(column.positions(ids))
            np.testing.assert_array_equal(read, rows)
        read = column.read(column.positions(ids))
        np.testing.assert_array_equal(read, rows)
    assert line > 30


def test_floats_that_are_too_large_warn(store):
    column = store.column("a1", (1,), "float16", {})
    large = np.full((1, 1), 1e6, "float32")
    with store.writing(), pytest.warns(RuntimeWarning, match="overflow"):
        column.append(digests(1), large)
