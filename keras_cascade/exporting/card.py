"""Makes the model card, and reads and writes it in each format.

Tested by `tests/exporting/test_exporter.py`.
"""

import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import keras

from keras_cascade._cascade_view import is_cascade
from keras_cascade._package.public import __version__
from keras_cascade._reporting.messages import listed, to_json
from keras_cascade.display.blocks import describe_blocks
from keras_cascade.exporting.formats import litert_file
from keras_cascade.exporting.options import ENDINGS, ExportOptions
from keras_cascade.exporting.port_names import port_names, renamed
from keras_cascade.graph.program import Program

CARD = "model_card.json"
LABELS = "labels.txt"
# A card has a few thousand bytes; a hostile file may claim any number.
_LARGEST = 1 << 20
_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# The errors of truncated and crafted files, in one format or another.
_DAMAGED = (
    AttributeError,
    EOFError,
    LookupError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
)


def make_card(
    model: keras.Model, program: Program, options: ExportOptions
) -> dict[str, Any]:
    """Returns the card of a file that has the program of a model."""
    cascade = model if is_cascade(model) else None
    names = port_names(program, options.format)
    program, labels = renamed(program, names), options.labels or {}
    return {
        "name": model.name,
        "inputs": {
            port.name: {"shape": list(port.shape), "dtype": port.dtype}
            for port in program.inputs
        },
        "outputs": {
            name: {"shape": list(shape)}
            for name, shape in output_shapes(program).items()
        },
        "renamed": names.changed,
        "labels": {names.outputs[k]: x for k, x in labels.items()} or None,
        "quantize": options.quantize,
        "input_dtype": options.input_dtype,
        "output_dtype": options.output_dtype,
        "blocks": describe_blocks(cascade) if cascade else [],
        "taps": dict(cascade.taps) if cascade else {},
        "versions": {"keras_cascade": __version__, "keras": keras.__version__},
    }


def output_shapes(program: Program) -> dict[str, tuple[int | None, ...]]:
    """Returns the shape of each output, with the batch."""
    return {name: program.shapes[x] for name, x in program.outputs.items()}


def put_card(path: Path, format: str, card: dict[str, Any]) -> None:
    """Writes a card, and its labels if there are any, into a file."""
    texts = {CARD: to_json(card)}
    if card.get("labels"):
        texts[LABELS] = _label_lines(card["labels"])
    _WRITERS[format](path, texts)


def read_card(path: Path | str, format: str | None = None) -> dict[str, Any]:
    """Reads the card of a file that `export` wrote.

    Args:
        path: The file.
        format: The format of the file. Defaults to `None`: by its ending.

    Raises:
        ValueError: The file has no card, or is missing or damaged, or its
            card has more than 1 MiB.
    """
    path = Path(path)
    kind = format or ENDINGS.get(path.suffix.lower())
    if kind not in _READERS:
        raise ValueError(
            f"'{path}' has the ending of no format with model cards. There "
            f"are: {listed(_READERS)}; pass one as `format`."
        )
    try:
        return _parsed(_READERS[kind](path))
    except _DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(
            f"The model card of '{path}' cannot be read: {reason}"
        ) from error


def _parsed(text: bytes | None) -> dict[str, Any]:
    if text is None:
        raise ValueError("the file has no model card.")
    if len(text) > _LARGEST:
        raise ValueError(f"it has more than {_LARGEST:,} bytes.")
    found = json.loads(text.decode())
    if not isinstance(found, dict):
        raise ValueError(f"it is no JSON object, but {type(found).__name__}.")
    return found


def _label_lines(labels: dict[str, list[str]]) -> str:
    """Returns a line for each label, after its output if there are several."""
    if len(labels) == 1:
        (lines,) = labels.values()
    else:
        lines = [f"{name}\t{x}" for name, own in labels.items() for x in own]
    return "\n".join(lines) + "\n"


def _write_folder(path: Path, texts: dict[str, str]) -> None:
    assets = path / "assets"
    assets.mkdir(exist_ok=True)
    for name, text in texts.items():
        (assets / name).write_text(text, encoding="utf-8")


def _write_litert(path: Path, texts: dict[str, str]) -> None:
    model = litert_file.read_model(path)
    litert_file.set_metadata(model, texts)
    litert_file.write_model(model, path)


def _write_onnx(path: Path, texts: dict[str, str]) -> None:
    import onnx

    # Weights in a file of their own stay there.
    model = onnx.load(path, load_external_data=False)
    kept = {x.key: x.value for x in model.metadata_props}
    onnx.helper.set_model_props(model, {**kept, **texts})
    onnx.save(model, path)


def _write_keras(path: Path, texts: dict[str, str]) -> None:
    # Keras ignores members of the archive that it does not know.
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
        for name, text in texts.items():
            archive.writestr(name, text)


def _write_torch(path: Path, texts: dict[str, str]) -> None:
    # `torch.export.load(extra_files=...)` reads from this folder.
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].partition("/")[0]
    _write_keras(path, {f"{root}/extra/{k}": x for k, x in texts.items()})


def _read_folder(path: Path) -> bytes | None:
    if not path.is_dir():
        raise ValueError("there is no such folder.")
    card = path / "assets" / CARD
    if not card.is_file():
        return None
    with card.open("rb") as stream:
        return stream.read(_LARGEST + 1)


def _read_litert(path: Path) -> bytes | None:
    return litert_file.metadata(path, CARD)


def _read_onnx(path: Path) -> bytes | None:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
    except DecodeError as error:
        raise ValueError("the file is no ONNX model.") from error
    found = {x.key: x.value for x in model.metadata_props}
    return found[CARD].encode() if CARD in found else None


def _read_zip(path: Path) -> bytes | None:
    with zipfile.ZipFile(path) as archive:
        found = [x for x in archive.infolist() if Path(x.filename).name == CARD]
        if not found:
            return None
        # Python would expand other kinds whole. These it expands as far as it
        # reads, and not beyond the size that the archive states.
        if found[-1].compress_type not in _PLAIN:
            raise ValueError("it is compressed in an unusual way.")
        with archive.open(found[-1]) as stream:
            return stream.read(_LARGEST + 1)


_WRITERS = {
    "saved_model": _write_folder,
    "tflite": _write_litert,
    "onnx": _write_onnx,
    "keras": _write_keras,
    "torch": _write_torch,
}
_READERS = {
    "saved_model": _read_folder,
    "tflite": _read_litert,
    "onnx": _read_onnx,
    "keras": _read_zip,
    "torch": _read_zip,
}
