"""A store on disk serves the next process too."""

import contextlib
import sys

import numpy as np
import pytest

from keras_cascade.cache.storage.disk import DiskStore
from keras_cascade.cache.storage.stores import MemoryStore
from tests.cache.storage.samples import COLUMNS, COUNT, SHARD_BYTES, check, fill

# No backend takes part in it.
pytestmark = pytest.mark.once


@pytest.fixture(params=["memory", "disk"])
def store(request, tmp_path):
    if request.param == "memory":
        return MemoryStore()
    return DiskStore(tmp_path / "features")


def test_the_next_process_finds_all_and_writes_nothing(tmp_path, snapshot):
    fill(DiskStore(tmp_path, shard_bytes=SHARD_BYTES))
    before = snapshot(tmp_path)
    store = DiskStore(tmp_path)
    check(store)
    with store.writing():
        check(store)
    assert snapshot(tmp_path) == before


def test_values_come_back_by_name(store):
    store.save_json("plan", {"a": (1, 2)})
    store.save_json("cuts/b-2", [None, 1.5])
    store.save_json("cuts/a_1.0", "text")
    store.save_json("cuts/a_1.0", "other text")
    assert store.load_json("plan") == {"a": [1, 2]}
    assert store.load_json("cuts/b-2") == [None, 1.5]
    assert store.load_json("cuts/a_1.0") == "other text"
    assert store.load_json("cuts/c") is None


@pytest.mark.parametrize(
    "name", ["", "/a", "a/", "a/b/c", "../a", "a/..", ".a", "a b", "a\\b", "ä"]
)
def test_a_name_that_is_no_file_s_is_refused(store, name):
    with pytest.raises(ValueError, match="name is letters"):
        store.save_json(name, 1)
    with pytest.raises(ValueError, match="name is letters"):
        store.load_json(name)


@pytest.mark.parametrize("key", ["", "A1", "values", "../a", "a/b"])
def test_a_key_that_is_no_hex_string_is_refused(store, key):
    with pytest.raises(ValueError, match="hex string"):
        store.column(key, (2,), "float32", {})


def test_a_damaged_value_is_none(tmp_path):
    store = DiskStore(tmp_path)
    store.save_json("plan", {"epoch": 12})
    path = tmp_path / "values" / "plan.json"
    path.write_text(path.read_text().replace("12", "13"))
    assert store.load_json("plan") is None
    store.save_json("plan", {"epoch": 14})
    assert store.load_json("plan") == {"epoch": 14}


def test_an_interrupted_epoch_is_kept(tmp_path):
    store = DiskStore(tmp_path)
    with contextlib.suppress(KeyboardInterrupt), store.writing():
        fill(store, 100)
        raise KeyboardInterrupt
    check(DiskStore(tmp_path), 100)


def test_memory_without_a_limit_has_room():
    assert MemoryStore().room() == sys.maxsize


@pytest.mark.parametrize(
    "megabytes", [300, pytest.param(4096, marks=pytest.mark.large)]
)
@pytest.mark.skipif(sys.platform != "linux", reason="/proc tells the memory")
def test_much_is_written_and_read_with_little_memory(
    writer, tmp_path, megabytes
):
    process = writer("measure", tmp_path, megabytes)
    most = float(process.hear())
    assert process.end() == 0
    # One shard of 32 MiB that is not yet written, and a batch of 2 MiB.
    assert most < 48
    size = sum(x.stat().st_size for x in tmp_path.rglob("*.npy"))
    assert size > megabytes * 2**20


def test_columns_of_one_store_are_apart(tmp_path):
    store = DiskStore(tmp_path, shard_bytes=SHARD_BYTES)
    fill(store)
    tops = [x for x in tmp_path.iterdir() if x.is_dir()]
    assert sorted(x.name for x in tops) == ["a1", "b2", "values"]
    first, second = (store.column(k, *v, {}) for k, v in COLUMNS.items())
    positions = np.arange(COUNT)
    assert first.read(positions).shape == (COUNT, 4, 3)
    assert second.read(positions).shape == (COUNT, 6)
