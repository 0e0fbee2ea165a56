"""Files are complete once they have their final names."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from keras_cascade._interrupts import atomic_write
from keras_cascade._interrupts.atomic_write import move_into_place, workspace

# No backend takes part in it.
pytestmark = pytest.mark.once

NOT_ROOT = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() == 0,
    reason="root may write anywhere",
)


def write(folder, name, content="new"):
    path = folder / name
    path.write_text(content)
    return path


def write_folder(folder, name, content="new"):
    path = folder / name
    (path / "inner").mkdir(parents=True)
    write(path, "saved_model.pb", content)
    write(path / "inner", "data", content)
    return path


def everything(folder):
    return sorted(x.relative_to(folder).as_posix() for x in folder.rglob("*"))


def test_the_path_is_empty_until_the_file_is_moved_into_place(tmp_path):
    path = tmp_path / "deep" / "er" / "model.tflite"
    with workspace(path) as folder:
        staged = write(folder, path.name)
        assert not path.exists()
        assert folder.parent == path.parent
        move_into_place(staged, path)
    assert path.read_text() == "new"
    assert everything(path.parent) == ["model.tflite"]


@pytest.mark.parametrize("new", [write, write_folder])
@pytest.mark.parametrize("old", [write, write_folder])
@pytest.mark.parametrize("name", ["model", "earlier"])
def test_files_and_folders_are_replaced(tmp_path, old, new, name):
    path = old(tmp_path, name, "old")
    with workspace(path) as folder:
        move_into_place(new(folder, path.name), path)
    left = path if path.is_file() else path / "inner" / "data"
    assert left.read_text() == "new"
    assert [x.name for x in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("old", [write, write_folder])
def test_a_failure_leaves_the_earlier_file(tmp_path, old):
    path = old(tmp_path, "model", "old")
    before = everything(tmp_path)
    with pytest.raises(RuntimeError, match="half"), workspace(path) as folder:
        write(folder, "half")
        raise RuntimeError("half")
    assert everything(tmp_path) == before
    left = path if path.is_file() else path / "inner" / "data"
    assert left.read_text() == "old"


def test_an_earlier_folder_comes_back_if_the_new_one_cannot_be_moved(tmp_path):
    path = write_folder(tmp_path, "model", "old")
    with workspace(path) as folder, pytest.raises(FileNotFoundError):
        move_into_place(folder / "never_written", path)
    assert (path / "inner" / "data").read_text() == "old"


def pair(folder, name, text="new"):
    """Writes a file that refers to the data file beside it."""
    write(folder, f"{name}.data", text)
    return write(folder, name, f"{text}, {name}.data")


OLD = {"nothing": lambda *_: None, "a file": write, "a pair": pair}


def texts(folder):
    return {x.name: x.read_text() for x in folder.iterdir() if x.is_file()}


@pytest.mark.parametrize("old", OLD)
@pytest.mark.parametrize("new", [write, pair])
def test_a_file_and_its_data_are_replaced_as_one(tmp_path, old, new):
    path = tmp_path / "m.onnx"
    OLD[old](tmp_path, path.name, "old")
    with workspace(path) as folder:
        move_into_place(new(folder, path.name, "new"), path)
    expected = {"m.onnx": "new"}
    if new is pair:
        expected = {"m.onnx": "new, m.onnx.data", "m.onnx.data": "new"}
    assert texts(tmp_path) == expected


def test_a_file_beside_that_it_does_not_refer_to_stays(tmp_path):
    path = write(tmp_path, "m.keras", "old")
    write(tmp_path, "m.keras.data", "another program's")
    with workspace(path) as folder:
        move_into_place(write(folder, path.name), path)
    assert texts(tmp_path)["m.keras.data"] == "another program's"


# The two new files move, after the old ones.
@pytest.mark.parametrize(
    ("old", "step"),
    [(old, step) for i, old in enumerate(OLD) for step in range(1, 3 + i)],
)
@pytest.mark.parametrize("killed", [False, True])
def test_a_pair_that_moved_in_part_is_moved_back(
    tmp_path, old, killed, step, monkeypatch
):
    path = tmp_path / "m.onnx"
    OLD[old](tmp_path, path.name, "old")
    before, steps, rename = texts(tmp_path), [], Path.rename

    def fail(source, target):
        steps.append(source)
        if len(steps) == step:
            raise OSError("the disk is gone")
        return rename(source, target)

    folder = tmp_path / ".m.onnx-abcdefgh"
    folder.mkdir()
    write(folder, atomic_write._LOCK)
    staged = pair(folder, path.name)
    with monkeypatch.context() as patch, pytest.raises(OSError, match="gone"):
        patch.setattr(Path, "rename", fail)
        if killed:
            patch.setattr(atomic_write, "_restore_pair", lambda *_: None)
        move_into_place(staged, path)
    # A file is never beside another one's data.
    if (tmp_path / "m.onnx").exists():
        assert texts(tmp_path) == before
    # The next writer to the folder puts right what a killed one left.
    with workspace(path):
        assert texts(tmp_path) == before
    assert not folder.exists()


def test_new_parent_folders_are_deleted_after_a_failure(tmp_path):
    path = tmp_path / "a" / "b" / "model"
    with pytest.raises(RuntimeError), workspace(path):
        raise RuntimeError
    assert everything(tmp_path) == []


def test_earlier_parent_folders_stay_after_a_failure(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(RuntimeError), workspace(tmp_path / "a" / "b" / "model"):
        raise RuntimeError
    assert everything(tmp_path) == ["a"]


def test_a_folder_with_other_files_is_not_replaced(tmp_path):
    path = tmp_path / "projects"
    path.mkdir()
    write(path, "thesis.tex")
    with (
        pytest.raises(
            FileExistsError, match=r"other files in it.*projects/model"
        ),
        workspace(path),
    ):
        raise AssertionError("No work is done.")
    with pytest.raises(FileExistsError):
        move_into_place(write(tmp_path, "staged"), path)
    assert everything(path) == ["thesis.tex"]


def test_an_empty_folder_is_replaced(tmp_path):
    path = tmp_path / "model"
    path.mkdir()
    with workspace(path) as folder:
        move_into_place(write_folder(folder, "model"), path)
    assert (path / "saved_model.pb").is_file()


@pytest.mark.parametrize("target", ["somewhere", "nowhere"])
@pytest.mark.parametrize("new", [write, write_folder])
def test_a_link_is_replaced_and_its_target_stays(tmp_path, target, new):
    write_folder(tmp_path, "somewhere", "old")
    path = tmp_path / "model"
    path.symlink_to(tmp_path / target, target_is_directory=True)
    with workspace(path) as folder:
        move_into_place(new(folder, "model"), path)
    assert not path.is_symlink()
    assert (tmp_path / "somewhere" / "inner" / "data").read_text() == "old"


def test_a_file_where_a_folder_should_be_is_named(tmp_path):
    write(tmp_path, "notes")
    path = tmp_path / "notes" / "deep" / "model.onnx"
    with (
        pytest.raises(NotADirectoryError, match=r"notes' is no folder"),
        workspace(path),
    ):
        raise AssertionError("No work is done.")
    assert everything(tmp_path) == ["notes"]


@NOT_ROOT
def test_a_folder_that_cannot_be_written_to_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with (
        pytest.raises(PermissionError, match="Cannot write to the folder of"),
        workspace(tmp_path / "model.onnx"),
    ):
        raise AssertionError("No work is done.")


class OpError(Exception):
    """Like TensorFlow's error: none of the system."""


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError(errno.EDQUOT, "Disk quota exceeded"),
        OSError("Unable to write (errno = 28, 'No space left on device')"),
        OpError("/x/variables: No space left on device"),
        RuntimeError(
            "Writing failed: OSError: [Errno 28] No space left on device"
        ),
    ],
    ids=["full", "quota", "h5py", "TensorFlow", "child"],
)
def test_a_full_disk_is_reported_and_nothing_is_left(tmp_path, error):
    path = tmp_path / "deep" / "model.onnx"
    with (
        pytest.raises(OSError, match=r"disk is full.*bytes that are free") as e,
        workspace(path) as folder,
    ):
        write(folder, "half")
        raise error
    assert e.value.errno in (errno.ENOSPC, errno.EDQUOT)
    assert e.value.__cause__ is error
    assert everything(tmp_path) == []


