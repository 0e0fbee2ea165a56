"""Checks the options of an export, before any work."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Real
from pathlib import Path
from typing import Any

from keras_cascade._reporting.messages import listed

# The ending of a path, and its format.
ENDINGS = {
    "": "saved_model",
    ".tflite": "tflite",
    ".onnx": "onnx",
    ".keras": "keras",
    ".pt2": "torch",
}
# The names that `keras.Model.export` has for the same formats.
_KERAS_NAMES = {"tf_saved_model": "saved_model", "litert": "tflite"}
# The most bytes of weights in a single file: protocol buffers and flatbuffers,
# which these files are, have at most 2 GiB with the graph and the model card.
LARGEST = {"onnx": 2**31 - 2**26, "tflite": 2**31 - 2**20}
# The formats that a converter writes, which may crash.
CONVERTED = ("tflite", "onnx")
FORMATS = tuple(ENDINGS.values())
QUANTIZATIONS = {
    "tflite": ("float16", "dynamic", "int8", "mixed"),
    "onnx": ("dynamic", "int8"),
}
# The dtypes of inputs and outputs of LiteRT files.
DTYPES = ("float32", "int8", "uint8")
NEED_CALIBRATION = ("int8", "mixed")
# The tolerated difference of a file's answers from the model's, in standard
# deviations of the model's answers.
TOLERANCES = {
    None: 1e-3,
    "float16": 5e-2,
    "dynamic": 5e-2,
    "int8": 1e-1,
    "mixed": 1e-1,
}
# 8 bits have outliers, so that the mean difference is bounded, not the largest.
_BOUND_BY_MEAN = ("dynamic", "int8", "mixed")
_SHAPES = Mapping[str, tuple[int | None, ...]]


@dataclass(frozen=True)
class ExportOptions:
    """The arguments of `export`, checked, with their defaults filled in."""

    path: Path
    format: str
    quantize: str | None = None
    input_dtype: str | Mapping[str, str] = "float32"
    output_dtype: str | Mapping[str, str] = "float32"
    # Name to dtype, of those that become integers, and which are pixels.
    integer_inputs: Mapping[str, str] = field(default_factory=dict)
    integer_outputs: Mapping[str, str] = field(default_factory=dict)
    pixels: tuple[str, ...] = ()
    # The backend that the model runs on.
    source: str = ""
    # None leaves the batch open.
    batch_size: int | None = None
    outputs: tuple[str, ...] = ()
    labels: Mapping[str, list[str]] | None = None
    tolerance: float = TOLERANCES[None]
    fold: bool = True
    timeout: float = 3600.0

    @property
    def by_mean(self) -> bool:
        """Whether the tolerance bounds the mean difference."""
        return self.quantize in _BOUND_BY_MEAN


def make_options(
    path: object,
    format: str | None = None,
    quantize: str | None = None,
    tolerance: float | None = None,
    input_dtype: str | Mapping[str, str] | None = None,
    output_dtype: str | Mapping[str, str] | None = None,
    fold: bool = True,
    timeout: float = 3600.0,
    batch_size: int | None = None,
) -> ExportOptions:
    """Checks the arguments that do not depend on the model.

    Raises:
        ValueError: An argument is not possible; the message says what is.
    """
    path = _checked_path(path)
    format = _checked_format(path, format)
    _check_quantization(format, quantize)
    _check_dtype("input_dtype", input_dtype, format, quantize)
    _check_dtype("output_dtype", output_dtype, format, quantize)
    tolerance = TOLERANCES[quantize] if tolerance is None else tolerance
    _check_positive("tolerance", tolerance)
    _check_positive("timeout", timeout)
    _check_batch_size(batch_size, format)
    return ExportOptions(
        path=path,
        format=format,
        quantize=quantize,
        input_dtype=input_dtype or "float32",
        output_dtype=output_dtype or "float32",
        batch_size=batch_size,
        tolerance=tolerance,
        fold=fold,
        timeout=timeout,
    )


def _checked_path(path: object) -> Path:
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise ValueError(
            "path is where the file goes, such as 'model.tflite'; received "
            f"{path!r}."
        )
    return Path(path).expanduser().absolute()


def _check_positive(name: str, value: object) -> None:
    number: Any = value if isinstance(value, Real) else None
    # NaN compares false, and is refused as well.
    if number is None or isinstance(value, bool) or not number > 0:
        raise ValueError(f"{name} is a number above 0; received {value!r}.")


def _check_batch_size(size: object, format: str) -> None:
    if size is None:
        return
    if not isinstance(size, int) or isinstance(size, bool) or size < 1:
        raise ValueError(
            f"batch_size is a whole number above 0; received {size!r}."
        )
    if format == "keras":
        raise ValueError(
            f"batch_size={size}: a '.keras' file has the inputs of its model, "
            "whose batch is open. Leave batch_size out."
        )


def _checked_format(path: Path, format: str | None) -> str:
    ending = path.suffix.lower()
    if format is None:
        if ending not in ENDINGS:
            raise ValueError(
                f"No format has the ending '{path.suffix}' of '{path.name}'. "
                f"There are: {listed(filter(None, ENDINGS))}, and none for a "
                f"SavedModel; or pass format=, one of {listed(FORMATS)}."
            )
        return ENDINGS[ending]
    if isinstance(format, str):
        format = _KERAS_NAMES.get(format, format)
    if not isinstance(format, str) or format not in FORMATS:
        raise ValueError(
            f"There is no format {format!r}. There are: {listed(FORMATS)}."
        )
    _check_ending(path, ending, format)
    return format


def _check_ending(path: Path, ending: str, format: str) -> None:
    """Raises a ValueError for an ending by which runtimes take another format.

    Unknown endings are fine, but `load_model` takes nothing but `.keras`.
    """
    other = ENDINGS.get(ending or "none", format)
    if other == format and (format != "keras" or ending == ".keras"):
        return
    own = next(x for x, name in ENDINGS.items() if name == format)
    raise ValueError(
        f"format={format!r}: '{path.name}' does not end like a file of that "
        f"format. Call it '{path.with_suffix(own).name}'"
        + (f", or pass format='{other}'." if other != format else ".")
    )


def _check_quantization(format: str, quantize: str | None) -> None:
    possible = QUANTIZATIONS.get(format, ())
    if quantize is None or quantize in possible:
        return
    if possible:
        raise ValueError(
            f"There is no quantization {quantize!r} for {format}. There are: "
            f"{listed(possible)}."
        )
    raise ValueError(
        f"quantize={quantize!r}: a file of format '{format}' is not quantized. "
        f"Those that can be: {listed(QUANTIZATIONS)}."
    )


def _check_dtype(
    name: str, given: object, format: str, quantize: str | None
) -> None:
    """Raises a ValueError for dtypes that no file of the format takes.

    Args:
        name: The argument, `input_dtype` or `output_dtype`.
        given: A dtype, or a mapping from names to dtypes.
        format: The format of the file.
        quantize: Its quantization.
    """
    dtypes = [*given.values()] if isinstance(given, Mapping) else [given]
    if all(dtype in (None, "float32") for dtype in dtypes):
        return
    # A mapping may repeat the dtype of an input that is no number of 8 bits.
    if not isinstance(given, Mapping) and given not in DTYPES:
        raise ValueError(
            f"{name} is one of {listed(DTYPES)}; received {given!r}."
        )
    if format != "tflite" or quantize != "int8":
        raise ValueError(
            f"{name}={given!r} needs a LiteRT file with quantize='int8'; the "
            f"format is '{format}', quantize={quantize!r}."
        )


def check_calibration(options: ExportOptions, data: object) -> None:
    """Raises a ValueError if calibration data is needed and missing."""
    if options.quantize in NEED_CALIBRATION and data is None:
        raise ValueError(
            f"quantize={options.quantize!r} needs calibration_data: a few "
            "hundred inputs like those to come, such as the training data."
        )


def check_size(options: ExportOptions, weights: int) -> None:
    """Raises a ValueError for more bytes of weights than a file can hold."""
    most = LARGEST.get(options.format)
    is_quantized = options.quantize is not None
    # ONNX keeps the weights in a file of their own, but is quantized from one.
    is_onnx = options.format == "onnx"
    if most is None or weights <= most or is_onnx != is_quantized:
        return
    other = "leave quantize out" if is_onnx else "pass quantize="
    raise ValueError(
        f"'{options.path.name}': the weights take {weights:,} bytes, and a "
        f"file of format '{options.format}' has at most {most:,}. Write a "
        f"SavedModel, or {other}."
    )


def check_outputs(outputs: object, known: Sequence[str]) -> tuple[str, ...]:
    """Returns the names of the outputs that are written, each once."""
    if outputs is None:
        return tuple(known)
    names = [outputs] if isinstance(outputs, str) else outputs
    if not isinstance(names, Sequence) or not names:
        raise ValueError(
            f"outputs={outputs!r}: pass one or more of {listed(known)}."
        )
    if unknown := [name for name in names if name not in known]:
        raise ValueError(
            f"There is no output {listed(unknown)}. The outputs are: "
            f"{listed(known)}."
        )
    return tuple(dict.fromkeys(names))


def check_labels(
    labels: object, shapes: _SHAPES
) -> dict[str, list[str]] | None:
    """Returns the names of the classes of each output that has them."""
    if labels is None:
        return None
    if not isinstance(labels, Mapping):
        if len(shapes) > 1:
            raise ValueError(
                "labels are a dict, {output: names}, where there are several "
                f"outputs: {listed(shapes)}."
            )
        labels = {next(iter(shapes)): labels}
    return {
        name: _class_names(name, names, shapes)
        for name, names in labels.items()
    }


def _class_names(name: str, names: object, shapes: _SHAPES) -> list[str]:
    if name not in shapes:
        raise ValueError(
            f"labels: there is no output '{name}'. The outputs are: "
            f"{listed(shapes)}."
        )
    if isinstance(names, str) or not isinstance(names, Iterable):
        raise ValueError(
            f"labels: output '{name}' needs a list of names; received "
            f"{names!r}."
        )
    found, width = [str(label) for label in names], shapes[name][-1]
    if len(found) != width:
        raise ValueError(
            f"labels: {len(found)} names for output '{name}', which has "
            f"{width} values."
        )
    return found


def common_batch_size(shapes: _SHAPES, batch_size: int | None) -> int | None:
    """Returns the size of all batches of a file; None if it is open.

    Raises:
        ValueError: The model takes batches of another size.
    """
    fixed = {shape[0]: name for name, shape in shapes.items() if shape[0]}
    if batch_size is None or not fixed or batch_size in fixed:
        return next(iter(fixed), batch_size)
    size, name = next(iter(fixed.items()))
    raise ValueError(
        f"batch_size={batch_size}: input '{name}' takes batches of {size}. "
        "Leave batch_size out."
    )
