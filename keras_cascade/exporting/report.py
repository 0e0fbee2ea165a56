"""Reports the facts about a written file, and how it compares.

Tested by `tests/exporting/test_exporter.py`.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_cascade._reporting import tables
from keras_cascade.exporting import report_plot
from keras_cascade.exporting.checking.parity import OutputParity
from keras_cascade.exporting.formats.litert_integers import IntegerType

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_Shapes = Mapping[str, tuple[int | None, ...]]


@dataclass(frozen=True)
class Latency:
    """The time that a single sample takes.

    Attributes:
        median_ms: The median time, in milliseconds.
        p95_ms: The time that 95 of 100 runs stay below.
        runs: How many runs were timed.
    """

    median_ms: float
    p95_ms: float
    runs: int


@dataclass(frozen=True, repr=False)
class ExportReport(tables.Tabular):
    """The facts about a written file, and how it compares with the model.

    It is shown as a table, and `plot()` draws the comparison, which is empty
    without `check_data`.

    Attributes:
        path: The file or folder.
        format: `"saved_model"`, `"tflite"`, `"onnx"`, `"keras"`, `"torch"`.
        backend: The backend that wrote the file.
        rehosted: Whether that was another one than the running one, in a
            subprocess.
        quantize: The quantization; None is float32.
        size_bytes: The size of the file, with that of `data_path`.
        inputs: Input name to shape, with the batch.
        outputs: Output name to shape, with the batch.
        integers: Of a file that takes or gives integers: `"inputs"` and
            `"outputs"`, name to `dtype`, `scale`, `zero_point`.
        renamed: For `inputs` and `outputs`, the model's name to the name in
            the file, where the format cannot hold the model's.
        folded: The folding rules that were applied, and how often.
        operators: Operator to how often it is used; empty for formats that
            name none.
        builtin_only: Whether LiteRT's built-in operators suffice; None for
            other formats.
        layers: For `"mixed"`, a row for each layer with its error, worst
            first.
        tolerance: The tolerated difference, in standard deviations.
        bounds: The difference that it bounds: `"maximum"` or `"mean"`.
        parity: Output to how far its answers are from the model's.
        metrics: Metric to its values: `model`, `file`.
        metrics_left_out: The names of the metrics that `check_data`, without
            labels, left out.
        unproven: Output to why its comparison proves little: its answers do
            not vary over `check_data`, or there is one sample.
        metrics_doubt: Why the metrics show little: labels of one class; else
            empty.
        latency: The latency with `one_thread` and `all_threads`.
        peak_memory_bytes: The peak memory of the process that ran the file,
            its runtime included.
        tried: The backends whose file was not right, and why.
        data_path: The file with the weights of an ONNX file of more than
            2 GiB, which lies beside it; None if the file has them.
    """

    path: Path
    format: str
    backend: str
    rehosted: bool
    quantize: str | None
    size_bytes: int
    inputs: _Shapes
    outputs: _Shapes
    integers: Mapping[str, Mapping[str, IntegerType]] = field(
        default_factory=dict
    )
    renamed: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    folded: Mapping[str, int] = field(default_factory=dict)
    operators: Mapping[str, int] = field(default_factory=dict)
    builtin_only: bool | None = None
    layers: tuple[Mapping[str, Any], ...] = ()
    tolerance: float = 0.0
    bounds: str = "maximum"
    parity: Mapping[str, OutputParity] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    metrics_left_out: str = ""
    unproven: Mapping[str, str] = field(default_factory=dict)
    metrics_doubt: str = ""
    latency: Mapping[str, Latency] = field(default_factory=dict)
    peak_memory_bytes: int | None = None
    tried: Mapping[str, str] = field(default_factory=dict)
    data_path: Path | None = None

    @property
    def difference(self) -> float | None:
        """The bounded difference of the worst output; None if unchecked."""
        found = [getattr(x, self.bounds) for x in self.parity.values()]
        return max(found) if found else None

    @property
    def holds(self) -> bool | None:
        """The result of the check: True, False, or None if nothing is shown.

        That is without `check_data`, or where no output's answers vary.
        """
        difference = self.difference
        if difference is None:
            return None
        if difference > self.tolerance:
            return False
        return None if set(self.parity) <= set(self.unproven) else True

    @property
    def doubts(self) -> list[str]:
        """The reasons why the check proves little, as sentences."""
        found = [
            f"The comparison of output '{name}' proves little: {why}."
            for name, why in self.unproven.items()
        ]
        if self.metrics_doubt:
            found.append(f"The metrics show little: {self.metrics_doubt}.")
        return found

    def to_dict(self) -> dict[str, Any]:
        """Returns the report in plain values, for JSON."""
        found = asdict(self)
        for name in ("inputs", "outputs"):
            found[name] = {k: list(v) for k, v in found[name].items()}
        data_path = self.data_path and str(self.data_path)
        found |= {"path": str(self.path), "data_path": data_path}
        found["layers"] = list(found["layers"])
        return {**found, "difference": self.difference, "holds": self.holds}

    def plot(self) -> "Figure":
        """Draws the differences of each output, with the tolerance.

        Beside them are the metrics of model and file, if they were compared,
        and for `"mixed"` the layers with the largest errors.

        Returns:
            A `matplotlib.figure.Figure`: `savefig(path)` writes it.

        Raises:
            ImportError: If matplotlib is not installed.
            ValueError: If nothing was compared, as without `check_data`.

        Example:
        >>> report = kc.export(cascade, "model.onnx", check_data=images)
        >>> report.plot().savefig("report.png")
        """
        return report_plot.draw(self)

    def _line(self) -> str:
        difference = self.difference
        checked = "not compared with the model"
        if difference is not None:
            side = "within" if self.holds else "beyond"
            checked = f"{difference:.1e} σ from the model, {side} tolerance"
        return (
            f"<ExportReport of '{self.path}': {self.format}, "
            f"{self.quantize or 'float32'}, {self.size_bytes:,} bytes, "
            f"{checked}>"
        )

    def _parts(self) -> list[tables.Part]:
        rows = [*_facts(self), *_answers(self), *_costs(self)]
        columns = (self.format, self.path.name)
        shown: list[tables.Part] = [tables.Table("", columns, rows)]
        return shown + [_layers(self.layers)] * bool(self.layers)


class ParityError(RuntimeError):
    """Says that a file's answers differ too much from the model's.

    Attributes:
        report: The `ExportReport`; its path is that of the kept file.
    """

    def __init__(self, message: str, report: ExportReport):
        super().__init__(message)
        self.report = report


def _facts(report: ExportReport) -> list[tuple[str, str]]:
    """Returns the rows of the table that need no `check_data`."""
    where = ", in a process of its own" if report.rehosted else ""
    rows = [
        ("written by", f"{report.backend}{where}"),
        *((f"  not by {k}", why) for k, why in report.tried.items()),
        ("numbers", report.quantize or "float32"),
        ("size", f"{report.size_bytes:,} bytes"),
        *(
            [("weights", f"in '{report.data_path.name}', which belongs to it")]
            if report.data_path
            else []
        ),
        ("inputs", _shapes_text(report.inputs)),
        ("outputs", _shapes_text(report.outputs)),
        *_integers(report.integers),
        *(
            (f"renamed {kind}", f"'{name}' is '{own}' in the file")
            for kind, names in report.renamed.items()
            for name, own in names.items()
        ),
        *(
            (f"  {rule}", "once" if n == 1 else f"{n} times")
            for rule, n in report.folded.items()
        ),
    ]
    if report.operators:
        used = ", ".join(f"{n} {name}" for name, n in report.operators.items())
        rows.append(("operators", used))
    if report.builtin_only is not None:
        rows.append(("built-in operators suffice", _yes(report.builtin_only)))
    return rows


def _integers(
    found: Mapping[str, Mapping[str, IntegerType]],
) -> Iterator[tuple[str, str]]:
    for side, types in found.items():
        for name, x in types.items():
            numbers = f"scale {x.scale:.6g}, zero point {x.zero_point}"
            yield f"  {side} '{name}'", f"{x.dtype}, {numbers}"


def _answers(report: ExportReport) -> list[tuple[str, str]]:
    if not report.parity:
        return [("compared with the model", "no: pass check_data")]
    rows = []
    for name, parity in report.parity.items():
        rows += [
            (f"{name}: largest difference", f"{parity.maximum:.1e} σ"),
            (f"{name}: mean difference", f"{parity.mean:.1e} σ"),
        ]
        if parity.agreement is not None:
            rows.append((f"{name}: same top answer", f"{parity.agreement:.2%}"))
        if name in report.unproven:
            rows.append((f"{name}: proves little", report.unproven[name]))
    rows += [
        (metric, f"{x['model']:.4f} model, {x['file']:.4f} file")
        for metric, x in report.metrics.items()
    ]
    if report.metrics_left_out:
        why = f"{report.metrics_left_out}, as check_data has no labels"
        rows.append(("metrics left out", why))
    if report.metrics_doubt:
        rows.append(("metrics show little", report.metrics_doubt))
    what = {"maximum": "largest", "mean": "mean"}[report.bounds]
    allowed = f"{what} difference at most {report.tolerance:g} σ"
    shown = "not shown" if report.holds is None else _yes(report.holds)
    return [*rows, (f"within tolerance ({allowed})", shown)]


def _costs(report: ExportReport) -> list[tuple[str, str]]:
    rows = [
        (
            f"one sample, {name.replace('_', ' ')}",
            f"{x.median_ms:.3g} ms median, {x.p95_ms:.3g} ms p95",
        )
        for name, x in report.latency.items()
    ]
    if report.peak_memory_bytes is not None:
        peak = f"{report.peak_memory_bytes / 2**20:,.0f} MiB with its runtime"
        rows.append(("peak memory", peak))
    return rows


def _layers(layers: tuple[Mapping[str, Any], ...]) -> tables.Table:
    rows = [
        (
            row["operator"],
            row["layer"].partition(";")[0],
            f"{row['error']:.2f}",
            row["stored"],
        )
        for row in layers
    ]
    columns = ("operator", "layer", "error", "stored in")
    title = "Error of each layer in 8 bits, in steps of its scale"
    return tables.Table(title, columns, rows, right=("error",))


def _shapes_text(shapes: _Shapes) -> str:
    return ", ".join(
        f"{name} ({tables.shape(shape)})" for name, shape in shapes.items()
    )


def _yes(value: bool) -> str:
    return "yes" if value else "no"
