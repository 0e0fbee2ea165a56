"""A shard is as it was written, or is not there."""

import json
import os
import zlib

import numpy as np
import pytest

from keras_cascade.cache.storage.files import checked_text, read_checked
from keras_cascade.cache.storage.shards import (
    OVERHEAD_BYTES,
    open_shard,
    remove_shard,
    shard_numbers,
    unfinished_numbers,
    write_shard,
)
from tests.cache.storage.samples import digests, features

# No backend takes part in it.
pytestmark = pytest.mark.once

SHAPE = (2, 2)
FILES = ["000003.ids.npy", "000003.json", "000003.npy"]


@pytest.fixture
def folder(tmp_path):
    """With a shard of number 3, of five rows of float32."""
    ids = digests(5)
    write_shard(tmp_path, 3, ids, features(ids, SHAPE))
    return tmp_path


def open_it(folder, shape=SHAPE, dtype="float32"):
    return open_shard(folder, 3, shape, np.dtype(dtype))


def rewrite(folder, name, content):
    """Puts another file in the place of one, its checksum with it."""
    (folder / name).write_bytes(content)
    record = read_checked(folder / "000003.json")
    seen = {"bytes": len(content), "crc32": zlib.crc32(content)}
    record["files"][name] = seen
    (folder / "000003.json").write_bytes(checked_text(record))


def test_numpy_and_json_alone_read_what_was_written(folder):
    assert sorted(x.name for x in folder.iterdir()) == FILES
    rows = np.load(folder / "000003.npy", allow_pickle=False)
    ids = np.load(folder / "000003.ids.npy", allow_pickle=False)
    np.testing.assert_array_equal(rows, features(digests(5), SHAPE))
    assert ids.tobytes() == digests(5).tobytes()
    record = json.loads((folder / "000003.json").read_text())["value"]
    assert record["rows"] == 5
    for name in ("000003.npy", "000003.ids.npy"):
        content = (folder / name).read_bytes()
        assert record["files"][name]["bytes"] == len(content)
        assert record["files"][name]["crc32"] == zlib.crc32(content)


def test_a_shard_opens_as_it_was_written(folder):
    shard = open_it(folder)
    assert shard.ids.tobytes() == digests(5).tobytes()
    rows = shard.rows.read()
    np.testing.assert_array_equal(rows, features(digests(5), SHAPE))
    assert not rows.flags.writeable
    assert shard_numbers(folder) == [3]
    assert unfinished_numbers(folder) == set()


@pytest.mark.parametrize("shape", [(1,), (3, 3, 3, 3)])
def test_the_bytes_returned_are_those_on_disk(tmp_path, shape):
    ids = digests(7)
    rows = features(ids, shape)
    told = write_shard(tmp_path, 0, ids, rows)
    assert told == sum(x.stat().st_size for x in tmp_path.iterdir())
    assert told - ids.nbytes - rows.nbytes <= OVERHEAD_BYTES


@pytest.mark.parametrize("name", FILES)
def test_any_flipped_byte_is_found(folder, name):
    content = (folder / name).read_bytes()
    for place in range(len(content)):
        changed = bytearray(content)
        changed[place] ^= 0xFF
        (folder / name).write_bytes(changed)
        assert open_it(folder) is None
    (folder / name).write_bytes(content)
    assert open_it(folder) is not None


@pytest.mark.parametrize("name", FILES)
def test_a_shortened_longer_or_missing_file_is_found(folder, name):
    content = (folder / name).read_bytes()
    # JSON ends with a new line, which says nothing.
    for changed in (content[:-2], content[: len(content) // 2], b""):
        (folder / name).write_bytes(changed)
        assert open_it(folder) is None
    if name != "000003.json":
        (folder / name).write_bytes(content + b"\0")
        assert open_it(folder) is None
    (folder / name).unlink()
    assert open_it(folder) is None


def saved(array, folder, allow_pickle=False):
    np.save(folder / "other.npy", array, allow_pickle=allow_pickle)
    content = (folder / "other.npy").read_bytes()
    (folder / "other.npy").unlink()
    return content


@pytest.mark.parametrize(
    "rows",
    [
        np.zeros((5, 2, 2), np.float64),
        np.zeros((5, 4), np.float32),
        np.zeros((4, 2, 2), np.float32),
        np.zeros((6, 2, 2), np.float32),
    ],
)
def test_other_rows_are_found_though_their_checksum_is_right(folder, rows):
    rewrite(folder, "000003.npy", saved(rows, folder))
    assert open_it(folder) is None


@pytest.mark.parametrize("ids", [digests(4), digests(5).view("S16")])
def test_other_ids_are_found_though_their_checksum_is_right(folder, ids):
    rewrite(folder, "000003.ids.npy", saved(ids, folder))
    assert open_it(folder) is None


class Payload:
    """An object that, were it unpickled, would make a folder."""

    def __init__(self, folder):
        self._folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self._folder),)


@pytest.mark.parametrize("name", ["000003.npy", "000003.ids.npy"])
def test_objects_are_never_unpickled(folder, name):
    made = folder / "made"
    objects = np.array([Payload(made)] * 5, object)
    content = saved(objects, folder, allow_pickle=True)
    rewrite(folder, name, content)
    assert open_it(folder) is None
    assert not made.exists()
    # The payload is a live one.
    (folder / "live.npy").write_bytes(content)
    np.load(folder / "live.npy", allow_pickle=True)
    assert made.exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00"])
def test_no_array_is_found_though_its_checksum_is_right(folder, content):
    rewrite(folder, "000003.npy", content)
    assert open_it(folder) is None


@pytest.mark.parametrize(
    "record", [None, [], "text", {}, {"rows": 5}, {"rows": 5, "files": []}]
)
def test_another_record_is_found_though_its_checksum_is_right(folder, record):
    (folder / "000003.json").write_bytes(checked_text(record))
    assert open_it(folder) is None


def test_another_shape_or_dtype_than_asked_for_is_none(folder):
    assert open_it(folder, shape=(4,)) is None
    assert open_it(folder, dtype="int32") is None


def test_files_without_a_record_are_no_shard(folder):
    (folder / "000003.json").unlink()
    assert shard_numbers(folder) == []
    assert unfinished_numbers(folder) == {3}
    remove_shard(folder, 3)
    assert list(folder.iterdir()) == []


def test_nothing_is_left_of_a_shard_that_cannot_be_written(folder, monkeypatch):
    from keras_cascade.cache.storage import shards

    whole = shards.write_whole

    def failing(path, parts):
        if path.suffix == ".json":
            raise OSError("no")
        return whole(path, parts)

    monkeypatch.setattr(shards, "write_whole", failing)
    with pytest.raises(OSError, match="no"):
        write_shard(folder, 4, digests(5), features(digests(5), SHAPE))
    assert sorted(x.name for x in folder.iterdir()) == FILES


def test_other_files_are_no_shards(tmp_path):
    for name in ("column.json", "7.json", "a00007.json", "000007.txt"):
        (tmp_path / name).touch()
    assert shard_numbers(tmp_path) == []
    assert unfinished_numbers(tmp_path) == set()
    assert shard_numbers(tmp_path / "missing") == []
