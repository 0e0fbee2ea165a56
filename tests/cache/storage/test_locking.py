"""One process writes at a time; the others wait, and find what it wrote."""

import threading

import pytest

from keras_cascade.cache.storage.disk import DiskStore
from keras_cascade.cache.storage.locking import WriterLock
from tests.cache.storage.samples import (
    COLUMNS,
    COUNT,
    SHARD_BYTES,
    check,
    digests,
    features,
    fill,
)

# No backend takes part in it.
pytestmark = pytest.mark.once

WAITING = "Another process is writing features to '{}': waiting for it to end."


def test_the_second_waits_and_then_finds_all(writer, tmp_path, snapshot):
    first = writer("hold", tmp_path)
    assert first.hear() == "half"
    told = []

    def notify(message):
        told.append(message)
        first.say("go on")

    store = DiskStore(tmp_path, notify=notify)
    column = store.column("a1", (4, 3), "float32", {})
    assert 0 < len(column) <= COUNT / 2
    with store.writing():
        assert told == [WAITING.format(tmp_path)]
        before = snapshot(tmp_path)
        assert len(column) == COUNT
        assert (column.positions(digests(COUNT)) >= 0).all()
        check(store)
    assert first.end() == 0
    assert snapshot(tmp_path) == before


def test_the_lock_of_a_process_that_is_killed_is_free(writer, tmp_path):
    first = writer("hold", tmp_path)
    assert first.hear() == "half"
    told = []

    def notify(message):
        told.append(message)
        first.kill()

    store = DiskStore(tmp_path, shard_bytes=SHARD_BYTES, notify=notify)
    fill(store)
    check(store)
    assert len(told) == 1


def test_a_reader_need_not_wait(writer, tmp_path):
    first = writer("hold", tmp_path)
    assert first.hear() == "half"
    column = DiskStore(tmp_path).column("a1", (4, 3), "float32", {})
    ids = digests(COUNT)
    there = column.positions(ids)
    assert 0 < (there >= 0).sum() <= COUNT / 2
    first.say("go on")
    assert first.end() == 0
    column.refresh()
    assert (column.positions(ids) >= 0).all()
    # Positions hold.
    assert (column.positions(ids)[there >= 0] == there[there >= 0]).all()


@pytest.mark.parametrize("stores", [1, 2])
def test_writing_may_be_nested_within_a_process(tmp_path, stores):
    outer = DiskStore(tmp_path, notify=pytest.fail)
    inner = DiskStore(tmp_path, notify=pytest.fail) if stores == 2 else outer
    lock = WriterLock.of(tmp_path)
    with outer.writing():
        fill(outer, 40)
        fill(inner, 80)
        assert lock.is_held
        fill(outer, 120)
    assert not lock.is_held
    check_rows(outer, 120)
    check_rows(DiskStore(tmp_path), 120)


def check_rows(store, count):
    """All are found; what one store had waiting, another may have stored."""
    ids = digests(count)
    for key, (shape, dtype) in COLUMNS.items():
        column = store.column(key, shape, dtype, {})
        assert column.damaged == 0
        read = column.read(column.positions(ids))
        assert read.tobytes() == features(ids, shape, dtype).tobytes()


def test_two_stores_of_a_process_write_at_once(tmp_path):
    stores = [DiskStore(tmp_path, shard_bytes=SHARD_BYTES) for _ in range(2)]
    threads = [threading.Thread(target=fill, args=[x]) for x in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check_rows(DiskStore(tmp_path), COUNT)


def test_an_error_while_writing_frees_the_lock(tmp_path):
    store = DiskStore(tmp_path)
    with pytest.raises(RuntimeError, match="mine"), store.writing():
        raise RuntimeError("mine")
    assert not WriterLock.of(tmp_path).is_held
    fill(store, 20)
    check(store, 20)


def test_an_error_on_entry_frees_the_lock(tmp_path, monkeypatch):
    from keras_cascade.cache.storage import locking

    store = DiskStore(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(locking, "remove_leftovers", lambda path: 1 / 0)
        with pytest.raises(ZeroDivisionError), store.writing():
            raise AssertionError("No work is done.")
    fill(store, 20)
    check(store, 20)
