"""LiteRT's files as objects that can be changed."""

from pathlib import Path
from typing import Any

import numpy as np

# What every LiteRT file has from its fifth byte on.
IDENTIFIER = b"TFL3"


def schema() -> Any:
    """The module of the file's classes, of whichever package is there."""
    try:
        from ai_edge_litert import schema_py_generated
    except ModuleNotFoundError:
        from tensorflow.lite.python import schema_py_generated
    return schema_py_generated


def read_model(path: Path) -> Any:
    """A file as objects."""
    return schema().ModelT.InitFromPackedBuf(path.read_bytes(), 0)


def write_model(model: Any, path: Path) -> None:
    """Objects as a file."""
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    path.write_bytes(builder.Output())


def set_metadata(model: Any, texts: dict[str, str]) -> None:
    """Puts texts into the file's metadata, in the place of earlier ones."""
    classes = schema()
    kept = [x for x in model.metadata or [] if _text(x.name) not in texts]
    for name, text in texts.items():
        entry, buffer = classes.MetadataT(), classes.BufferT()
        buffer.data = np.frombuffer(text.encode(), dtype="uint8")
        model.buffers.append(buffer)
        entry.name, entry.buffer = name, len(model.buffers) - 1
        kept.append(entry)
    model.metadata = kept


def metadata(path: Path) -> dict[str, str]:
    """The texts in a file's metadata.

    Entries that are no text, such as the converter's own, are left out.
    """
    model = read_model(path)
    found = {}
    for entry in model.metadata or []:
        data = model.buffers[entry.buffer].data
        if data is not None and not _text(entry.name).isupper():
            found[_text(entry.name)] = bytes(bytearray(data)).decode(
                errors="replace"
            )
    return found


def operators(path: Path) -> dict[str, int]:
    """Which operators a file uses, and how often; custom ones by their name."""
    classes, model = schema(), read_model(path)
    names = {
        value: name
        for name, value in vars(classes.BuiltinOperator).items()
        if not name.startswith("_")
    }
    found: dict[str, int] = {}
    for graph in model.subgraphs:
        for operator in graph.operators:
            code = model.operatorCodes[operator.opcodeIndex]
            # Files of before 2020 have it in the other field.
            number = max(code.builtinCode, code.deprecatedBuiltinCode)
            custom = code.customCode
            name = _text(custom) if custom else names.get(number, str(number))
            found[name] = found.get(name, 0) + 1
    return found


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
