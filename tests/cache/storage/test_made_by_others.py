"""Folders that others made or changed: recomputation, or one clear error."""

import os
import shutil
import signal
import zlib

import numpy as np
import pytest

from keras_cascade.cache.storage.columns import CacheFull
from keras_cascade.cache.storage.directory import MARKER
from keras_cascade.cache.storage.disk import DiskStore
from keras_cascade.cache.storage.files import checked_text, read_checked
from keras_cascade.cache.storage.locking import LOCK
from tests.cache.storage.samples import check, digests, features, fill

ONE = {"a1": ((4, 3), "float32")}
ROWS, IDS, RECORD = (f"a1/000000.{x}" for x in ("npy", "ids.npy", "json"))
MANIFEST, VALUE = "a1/column.json", "values/cuts/whole.json"
DEEP = b"[" * 200_000
HUGE = 20 * 2**30

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(
        not hasattr(os, "mkfifo"), reason="links and pipes as POSIX has them"
    ),
]


@pytest.fixture(autouse=True)
def _it_ends():
    def too_long(number, frame):
        raise TimeoutError("It waits for ever.")

    before = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(30)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


@pytest.fixture
def folder(tmp_path):
    fill(DiskStore(tmp_path / "features"), 10, ONE)
    return tmp_path / "features"


def _to_zeros(path):
    path.symlink_to("/dev/zero")


def _to_outside(path):
    path.symlink_to(path.parents[-1] / "dev" / "null")


def _sparse(path):
    with path.open("wb") as stream:
        stream.truncate(HUGE)


def _deep(path):
    path.write_bytes(DEEP)


INSTEAD = {
    "a device": _to_zeros,
    "a link to nowhere": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path.name),
    "a pipe": os.mkfifo,
    "a folder": lambda path: path.mkdir(),
    "20 GB of nothing": _sparse,
    "deep JSON": _deep,
    "nothing": lambda path: None,
}


@pytest.mark.parametrize("instead", INSTEAD)
@pytest.mark.parametrize("name", [ROWS, IDS, RECORD, MANIFEST])
def test_what_is_no_file_of_features_is_computed_again(folder, name, instead):
    (folder / name).unlink()
    INSTEAD[instead](folder / name)
    store = DiskStore(folder)
    column = store.column("a1", *ONE["a1"], {})
    lost = name != MANIFEST
    assert (column.positions(digests(10)) < 0).all() == lost
    if instead == "a folder" and not lost:
        with pytest.raises(OSError, match="Cannot keep features in"):
            fill(store, 20, ONE)
        return
    fill(store, 20, ONE)
    assert len(column) == 20
    check(DiskStore(folder), 20, ONE)


@pytest.mark.parametrize("name", [ROWS, IDS, RECORD])
def test_links_are_not_followed_out_of_the_folder(folder, name):
    outside = folder.parent / "outside"
    (folder / name).rename(outside)
    (folder / name).symlink_to(outside)
    content = outside.read_bytes()
    column = DiskStore(folder).column("a1", *ONE["a1"], {})
    assert (column.positions(digests(10)) < 0).all()
    fill(DiskStore(folder), 10, ONE)
    check(DiskStore(folder), 10, ONE)
    assert outside.read_bytes() == content


@pytest.mark.parametrize("instead", INSTEAD)
def test_a_value_that_is_no_file_is_none(folder, instead):
    (folder / VALUE).unlink()
    INSTEAD[instead](folder / VALUE)
    store = DiskStore(folder)
    assert store.load_json("cuts/whole") is None
    if instead != "a folder":
        store.save_json("cuts/whole", 3)
        assert store.load_json("cuts/whole") == 3


@pytest.mark.parametrize("instead", [x for x in INSTEAD if x != "nothing"])
def test_a_marker_that_is_no_file_is_an_error(folder, instead):
    (folder / MARKER).unlink()
    INSTEAD[instead](folder / MARKER)
    with pytest.raises(ValueError, match="was not written by keras_cascade"):
        DiskStore(folder)


@pytest.mark.parametrize("name", ["a1", "values", "values/cuts"])
def test_a_folder_that_is_a_link_is_an_error(folder, name):
    outside = folder.parent / "outside"
    (folder / name).rename(outside)
    (folder / name).symlink_to(outside)
    left = outside / "000007.npy.0123456789abcdef.tmp"
    left.touch()
    before = sorted(outside.rglob("*"))
    store = DiskStore(folder)
    with store.writing():  # which removes leftovers
        pass
    with pytest.raises(OSError, match=r"is a link.*Nothing was touched"):
        if name == "a1":
            store.column("a1", *ONE["a1"], {})
        else:
            store.load_json("cuts/whole")
    if name != "a1":
        with pytest.raises(OSError, match="is a link"):
            store.save_json("cuts/whole", 4)
    assert sorted(outside.rglob("*")) == before


