"""Gives inputs and outputs of a LiteRT file in 8 bits integer types.

The converter writes floating inputs that are quantized at once, and can change
all of them or none. Here each has a type of its own, and a scale of its own.

Tested by `tests/exporting/test_integer_types.py`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_cascade.exporting.formats import litert_file

# The zero point of pixels: zero is the least number of the type.
_PIXEL_ZERO = {"uint8": 0, "int8": -128}


@dataclass(frozen=True)
class IntegerType:
    """Integers that stand for numbers: `scale * (integer - zero_point)`.

    Attributes:
        dtype: `"int8"` or `"uint8"`.
        scale: The number that a step of one stands for.
        zero_point: The integer that stands for zero.
    """

    dtype: str
    scale: float
    zero_point: int


def set_types(
    path: Path,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    pixels: tuple[str, ...] = (),
) -> None:
    """Changes the types of some inputs and outputs of a file in 8 bits.

    Args:
        path: The file, in int8 with floating inputs and outputs.
        inputs: Input name to `"int8"` or `"uint8"`.
        outputs: Output name, likewise.
        pixels: The inputs whose scale is one.

    Raises:
        RuntimeError: The file computes with one of them in float32.
    """
    if not inputs and not outputs:
        return
    model = litert_file.read_model(path)
    ports = _Ports(model)
    for name, dtype in inputs.items():
        ports.set_input(name, dtype, name in pixels)
    for name, dtype in outputs.items():
        ports.set_output(name, dtype)
    litert_file.write_model(model, path)


def read_types(path: Path) -> dict[str, dict[str, IntegerType]]:
    """Returns the integer types of a file's `inputs` and `outputs`."""
    model = litert_file.read_model(path)
    kinds = {number: name for name, number in _numbers().items()}
    return {
        side: {
            name: IntegerType(
                kinds[tensor.type],
                float(tensor.quantization.scale[0]),
                int(tensor.quantization.zeroPoint[0]),
            )
            for name, tensor in _named(model, side)
            if tensor.type in kinds and _is_quantized(tensor)
        }
        for side in ("inputs", "outputs")
    }


def _numbers() -> dict[str, int]:
    """Returns the schema's numbers of the integer types."""
    kinds = litert_file.schema().TensorType
    return {"int8": kinds.INT8, "uint8": kinds.UINT8}


def _named(model: litert_file.Model, side: str) -> Iterator[tuple[str, Any]]:
    """Yields the inputs or outputs of the signature, by name."""
    for signature in model.signatureDefs:
        tensors = model.subgraphs[signature.subgraphIndex].tensors
        for entry in getattr(signature, side):
            yield litert_file.text(entry.name), tensors[entry.tensorIndex]


def _is_quantized(tensor: Any) -> bool:
    found = tensor.quantization
    scale = None if found is None else found.scale
    return scale is not None and len(scale) > 0


class _Ports:
    """The inputs and outputs of the first subgraph, and their operators."""

    def __init__(self, model: litert_file.Model):
        self._model, self._graph = model, model.subgraphs[0]
        self._numbers = _numbers()
        builtin = litert_file.schema().BuiltinOperator
        self._quantize, self._dequantize = (
            litert_file.operator_code(model, number)
            for number in (builtin.QUANTIZE, builtin.DEQUANTIZE)
        )

    def set_input(self, name: str, dtype: str, is_pixels: bool) -> None:
        """Makes an input integers, of pixels or of calibrated numbers."""
        index, tensor = self._find("inputs", name)
        takers = [x for x in self._graph.operators if index in list(x.inputs)]
        if any(x.opcodeIndex != self._quantize for x in takers) or not takers:
            raise self._is_floating("input", name, dtype)
        inner = self._tensor(takers[0].outputs[0])
        self._set(tensor, inner, dtype)
        if is_pixels:
            tensor.quantization.scale = [1.0]
            tensor.quantization.zeroPoint = [_PIXEL_ZERO[dtype]]
        for taker in takers:
            self._drop_if_same(taker, taker.outputs[0], index)

    def set_output(self, name: str, dtype: str) -> None:
        """Makes an output integers of the scale that it is computed in."""
        index, tensor = self._find("outputs", name)
        (giver,) = [x for x in self._graph.operators if index in x.outputs]
        if giver.opcodeIndex != self._dequantize:
            raise self._is_floating("output", name, dtype)
        inner = giver.inputs[0]
        self._set(tensor, self._tensor(inner), dtype)
        giver.opcodeIndex, giver.builtinOptions = self._quantize, None
        giver.builtinOptionsType = 0
        if inner not in list(self._graph.inputs):
            self._drop_if_same(giver, inner, index)

    def _find(self, side: str, name: str) -> tuple[int, Any]:
        for key, tensor in _named(self._model, side):
            if key == name:
                return self._graph.tensors.index(tensor), tensor
        raise RuntimeError(f"The converter left '{name}' out of the {side}.")

    def _tensor(self, index: int) -> Any:
        return self._graph.tensors[index]

    def _set(self, tensor: Any, inner: Any, dtype: str) -> None:
        """Gives a tensor the numbers of an inner one, which is int8."""
        quantization = litert_file.schema().QuantizationParametersT()
        shift = 128 if dtype == "uint8" else 0
        zero = int(inner.quantization.zeroPoint[0]) + shift
        quantization.scale = [float(inner.quantization.scale[0])]
        quantization.zeroPoint = [zero]
        tensor.quantization = quantization
        tensor.type = self._numbers[dtype]

    def _drop_if_same(self, operator: Any, inner: int, kept: int) -> None:
        """Drops an operator that quantizes to the numbers it is given."""
        first, second = self._tensor(inner), self._tensor(kept)
        numbers = [
            (x.type, x.quantization.scale[0], x.quantization.zeroPoint[0])
            for x in (first, second)
        ]
        if numbers[0] != numbers[1] or inner in list(self._graph.outputs):
            return
        self._graph.operators.remove(operator)
        for x in self._graph.operators:
            x.inputs = [kept if int(i) == inner else int(i) for i in x.inputs]
            x.outputs = [kept if int(i) == inner else int(i) for i in x.outputs]

    def _is_floating(self, side: str, name: str, dtype: str) -> RuntimeError:
        return RuntimeError(
            f"{side}_dtype={dtype!r}: LiteRT computes with {side} '{name}' in "
            "float32. Leave it floating: name the others in a mapping."
        )
