"""A folder belongs to the store, or is left alone."""

import contextlib
import json
import os
import tempfile
from pathlib import Path

import pytest

from keras_cascade.cache.storage.directory import (
    MARKER,
    claim,
    remove_leftovers,
)
from keras_cascade.cache.storage.disk import DiskStore
from tests.cache.storage.samples import COLUMNS, digests, features

# No backend takes part in it.
pytestmark = pytest.mark.once


def marker(**changes):
    return json.dumps({"program": "keras_cascade", "format": 1, **changes})


@pytest.mark.parametrize("name", ["here", "not/there/yet"])
def test_a_missing_or_empty_folder_becomes_a_store(tmp_path, name):
    (tmp_path / "here").mkdir()
    claim(tmp_path / name)
    assert [x.name for x in (tmp_path / name).iterdir()] == [MARKER]
    text = (tmp_path / name / MARKER).read_text()
    assert json.loads(text) == {"program": "keras_cascade", "format": 1}


def test_a_store_is_found_to_be_one_and_is_not_written_to(tmp_path, snapshot):
    claim(tmp_path)
    before = snapshot(tmp_path)
    claim(tmp_path)
    DiskStore(tmp_path).column("a1", (2,), "float32", {})
    assert snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"thesis.tex": "x"}, "holds other files.*Choose a new or an empty"),
        ({"a1/000000.npy": "x"}, "holds other files"),
        ({MARKER: "{}"}, "was not written by keras_cascade"),
        ({MARKER: ""}, "was not written by keras_cascade"),
        ({MARKER: "[1]"}, "was not written by keras_cascade"),
        ({MARKER: marker(program="other")}, "was not written by keras_cascade"),
        ({MARKER: marker(format=2)}, "in format 2, of another version"),
        ({MARKER: marker(format=None)}, "in format None, of another version"),
    ],
)
def test_a_folder_with_other_files_is_left_alone(
    tmp_path, snapshot, files, message
):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    before = snapshot(tmp_path), sorted(tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=f"(?s){tmp_path}.*{message}"):
        DiskStore(tmp_path)
    assert (snapshot(tmp_path), sorted(tmp_path.rglob("*"))) == before


@pytest.mark.parametrize("name", ["file", "file/deeper"])
def test_a_file_in_the_place_of_the_folder_is_left_alone(tmp_path, name):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match=r"Cannot keep features in '.*file"):
        DiskStore(tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_with_a_half_written_marker_becomes_a_store(
    tmp_path,
):
    left = tmp_path / f"{MARKER}.0123456789abcdef.tmp"
    left.write_text("{")
    store = DiskStore(tmp_path)
    with store.writing():
        assert not left.exists()
    assert (tmp_path / MARKER).exists()


@contextlib.contextmanager
def an_ordinary_user():
    """Root may do anything: for a while, be nobody."""
    nobody = 65534
    root = os.geteuid() == 0
    if root:
        os.seteuid(nobody)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


@pytest.fixture
def visible():
    """A folder that everyone may enter, unlike those that pytest makes."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


needs_users = pytest.mark.skipif(
    not hasattr(os, "geteuid"), reason="users as POSIX has them"
)


@needs_users
@pytest.mark.parametrize("mode", [0o000, 0o555])
@pytest.mark.parametrize("name", ["", "new"])
def test_a_folder_without_permission_is_named(visible, mode, name):
    folder = visible / "locked"
    folder.mkdir()
    folder.chmod(mode)
    with (
        an_ordinary_user(),
        pytest.raises(
            PermissionError, match=r"Cannot keep features in '.*lock"
        ),
    ):
        DiskStore(folder / name)
    folder.chmod(0o755)
    assert list(folder.iterdir()) == []


@needs_users
def test_a_store_that_may_only_be_read_is_read(visible):
    folder = visible / "features"
    ids = digests(5)
    store = DiskStore(folder)
    with store.writing():
        column = store.column("a1", *COLUMNS["a1"], {})
        column.append(ids, features(ids))
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555 if path.is_dir() else 0o444)
    with an_ordinary_user():
        other = DiskStore(folder)
        column = other.column("a1", *COLUMNS["a1"], {})
        read = column.read(column.positions(ids))
        with (
            pytest.raises(PermissionError, match="Cannot keep features in"),
            other.writing(),
        ):
            raise AssertionError("No work is done.")
    assert read.tobytes() == features(ids).tobytes()


def test_leftovers_are_removed_and_nothing_else(tmp_path):
    ids = digests(5)
    store = DiskStore(tmp_path)
    with store.writing():
        store.save_json("cuts/whole", 1)
        column = store.column("a1", *COLUMNS["a1"], {})
        column.append(ids, features(ids))
    (tmp_path / "notes").mkdir()
    for name in ("notes/000000.npy", "notes.tmp", "a1/x.tmp", "a1/1.npy"):
        (tmp_path / name).touch()
    before = sorted(tmp_path.rglob("*"))
    ending = "0123456789abcdef.tmp"
    for name in (
        f"{MARKER}.{ending}",
        f"values/a.json.{ending}",
        f"values/cuts/a.json.{ending}",
        f"a1/000001.npy.{ending}",
        "a1/000002.npy",
        "a1/000002.ids.npy",
        "a1/000003.ids.npy",
    ):
        (tmp_path / name).touch()
    remove_leftovers(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_new_folders_are_removed_if_no_store_can_be_made(tmp_path, monkeypatch):
    from keras_cascade.cache.storage import directory

    def full(path, text):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(directory, "write_small", full)
    with pytest.raises(OSError, match="No space left on device"):
        claim(tmp_path / "a" / "b")
    assert list(tmp_path.iterdir()) == []
