"""Falls back from one backend to the next until a file is right.

Tested by `tests/exporting/test_every_format.py`.
"""

from dataclasses import replace

import numpy as np

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
    if len(backends) == 1:
        report = job.write(backends[0], samples)
        return job.verify(report, check) if check and check.given else report
    failures: dict[str, str] = {}
    for backend in backends:
        try:
            report = _write_right(job, backend, samples, check)
        except RuntimeError as error:
            failures[backend] = _first_line(error)
        else:
            return replace(report, tried=failures)
    reasons = " ".join(f"On {name}: {why}" for name, why in failures.items())
    raise RuntimeError(
        f"No backend here writes '{job.options.path.name}' so that it answers "
        f"as the model does. {reasons}"
    )


def _write_right(
    job: Job, backend: str, samples: Samples | None, check: CheckData | None
) -> ExportReport:
    """Writes the file; raises a RuntimeError if it is found to be wrong."""
    # In a process of its own: if a converter crashes, the next has its turn.
    report = job.write(backend, samples, apart=True)
    if check is None:
        return report
    # In 8 bits any converter's file differs: no other one would do better.
    quantized = job.options.quantize is not None
    if check.given:
        report = job.verify(report, check)
        differences = [x.maximum for x in report.parity.values()]
        right = quantized or max(differences) <= job.options.tolerance
    else:
        path = job.staged(backend)
        found, _ = verification.run_file(path, job.options, check)
        if quantized:
            right = all(np.isfinite(x.sum()) for x in found.values())
        else:
            right = verification.is_roughly_right(check.expected, found)
    if not right:
        raise RuntimeError("its file's answers differ from the model's.")
    return report


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip() if lines else "no message"
