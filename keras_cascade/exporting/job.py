"""Runs the stages of an export.

Tested by `tests/exporting/test_exporter.py`.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import keras

from keras_cascade._interrupts.atomic_write import data_file
from keras_cascade.exporting import backends, card, writing
from keras_cascade.exporting.checking import parity, verification
from keras_cascade.exporting.checking.parity import Answers
from keras_cascade.exporting.checking.verification import CheckData
from keras_cascade.exporting.inference_program import to_inference_program
from keras_cascade.exporting.integer_types import pixel_inputs
from keras_cascade.exporting.options import CONVERTED, ExportOptions
from keras_cascade.exporting.port_names import PortNames, port_names, renamed
from keras_cascade.exporting.report import ExportReport
from keras_cascade.exporting.samples import Samples, store_samples
from keras_cascade.exporting.subprocess_export import (
    NotLoadableError,
    write_in_subprocess,
)
from keras_cascade.exporting.writing import Written
from keras_cascade.graph.program import Program
from keras_cascade.networks.loading import as_functional

# More samples hardly change the ranges that 8 bits are spread over.
_CALIBRATION_SAMPLES = 512
# The folder of a file's answers to made-up inputs.
_TRIAL = "trial"


@dataclass(frozen=True)
class Job:
    """An export, with what all of its stages need.

    Attributes:
        model: The model.
        whole: Its program with all outputs, not folded.
        options: The arguments of the export.
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
    def names(self) -> PortNames:
        """The names of the inputs and outputs in the file."""
        return port_names(self.program, self.options.format)

    def staged(self, backend: str) -> Path:
        """Returns the path in the workspace of the file of a backend."""
        return self.folder / backend / self.options.path.name

    def calibration(self, data: object) -> Samples | None:
        """Stores the samples that 8 bits are calibrated on."""
        if data is None:
            return None
        return self._store(
            data, self.program, "calibration_data", _CALIBRATION_SAMPLES
        )

    def with_pixels(self, samples: Samples | None) -> "Job":
        """Returns the job with those integer inputs that take pixels."""
        names = self.options.integer_inputs
        if samples is None or not names:
            return self
        pixels = pixel_inputs(self.program, samples, names)
        return replace(self, options=replace(self.options, pixels=pixels))

    def check(self, data: object) -> CheckData | None:
        """Stores the inputs that the file is checked on, and the answers.

        Without the user's data, files that a converter wrote are tried on
        made-up inputs. The answers of ONNX files, which several backends can
        write, are compared too, to choose the backend.
        """
        given, options = data is not None, self.options
        if given:
            backends.check_runtime(options)
        elif backends.can_be_tried(options, self.program):
            data = verification.made_up_inputs(self.whole.inputs)
        else:
            return None
        samples = self._store(data, self.whole, "check_data")
        if not given and options.format != "onnx":
            return CheckData(samples, {}, given, self.names)
        self.show("asking the model")
        expected = parity.model_answers(
            self.model, samples, list(self.whole.outputs), options.outputs
        )
        return CheckData(samples, expected, given, self.names)

    def _store(
        self,
        data: object,
        program: Program,
        argument: str,
        limit: int | None = None,
    ) -> Samples:
        self.show(f"reading {argument}")
        folder = self.folder / argument
        structure = (as_functional(self.model) or self.model).input
        return store_samples(
            data,
            program.inputs,
            folder,
            argument,
            limit,
            structure,
            self.options.batch_size,
        )

    def write(
        self, backend: str, samples: Samples | None, check: CheckData | None
    ) -> ExportReport:
        """Writes the file under a backend, and begins the report.

        Converters run in a process of their own, which tries the file.
        """
        path, options = self.staged(backend), self.options
        path.parent.mkdir()
        is_running = backend == keras.config.backend()
        if is_running and options.format not in CONVERTED:
            written = self._write_here(path, samples)
        else:
            try:
                written = self._write_apart(path, samples, backend, check)
            except NotLoadableError:
                # Layers of a notebook exist here alone.
                if not is_running:
                    raise
                written = self._write_here(path, samples)
        program = renamed(self.program, self.names)
        return ExportReport(
            path=options.path,
            format=options.format,
            backend=backend,
            rehosted=backend != keras.config.backend(),
            quantize=options.quantize,
            size_bytes=0,
            inputs={port.name: port.shape for port in program.inputs},
            outputs=card.output_shapes(program),
            renamed=self.names.changed,
            folded=written.folded,
            layers=tuple(written.layers),
            tolerance=options.tolerance,
            bounds="mean" if options.by_mean else "maximum",
        )

    def _write_apart(
        self,
        path: Path,
        samples: Samples | None,
        backend: str,
        check: CheckData | None,
    ) -> Written:
        options, trial = self.options, None
        if check is not None and not check.given:
            folder = path.parent / _TRIAL
            trial = verification.run_request(path, options, check, folder)
        return write_in_subprocess(
            self.model, path, options, samples, backend, self.show, trial
        )

    def _write_here(self, path: Path, samples: Samples | None) -> Written:
        options = self.options
        self.show("folding")
        frozen = to_inference_program(self.model, options.outputs, options.fold)
        self.show(f"writing {options.format}")
        return writing.write(self.model, frozen, path, options, samples)

    def answers(self, backend: str, check: CheckData) -> Answers:
        """Returns what a file answers to made-up inputs."""
        path = self.staged(backend)
        folder = path.parent / _TRIAL
        if (folder / "answers").is_dir():
            return verification.read_answers(folder)
        return verification.run_file(path, self.options, check)[0]

    def verify(self, report: ExportReport, check: CheckData) -> ExportReport:
        """Runs a file, and compares its answers with the model's."""
        self.show("running the file")
        path = self.staged(report.backend)
        return verification.verify(
            report, path, self.model, self.options, check
        )

    def finish(self, report: ExportReport) -> ExportReport:
        """Puts the model card into a file; reports its operators and size."""
        path = self.staged(report.backend)
        facts = card.make_card(self.model, self.program, self.options)
        answers = {name: asdict(x) for name, x in report.parity.items()}
        facts |= {"backend": report.backend, "parity": answers}
        integers = writing.integer_types(path, self.options)
        facts["integers"] = {
            side: {name: asdict(x) for name, x in found.items()}
            for side, found in integers.items()
        }
        card.put_card(path, report.format, facts)
        used = writing.operators(path, report.format)
        has_data = data_file(path).is_file()
        borrowed = verification.borrowed_operators(used)
        return replace(
            report,
            size_bytes=_size_of(path),
            data_path=data_file(self.options.path) if has_data else None,
            operators=used,
            integers=integers,
            builtin_only=not borrowed if report.format == "tflite" else None,
        )


def _size_of(path: Path) -> int:
    """Returns the bytes of a file with its data, or of a folder's files."""
    files = path.rglob("*") if path.is_dir() else [path, data_file(path)]
    return sum(x.stat().st_size for x in files if x.is_file())
