"""ONNX files in 8 bits, by onnxruntime's quantizer."""

import tempfile
from pathlib import Path
from typing import Any

from keras_cascade.exporting.samples import Samples

CALIBRATION_SAMPLES = 512


def quantize(path: Path, kind: str | None, samples: Samples | None) -> None:
    """Stores a file's numbers in 8 bits, if that is asked for.

    Args:
        path: The file, which is replaced.
        kind: None, `"dynamic"` (weights), or `"int8"` (everything, with
            floating-point inputs and outputs).
        samples: What `"int8"` is calibrated on.
    """
    if kind is None:
        return
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        prepared, result = Path(folder, "prepared"), Path(folder, "result")
        _prepare(path, prepared)
        if kind == "dynamic":
            _dynamic(prepared, result)
        else:
            _static(prepared, result, samples)
        result.replace(path)


def _prepare(path: Path, prepared: Path) -> None:
    """Shapes inferred and operators fused, which the quantizer asks for."""
    from onnxruntime.quantization.shape_inference import quant_pre_process

    quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)


def _dynamic(source: Path, target: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    quantize_dynamic(
        source, target, per_channel=True, weight_type=QuantType.QInt8
    )


def _static(source: Path, target: Path, samples: Samples | None) -> None:
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    if samples is None:
        raise ValueError("8 bits need samples to calibrate on.")
    rows = samples.single(CALIBRATION_SAMPLES)

    class Reader(CalibrationDataReader):
        def get_next(self) -> Any:
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
