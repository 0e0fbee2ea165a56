"""Makes the model card, and reads and writes it in each format.

Tested by `tests/exporting/test_exporter.py`.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

import keras

from keras_cascade._cascade_view import is_cascade
from keras_cascade._messages import to_json
from keras_cascade._public import __version__
from keras_cascade.display.blocks import describe_blocks
from keras_cascade.exporting.formats import litert_file
from keras_cascade.exporting.options import ENDINGS, ExportOptions
from keras_cascade.exporting.port_names import port_names, renamed
from keras_cascade.graph.program import Program

CARD = "model_card.json"
LABELS = "labels.txt"


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
        ValueError: The file has no card.
    """
    path = Path(path)
    text = _READERS[format or ENDINGS[path.suffix]](path)
    if text is None:
        raise ValueError(f"'{path}' has no model card.")
    return json.loads(text)


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

    model = onnx.load(path)
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


def _read_folder(path: Path) -> str | None:
    card = path / "assets" / CARD
    return card.read_text(encoding="utf-8") if card.is_file() else None


def _read_litert(path: Path) -> str | None:
    return litert_file.metadata(path).get(CARD)


def _read_onnx(path: Path) -> str | None:
    import onnx

    model = onnx.load(path, load_external_data=False)
    return {x.key: x.value for x in model.metadata_props}.get(CARD)


def _read_zip(path: Path) -> str | None:
    with zipfile.ZipFile(path) as archive:
        found = [x for x in archive.namelist() if Path(x).name == CARD]
        return archive.read(found[-1]).decode() if found else None


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
