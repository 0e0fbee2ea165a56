"""Falls back from one backend to the next until a file is right.

Tested by `tests/exporting/test_every_format.py`.
"""

import re
from dataclasses import replace

import numpy as np

from keras_cascade._reporting.messages import listed
from keras_cascade.exporting.backends import possible_backends
from keras_cascade.exporting.checking import verification
from keras_cascade.exporting.checking.verification import CheckData
from keras_cascade.exporting.job import Job
from keras_cascade.exporting.report import ExportReport
from keras_cascade.exporting.samples import Samples


def write_first_right(
    job: Job,
    backends: list[str],
    samples: Samples | None,
    check: CheckData | None,
) -> ExportReport:
    """Writes the file under the first backend whose file is right.

    Raises:
        RuntimeError: No file is right; the message says why.
    """
    if job.options.format != "onnx":
        report = job.write(backends[0], samples, check)
        return job.verify(report, check) if check and check.given else report
    failures: dict[str, str] = {}
    for backend in backends:
        try:
            is_only = len(backends) == 1
            report = _write_right(job, backend, samples, check, is_only)
        except RuntimeError as error:
            failures[backend] = _first_line(error)
        else:
            return replace(report, tried=failures)
    raise _nothing_right(job, failures)


def _write_right(
    job: Job,
    backend: str,
    samples: Samples | None,
    check: CheckData | None,
    is_only: bool,
) -> ExportReport:
    """Writes the file; raises a RuntimeError if it is found to be wrong."""
    report = job.write(backend, samples, check)
    if check is None:
        return report
    # In 8 bits any converter's file differs: no other one would do better.
    quantized = job.options.quantize is not None
    if check.given:
        report = job.verify(report, check)
        differences = [x.maximum for x in report.parity.values()]
        # Where no other backend is left, the report says how far it is off.
        right = max(differences) <= job.options.tolerance
        right = right or quantized or is_only
    else:
        found = job.answers(backend, check)
        if quantized:
            right = all(np.isfinite(x.sum()) for x in found.values())
        else:
            right = verification.is_roughly_right(check.expected, found)
    if not right:
        raise RuntimeError("its file's answers differ from the model's.")
    return report


def _nothing_right(job: Job, failures: dict[str, str]) -> RuntimeError:
    reasons = " ".join(f"On {name}: {why}" for name, why in failures.items())
    missing = [
        name
        for name in possible_backends(job.options.format)
        if name not in failures
    ]
    if missing:
        reasons += f" Not tried, as not installed: {listed(missing)}."
    open_sizes = [x.name for x in job.program.inputs if None in x.shape[1:]]
    if open_sizes:
        reasons += f" Sizes of {listed(open_sizes)} are open; fixed may work."
    return RuntimeError(
        f"No backend here writes '{job.options.path.name}' so that it answers "
        f"as the model does. {reasons}"
    )


def _first_line(error: Exception) -> str:
    # Keras puts the error of a layer in bold, between which layer it is and
    # the layer's arguments.
    text = str(error)
    bold = re.search(r"\x1b\[1m(.+?)\x1b\[0m", text, re.DOTALL)
    lines = (bold[1] if bold else text).splitlines()
    lines = [line for line in lines if line.strip()]
    return lines[0].strip() if lines else "no message"
