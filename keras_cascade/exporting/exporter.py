"""Exports a cascade: the whole flow, a line for each stage."""

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import keras

from keras_cascade._cascade_view import CascadeView
from keras_cascade._interrupts.atomic_write import (
    data_file,
    move_into_place,
    workspace,
)
from keras_cascade._reporting.console import progress
from keras_cascade.adapters.fitting import check_fitted
from keras_cascade.exporting.backend_fallback import write_first_right
from keras_cascade.exporting.backends import backends_for, backends_for_weights
from keras_cascade.exporting.card import output_shapes
from keras_cascade.exporting.checking import verification
from keras_cascade.exporting.formats import onnx_file
from keras_cascade.exporting.inference_program import (
    computes_in_half,
    to_stock_layers,
    weight_bytes,
    with_batch_size,
)
from keras_cascade.exporting.integer_types import integer_types
from keras_cascade.exporting.job import Job
from keras_cascade.exporting.options import (
    NEED_CALIBRATION,
    QUANTIZATIONS,
    TOLERANCES,
    ExportOptions,
    check_calibration,
    check_labels,
    check_outputs,
    check_size,
    common_batch_size,
    make_options,
)
from keras_cascade.exporting.report import ExportReport, ParityError
from keras_cascade.exporting.strings import check_strings
from keras_cascade.graph.flattening import as_program
from keras_cascade.graph.program import Program
from keras_cascade.networks.loading import as_functional


def export(
    cascade: CascadeView,
    path: str | Path,
    format: str | None = None,
    quantize: str | None = None,
    calibration_data: object = None,
    check_data: object = None,
    tolerance: float | None = None,
    input_dtype: str | Mapping[str, str] | None = None,
    output_dtype: str | Mapping[str, str] | None = None,
    labels: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    *,
    outputs: str | Sequence[str] | None = None,
    fold: bool = True,
    timeout: float = 3600.0,
    batch_size: int | None = None,
    verbose: bool = True,
) -> ExportReport:
    """Writes a cascade for where it is to run, and checks the file's answers.

    The file takes raw inputs by the names of the cascade's inputs, in batches
    of any size. It contains the preprocessing, and nothing that only training
    needs. If the running backend cannot write the format, a subprocess under
    one that can writes it.

    Args:
        cascade: The cascade, or any Functional `keras.Model`. It is not
            changed.
        path: The path of the file, whose folder is created. Nothing is there
            until the file is complete. ONNX files hold 2 GiB; more weights are
            written to a file beside it, `NAME.onnx.data`.
        format: `"saved_model"`, `"tflite"`, `"onnx"`, `"keras"` (stock layers
            that load without this package), or `"torch"` (`.pt2`). Defaults
            to `None`: by the path's ending, and without one a SavedModel.
        quantize: For LiteRT `"float16"`, `"dynamic"` (8-bit weights),
            `"int8"` (everything), `"mixed"` (8 bits, and float16 for the
            layers that 8 bits hurt most); for ONNX `"dynamic"`, `"int8"`.
            Defaults to `None`: float32.
        calibration_data: Raw inputs to calibrate int8 on, of any kind that
            `fit` takes; the first 512 samples are used. Defaults to `None`.
        check_data: Inputs on which the written file, run by its own runtime
            in a subprocess, is compared with the model; with labels also the
            metrics that the model was compiled with. Defaults to `None`: the
            file is not run.
        tolerance: The tolerated difference of the answers from the model's,
            in standard deviations of the model's answers over the samples. It
            bounds the largest difference for float32 (1e-3) and float16
            (5e-2, also of models that compute in half precision, which files
            do not), and the mean difference, as 8 bits have outliers, for
            `"dynamic"` (5e-2), `"int8"` and `"mixed"` (1e-1). Defaults to
            `None`: these numbers.
        input_dtype: With `quantize="int8"` in LiteRT, `"int8"` or `"uint8"`
            for a file whose floating inputs are integers, or
            `{input: dtype}`. Pixels from 0 to 255 stay what they are; for
            others the report has the scale. Defaults to `None`: float32.
        output_dtype: As `input_dtype`, for the outputs. Defaults to `None`:
            float32.
        labels: The names of the classes, or `{output: names}`, which the file
            keeps. Defaults to `None`.
        outputs: The names of the outputs that are written; layers that only
            the others need are left out. Defaults to `None`: all.
        fold: Whether linear layers are folded into each other. Defaults to
            `True`.
        timeout: The seconds that a subprocess which writes or runs the file
            may take. Defaults to `3600.0`.
        batch_size: The size of all batches that the file takes. LiteRT runs
            recurrent networks over long or open sequences with built-in
            operators only if it is fixed. Defaults to `None`: any size.
        verbose: Whether to show what is being done. Defaults to `True`.

    Returns:
        The report, which prints as a table.

    Raises:
        ValueError: An argument is not possible, or data does not fit.
        ModuleNotFoundError: No installed backend writes the format.
        ParityError: The file's answers differ from the model's by more than
            the tolerance. The file is kept under a name that says so.
        RuntimeError: All ways of writing the file failed.
        OSError: The file cannot be written there, or the disk is full.

    Example:
    >>> import tempfile
    >>> path = f"{tempfile.mkdtemp()}/plain.keras"
    >>> cascade = cascade.adapt(images, verbose=False)
    >>> report = kc.export(cascade, path, labels=["a", "b"], verbose=False)
    >>> report.outputs
    {'head': (None, 2)}
    """
    # All mistakes in arguments are found before the model is copied.
    options = make_options(
        path,
        format,
        quantize,
        tolerance,
        input_dtype,
        output_dtype,
        fold,
        timeout,
        batch_size,
    )
    check_calibration(options, calibration_data)
    backends = backends_for(options)
    model = _checked_model(cascade)
    # The model itself is then no more exact than float16.
    if tolerance is None and computes_in_half(model):
        least = max(options.tolerance, TOLERANCES["float16"])
        options = replace(options, tolerance=least)
    whole = as_program(to_stock_layers(model))
    options = _with_signature(options, whole, outputs, labels)
    kept, checked = whole.pruned(options.outputs), check_data is not None
    weights = weight_bytes(kept)
    check_size(options, weights)
    backends = backends_for_weights(backends, options, weights)
    check_strings(kept, options.format, checked)
    whole = with_batch_size(whole, options.batch_size)
    with workspace(options.path) as folder, progress(None, verbose) as bar:
        job = Job(model, whole, options, folder, lambda x: bar(f"export: {x}"))
        samples = job.calibration(calibration_data)
        job = job.with_pixels(samples)
        check = job.check(check_data)
        report = job.finish(write_first_right(job, backends, samples, check))
        staged = job.staged(report.backend)
        if report.holds is False:
            raise _kept_apart(staged, report)
        move_into_place(staged, options.path)
    for doubt in report.doubts:
        advice = "Pass check_data like those to come, of several classes."
        warnings.warn(f"'{report.path.name}': {doubt} {advice}", stacklevel=2)
    if report.builtin_only is False:
        warnings.warn(_borrowed(report), stacklevel=2)
    return report


