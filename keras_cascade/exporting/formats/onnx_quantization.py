"""Stores ONNX files in 8 bits, by onnxruntime's quantizer.

Tested by `tests/exporting/test_quantized.py`.
"""

import tempfile
from pathlib import Path

import numpy as np

from keras_cascade.exporting.samples import Samples, calibration


def quantize(path: Path, kind: str | None, samples: Samples | None) -> None:
    """Stores the weights of a file in 8 bits, or everything with `"int8"`.

    Its inputs and outputs stay floating-point. None leaves the file as it is.
    """
    if kind is None:
        return
    from onnxruntime.quantization.shape_inference import quant_pre_process

    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        prepared, result = Path(folder, "prepared"), Path(folder, "result")
        # The quantizer needs the shapes of inner tensors.
        quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
        if kind == "dynamic":
            _quantize_weights(prepared, result)
        else:
            _quantize_everything(prepared, result, samples)
        result.replace(path)


def _quantize_weights(source: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        source, target, per_channel=True, weight_type=QuantType.QInt8
    )


def _quantize_everything(
    source: Path, target: Path, samples: Samples | None
) -> None:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    rows = calibration(samples)

    class Reader(CalibrationDataReader):
        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(rows, None)

    quantize_static(
        source,
        target,
        Reader(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
