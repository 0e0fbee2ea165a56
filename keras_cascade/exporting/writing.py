"""Writes a model in a format, on the running backend."""

from pathlib import Path
from typing import Any, NamedTuple

from keras_cascade.exporting.folding.rules import Folded
from keras_cascade.exporting.formats import (
    keras_file,
    litert,
    onnx_file,
    onnx_quantizing,
    saved_model,
    torch_program,
)
from keras_cascade.exporting.formats import litert_file as flatbuffer
from keras_cascade.exporting.formats.litert import Quantization
from keras_cascade.exporting.request import Request
from keras_cascade.exporting.samples import Samples


class Written(NamedTuple):
    """What is known of a file once it is written.

    Attributes:
        folded: What was folded, and how often.
        layers: Of `"mixed"`: a row a layer.
    """

    folded: dict[str, int]
    layers: list[dict[str, Any]]


def write(
    model: Any,
    frozen: Folded,
    path: Path,
    request: Request,
    samples: Samples | None,
) -> Written:
    """Writes a file.

    Args:
        model: The model.
        frozen: What of it is written.
        path: The file.
        request: What was asked for.
        samples: What 8 bits are calibrated on.
    """
    program, layers = frozen.program, []
    if request.format == "keras":
        keras_file.write(model, path, request.outputs)
        return Written({}, [])
    if request.format == "tflite":
        layers = litert.write(program, path, _quantization(request, samples))
    elif request.format == "onnx":
        onnx_file.write(program, path)
        onnx_quantizing.quantize(path, request.quantize, samples)
    elif request.format == "saved_model":
        saved_model.write(program, path)
    else:
        torch_program.write(program, path)
    return Written(frozen.counts, layers)


def operators(path: Path, format: str) -> dict[str, int]:
    """Which operators a file uses, and how often."""
    if format == "tflite":
        return flatbuffer.operators(path)
    if format == "onnx":
        return onnx_file.operators(path)
    return {}


def _quantization(request: Request, samples: Samples | None) -> Quantization:
    return Quantization(
        request.quantize, request.input_dtype, request.output_dtype, samples
    )
