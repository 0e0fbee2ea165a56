"""Rows without room are an error in time, and harm nothing that was stored."""

import errno
import shutil
import subprocess

import pytest

from keras_cascade.cache.storage import shards
from keras_cascade.cache.storage.columns import CacheFull
from keras_cascade.cache.storage.disk import DiskStore
from keras_cascade.cache.storage.stores import MemoryStore
from tests.cache.storage.samples import BATCH, check, digests, features, fill

# No backend takes part in it.
pytestmark = pytest.mark.once

ONE = {"a1": ((4, 3), "float32")}


def total(folder):
    return sum(x.stat().st_size for x in folder.rglob("*") if x.is_file())


def test_memory_has_a_limit(tmp_path):
    store = MemoryStore(max_bytes=64 * 100)
    with pytest.raises(CacheFull, match=r"1,024 bytes more .* 256 are left of"):
        fill(store, 400, ONE)
    check(store, 6 * BATCH, ONE)
    assert store.room() == 256
    with store.writing():
        column = store.column("a1", *ONE["a1"], {})
        few = digests(4, seed=9)
        column.append(few, features(few))
    assert store.room() == 0


@pytest.mark.parametrize("max_bytes", [0, 3_000, 9_999, 20_000])
def test_a_folder_never_takes_more_than_its_limit(tmp_path, max_bytes):
    store = DiskStore(tmp_path, max_bytes=max_bytes, shard_bytes=1000)
    message = rf"bytes more are needed, .* left of max_bytes={max_bytes:,}"
    with pytest.raises(CacheFull, match=message):
        fill(store)
    assert total(tmp_path) <= max(max_bytes, 100)
    # What there was room for was used, but for a batch and a shard's headers.
    assert total(tmp_path) > max_bytes - 64 * BATCH * 2 - 2 * 1024 - 1000
    column = DiskStore(tmp_path).column("a1", *ONE["a1"], {})
    check(DiskStore(tmp_path), len(column), ONE)


def test_with_more_room_the_rest_is_stored(tmp_path, snapshot):
    with pytest.raises(CacheFull):
        fill(DiskStore(tmp_path, max_bytes=20_000, shard_bytes=1000))
    before = snapshot(tmp_path / "a1")
    fill(DiskStore(tmp_path, shard_bytes=1000))
    check(DiskStore(tmp_path))
    after = snapshot(tmp_path / "a1")
    assert {name: after[name] for name in before} == before


def test_room_is_what_is_left(tmp_path):
    store = DiskStore(tmp_path, max_bytes=100_000)
    column = store.column("a1", *ONE["a1"], {})
    before = store.room()
    assert before == 100_000 - total(tmp_path)
    with store.writing():
        column.append(digests(100), features(digests(100)))
        assert before - store.room() >= 100 * column.row_bytes
    assert store.room() == 100_000 - total(tmp_path)
    assert DiskStore(tmp_path, max_bytes=10).room() == 0
    assert DiskStore(tmp_path).room() <= shutil.disk_usage(tmp_path).free


def test_a_value_without_room_is_refused(tmp_path):
    store = DiskStore(tmp_path, max_bytes=500)
    store.save_json("short", "x")
    with pytest.raises(CacheFull, match="are left of max_bytes=500"):
        store.save_json("long", "x" * 500)
    assert store.load_json("short") == "x"
    assert store.load_json("long") is None


