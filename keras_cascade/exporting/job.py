"""The stages of an export, and the facts that all of them share.

Tested by `tests/exporting/test_exporter.py`.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import keras

from keras_cascade.exporting import backends, writing
from keras_cascade.exporting.card import make_card, output_shapes
from keras_cascade.exporting.checking import parity, verification
from keras_cascade.exporting.checking.parity import Answers
from keras_cascade.exporting.checking.verification import Verification
from keras_cascade.exporting.inference_program import to_inference_program
from keras_cascade.exporting.options import ExportOptions
from keras_cascade.exporting.report import ExportReport
from keras_cascade.exporting.samples import Samples, store_samples
from keras_cascade.exporting.subprocess_export import write_in_subprocess
from keras_cascade.exporting.writing import Written
from keras_cascade.graph.program import Program
from keras_cascade.networks.loading import as_functional

# More samples hardly change the ranges that 8 bits are spread over.
_CALIBRATION_SAMPLES = 512


@dataclass(frozen=True)
class WrittenFile:
    """A file that was written.

    Attributes:
        path: Its path in the workspace.
        backend: The backend that wrote it.
        written: The facts that its writer knows.
        verification: How it answers; None if that was not checked.
        failures: The backends that failed before, and why.
    """

    path: Path
    backend: str
    written: Written
    verification: Verification | None = None
    failures: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class CheckData:
    """Inputs, and the answers of the model.

    Attributes:
        samples: The inputs.
        expected: The answers.
        given: Whether the inputs are the user's, not made up.
    """

    samples: Samples
    expected: Answers
    given: bool


@dataclass(frozen=True)
class Job:
    """One export.

    Attributes:
        model: The model.
        whole: Its program with all outputs, not folded.
        options: The arguments.
        folder: The workspace.
        show: Shows the user what is being done.
    """

    model: keras.Model
    whole: Program
    options: ExportOptions
    folder: Path
    show: Callable[[str], None]

    @property
    def program(self) -> Program:
        """The program of the outputs that are written, not folded."""
        return self.whole.pruned(self.options.outputs)

    @property
    def _structure(self) -> object:
        """The structure of the inputs of the model."""
        return (as_functional(self.model) or self.model).input

    def calibration(self, data: object) -> Samples | None:
        """Stores the samples that 8 bits are calibrated on."""
        if data is None:
            return None
        self.show("reading calibration_data")
        return store_samples(
            data,
            self.program.inputs,
            self.folder / "calibration",
            "calibration_data",
            _CALIBRATION_SAMPLES,
            self._structure,
        )

    def check(self, data: object) -> CheckData | None:
        """Stores the inputs that the file is checked on, and their answers.

        ONNX, which several backends can write, is checked without the user's
        data too, to choose the backend.
        """
        given, options = data is not None, self.options
        if given:
            backends.check_runtime(options)
        elif options.format == "onnx" and backends.is_installed("onnxruntime"):
            data = verification.made_up_inputs(self.whole.inputs)
        else:
            return None
        self.show("reading check_data")
        folder = self.folder / "check"
        samples = store_samples(
            data,
            self.whole.inputs,
            folder,
            "check_data",
            structure=self._structure,
        )
        if given:
            verification.check_labels_for_metrics(self.model, samples)
        self.show("asking the model")
        expected = parity.model_answers(
            self.model, samples, list(self.whole.outputs), options.outputs
        )
        return CheckData(samples, expected, given)

    def write(
        self, backend: str, samples: Samples | None, apart: bool = False
    ) -> WrittenFile:
        """Writes the file under a backend.

        A subprocess writes under other backends, and with `apart` always.
        """
        folder = self.folder / backend
        folder.mkdir()
        path = folder / self.options.path.name
        if backend != keras.config.backend() or apart:
            written = write_in_subprocess(
                self.model, path, self.options, samples, backend, self.show
            )
            return WrittenFile(path, backend, written)
        self.show("folding")
        frozen = to_inference_program(
            self.model, self.options.outputs, self.options.fold
        )
        self.show(f"writing {self.options.format}")
        return WrittenFile(
            path,
            backend,
            writing.write(self.model, frozen, path, self.options, samples),
        )

    def verify(self, file: WrittenFile, check: CheckData) -> WrittenFile:
        """Runs a file, and compares its answers with the model's."""
        self.show("running the file")
        found = verification.verify(
            self.model, file.path, self.options, check.samples, check.expected
        )
        return replace(file, verification=found)

    def card(self, file: WrittenFile) -> dict[str, Any]:
        """Returns the model card, with how the file answers."""
        checked = file.verification
        answers = asdict(checked)["parity"] if checked else {}
        card = make_card(self.model, self.program, self.options)
        return {**card, "backend": file.backend, "parity": answers}

    def report(self, file: WrittenFile) -> ExportReport:
        """Returns the report on a finished file."""
        options, program = self.options, self.program
        used = writing.operators(file.path, options.format)
        builtin_only = not verification.borrowed_operators(used)
        return ExportReport(
            path=options.path,
            format=options.format,
            backend=file.backend,
            rehosted=file.backend != keras.config.backend(),
            quantize=options.quantize,
            size_bytes=_size_of(file.path),
            inputs={port.name: port.shape for port in program.inputs},
            outputs=output_shapes(program),
            folded=file.written.folded,
            operators=used,
            builtin_only=builtin_only if options.format == "tflite" else None,
            layers=tuple(file.written.layers),
            tolerance=options.tolerance,
            bounds="mean" if options.by_mean else "maximum",
            tried=file.failures,
            **(vars(file.verification) if file.verification else {}),
        )


def _size_of(path: Path) -> int:
    """Returns the bytes of a file, or of all files in a folder."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(x.stat().st_size for x in files if x.is_file())
