"""Writes under the backend whose file is right."""

import math
from dataclasses import replace

from keras_cascade.exporting.checking import proving
from keras_cascade.exporting.job import Check, Job, Made
from keras_cascade.exporting.samples import Samples


def write_right(
    job: Job, backends: list[str], samples: Samples | None, check: Check | None
) -> Made:
    """Writes under the first backend whose file is right.

    Where there are several, each writes in a process of its own: a converter
    that fails, however it does, leaves the next one its turn.

    Raises:
        RuntimeError: None is right; the message says why each is not.
    """
    if len(backends) == 1:
        made = job.write(backends[0], samples)
        return job.prove(made, check) if check and check.given else made
    tried: dict[str, str] = {}
    for backend in backends:
        try:
            made = job.write(backend, samples, apart=True)
            made, wrong = _judge(job, made, check)
        except RuntimeError as error:
            wrong = _first_line(error)
        else:
            if not wrong:
                return replace(made, tried=tried)
        tried[backend] = wrong
    ways = " ".join(f"On {name}: {why}" for name, why in tried.items())
    raise RuntimeError(
        f"No backend here writes '{job.request.path.name}' so that it answers "
        f"as the model does. {ways}"
    )


def _judge(job: Job, made: Made, check: Check | None) -> tuple[Made, str]:
    """A file with its proof, and what is wrong with it."""
    if check is None:
        return made, ""
    if check.given:
        made = job.prove(made, check)
        # What 8 bits lose, no other converter finds.
        right = job.request.quantize is not None or _is_right(job, made)
    else:
        right = _runs(job, made, check)
    return made, "" if right else "its file answers otherwise than the model."


def _is_right(job: Job, made: Made) -> bool:
    proof = made.proof
    return proof is not None and all(
        x.maximum <= job.request.tolerance for x in proof.parity.values()
    )


def _runs(job: Job, made: Made, check: Check) -> bool:
    """Whether the runtime takes the file, and it is roughly right."""
    found, _ = proving.run_file(
        made.path,
        job.request,
        check.samples.folder,
        None,
        list(check.expected),
    )
    if job.request.quantize is not None:
        return all(math.isfinite(x.sum()) for x in found.values())
    return proving.is_roughly_right(check.expected, found)


def _first_line(error: Exception) -> str:
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[0].strip() if lines else "no message"
