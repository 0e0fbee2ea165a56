"""Writes an ONNX file, on any backend, by its own converter."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_cascade.exporting.formats.saved_model import traced
from keras_cascade.exporting.formats.torch_program import exported
from keras_cascade.graph.program import Port, Program

# What all runtimes of the last years read.
OPSET = 18


def write(program: Program, path: Path) -> None:
    """Writes an ONNX file with an open batch.

    Args:
        program: What is written, on the running backend's variables.
        path: The file.
    """
    _WRITERS[keras.config.backend()](program, path)


def _by_jax2onnx(program: Program, path: Path) -> None:
    import jax
    import jax2onnx

    def answers(*tensors: Any) -> tuple[Any, ...]:
        found = program(*tensors)
        return tuple(found[name] for name in program.outputs)

    jax2onnx.to_onnx(
        answers,
        inputs=[
            jax.ShapeDtypeStruct(_symbolic(port), np.dtype(port.dtype))
            for port in program.inputs
        ],
        input_names=[port.name for port in program.inputs],
        output_names=list(program.outputs),
        return_mode="file",
        output_path=str(path),
        # One file, whatever its size.
        export_mode="web",
    )


def _by_tf2onnx(program: Program, path: Path) -> None:
    import onnx
    import tf2onnx
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    # Its own `from_function` loses constants that are no variables.
    frozen = convert_variables_to_constants_v2(traced(program))
    inputs = [tensor.name for tensor in frozen.inputs]
    outputs = [tensor.name for tensor in frozen.outputs]
    written, _ = tf2onnx.convert.from_graph_def(
        frozen.graph.as_graph_def(),
        input_names=inputs,
        output_names=outputs,
        opset=OPSET,
    )
    names = {name: name.partition(":")[0] for name in inputs}
    names |= dict(zip(outputs, sorted(program.outputs), strict=True))
    _rename(written.graph, names)
    onnx.save(written, path)


def _rename(graph: Any, names: Mapping[str, str]) -> None:
    """Calls tensors otherwise, everywhere in an ONNX graph."""
    for tensor in (*graph.input, *graph.output, *graph.value_info):
        tensor.name = names.get(tensor.name, tensor.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]


def _by_torch(program: Program, path: Path) -> None:
    import torch

    torch.onnx.export(
        exported(program),
        (),
        path,
        output_names=list(program.outputs),
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
    )


def _symbolic(port: Port) -> tuple[str | int, ...]:
    return tuple(
        ("batch" if axis == 0 else f"{port.name}_{axis}")
        if size is None
        else size
        for axis, size in enumerate(port.shape)
    )


_WRITERS: dict[str, Callable[[Program, Path], None]] = {
    "jax": _by_jax2onnx,
    "tensorflow": _by_tf2onnx,
    "torch": _by_torch,
}


def operators(path: Path) -> dict[str, int]:
    """Which operators a file uses, and how often."""
    import onnx

    found: dict[str, int] = {}
    model = onnx.load(path, load_external_data=False)
    for graph in (model.graph, *model.functions):
        for node in graph.node:
            found[node.op_type] = found.get(node.op_type, 0) + 1
    return found
