"""Files are whole under their names; damaged JSON is found."""

import errno
import json
import math
import zlib

import pytest

from keras_cascade.cache.storage import files
from keras_cascade.cache.storage.files import (
    checked_text,
    is_full,
    is_temporary,
    read_checked,
    write_small,
    write_whole,
)

# No backend takes part in it.
pytestmark = pytest.mark.once

VALUES = [
    None,
    [1, -2.5e-300, 0.1 + 0.2, True, "ü\n"],
    {"b": 1, "a": {"2": [], "10": {}}},
    {10: "ten", 9: "nine"},
]


def test_the_checksum_is_that_of_all_parts(tmp_path):
    path = tmp_path / "file"
    checksum = write_whole(path, [b"ab", bytearray(b"c"), memoryview(b"de")])
    assert path.read_bytes() == b"abcde"
    assert checksum == zlib.crc32(b"abcde")
    assert [x.name for x in tmp_path.iterdir()] == ["file"]


def test_a_write_that_fails_leaves_the_earlier_file(tmp_path):
    path = tmp_path / "file"
    write_whole(path, [b"old"])

    def parts():
        yield b"new"
        (seen,) = tmp_path.glob("*.tmp")
        assert is_temporary(seen)
        raise RuntimeError("half")

    with pytest.raises(RuntimeError, match="half"):
        write_whole(path, parts())
    assert path.read_bytes() == b"old"
    assert [x.name for x in tmp_path.iterdir()] == ["file"]


def test_a_small_file_is_written_though_another_process_clears_up(
    tmp_path, monkeypatch
):
    whole = files.write_whole
    calls = []

    def cleared(path, parts):
        calls.append(path)
        if len(calls) == 1:
            raise FileNotFoundError(errno.ENOENT, "No such file")
        return whole(path, parts)

    monkeypatch.setattr(files, "write_whole", cleared)
    write_small(tmp_path / "file", b"text")
    assert (tmp_path / "file").read_bytes() == b"text"


@pytest.mark.parametrize("value", VALUES)
def test_values_come_back_as_from_json(tmp_path, value):
    path = tmp_path / "value.json"
    write_whole(path, [checked_text(value)])
    assert read_checked(path) == json.loads(json.dumps(value))
    assert json.loads(path.read_text())["value"] == read_checked(path)


def test_nan_and_infinity_come_back(tmp_path):
    path = tmp_path / "value.json"
    write_whole(path, [checked_text([math.nan, math.inf])])
    nan, infinite = read_checked(path)
    assert math.isnan(nan)
    assert infinite == math.inf


def test_a_changed_bit_gives_the_same_value_or_none(tmp_path):
    path = tmp_path / "value.json"
    value = {"rows": 17, "share": 0.25, "names": ["a", "b"]}
    text = checked_text(value)
    read = []
    for place in range(8 * len(text)):
        changed = bytearray(text)
        changed[place // 8] ^= 1 << place % 8
        path.write_bytes(changed)
        read.append(read_checked(path))
    # White space may change to other white space.
    assert [x for x in read if x not in (None, value)] == []
    assert read.count(None) > 0.95 * len(read)


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "{}", '{"crc32": 0, "value": 1}', '{"value": 1}']
)
def test_other_json_is_none(tmp_path, text):
    path = tmp_path / "value.json"
    path.write_text(text)
    assert read_checked(path) is None
    assert read_checked(tmp_path / "missing.json") is None


def test_full_disks_and_quotas_differ_from_other_errors():
    numbers = [errno.ENOSPC, errno.EDQUOT, errno.EACCES, None]
    told = [is_full(OSError(number, "")) for number in numbers]
    assert told == [True, True, False, False]


@pytest.mark.parametrize(
    "name", ["a.tmp", "notes.0123456789abcdef.txt", ".0123456789abcdef.tmp"]
)
def test_a_user_s_file_is_not_taken_for_a_temporary_one(tmp_path, name):
    assert not is_temporary(tmp_path / name)