def test_a_full_disk_is_an_error_before_it_is_written_to(
    tmp_path, monkeypatch, snapshot
):
    store = DiskStore(tmp_path)
    before = snapshot(tmp_path)
    usage = shutil.disk_usage(tmp_path)._replace(free=500)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(CacheFull, match=r"500 are left of its disk"):
        fill(store)
    after = snapshot(tmp_path)
    del after["writing.lock"]
    assert after == before


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("ending", [".npy", ".ids.npy", ".json"])
def test_a_disk_that_turns_out_to_be_full_keeps_finished_shards(
    tmp_path, monkeypatch, number, ending
):
    whole = shards.write_whole

    def full(path, parts):
        if path.name.startswith("000002") and path.name == f"000002{ending}":
            raise OSError(number, "It is full")
        return whole(path, parts)

    store = DiskStore(tmp_path, shard_bytes=1000)
    column = store.column("a1", *ONE["a1"], {})
    ids = digests(100)
    with monkeypatch.context() as patched:
        patched.setattr(shards, "write_whole", full)
        with store.writing():
            with pytest.raises(CacheFull, match="ended with 'It is full'"):
                column.append(ids, features(ids))
            # Those that wait can be read until the writing ends.
            there = column.positions(ids) >= 0
            assert there.sum() == 3 * (1000 // 64)
            read = column.read(column.positions(ids[there]))
            assert read.tobytes() == features(ids[there]).tobytes()
            with pytest.raises(CacheFull):
                column.append(ids, features(ids))
            with pytest.raises(CacheFull):
                column.finish()
            column.drop_unfinished()
    assert [x.name for x in tmp_path.glob("a1/000002*")] == []
    check(store, 2 * (1000 // 64), ONE)
    check(DiskStore(tmp_path), 2 * (1000 // 64), ONE)
    fill(store, 100, ONE)
    check(DiskStore(tmp_path), 100, ONE)


@pytest.mark.parametrize("own_error", [False, True])
def test_another_error_comes_before_that_of_a_full_disk(
    tmp_path, monkeypatch, own_error
):
    def full(path, parts):
        raise OSError(errno.ENOSPC, "It is full")

    store = DiskStore(tmp_path)
    column = store.column("a1", *ONE["a1"], {})
    ids = digests(10)
    with monkeypatch.context() as patched:
        patched.setattr(shards, "write_whole", full)
        expected = RuntimeError if own_error else CacheFull
        with pytest.raises(expected), store.writing():
            column.append(ids, features(ids))
            if own_error:
                raise RuntimeError
    assert len(column) == 0
    assert (column.positions(ids) == -1).all()
    fill(store, 100, ONE)
    check(store, 100, ONE)


def test_other_errors_of_the_disk_are_not_taken_for_a_full_one(
    tmp_path, monkeypatch
):
    def broken(path, parts):
        raise OSError(errno.EIO, "It is broken")

    store = DiskStore(tmp_path)
    column = store.column("a1", *ONE["a1"], {})
    monkeypatch.setattr(shards, "write_whole", broken)
    with (
        pytest.raises(OSError, match="It is broken") as caught,
        store.writing(),
    ):
        column.append(digests(10), features(digests(10)))
    assert not isinstance(caught.value, CacheFull)


@pytest.mark.parametrize(
    ("lie", "message", "expected"),
    [
        # Batches of 16 rows of 16 KiB: a fourth would be 1 MiB by itself.
        ("honest", "are left of its disk", 3 * 16),
        # Shards of 15 rows: a fifth would be above 1 MiB.
        ("lie", "ended with 'No space left on device'", 4 * 15),
    ],
)
def test_a_small_file_system_that_is_full(
    tmp_path, writer_command, lie, message, expected
):
    command, environment = writer_command("overflow", tmp_path, lie)
    mount = f"mount -t tmpfs -o size=1m tmpfs {tmp_path} || exit 77; "
    done = subprocess.run(
        [
            *("unshare", "--mount", "--map-root-user", "sh", "-c"),
            f'{mount} "$@"; status=$?; ls -R {tmp_path}; exit $status',
            *("sh", *command),
        ],
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode in (77, 127) or "unshare" in done.stderr:
        pytest.skip(f"no small file system here: {done.stderr.strip()}")
    assert done.returncode == 0, done.stderr
    told, rows, *listed = done.stdout.splitlines()
    assert message in told
    assert int(rows) == expected
    assert sum(name.endswith(".npy") for name in listed) == 4 * 2
    assert not any(name.endswith(".tmp") for name in listed)
