"""Writes a LiteRT file (`.tflite`), on the TensorFlow backend."""

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from keras_cascade.exporting.formats import saved_model
from keras_cascade.exporting.samples import Batch, Samples
from keras_cascade.graph.program import Program

# What 8 bits are spread over is seen on so many samples at most.
CALIBRATION_SAMPLES = 512


@dataclass(frozen=True)
class Quantization:
    """How the numbers of a file are stored.

    Attributes:
        kind: None (float32), `"float16"`, `"dynamic"` (8-bit weights),
            `"int8"` (everything in 8 bits), `"mixed"` (the worst layers in
            float16).
        input_dtype: Of the file's inputs: `"float32"`, `"int8"`, `"uint8"`.
        output_dtype: Of its outputs, likewise.
        samples: What int8 and mixed are calibrated on.
    """

    kind: str | None = None
    input_dtype: str = "float32"
    output_dtype: str = "float32"
    samples: Samples | None = None

    @property
    def is_integer(self) -> bool:
        """Whether what layers give is stored in 8 bits."""
        return self.kind in ("int8", "mixed")


def write(
    program: Program, path: Path, quantization: Quantization
) -> list[dict[str, Any]]:
    """Writes a file that LiteRT runs.

    Args:
        program: What is written, on TensorFlow's variables.
        path: The file.
        quantization: How its numbers are stored.

    Returns:
        Of `"mixed"`, a row a layer: its error, and what it is stored in.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        source = Path(folder, "saved_model")
        saved_model.write(program, source)
        if quantization.kind == "mixed":
            from keras_cascade.exporting.formats.litert_mixed import write_mixed

            return write_mixed(source, path, quantization)
        path.write_bytes(_convert(source, quantization))
    return []


def _convert(source: Path, quantization: Quantization) -> bytes:
    """With built-in operators if they suffice, else with TensorFlow's too."""
    from tensorflow.lite.python.convert_phase import ConverterError

    try:
        return make_converter(source, quantization).convert()
    except ConverterError as error:
        if "Flex" not in str(error) and "Select" not in str(error):
            raise
    return make_converter(source, quantization, select=True).convert()


def make_converter(
    source: Path, quantization: Quantization, select: bool = False
) -> Any:
    """TensorFlow's converter, set to what is wanted.

    Args:
        source: A SavedModel.
        quantization: How numbers are stored.
        select: Whether TensorFlow's operators may be used beside the
            built-in ones. Defaults to `False`.
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(source), signature_keys=[saved_model.SIGNATURE]
    )
    sets = tf.lite.OpsSet
    builtin = sets.TFLITE_BUILTINS
    kind = quantization.kind
    if kind is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if kind == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if quantization.is_integer:
        converter.representative_dataset = lambda: _representative(quantization)
        builtin = sets.TFLITE_BUILTINS_INT8
    operators = [builtin]
    if kind == "mixed":
        operators.append(sets.TFLITE_BUILTINS)
    if kind == "int8":
        converter.inference_input_type = _type(quantization.input_dtype)
        converter.inference_output_type = _type(quantization.output_dtype)
    converter.target_spec.supported_ops = (
        [*operators, sets.SELECT_TF_OPS] if select else operators
    )
    return converter


def _representative(quantization: Quantization) -> Any:
    if quantization.samples is None:
        raise ValueError("8 bits need samples to calibrate on.")
    return quantization.samples.single(CALIBRATION_SAMPLES)


def _type(dtype: str) -> Any:
    import tensorflow as tf

    return tf.as_dtype(dtype)


def in_order(batch: Batch, names: list[str]) -> list[Any]:
    """The arrays of a batch in an order of names."""
    return [batch[name] for name in names]
