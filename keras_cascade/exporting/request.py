"""What is asked for, checked before any work."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_cascade._messages import listed
from keras_cascade.graph.program import Port

# The ending of a path, and the format that it stands for.
ENDINGS = {
    "": "saved_model",
    ".tflite": "tflite",
    ".onnx": "onnx",
    ".keras": "keras",
    ".pt2": "torch",
}
# Keras's own words for the same.
_KERAS_NAMES = {"tf_saved_model": "saved_model", "litert": "tflite"}
FORMATS = tuple(ENDINGS.values())
QUANTIZATIONS = {
    "tflite": ("float16", "dynamic", "int8", "mixed"),
    "onnx": ("dynamic", "int8"),
}
INTEGER = ("int8", "mixed")
DTYPES = ("float32", "int8", "uint8")
# How far a file's answers may be from the model's, in deviations of the
# model's own: the largest difference, or of 8 bits, which have outliers, the
# mean one.
TOLERANCES = {
    None: 1e-3,
    "float16": 5e-2,
    "dynamic": 5e-2,
    "int8": 1e-1,
    "mixed": 1e-1,
}
BY_MEAN = ("dynamic", "int8", "mixed")


@dataclass(frozen=True)
class Request:
    """The arguments of `export`, normalised.

    Attributes:
        path: Where the file goes.
        format: One of `FORMATS`.
        quantize: One of the format's quantizations, or None.
        input_dtype: Of the file's inputs.
        output_dtype: Of its outputs.
        outputs: The names of the outputs that are written.
        labels: Output to the names of its classes.
        tolerance: How far the answers may be apart.
        fold: Whether linear layers are folded.
        timeout: Seconds that a child process may take.
    """

    path: Path
    format: str
    quantize: str | None = None
    input_dtype: str = "float32"
    output_dtype: str = "float32"
    outputs: tuple[str, ...] = ()
    labels: Mapping[str, list[str]] | None = None
    tolerance: float = TOLERANCES[None]
    fold: bool = True
    timeout: float = 3600.0

    @property
    def by_mean(self) -> bool:
        """Whether the tolerance bounds the mean difference."""
        return self.quantize in BY_MEAN


def make_request(
    path: Any,
    format: str | None,
    quantize: str | None,
    tolerance: float | None,
    input_dtype: str | None,
    output_dtype: str | None,
    fold: bool,
    timeout: float,
) -> Request:
    """Checks what does not depend on the model.

    Raises:
        ValueError: Something is not possible; the message says what is.
    """
    path = _checked_path(path)
    format = _format(path, format)
    _check_quantization(format, quantize)
    dtypes = {"input_dtype": input_dtype, "output_dtype": output_dtype}
    for name, dtype in dtypes.items():
        _check_dtype(name, dtype, format, quantize)
    for name, value in {"tolerance": tolerance, "timeout": timeout}.items():
        _check_positive(name, value)
    return Request(
        path=path,
        format=format,
        quantize=quantize,
        input_dtype=input_dtype or "float32",
        output_dtype=output_dtype or "float32",
        tolerance=TOLERANCES[quantize] if tolerance is None else tolerance,
        fold=fold,
        timeout=timeout,
    )


def _checked_path(path: Any) -> Path:
    if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
        raise ValueError(
            "path is where the file goes, such as 'model.tflite'; received "
            f"{path!r}."
        )
    return Path(path).expanduser().absolute()


def _check_positive(name: str, value: Any) -> None:
    if value is None and name == "tolerance":
        return
    is_number = isinstance(value, (int, float, np.number))
    if not is_number or isinstance(value, bool) or not value > 0:
        raise ValueError(f"{name} is a number above 0; received {value!r}.")


def _format(path: Path, format: str | None) -> str:
    ending = path.suffix.lower()
    if format is None:
        if ending not in ENDINGS:
            endings = ", ".join(f"'{x}'" for x in ENDINGS if x)
            raise ValueError(
                f"No format has the ending '{path.suffix}' of '{path.name}'. "
                f"There are: {endings}, and none for a SavedModel; or pass "
                f"format=, one of {listed(FORMATS)}."
            )
        return ENDINGS[ending]
    format = _KERAS_NAMES.get(format, format)
    if format not in FORMATS:
        raise ValueError(
            f"There is no format {format!r}. There are: {listed(FORMATS)}."
        )
    _check_ending(path, ending, format)
    return format


def _check_ending(path: Path, ending: str, format: str) -> None:
    """Runtimes, and people, go by the ending."""
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
    name: str, dtype: str | None, format: str, quantize: str | None
) -> None:
    if dtype is None or dtype == "float32":
        return
    if dtype not in DTYPES:
        raise ValueError(
            f"{name} is one of {listed(DTYPES)}; received {dtype!r}."
        )
    if format != "tflite" or quantize != "int8":
        raise ValueError(
            f"{name}={dtype!r} needs a LiteRT file with quantize='int8'; the "
            f"format is '{format}', quantize={quantize!r}."
        )


def half_tolerance(request: Request) -> float:
    """The tolerance for a model that itself is no more exact than float16."""
    return max(request.tolerance, TOLERANCES["float16"])


def check_calibration(request: Request, data: Any) -> None:
    """Whether there is data to calibrate on where it is needed."""
    if request.quantize in INTEGER and data is None:
        raise ValueError(
            f"quantize={request.quantize!r} needs calibration_data: a few "
            "hundred inputs like those to come, such as the training data."
        )


def check_outputs(
    outputs: str | Sequence[str] | None, known: Sequence[str]
) -> tuple[str, ...]:
    """The names of the outputs that are written."""
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
    labels: Any, shapes: Mapping[str, tuple[int | None, ...]]
) -> dict[str, list[str]] | None:
    """The names of the classes of each output."""
    if labels is None:
        return None
    if not isinstance(labels, Mapping):
        if len(shapes) > 1:
            raise ValueError(
                "labels are a dict, {output: names}, where there are several "
                f"outputs: {listed(shapes)}."
            )
        labels = {next(iter(shapes)): labels}
    found = {}
    for name, names in labels.items():
        if name not in shapes:
            raise ValueError(
                f"labels: there is no output '{name}'. The outputs are: "
                f"{listed(shapes)}."
            )
        if isinstance(names, str) or not isinstance(names, Iterable):
            raise ValueError(
                f"labels: those of output '{name}' are a list of names; "
                f"received {names!r}."
            )
        found[name] = [str(label) for label in names]
        width = shapes[name][-1]
        if len(found[name]) != width:
            raise ValueError(
                f"labels: {len(found[name])} names for output '{name}', which "
                f"has {width} values."
            )
    return found


def check_ports(ports: Sequence[Port], request: Request) -> None:
    """Whether the inputs can be quantized as asked for."""
    integer = [port.name for port in ports if "int" in port.dtype]
    if integer and request.input_dtype != "float32":
        raise ValueError(
            f"input_dtype={request.input_dtype!r}: the inputs "
            f"{listed(integer)} are integers already."
        )


def format_backend(format: str) -> tuple[str, ...]:
    """The backends that can write a format, the best first."""
    running = keras.config.backend()
    if format == "keras":
        return (running,)
    if format == "torch":
        return ("torch",)
    if format == "onnx":
        # torch's converter takes the most; jax2onnx almost as many.
        others = [x for x in ("torch", "jax", "tensorflow") if x != running]
        return (running, *others)
    return ("tensorflow",)
