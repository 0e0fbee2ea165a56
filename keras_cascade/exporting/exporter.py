"""export(): the whole flow, a line a stage."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from keras_cascade._cascade_view import CascadeView
from keras_cascade.adapters.fitting import check_fitted
from keras_cascade.exporting import routes
from keras_cascade.exporting.attempts import write_right
from keras_cascade.exporting.card import put_card
from keras_cascade.exporting.freezing import computes_in_half, stock
from keras_cascade.exporting.job import Job, size_of
from keras_cascade.exporting.placing import put, workspace
from keras_cascade.exporting.report import ExportReport, ParityError
from keras_cascade.exporting.request import (
    Request,
    check_calibration,
    check_labels,
    check_outputs,
    check_ports,
    half_tolerance,
    make_request,
)
from keras_cascade.graph.program import Program, as_program
from keras_cascade.networks.loading import as_functional


def export(
    cascade: CascadeView,
    path: str | Path,
    format: str | None = None,
    quantize: str | None = None,
    calibration_data: Any = None,
    check_data: Any = None,
    tolerance: float | None = None,
    input_dtype: str | None = None,
    output_dtype: str | None = None,
    labels: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
    *,
    outputs: str | Sequence[str] | None = None,
    fold: bool = True,
    timeout: float = 3600.0,
    verbose: bool = True,
) -> ExportReport:
    """Writes a cascade for where it is to run, and proves that it answers so.

    The file takes raw inputs by the names of the cascade's, in batches of any
    size: preprocessing is in it, what only training needs is not. Where the
    running backend cannot write the format, a process under one that can does.

    Args:
        cascade: The cascade, or any Functional `keras.Model`; it stays as it
            is.
        path: Where the file goes; its folder is made. Nothing stands there
            until the file is whole.
        format: `"saved_model"`, `"tflite"`, `"onnx"`, `"keras"` (stock layers
            that load without this package), or `"torch"` (`.pt2`). Defaults
            to `None`: by the path's ending, and without one a SavedModel.
        quantize: For LiteRT `"float16"`, `"dynamic"` (8-bit weights),
            `"int8"` (everything), `"mixed"` (8 bits, the layers that they
            hurt most in float16); for ONNX `"dynamic"`, `"int8"`. Defaults to
            `None`: float32.
        calibration_data: Inputs that int8 is calibrated on, raw, of any kind
            that `fit` takes; the first 512 are used. Defaults to `None`.
        check_data: Inputs on which the written file, run by its own runtime
            in a process of its own, is compared with the model; with labels
            also the metrics that the model was compiled with. Defaults to
            `None`: it is not run.
        tolerance: How far the answers may be from the model's, in deviations
            of the model's answers over the samples: the largest difference
            for float32 (1e-3) and float16 (5e-2, also of models that compute
            in half precision, which files do not); the mean difference, as 8
            bits have outliers, for `"dynamic"` (5e-2), `"int8"` and `"mixed"`
            (1e-1). Defaults to `None`: these.
        input_dtype: With `quantize="int8"` in LiteRT, `"int8"` or `"uint8"`
            for a file that takes integers. Defaults to `None`: float32.
        output_dtype: Likewise for what it gives. Defaults to `None`: float32.
        labels: Names of the classes, or `{output: names}`, which are kept in
            the file. Defaults to `None`.
        outputs: The names of the outputs that are written; what the others
            alone need is left out. Defaults to `None`: all.
        fold: Whether linear layers are folded into each other. Defaults to
            `True`.
        timeout: Seconds that a process which writes or runs the file may
            take. Defaults to `3600.0`.
        verbose: Whether to show what is being done. Defaults to `True`.

    Returns:
        The report; it prints as a table.

    Raises:
        ValueError: An argument is not possible, or data does not fit.
        ModuleNotFoundError: Nothing installed here writes the format.
        ParityError: The file answers otherwise than the model; it is kept
            under a name that says so.
        RuntimeError: No way of writing it worked.
        OSError: It cannot be written there, or the disk is full.

    Example:
    >>> import tempfile
    >>> path = f"{tempfile.mkdtemp()}/plain.keras"
    >>> cascade = cascade.adapt(images, verbose=False)
    >>> report = kc.export(cascade, path, labels=["a", "b"], verbose=False)
    >>> report.outputs
    {'head': (None, 2)}
    """
    request = make_request(
        path,
        format,
        quantize,
        tolerance,
        input_dtype,
        output_dtype,
        fold,
        timeout,
    )
    check_calibration(request, calibration_data)
    backends = routes.backends_for(request)
    model = _checked_model(cascade)
    if tolerance is None and computes_in_half(model):
        request = replace(request, tolerance=half_tolerance(request))
    whole = as_program(stock(model))
    request = _with_signature(request, whole, outputs, labels)
    with workspace(request.path) as folder, _progress(verbose) as show:
        job = Job(model, whole, request, folder, show)
        samples = job.calibration(calibration_data)
        check = job.check(check_data)
        made = write_right(job, backends, samples, check)
        report = job.report(made)
        put_card(made.path, request.format, job.card(report))
        report = replace(report, size_bytes=size_of(made.path))
        if report.holds is False:
            raise _kept_apart(made.path, report)
        put(made.path, request.path)
    return report


def _checked_model(model: Any) -> Any:
    """A model that can be written: functional, its adapters fitted."""
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
    request: Request, program: Program, outputs: Any, labels: Any
) -> Request:
    names = check_outputs(outputs, list(program.outputs))
    shapes = {name: program.shapes[program.outputs[name]] for name in names}
    check_ports(program.inputs, request)
    return replace(request, outputs=names, labels=check_labels(labels, shapes))


def _kept_apart(staged: Path, report: ExportReport) -> ParityError:
    """Puts the file under a name that says what it is."""
    path = report.path
    kept = path.with_name(f"{path.stem}.beyond_tolerance{path.suffix}")
    put(staged, kept)
    what = "largest" if report.bounds == "maximum" else "mean"
    return ParityError(
        f"'{path.name}' does not answer as the model does: the {what} "
        f"difference is {report.difference:.2g} deviations of the model's "
        f"answers, at most {report.tolerance:g} is tolerated. It was kept as "
        f"'{kept}'. {_advice(report)}",
        replace(report, path=kept),
    )


def _advice(report: ExportReport) -> str:
    if report.quantize in ("int8", "mixed"):
        return (
            "Is calibration_data like check_data: raw inputs, of the same "
            "range? If so: quantize='mixed', or a larger tolerance."
        )
    if report.quantize is not None:
        return "A larger tolerance lets it pass."
    return "fold=False shows whether folding is why."


@contextmanager
def _progress(verbose: bool) -> Iterator[Any]:
    """A line that says what is being done, and for how long."""
    columns = SpinnerColumn(), TextColumn("{task.description}")
    console = Console(stderr=True)
    # Elsewhere it would be an empty line.
    seen = console.is_terminal or console.is_jupyter
    with Progress(
        *columns,
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not (verbose and seen),
    ) as progress:
        task = progress.add_task("export")
        yield lambda text: progress.update(task, description=f"export: {text}")
