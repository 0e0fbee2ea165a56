"""The model card, and where each format keeps it."""

import json
import zipfile
from pathlib import Path
from typing import Any

import keras

from keras_cascade._messages import to_json
from keras_cascade._version import __version__
from keras_cascade.display.blocks import describe_blocks
from keras_cascade.exporting.formats import litert_file as flatbuffer
from keras_cascade.exporting.request import Request
from keras_cascade.graph.program import Program

CARD = "model_card.json"
LABELS = "labels.txt"


def make_card(model: Any, program: Program, request: Request) -> dict[str, Any]:
    """What a file is, in plain values.

    Args:
        model: The model that it was written from.
        program: What is in it.
        request: What was asked for.
    """
    return {
        "name": model.name,
        "inputs": {
            port.name: {"shape": list(port.shape), "dtype": port.dtype}
            for port in program.inputs
        },
        "outputs": {
            name: {"shape": list(program.shapes[reference])}
            for name, reference in program.outputs.items()
        },
        "labels": request.labels,
        "quantize": request.quantize,
        "input_dtype": request.input_dtype,
        "output_dtype": request.output_dtype,
        "blocks": describe_blocks(model) if hasattr(model, "blocks") else [],
        "taps": dict(getattr(model, "taps", {})),
        "versions": {
            "keras_cascade": __version__,
            "keras": keras.__version__,
        },
    }


def put_card(path: Path, format: str, card: dict[str, Any]) -> None:
    """Puts the card, and labels if there are any, into a file.

    Args:
        path: The file; an earlier card is replaced.
        format: Its format.
        card: As `make_card` gives it.
    """
    texts = {CARD: to_json(card)}
    if card.get("labels"):
        texts[LABELS] = _label_lines(card["labels"])
    _WRITERS[format](path, texts)


def read_card(path: Path | str, format: str | None = None) -> dict[str, Any]:
    """The card of a file that `export` wrote.

    Args:
        path: The file.
        format: Its format. Defaults to `None`: by its ending.

    Raises:
        ValueError: It has none.
    """
    from keras_cascade.exporting.request import ENDINGS

    path = Path(path)
    text = _READERS[format or ENDINGS[path.suffix]](path)
    if text is None:
        raise ValueError(f"'{path}' has no model card.")
    return json.loads(text)


def _label_lines(labels: dict[str, list[str]]) -> str:
    """A line a label; with several outputs, each under its name."""
    if len(labels) == 1:
        return "\n".join(next(iter(labels.values()))) + "\n"
    lines = [
        f"{output}\t{label}" for output, own in labels.items() for label in own
    ]
    return "\n".join(lines) + "\n"


def _into_folder(path: Path, texts: dict[str, str]) -> None:
    assets = path / "assets"
    assets.mkdir(exist_ok=True)
    for name, text in texts.items():
        (assets / name).write_text(text, encoding="utf-8")


def _into_flatbuffer(path: Path, texts: dict[str, str]) -> None:
    model = flatbuffer.read_model(path)
    flatbuffer.set_metadata(model, texts)
    flatbuffer.write_model(model, path)


def _into_onnx(path: Path, texts: dict[str, str]) -> None:
    import onnx

    model = onnx.load(path)
    kept = {x.key: x.value for x in model.metadata_props}
    onnx.helper.set_model_props(model, {**kept, **texts})
    onnx.save(model, path)


def _into_zip(path: Path, texts: dict[str, str]) -> None:
    """A new archive, as what is in one cannot be replaced."""
    changed = path.with_name(f"{path.name}.new")
    with (
        zipfile.ZipFile(path) as old,
        zipfile.ZipFile(changed, "w", zipfile.ZIP_STORED) as new,
    ):
        for entry in old.infolist():
            if entry.filename not in texts:
                new.writestr(entry, old.read(entry))
        for name, text in texts.items():
            new.writestr(name, text)
    changed.replace(path)


def _into_torch(path: Path, texts: dict[str, str]) -> None:
    """PyTorch looks for files of the user's under `extra/`, in its folder."""
    with zipfile.ZipFile(path) as archive:
        root = archive.namelist()[0].partition("/")[0]
    with zipfile.ZipFile(path, "a", zipfile.ZIP_STORED) as archive:
        for name, text in texts.items():
            entry = f"{root}/extra/{name}"
            if entry not in archive.namelist():
                archive.writestr(entry, text)


def _from_folder(path: Path) -> str | None:
    card = path / "assets" / CARD
    return card.read_text(encoding="utf-8") if card.is_file() else None


def _from_flatbuffer(path: Path) -> str | None:
    return flatbuffer.metadata(path).get(CARD)


def _from_onnx(path: Path) -> str | None:
    import onnx

    model = onnx.load(path, load_external_data=False)
    return {x.key: x.value for x in model.metadata_props}.get(CARD)


def _from_zip(path: Path) -> str | None:
    with zipfile.ZipFile(path) as archive:
        found = [x for x in archive.namelist() if Path(x).name == CARD]
        return archive.read(found[-1]).decode() if found else None


_WRITERS = {
    "saved_model": _into_folder,
    "tflite": _into_flatbuffer,
    "onnx": _into_onnx,
    "keras": _into_zip,
    "torch": _into_torch,
}
_READERS = {
    "saved_model": _from_folder,
    "tflite": _from_flatbuffer,
    "onnx": _from_onnx,
    "keras": _from_zip,
    "torch": _from_zip,
}
