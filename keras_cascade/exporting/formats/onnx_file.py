"""Writes an ONNX file with the running backend's own converter.

Tested by `tests/exporting/test_every_format.py`.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_cascade._interrupts.atomic_write import data_file
from keras_cascade.exporting.formats import onnx_recurrent
from keras_cascade.exporting.formats.saved_model import traced
from keras_cascade.exporting.formats.torch_program import exported
from keras_cascade.exporting.options import LARGEST
from keras_cascade.exporting.port_names import (
    PortNames,
    as_identifiers,
    renamed,
)
from keras_cascade.graph.program import Program

if TYPE_CHECKING:
    import onnx
    import onnx_ir
    import torch

Shape = tuple[int | None, ...]
# Torch's converter makes the arguments of an operation one dtype, but not those
# of its other names, which Keras calls: `x * 2` would multiply a float by an
# integer, which ONNX does not have.
_OTHER_NAMES = {
    "multiply": "mul",
    "subtract": "sub",
    "divide": "div",
    "true_divide": "div",
}
# All runtimes of recent years read this version of the operators.
OPSET = 18


def write(program: Program, path: Path) -> None:
    """Writes an ONNX file, whose open axes have names."""
    _WRITERS[keras.config.backend()](program, path)
    _name_axes(program, path)


def _by_jax2onnx(program: Program, path: Path) -> None:
    import jax
    import jax2onnx

    def answers(*tensors: jax.Array) -> tuple[jax.Array, ...]:
        found = program(*tensors)
        return tuple(found[name] for name in program.outputs)

    model = jax2onnx.to_onnx(
        answers,
        inputs=[
            jax.ShapeDtypeStruct(
                _symbolic(port.name, port.shape), np.dtype(port.dtype)
            )
            for port in program.inputs
        ],
        input_names=[port.name for port in program.inputs],
        output_names=list(program.outputs),
        return_mode="ir",
    )
    _save(model, path)


def _by_tf2onnx(program: Program, path: Path) -> None:
    import onnx
    import tf2onnx
    from tensorflow.python.framework.convert_to_constants import (
        convert_variables_to_constants_v2,
    )

    # tf2onnx's `from_function` loses constants that are no variables, such as
    # the mean of a Normalization.
    frozen = convert_variables_to_constants_v2(traced(program))
    inputs = [tensor.name for tensor in frozen.inputs]
    outputs = [tensor.name for tensor in frozen.outputs]
    written, _ = tf2onnx.convert.from_graph_def(
        frozen.graph.as_graph_def(),
        input_names=inputs,
        output_names=outputs,
        opset=OPSET,
    )
    # TensorFlow's names end in the number of an output, `image:0`, and a dict
    # of outputs is sorted by its keys.
    identifiers = _identifiers(program)
    own = {x: name for name, x in identifiers.items()}
    names = {name: own[name.partition(":")[0]] for name in inputs}
    names |= dict(zip(outputs, sorted(program.outputs), strict=True))
    _rename(written.graph, names)
    onnx.save(written, path)


def _rename(graph: "onnx.GraphProto", names: Mapping[str, str]) -> None:
    """Renames tensors everywhere in an ONNX graph."""
    for tensor in (*graph.input, *graph.output, *graph.value_info):
        tensor.name = names.get(tensor.name, tensor.name)
    for node in graph.node:
        node.input[:] = [names.get(name, name) for name in node.input]
        node.output[:] = [names.get(name, name) for name in node.output]


def _by_torch(program: Program, path: Path) -> None:
    import torch

    # They are arguments of a function before they are tensors of the file.
    outputs = {name: name for name in program.outputs}
    names = PortNames(_identifiers(program), outputs)
    traced_by_torch = exported(renamed(program, names))
    _use_first_names(traced_by_torch.graph)
    found: Any = torch.onnx.export(
        traced_by_torch,
        (),
        input_names=[port.name for port in program.inputs],
        output_names=list(program.outputs),
        opset_version=OPSET,
        dynamo=True,
        custom_translation_table=onnx_recurrent.translations(),
        verbose=False,
    )
    _save(found.model, path)


def _use_first_names(graph: "torch.fx.Graph") -> None:
    """Replaces operations by those of which they are other names."""
    import torch

    first_names = {}
    for name, first in _OTHER_NAMES.items():
        old, new = (getattr(torch.ops.aten, x) for x in (name, first))
        for overload in old.overloads():
            first_names[getattr(old, overload)] = getattr(new, overload)
    for node in graph.nodes:
        node.target = first_names.get(node.target, node.target)


def _save(model: "onnx_ir.Model", path: Path) -> None:
    """Writes a model; more weights than a file holds go to another one."""
    import onnx_ir

    weights = sum(
        value.const_value.nbytes
        for graph in model.graphs()
        for value in graph.initializers.values()
        if value.const_value is not None
    )
    is_large = weights > LARGEST["onnx"]
    data = data_file(path).name if is_large else None
    onnx_ir.save(model, path, external_data=data)


def renamed_pair(path: Path, name: str) -> Path:
    """Renames a file and that with its weights; returns the new path."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    renamed = path.with_name(name)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = data_file(renamed).name
    data_file(path).rename(data_file(renamed))
    onnx.save(model, renamed)
    return renamed


def _name_axes(program: Program, path: Path) -> None:
    """Names the open axes of a file: `batch`, and `image_1` of an input.

    Converters have names of their own for them, such as `unk__32`.
    """
    import onnx

    model = onnx.load(path, load_external_data=False)
    graph = model.graph
    shapes = {port.name: port.shape for port in program.inputs}
    shapes |= {name: program.shapes[x] for name, x in program.outputs.items()}
    names: dict[str, str] = {}
    for tensor in (*graph.input, *graph.output):
        own = _symbolic(tensor.name, shapes[tensor.name])
        for axis, name in zip(_axes(tensor), own, strict=False):
            # Some are computed from others: `2*s40`.
            if axis.dim_param.isidentifier():
                names.setdefault(axis.dim_param, str(name))
    if all(old == new for old, new in names.items()):
        return
    for tensor in (*graph.input, *graph.output, *graph.value_info):
        for axis in filter(lambda x: x.dim_param, _axes(tensor)):
            words = re.split(r"(\w+)", axis.dim_param)
            axis.dim_param = "".join(names.get(x, x) for x in words)
    onnx.save(model, path)


def _axes(
    tensor: "onnx.ValueInfoProto",
) -> "Sequence[onnx.TensorShapeProto.Dimension]":
    return tensor.type.tensor_type.shape.dim


def _identifiers(program: Program) -> dict[str, str]:
    return as_identifiers(port.name for port in program.inputs)


def _symbolic(name: str, shape: Shape) -> tuple[str | int, ...]:
    """Returns the shape of an input or output, its open axes as names."""
    return tuple(
        ("batch" if axis == 0 else f"{name}_{axis}") if size is None else size
        for axis, size in enumerate(shape)
    )


_WRITERS: dict[str, Callable[[Program, Path], None]] = {
    "jax": _by_jax2onnx,
    "tensorflow": _by_tf2onnx,
    "torch": _by_torch,
}


def operators(path: Path) -> dict[str, int]:
    """Counts the operators of a file."""
    import onnx

    model = onnx.load(path, load_external_data=False)
    graphs = (model.graph, *model.functions)
    return dict(Counter(x.op_type for graph in graphs for x in graph.node))