def test_a_file_that_is_too_large_for_its_place_is_reported(tmp_path):
    path = tmp_path / "model.onnx"
    with (
        pytest.raises(OSError, match=r"model\.onnx' would be larger"),
        workspace(path),
    ):
        raise OSError(errno.EFBIG, "File too large")
    assert everything(tmp_path) == []


def test_other_errors_pass_unchanged(tmp_path):
    error = OSError(errno.EIO, "Input/output error")
    with pytest.raises(OSError) as found, workspace(tmp_path / "model"):
        raise error
    assert found.value is error


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="/dev/full is Linux's"
)
def test_a_disk_that_is_really_full(tmp_path):
    path = tmp_path / "model.onnx"
    full = pytest.raises(OSError, match=r"disk is full.*model\.onnx")
    with full, workspace(path) as folder:
        (folder / "model.onnx").symlink_to("/dev/full")
        (folder / "model.onnx").write_bytes(bytes(1 << 20))
    assert everything(tmp_path) == []


# The module alone: the package would import Keras.
WRITER = """
import runpy, sys
from pathlib import Path
module = runpy.run_path(sys.argv[1])
path = Path(sys.argv[2])
with module["workspace"](path) as folder:
    staged = folder / path.name
    staged.write_bytes(bytes(8 << 20))
    module["move_into_place"](staged, path)
"""