def _checked_model(model: CascadeView | keras.Model) -> keras.Model:
    """Returns the model if it is functional, and its adapters fitted."""
    if not isinstance(model, keras.Model):
        raise TypeError(
            f"export takes a cascade or a keras.Model; received {model!r} of "
            f"type {type(model).__name__}."
        )
    if as_functional(model) is None:
        raise ValueError(
            f"'{model.name}' is a subclassed model: it has no graph that could "
            "be written. Use it as a network of a cascade, or Keras's export."
        )
    check_fitted(model, "export")
    return model


def _with_signature(
    options: ExportOptions, program: Program, outputs: object, labels: object
) -> ExportOptions:
    names = check_outputs(outputs, list(program.outputs))
    shapes = output_shapes(program.pruned(names))
    inputs = program.pruned(names).inputs
    ports = {port.name: port.dtype for port in inputs}
    fixed = {port.name: port.shape for port in inputs}
    dtypes = {name: program.dtypes[program.outputs[name]] for name in names}
    return replace(
        options,
        source=keras.config.backend(),
        outputs=names,
        batch_size=common_batch_size(fixed, options.batch_size),
        labels=check_labels(labels, shapes),
        integer_inputs=integer_types("input_dtype", options.input_dtype, ports),
        integer_outputs=integer_types(
            "output_dtype", options.output_dtype, dtypes
        ),
    )


def _borrowed(report: ExportReport) -> str:
    """Returns the warning about operators that LiteRT alone does not have."""
    names = verification.borrowed_operators(report.operators)
    in_loop = any("TensorList" in name for name in names)
    return (
        f"'{report.path.name}' needs operators of TensorFlow's, "
        f"{', '.join(names)}: an app has to link them, and no runtime of "
        "LiteRT for Python has them."
    ) + (
        " They are of recurrent layers over long or open sequences: with "
        "batch_size=1, built-in operators suffice."
        if in_loop
        else ""
    )


def _kept_apart(staged: Path, report: ExportReport) -> ParityError:
    """Moves a wrong file to a name that says so; returns the error."""
    path = report.path
    kept = path.with_name(f"{path.stem}.beyond_tolerance{path.suffix}")
    if report.data_path is not None:
        staged = onnx_file.renamed_pair(staged, kept.name)
        report = replace(report, data_path=data_file(kept))
    move_into_place(staged, kept)
    what = "largest" if report.bounds == "maximum" else "mean"
    return ParityError(
        f"'{path.name}' does not answer as the model does: the {what} "
        f"difference is {report.difference:.2g} deviations of the model's "
        f"answers, at most {report.tolerance:g} is tolerated. It was kept as "
        f"'{kept}'. {_advice(report)}",
        replace(report, path=kept),
    )


def _advice(report: ExportReport) -> str:
    if report.quantize in NEED_CALIBRATION:
        finer = "mixed" in QUANTIZATIONS[report.format]
        remedy = "quantize='mixed', or a larger" if finer else "A larger"
        return (
            "Is calibration_data like check_data: raw inputs, of the same "
            f"range? If so: {remedy} tolerance."
        )
    if report.quantize is not None:
        return "A larger tolerance lets it pass."
    return "fold=False shows whether folding is why."
