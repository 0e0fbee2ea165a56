"""Writes a LiteRT file in 8 bits, with float16 where 8 bits hurt most.

TensorFlow's debugger runs each layer in 8 bits and in float32 on the same
input. The root mean square of the difference, in steps of the layer's scale,
is 0.29 where nothing but rounding is lost.

Tested by `tests/exporting/test_quantized.py`.
"""

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_cascade.exporting.formats import litert_file, saved_model
from keras_cascade.exporting.formats.litert import make_converter
from keras_cascade.exporting.options import ExportOptions
from keras_cascade.exporting.samples import Samples, calibration
from keras_cascade.graph.program import Program

# TensorFlow's guide to the debugger suggests this limit.
_ERROR_LIMIT = 0.7
# A constant with fewer values is not worth an operator.
_SMALLEST = 64
# The version of DEQUANTIZE that takes float16.
_DEQUANTIZE_VERSION = 3


def write(
    program: Program,
    path: Path,
    options: ExportOptions,
    samples: Samples | None,
) -> list[dict[str, Any]]:
    """Writes a file whose worst layers are stored in float16.

    Returns:
        A row for each layer, worst first: `layer`, `operator`, `error` in
        steps of its scale, `stored`.
    """
    import tensorflow as tf

    lite = tf.lite.experimental
    with saved_model.temporary(program, path.parent) as source:
        rows = _in_order_of_inputs(source, options, samples)

        def debugger(**more: object) -> Any:
            converter = make_converter(source, options, samples)
            return lite.QuantizationDebugger(
                converter=converter, debug_dataset=rows, **more
            )

        layers = _statistics(debugger())
        hurt = [row for row in layers if row["error"] > _ERROR_LIMIT]
        worst = [row["layer"] for row in hurt or layers[:1]]
        avoid = lite.QuantizationDebugOptions(denylisted_nodes=worst)
        second = debugger(debug_options=avoid)
        path.write_bytes(second.get_nondebug_quantized_model())
    store_in_float16(path)
    return [
        {**row, "stored": "float16" if row["layer"] in worst else "int8"}
        for row in layers
    ]


def _in_order_of_inputs(
    source: Path, options: ExportOptions, samples: Samples | None
) -> Callable[[], Iterator[list[np.ndarray]]]:
    """Returns a function that yields samples in the order of the inputs.

    The debugger takes lists, where the converter takes dicts by name.
    """
    import tensorflow as tf

    plain = make_converter(source, replace(options, quantize=None), None)
    interpreter = tf.lite.Interpreter(model_content=plain.convert())
    runner = interpreter.get_signature_runner(saved_model.SIGNATURE)
    names = {
        int(detail["index"]): name
        for name, detail in runner.get_input_details().items()
    }
    order = [names[int(x["index"])] for x in interpreter.get_input_details()]
    return lambda: (
        [batch[name] for name in order] for batch in calibration(samples)
    )


def _statistics(debugger: Any) -> list[dict[str, Any]]:
    """Runs the debugger; returns a row for each layer, worst first."""
    debugger.run()
    stream = io.StringIO()
    debugger.layer_statistics_dump(stream)
    rows = [
        {
            "layer": row["tensor_name"],
            "operator": row["op_name"],
            "error": float(row["mean_squared_error"]) ** 0.5
            / float(row["scale"]),
        }
        for row in csv.DictReader(stream.getvalue().splitlines())
    ]
    return sorted(rows, key=lambda row: -row["error"])


def store_in_float16(path: Path) -> None:
    """Halves a file: its float32 constants become float16.

    As in LiteRT's own float16 files, a DEQUANTIZE gives each constant in
    float32 to the operators that compute with it.
    """
    model = litert_file.read_model(path)
    for graph in model.subgraphs:
        _HalfConstants(model, graph).insert()
    litert_file.write_model(model, path)


class _HalfConstants:
    """Stores the large float32 constants of a subgraph in float16."""

    def __init__(self, model: litert_file.Model, graph: Any):
        self._model, self._graph = model, graph
        self._schema = litert_file.schema()
        # A constant's index to that of the same constant in float32.
        self._wide: dict[int, int] = {}

    def insert(self) -> None:
        """Inserts a DEQUANTIZE for each constant, before all operators."""
        for operator in self._graph.operators:
            inputs = [int(index) for index in operator.inputs]
            for index in inputs:
                if index not in self._wide and self._is_large(index):
                    self._wide[index] = self._halve(index)
            operator.inputs = [self._wide.get(i, i) for i in inputs]
        new = [self._dequantize(*pair) for pair in self._wide.items()]
        self._graph.operators = [*new, *self._graph.operators]

    def _is_large(self, index: int) -> bool:
        # -1 is an optional input that is left out.
        tensor = self._graph.tensors[index] if index >= 0 else None
        if not tensor or tensor.type != self._schema.TensorType.FLOAT32:
            return False
        data = self._model.buffers[tensor.buffer].data
        return data is not None and len(data) >= 4 * _SMALLEST

    def _halve(self, index: int) -> int:
        """Returns the index of a new tensor that has the constant unhalved."""
        kinds, tensors = self._schema.TensorType, self._graph.tensors
        tensor, wide = tensors[index], self._schema.TensorT()
        name = tensor.name or b""
        name = name if isinstance(name, bytes) else name.encode()
        wide.name, wide.buffer = name + b"_float32", 0
        wide.shape, wide.type = tensor.shape, kinds.FLOAT32
        tensors.append(wide)
        values = np.array(self._model.buffers[tensor.buffer].data, "uint8")
        half = values.view("float32").astype("float16")
        # A new buffer: other tensors may share the old one.
        tensor.buffer = litert_file.add_buffer(self._model, half)
        tensor.type = kinds.FLOAT16
        return len(tensors) - 1

    def _dequantize(self, source: int, target: int) -> Any:
        operator = self._schema.OperatorT()
        operator.opcodeIndex = litert_file.operator_code(
            self._model,
            self._schema.BuiltinOperator.DEQUANTIZE,
            _DEQUANTIZE_VERSION,
        )
        operator.inputs, operator.outputs = [source], [target]
        return operator
