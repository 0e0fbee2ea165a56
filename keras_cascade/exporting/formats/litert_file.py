"""Reads and changes LiteRT files as objects of their flatbuffer schema."""

from collections import Counter
from pathlib import Path
from typing import Any, Protocol

import numpy as np

# The bytes from the fifth one on, by which runtimes know the format.
IDENTIFIER = b"TFL3"


class Model(Protocol):
    """The members of the schema's `ModelT` that this package uses."""

    buffers: list[Any]
    metadata: list[Any] | None
    operatorCodes: list[Any]  # noqa: N815, the schema's name
    signatureDefs: list[Any]  # noqa: N815, the schema's name
    subgraphs: list[Any]

    def Pack(self, builder: object) -> int:  # noqa: N802, the schema's name
        """Writes the model into a flatbuffer."""
        ...


def schema() -> Any:
    """Imports the classes of the schema, of whichever package has them."""
    try:
        from ai_edge_litert import schema_py_generated
    except ModuleNotFoundError:
        from tensorflow.lite.python import schema_py_generated
    return schema_py_generated


def read_model(path: Path) -> Model:
    """Reads a file as objects."""
    return schema().ModelT.InitFromPackedBuf(path.read_bytes(), 0)


def write_model(model: Model, path: Path) -> None:
    """Writes objects as a file."""
    import flatbuffers

    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=IDENTIFIER)
    path.write_bytes(builder.Output())


def add_buffer(model: Model, data: np.ndarray) -> int:
    """Adds bytes to a model; returns the index of their buffer."""
    buffer = schema().BufferT()
    buffer.data = data.view("uint8")
    model.buffers.append(buffer)
    return len(model.buffers) - 1


def operator_code(model: Model, number: int, version: int = 1) -> int:
    """Returns the index of a built-in operator, which is added if missing.

    Args:
        model: The model.
        number: The number of the operator in the schema.
        version: The least version of the operator. Defaults to 1.
    """
    codes = model.operatorCodes
    found = [x for x in codes if x.builtinCode == number]
    code = found[0] if found else schema().OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = number
    code.version = max(code.version, version)
    if not found:
        codes.append(code)
    return codes.index(code)


def set_metadata(model: Model, texts: dict[str, str]) -> None:
    """Puts texts into the metadata, in the place of earlier ones."""
    kept = [x for x in model.metadata or [] if text(x.name) not in texts]
    for name, value in texts.items():
        entry = schema().MetadataT()
        data = np.frombuffer(value.encode(), dtype="uint8")
        entry.name, entry.buffer = name, add_buffer(model, data)
        kept.append(entry)
    model.metadata = kept


def metadata(path: Path, wanted: str) -> bytes | None:
    """Returns an entry of the metadata of a file; None if it has none.

    Only the pages of the file that lead there are read.

    Raises:
        ValueError: The file is not of this format.
    """
    data = np.memmap(path, mode="r")
    if bytes(data[4:8]) != IDENTIFIER:
        raise ValueError("the file is no LiteRT model.")
    model = schema().Model.GetRootAsModel(data, 0)
    for place in range(model.MetadataLength()):
        entry = model.Metadata(place)
        if entry.Name() == wanted.encode():
            return bytes(model.Buffers(entry.Buffer()).DataAsNumpy())
    return None


def operators(path: Path) -> dict[str, int]:
    """Counts the operators of a file; custom ones have names of their own."""
    model = read_model(path)
    builtin = vars(schema().BuiltinOperator).items()
    names = {n: name for name, n in builtin if not name.startswith("_")}
    used = [
        model.operatorCodes[operator.opcodeIndex]
        for graph in model.subgraphs
        for operator in graph.operators
    ]
    return dict(Counter(_operator_name(code, names) for code in used))


def _operator_name(code: Any, names: dict[int, str]) -> str:
    if code.customCode:
        return text(code.customCode)
    # Files from before 2020 have the number in the other field.
    number = max(code.builtinCode, code.deprecatedBuiltinCode)
    return names.get(number, str(number))


def text(value: bytes | str) -> str:
    """Returns a name of the schema as text."""
    return value.decode() if isinstance(value, bytes) else str(value)
