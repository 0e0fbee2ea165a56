"""Cards of damaged and hostile files are one error, and cost little memory."""

import io
import json
import re
import tracemalloc
import zipfile
from pathlib import Path

import pytest

import keras_cascade as kc
from keras_cascade.exporting.backends import is_installed

GOOD = json.dumps({"name": "model"}).encode()
DEEP = b"[" * 200_000


def archive(text=GOOD, how=zipfile.ZIP_DEFLATED):
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", how) as file:
        file.writestr("model_card.json", text)
    return stream.getvalue()


def test_a_card_is_read(tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(archive())
    assert kc.read_card(path) == {"name": "model"}


# The bytes of a file, and what the error says about it.
DAMAGED = {
    "empty": (b"", "not a zip file"),
    "text": (b"hello" * 99, "not a zip file"),
    "truncated": (archive()[:-40], "not a zip file"),
    "changed": (archive(how=0).replace(b'model"', b'mudel"'), "CRC"),
    "no card": (archive(how=0).replace(b"model_card", b"model_cart"), "no mod"),
    "bad UTF-8": (archive(b'{"a": "\xff"}'), "utf-8"),
    "bad JSON": (archive(b"{"), "Expecting"),
    "a list": (archive(b"[]"), "no JSON object"),
    "deep": (archive(DEEP), "recursion"),
    "deep object": (archive(b'{"a":' * 99_999), "recursion"),
    "large": (archive(bytes(2 << 20)), "more than 1,048,576 bytes"),
    "bz2": (archive(bytes(2 << 20), zipfile.ZIP_BZIP2), "unusual way"),
    "lzma": (archive(bytes(2 << 20), zipfile.ZIP_LZMA), "unusual way"),
}


@pytest.mark.parametrize("case", DAMAGED)
@pytest.mark.parametrize("ending", [".keras", ".pt2"])
def test_a_damaged_archive_is_one_error(case, ending, tmp_path):
    data, reason = DAMAGED[case]
    path = tmp_path / f"model{ending}"
    path.write_bytes(data)
    match = rf"'{re.escape(str(path))}' cannot be read: .*{reason}"
    with pytest.raises(ValueError, match=match) as caught:
        kc.read_card(path)
    assert len(str(caught.value)) < 400


def test_a_card_that_expands_costs_little_memory(tmp_path):
    path = tmp_path / "bomb.keras"
    path.write_bytes(archive(bytes(64 << 20)))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="more than"):
            kc.read_card(path)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


@pytest.mark.parametrize(
    ("ending", "module"), [(".tflite", "tensorflow"), (".onnx", "onnx")]
)
@pytest.mark.parametrize("data", [b"", b"TFL3" * 9, b"\x08\x00\x00\x00TFL3abc"])
def test_a_damaged_file_of_a_runtime_is_one_error(
    ending, module, data, tmp_path
):
    if not is_installed(module):
        pytest.skip(f"{module} is not installed")
    path = tmp_path / f"model{ending}"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=rf"model{ending}' cannot be read"):
        kc.read_card(path)


def test_a_folder_whose_card_is_no_file(tmp_path):
    path = tmp_path / "model"
    with pytest.raises(ValueError, match="model' cannot be read: there is no"):
        kc.read_card(path)
    (path / "assets").mkdir(parents=True)
    card = path / "assets" / "model_card.json"
    if Path("/dev/zero").exists():
        card.symlink_to("/dev/zero")
        with pytest.raises(ValueError, match="no model card"):
            kc.read_card(path)
        card.unlink()
    card.write_bytes(b" " * (2 << 20))
    with pytest.raises(ValueError, match="more than 1,048,576 bytes"):
        kc.read_card(path)


@pytest.mark.parametrize("name", ["model.h5", "model.keras"])
def test_a_missing_file_and_another_ending(name, tmp_path):
    match = {"model.h5": "ending of no format", "model.keras": "No such file"}
    with pytest.raises(ValueError, match=match[name]):
        kc.read_card(tmp_path / name)