@pytest.mark.parametrize("instead", ["a device", "a pipe", "a folder"])
def test_a_lock_that_is_no_file_is_an_error(folder, instead):
    (folder / LOCK).unlink()
    INSTEAD[instead](folder / LOCK)
    with (
        pytest.raises(OSError, match=rf"Cannot keep features.*'{LOCK}'"),
        DiskStore(folder).writing(),
    ):
        raise AssertionError("No work is done.")


def test_a_lock_that_is_a_link_leaves_its_target_as_it_is(folder):
    outside = folder.parent / "mine"
    outside.write_text("mine")
    (folder / LOCK).unlink()
    (folder / LOCK).symlink_to(outside)
    with pytest.raises(OSError, match=LOCK), DiskStore(folder).writing():
        raise AssertionError("No work is done.")
    assert outside.read_text() == "mine"


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 10**18},
        {"rows": -1},
        {"rows": True},
        {"rows": 10.0},
        {"rows": "10"},
        {"rows": None},
        {"files": {"000000.npy": {"bytes": HUGE, "crc32": 0}}},
        {"files": "000000.npy"},
        {"files": 3},
    ],
)
def test_a_record_that_another_wrote_is_checked(folder, change):
    record = read_checked(folder / RECORD)
    (folder / RECORD).write_bytes(checked_text({**record, **change}))
    column = DiskStore(folder).column("a1", *ONE["a1"], {})
    assert (column.positions(digests(10)) < 0).all()
    fill(DiskStore(folder), 10, ONE)
    check(DiskStore(folder), 10, ONE)


def test_a_header_is_compared_and_not_evaluated(folder):
    content = (folder / ROWS).read_bytes()
    header = content[:10] + b"(" * 118
    content = header + content[len(header) :]
    (folder / ROWS).write_bytes(content)
    record = read_checked(folder / RECORD)
    record["files"]["000000.npy"]["crc32"] = zlib.crc32(content)
    (folder / RECORD).write_bytes(checked_text(record))
    column = DiskStore(folder).column("a1", *ONE["a1"], {})
    assert (column.positions(digests(10)) < 0).all()


@pytest.mark.parametrize("value", [3, [], {}, {"shape": [4, 3]}, "text"])
def test_a_manifest_that_another_wrote_is_written_again(folder, value):
    (folder / MANIFEST).write_bytes(checked_text(value))
    fill(DiskStore(folder), 20, ONE)
    check(DiskStore(folder), 20, ONE)
    assert read_checked(folder / MANIFEST)["shape"] == [4, 3]


@pytest.mark.parametrize("own", [True, False])
def test_a_file_that_is_truncated_while_it_is_mapped_is_an_error(folder, own):
    store = DiskStore(folder)
    column = store.column("a1", *ONE["a1"], {})
    if own:
        fill(store, 20, ONE)
    name = "a1/000001.npy" if own else ROWS
    os.truncate(folder / name, 100)
    with pytest.raises(OSError, match=rf"{name}' was truncated.*Train again"):
        column.read(np.arange(10))
    again = DiskStore(folder)
    fill(again, 20, ONE)
    check(DiskStore(folder), 20, ONE)


def test_rows_of_a_folder_that_is_removed_are_read_on(folder):
    column = DiskStore(folder).column("a1", *ONE["a1"], {})
    shutil.rmtree(folder)
    ids = digests(10)
    read = column.read(column.positions(ids))
    np.testing.assert_array_equal(read, features(ids))


@pytest.mark.parametrize("name", [".", "a1"])
def test_a_folder_that_is_removed_while_it_is_written_is_as_one_that_is_full(
    folder, name
):
    store, ids = DiskStore(folder), digests(20)
    column = store.column("a1", *ONE["a1"], {})
    with pytest.raises(CacheFull, match="was removed"), store.writing():
        shutil.rmtree(folder / name)
        column.append(ids, features(ids))
    assert len(column) == 10
    if name == ".":
        with pytest.raises(CacheFull, match="was removed"), store.writing():
            raise AssertionError("No work is done.")
    fill(DiskStore(folder), 20, ONE)
    check(DiskStore(folder), 20, ONE)
