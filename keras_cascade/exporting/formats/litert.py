"""Writes a LiteRT file (`.tflite`), on the TensorFlow backend.

Tested by `tests/exporting/test_quantized.py`.
"""

from pathlib import Path
from typing import Any

from keras_cascade.exporting.formats import litert_integers, saved_model
from keras_cascade.exporting.formats.errors import litert_error
from keras_cascade.exporting.options import ExportOptions
from keras_cascade.exporting.samples import Samples, calibration
from keras_cascade.graph.program import Program


def write(
    program: Program,
    path: Path,
    options: ExportOptions,
    samples: Samples | None,
) -> None:
    """Writes a file that LiteRT runs; `"int8"` is calibrated on `samples`."""
    with saved_model.temporary(program, path.parent) as source:
        path.write_bytes(_convert(source, options, samples))
    litert_integers.set_types(
        path, options.integer_inputs, options.integer_outputs, options.pixels
    )


def _convert(
    source: Path, options: ExportOptions, samples: Samples | None
) -> bytes:
    """Converts with TensorFlow's operators only if built-in ones are too few.

    An app has to link TensorFlow's operators, and no runtime for Python does.
    """
    from tensorflow.lite.python.convert_phase import ConverterError

    try:
        return make_converter(source, options, samples).convert()
    except ConverterError as error:
        # The errors of operators that only TensorFlow has name these words.
        if "Flex" not in str(error) and "Select" not in str(error):
            raise litert_error(str(error)) from error
    try:
        return make_converter(source, options, samples, select=True).convert()
    except ConverterError as error:
        raise litert_error(str(error)) from error


def make_converter(
    source: Path,
    options: ExportOptions,
    samples: Samples | None,
    select: bool = False,
) -> Any:
    """Returns TensorFlow's converter of a SavedModel, with its settings.

    `select` lets it use TensorFlow's operators beside the built-in ones.
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(source), signature_keys=[saved_model.SIGNATURE]
    )
    sets = tf.lite.OpsSet
    # Keras's own export lets files use TensorFlow's operators throughout.
    operators = [sets.TFLITE_BUILTINS]
    if options.quantize is not None:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
    if options.quantize == "float16":
        converter.target_spec.supported_types = [tf.float16]
    if options.quantize in ("int8", "mixed"):
        converter.representative_dataset = lambda: calibration(samples)
        operators = [sets.TFLITE_BUILTINS_INT8]
    if options.quantize == "mixed":
        operators.append(sets.TFLITE_BUILTINS)
    if select:
        operators.append(sets.SELECT_TF_OPS)
    converter.target_spec.supported_ops = operators
    return converter
