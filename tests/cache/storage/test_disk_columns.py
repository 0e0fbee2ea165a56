"""A column on disk leaves out damaged files, and nothing else."""

import json

import pytest

from keras_cascade.cache.storage.disk import DiskStore
from tests.cache.storage.samples import digests, features, fill

# No backend takes part in it.
pytestmark = pytest.mark.once

ONE = {"a1": ((4, 3), "float32")}
COUNT = 100
SHARD_BYTES = 64 * 10


@pytest.fixture
def folder(tmp_path):
    """A store of ten shards of ten rows each."""
    fill(DiskStore(tmp_path, shard_bytes=SHARD_BYTES), COUNT, ONE)
    return tmp_path


def opened(folder):
    store = DiskStore(folder, shard_bytes=SHARD_BYTES)
    return store, store.column("a1", *ONE["a1"], {})


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


def missing(column):
    return (column.positions(digests(COUNT)) < 0).nonzero()[0].tolist()


@pytest.mark.parametrize("ending", [".npy", ".ids.npy", ".json"])
def test_rows_of_a_damaged_shard_alone_are_computed_again(
    folder, snapshot, ending
):
    flip(folder / "a1" / f"000004{ending}")
    before = snapshot(folder / "a1")
    store, column = opened(folder)
    assert column.damaged == 1
    assert missing(column) == list(range(40, 50))
    ids = digests(COUNT)
    there = ids[column.positions(ids) >= 0]
    read = column.read(column.positions(there))
    assert read.tobytes() == features(there).tobytes()
    # Who only reads removes nothing.
    assert snapshot(folder / "a1") == before
    fill(store, COUNT, ONE)
    after = snapshot(folder / "a1")
    others = [x for x in before if not x.startswith("000004")]
    assert {x: after[x] for x in others} == {x: before[x] for x in others}
    store, column = opened(folder)
    assert (column.damaged, missing(column)) == (0, [])
    assert column.read(column.positions(ids)).tobytes() == (
        features(ids).tobytes()
    )
    assert len(column) == COUNT


def test_damaged_shards_are_counted_where_they_are_removed_at_once(folder):
    flip(folder / "a1" / "000004.npy")
    (folder / "a1" / "000007.ids.npy").unlink()
    store = DiskStore(folder)
    with store.writing():
        column = store.column("a1", *ONE["a1"], {})
        assert column.damaged == 2
        assert missing(column) == [*range(40, 50), *range(70, 80)]
        left = {x.name for x in (folder / "a1").iterdir()}
    assert not any(x.startswith(("000004", "000007")) for x in left)
    assert column.damaged == 2


def test_a_shard_that_another_process_replaced_is_taken_up(folder):
    content = (folder / "a1" / "000009.npy").read_bytes()
    flip(folder / "a1" / "000009.npy")
    store, column = opened(folder)
    assert column.damaged == 1
    (folder / "a1" / "000009.npy").write_bytes(content)
    with store.writing():
        assert (column.damaged, missing(column)) == (0, [])


@pytest.mark.parametrize("change", ["flip", "remove"])
def test_the_description_is_written_again_where_it_is_lost(folder, change):
    manifest = folder / "a1" / "column.json"
    before = json.loads(manifest.read_text())["value"]
    assert before == {
        "shape": [4, 3],
        "dtype": "float32",
        "description": {"tensor": "a1"},
    }
    flip(manifest) if change == "flip" else manifest.unlink()
    store = DiskStore(folder)
    column = store.column("a1", *ONE["a1"], {"tensor": "a1"})
    assert missing(column) == []
    more = digests(5, seed=9)
    with store.writing():
        column.append(more, features(more))
    assert json.loads(manifest.read_text())["value"] == before


def test_a_key_of_another_shape_or_dtype_is_an_error(folder):
    for shape, dtype in [((3, 4), "float32"), ((4, 3), "float16")]:
        with pytest.raises(ValueError, match="is asked for"):
            DiskStore(folder).column("a1", shape, dtype, {})


def test_rows_are_appended_only_while_writing(folder):
    _, column = opened(folder)
    with pytest.raises(RuntimeError, match=r"within the store's writing\(\)"):
        column.append(digests(1, seed=9), features(digests(1)))
    column.finish()
    assert len(column) == COUNT


def test_a_row_larger_than_a_shard_is_a_shard(tmp_path):
    fill(DiskStore(tmp_path, shard_bytes=1), 3, ONE)
    names = [x.name for x in (tmp_path / "a1").glob("??????.npy")]
    assert sorted(names) == ["000000.npy", "000001.npy", "000002.npy"]


def test_waiting_rows_are_finished_on_leaving(tmp_path):
    store = DiskStore(tmp_path)
    column = store.column("a1", *ONE["a1"], {})
    with store.writing():
        column.append(digests(3), features(digests(3)))
        assert not (tmp_path / "a1").exists()
        with store.writing():
            pass
        assert not (tmp_path / "a1").exists()
    assert (tmp_path / "a1" / "000000.json").exists()
