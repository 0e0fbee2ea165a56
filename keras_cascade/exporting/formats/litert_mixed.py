"""8 bits for most layers, float16 for those that 8 bits hurt most.

TensorFlow's debugger runs each layer in 8 bits and in float32 on the same
input. The root mean square of the difference, in steps of the layer's scale,
is 0.29 where nothing but rounding is lost.
"""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np

from keras_cascade.exporting.formats import litert_file as flatbuffer
from keras_cascade.exporting.formats.litert import (
    CALIBRATION_SAMPLES,
    Quantization,
    in_order,
    make_converter,
)
from keras_cascade.exporting.formats.saved_model import SIGNATURE

# What TensorFlow's guide to the debugger takes for a layer that is hurt.
ERROR_LIMIT = 0.7
# A constant with fewer values is not worth an operator.
SMALLEST = 64
# The version of DEQUANTIZE that takes float16.
_DEQUANTIZE_VERSION = 3


def write_mixed(
    source: Path, path: Path, quantization: Quantization
) -> list[dict[str, Any]]:
    """Writes a file whose worst layers are stored in float16.

    Args:
        source: A SavedModel.
        path: The file.
        quantization: How numbers are stored.

    Returns:
        A row a layer, worst first: `layer`, `operator`, `error` in steps of
        its scale, `stored`.
    """
    import tensorflow as tf

    lite = tf.lite.experimental
    samples = _debug_samples(source, quantization)
    first = lite.QuantizationDebugger(
        converter=make_converter(source, quantization), debug_dataset=samples
    )
    first.run()
    rows = _rows(first)
    worst = _worst(rows)
    second = lite.QuantizationDebugger(
        converter=make_converter(source, quantization),
        debug_dataset=samples,
        debug_options=lite.QuantizationDebugOptions(denylisted_nodes=worst),
    )
    path.write_bytes(second.get_nondebug_quantized_model())
    store_in_float16(path)
    return [
        {**row, "stored": "float16" if row["layer"] in worst else "int8"}
        for row in rows
    ]


def _debug_samples(source: Path, quantization: Quantization) -> Any:
    """The samples as lists, in the order of the file's inputs."""
    import tensorflow as tf

    content = make_converter(source, Quantization()).convert()
    interpreter = tf.lite.Interpreter(model_content=content)
    details = interpreter.get_signature_runner(SIGNATURE).get_input_details()
    names = {int(detail["index"]): name for name, detail in details.items()}
    order = [names[int(x["index"])] for x in interpreter.get_input_details()]
    samples = quantization.samples
    if samples is None:
        raise ValueError("8 bits need samples to calibrate on.")
    return lambda: (
        in_order(batch, order) for batch in samples.single(CALIBRATION_SAMPLES)
    )


def _rows(debugger: Any) -> list[dict[str, Any]]:
    """The debugger's statistics, worst first."""
    stream = io.StringIO()
    debugger.layer_statistics_dump(stream)
    stream.seek(0)
    rows = [
        {
            "layer": row["tensor_name"],
            "operator": row["op_name"],
            "error": float(row["mean_squared_error"]) ** 0.5
            / float(row["scale"]),
        }
        for row in csv.DictReader(stream)
    ]
    return sorted(rows, key=lambda row: -row["error"])


def _worst(rows: list[dict[str, Any]]) -> list[str]:
    """The layers beyond the limit, or else the worst one."""
    beyond = [row["layer"] for row in rows if row["error"] > ERROR_LIMIT]
    return beyond or [row["layer"] for row in rows[:1]]


def store_in_float16(path: Path) -> None:
    """Stores the constants that are float32 as float16, which halves them.

    It is what LiteRT's own float16 files look like: a DEQUANTIZE gives each
    constant to whoever computes with it, in float32.

    Args:
        path: A file, which is changed.
    """
    model = flatbuffer.read_model(path)
    for graph in model.subgraphs:
        _halve(model, graph)
    flatbuffer.write_model(model, path)


def _halve(model: Any, graph: Any) -> None:
    classes = flatbuffer.schema()
    made: dict[int, int] = {}
    new = []
    for operator in graph.operators:
        inputs = [int(index) for index in operator.inputs]
        for index in dict.fromkeys(inputs):
            if index not in made and _is_large_constant(model, graph, index):
                made[index] = _add_dequantized(model, graph, index)
                new.append(_dequantize(model, index, made[index], classes))
        operator.inputs = [made.get(index, index) for index in inputs]
    graph.operators = [*new, *graph.operators]


def _is_large_constant(model: Any, graph: Any, index: int) -> bool:
    classes = flatbuffer.schema()
    tensor = graph.tensors[index] if index >= 0 else None
    if tensor is None or tensor.type != classes.TensorType.FLOAT32:
        return False
    data = model.buffers[tensor.buffer].data
    return data is not None and len(data) >= 4 * SMALLEST


def _add_dequantized(model: Any, graph: Any, index: int) -> int:
    """Stores a constant in float16; gives the tensor that has it in float32."""
    classes = flatbuffer.schema()
    tensor = graph.tensors[index]
    wide = classes.TensorT()
    wide.shape, wide.type = tensor.shape, classes.TensorType.FLOAT32
    wide.name, wide.buffer = _name(tensor) + b"_float32", 0
    graph.tensors.append(wide)
    values = np.array(model.buffers[tensor.buffer].data, dtype="uint8")
    half = values.view("float32").astype("float16")
    buffer = classes.BufferT()
    buffer.data = half.view("uint8")
    model.buffers.append(buffer)
    tensor.buffer = len(model.buffers) - 1
    tensor.type = classes.TensorType.FLOAT16
    return len(graph.tensors) - 1


def _dequantize(model: Any, source: int, target: int, classes: Any) -> Any:
    operator = classes.OperatorT()
    operator.opcodeIndex = _operator_code(model, classes)
    operator.inputs, operator.outputs = [source], [target]
    return operator


def _operator_code(model: Any, classes: Any) -> int:
    number = classes.BuiltinOperator.DEQUANTIZE
    for place, code in enumerate(model.operatorCodes):
        if code.builtinCode == number:
            code.version = max(code.version, _DEQUANTIZE_VERSION)
            return place
    code = classes.OperatorCodeT()
    code.builtinCode = code.deprecatedBuiltinCode = number
    code.version = _DEQUANTIZE_VERSION
    model.operatorCodes.append(code)
    return len(model.operatorCodes) - 1


def _name(tensor: Any) -> bytes:
    name = tensor.name or b""
    return name if isinstance(name, bytes) else name.encode()