def test_a_small_file_system_that_is_full(tmp_path):
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(tmp_path)]
    done = subprocess.run(
        [
            *("unshare", "--mount", "--map-root-user", "sh", "-c"),
            f'{" ".join(mount)} || exit 77; "$0" -c "$1" "$2" "$3"; '
            f"status=$?; ls -A {tmp_path}; exit $status",
            *(sys.executable, WRITER, atomic_write.__file__),
            str(tmp_path / "model.onnx"),
        ],
        capture_output=True,
        text=True,
    )
    if done.returncode in (77, 127) or "unshare" in done.stderr:
        pytest.skip(f"no small file system here: {done.stderr.strip()}")
    assert done.returncode == 1
    assert "The disk is full" in done.stderr
    assert done.stdout == ""


ABANDONED = """
import os, runpy, sys
from pathlib import Path
module = runpy.run_path(sys.argv[1])
path = Path(sys.argv[2])
context = module["workspace"](path)
folder = context.__enter__()
(folder / "half").write_text("half")
if sys.argv[3] == "moving":
    path.rename(folder / f"{path.name}.earlier")
os._exit(9)
"""


def abandon(path, when="writing"):
    """Has a process die while it writes a file or moves a folder."""
    command = [sys.executable, "-c", ABANDONED, atomic_write.__file__]
    assert subprocess.run([*command, str(path), when]).returncode == 9


@pytest.mark.parametrize("name", ["model.keras", "another-one.tflite"])
def test_the_folder_of_a_dead_writer_is_deleted_by_the_next(tmp_path, name):
    path = tmp_path / "model.keras"
    abandon(tmp_path / name)
    assert len(everything(tmp_path)) == 3
    with workspace(path) as folder:
        move_into_place(write(folder, path.name), path)
    assert everything(tmp_path) == ["model.keras"]


def test_the_folders_of_living_writers_and_of_others_stay(tmp_path):
    path = tmp_path / "model"
    theirs = tmp_path / ".model-settings"  # eight letters, as ours
    theirs.mkdir()
    write(theirs, "settings.json")
    with workspace(path) as first, workspace(path) as second:
        staged = [write(x, "model", str(x)) for x in (first, second)]
        move_into_place(staged[0], path)
        move_into_place(staged[1], path)
    assert path.read_text() == str(second)
    assert everything(tmp_path) == [
        ".model-settings",
        ".model-settings/settings.json",
        "model",
    ]


def test_a_folder_that_was_moved_away_by_a_dead_writer_comes_back(tmp_path):
    path = write_folder(tmp_path, "model", "old")
    abandon(path, "moving")
    assert not path.exists()
    with pytest.raises(RuntimeError, match="half"), workspace(path):
        raise RuntimeError("half")
    assert (path / "inner" / "data").read_text() == "old"
    assert [x.name for x in tmp_path.iterdir()] == ["model"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_a_replaced_file_keeps_its_mode(tmp_path):
    path = write(tmp_path, "model")
    path.chmod(0o640)
    with workspace(path) as folder:
        move_into_place(write(folder, "model"), path)
    assert path.stat().st_mode & 0o777 == 0o640
