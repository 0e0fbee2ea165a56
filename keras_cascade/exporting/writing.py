"""Writes a model in a format, on the running backend.

Tested by `tests/exporting/test_every_format.py`.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import keras

from keras_cascade.exporting.folding.rules import Folded
from keras_cascade.exporting.formats import (
    keras_file,
    litert,
    litert_file,
    litert_integers,
    litert_mixed,
    onnx_file,
    onnx_quantization,
    saved_model,
    torch_program,
)
from keras_cascade.exporting.formats.convertible import (
    convertible_operations,
)
from keras_cascade.exporting.formats.litert_integers import IntegerType
from keras_cascade.exporting.formats.steps import steps_as_samples
from keras_cascade.exporting.inference_program import with_batch_size
from keras_cascade.exporting.options import ExportOptions
from keras_cascade.exporting.port_names import (
    PortNames,
    port_names,
    renamed,
)
from keras_cascade.exporting.samples import Samples
from keras_cascade.graph.program import Program


class Written(NamedTuple):
    """The attributes of an `ExportReport` that only the writer knows."""

    folded: dict[str, int]
    layers: list[dict[str, Any]]


def write(
    model: keras.Model,
    frozen: Folded,
    path: Path,
    options: ExportOptions,
    samples: Samples | None,
) -> Written:
    """Writes a `.keras` file of the model, or another one of its program.

    8 bits are calibrated on `samples`.
    """
    if options.format == "keras":
        keras_file.write(model, path, options.outputs)
        return Written({}, [])
    names = port_names(frozen.program, options.format)
    program = renamed(frozen.program, names)
    program = with_batch_size(program, options.batch_size)
    own = _by_file_names(options, names)
    with convertible_operations(options), steps_as_samples(program):
        layers = _write(program, path, own, samples)
    return Written(frozen.counts, layers)


def _by_file_names(options: ExportOptions, names: PortNames) -> ExportOptions:
    """Returns the options with the names that ports have in the file."""
    inputs, outputs = options.integer_inputs, options.integer_outputs
    return replace(
        options,
        integer_inputs={names.inputs[k]: x for k, x in inputs.items()},
        integer_outputs={names.outputs[k]: x for k, x in outputs.items()},
        pixels=tuple(names.inputs[x] for x in options.pixels),
    )


def _write(
    program: Program,
    path: Path,
    options: ExportOptions,
    samples: Samples | None,
) -> list[dict[str, Any]]:
    """Writes a program; returns the layers of a mixed file."""
    if options.format == "saved_model":
        saved_model.write(program, path)
    elif options.format == "torch":
        torch_program.write(program, path)
    elif options.format == "onnx":
        onnx_file.write(program, path)
        onnx_quantization.quantize(path, options.quantize, samples)
    elif options.quantize == "mixed":
        return litert_mixed.write(program, path, options, samples)
    else:
        litert.write(program, path, options, samples)
    return []


def integer_types(
    path: Path, options: ExportOptions
) -> dict[str, dict[str, IntegerType]]:
    """Returns the integers that a file in 8 bits takes and gives, by name."""
    if options.quantize is None or options.format != "tflite":
        return {}
    return litert_integers.read_types(path)


def operators(path: Path, format: str) -> dict[str, int]:
    """Counts the operators of a file, for formats that name them."""
    if format == "tflite":
        return litert_file.operators(path)
    return onnx_file.operators(path) if format == "onnx" else {}
