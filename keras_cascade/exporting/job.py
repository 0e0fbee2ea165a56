"""The stages of an export, and what all of them know."""

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import keras

from keras_cascade.exporting import routes, writing
from keras_cascade.exporting.card import make_card
from keras_cascade.exporting.checking import parity, proving
from keras_cascade.exporting.checking.parity import Answers
from keras_cascade.exporting.checking.proving import Proof
from keras_cascade.exporting.formats.litert import CALIBRATION_SAMPLES
from keras_cascade.exporting.freezing import freeze
from keras_cascade.exporting.rehosting import write_elsewhere
from keras_cascade.exporting.report import ExportReport
from keras_cascade.exporting.request import Request
from keras_cascade.exporting.samples import Samples, store_samples
from keras_cascade.exporting.writing import Written
from keras_cascade.graph.program import Program
from keras_cascade.networks.loading import as_functional


@dataclass(frozen=True)
class Made:
    """A file that was written.

    Attributes:
        path: Where it is, for the time being.
        backend: What wrote it.
        written: What is known of it.
        proof: How it answers, if that was checked.
        tried: What did not work before.
    """

    path: Path
    backend: str
    written: Written
    proof: Proof | None
    tried: dict[str, str]


@dataclass(frozen=True)
class Check:
    """Inputs, and what the model answers.

    Attributes:
        samples: The inputs.
        expected: The answers.
        given: Whether they are the user's, or made up.
    """

    samples: Samples
    expected: Answers
    given: bool


@dataclass(frozen=True)
class Job:
    """What all stages know."""

    model: Any
    whole: Program
    request: Request
    folder: Path
    show: Any

    @property
    def program(self) -> Program:
        """What is written, before anything is folded."""
        return self.whole.pruned(self.request.outputs)

    @property
    def _structure(self) -> Any:
        """The structure of the inputs of the model."""
        return (as_functional(self.model) or self.model).input

    def calibration(self, data: Any) -> Samples | None:
        """The samples that 8 bits are calibrated on."""
        if data is None:
            return None
        self.show("reading calibration_data")
        return store_samples(
            data,
            self.program.inputs,
            self.folder / "calibration",
            "calibration_data",
            CALIBRATION_SAMPLES,
            self._structure,
        )

    def check(self, data: Any) -> Check | None:
        """What the file is compared on; made up for ONNX, if it is not given.

        Of several converters, the first is taken that is right.
        """
        given = data is not None
        if given:
            routes.check_runtime(self.request)
        elif self.request.format != "onnx" or not routes.has_onnxruntime():
            return None
        else:
            data = proving.made_up_inputs(self.whole.inputs)
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
            proving.check_labels_for_metrics(self.model, samples)
        self.show("asking the model")
        expected = parity.model_answers(
            self.model, samples, self.whole.outputs, self.request.outputs
        )
        return Check(samples, expected, given)

    def write(
        self, backend: str, samples: Samples | None, apart: bool = False
    ) -> Made:
        """Writes the file under a backend.

        Args:
            backend: Its name.
            samples: What 8 bits are calibrated on.
            apart: Whether a process of its own writes also where the running
                backend could. Defaults to `False`.
        """
        place = self.folder / backend
        place.mkdir()
        path = place / self.request.path.name
        if backend == keras.config.backend() and not apart:
            self.show("folding")
            frozen = freeze(
                self.model, list(self.request.outputs), self.request.fold
            )
            self.show(f"writing {self.request.format}")
            written = writing.write(
                self.model, frozen, path, self.request, samples
            )
        else:
            written = write_elsewhere(
                self.model, path, self.request, samples, backend, self.show
            )
        return Made(path, backend, written, None, {})

    def prove(self, made: Made, check: Check) -> Made:
        """Runs the file, and compares."""
        self.show("running the file")
        proof = proving.prove(
            self.model, made.path, self.request, check.samples, check.expected
        )
        return replace(made, proof=proof)

    def report(self, made: Made) -> ExportReport:
        """What came of it."""
        request, program, proof = self.request, self.program, made.proof
        used = writing.operators(made.path, request.format)
        report = ExportReport(
            path=request.path,
            format=request.format,
            backend=made.backend,
            rehosted=made.backend != keras.config.backend(),
            quantize=request.quantize,
            size_bytes=size_of(made.path),
            inputs={port.name: port.shape for port in program.inputs},
            outputs={
                name: program.shapes[reference]
                for name, reference in program.outputs.items()
            },
            folded=made.written.folded,
            operators=used,
            builtin_only=not proving.borrowed_operators(
                made.path, request.format
            )
            if request.format == "tflite"
            else None,
            layers=tuple(made.written.layers),
            tolerance=request.tolerance,
            bounds="mean" if request.by_mean else "maximum",
            tried=made.tried,
        )
        return report if proof is None else replace(report, **vars(proof))

    def card(self, report: ExportReport) -> dict[str, Any]:
        """The model card, with how the file answers."""
        card = make_card(self.model, self.program, self.request)
        answers = {name: asdict(x) for name, x in report.parity.items()}
        return {**card, "backend": report.backend, "parity": answers}


def size_of(path: Path) -> int:
    """The bytes of a file, or of all in a folder."""
    if path.is_file():
        return path.stat().st_size
    return sum(x.stat().st_size for x in path.rglob("*") if x.is_file())
