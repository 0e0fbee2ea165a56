"""Kills processes that save, export and cache, and counts what is left.

    python tests/benchmarks/kills.py                        # everything
    python tests/benchmarks/kills.py --kills 30 save cached

After each kill the target is the old file or a new one that loads; after the
next run that is not killed nothing else is there. On torch, whose processes
can be forked after Keras was imported.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

# Before anything is imported that reads them; pools of threads do not survive
# a fork.
os.environ.setdefault("KERAS_BACKEND", "torch")
os.environ.setdefault("OMP_NUM_THREADS", "1")

import keras
import numpy as np

import keras_cascade as kc

ENDINGS = {
    "keras": "m.keras",
    "torch": "m.pt2",
    "onnx": "m.onnx",
    "tflite": "m.tflite",
    "saved_model": "m",
}
OLD = b"the old file"
X = np.random.default_rng(0).normal(size=(512, 64)).astype("float32")
Y = np.zeros((512, 8), "float32")


class Counts(NamedTuple):
    """What was found after kills of one kind.

    Attributes:
        old: The targets that were as before.
        new: The targets that were replaced by what loads.
        broken: The others.
        residue: The files and processes that were left after the next run.
    """

    old: int = 0
    new: int = 0
    broken: int = 0
    residue: int = 0


def build(width: int = 512) -> kc.Cascade:
    """Returns a cascade with some megabytes of weights."""
    keras.utils.set_random_seed(0)
    x = inputs = keras.Input((64,), name="x")
    for name in ("a", "b", "c"):
        x = keras.layers.Dense(width, "relu", name=name)(x)
    return kc.build_cascade(
        keras.Model(inputs, x), head=8, optimizer="adam", loss="mse"
    )


def forked(action: Callable[[], object]) -> int:
    """Carries out an action in a process of its own; returns its id."""
    process = os.fork()
    if process:
        return process
    status = 1
    try:
        os.setsid()
        sys.stderr = sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115
        action()
        status = 0
    finally:
        os._exit(status)


def succeeds(action: Callable[[], object]) -> bool:
    """Whether an action ends well in a process of its own."""
    _, status = os.waitpid(forked(action), 0)
    return status == 0


def kill_at_random(actions: list[Callable[[], object]], longest: float) -> None:
    """Kills the first of some processes; the others may end."""
    processes = [forked(action) for action in actions]
    time.sleep(random.uniform(0, longest))
    os.kill(processes[0], signal.SIGKILL)
    for process in processes:
        os.waitpid(process, 0)


def duration(action: Callable[[], object]) -> float:
    """Returns the seconds that an action takes, and fails if it does."""
    start = time.perf_counter()
    if not succeeds(action):
        raise RuntimeError("fails without being killed")
    return time.perf_counter() - start


def replacing(
    path: Path,
    write: Callable[[], object],
    loads: Callable[[], object],
    kills: int,
) -> Counts:
    """Counts for a file or folder that is written over an earlier one."""
    longest = duration(write)
    counts = Counts()
    for _ in range(kills):
        put_old(path)
        kill_at_random([write], 1.1 * longest)
        if is_old(path):
            counts = counts._replace(old=counts.old + 1)
        elif succeeds(loads):
            counts = counts._replace(new=counts.new + 1)
        else:
            counts = counts._replace(broken=counts.broken + 1)
    wait_for_workers(path)
    if not (succeeds(write) and succeeds(loads)):
        counts = counts._replace(broken=counts.broken + 1)
    left = [x for x in path.parent.iterdir() if x != path]
    return counts._replace(residue=len(left) + len(workers(path)))


def put_old(path: Path) -> None:
    """Puts the earlier file, or folder, to its place."""
    if path.is_dir():
        shutil.rmtree(path)
    if path.suffix:
        path.write_bytes(OLD)
    else:
        path.mkdir()
        (path / "saved_model.pb").write_bytes(OLD)


def is_old(path: Path) -> bool:
    """Whether the earlier file or folder is at its place."""
    file = path / "saved_model.pb" if path.is_dir() else path
    return file.is_file() and file.read_bytes() == OLD


def workers(path: Path) -> list[str]:
    """Returns the processes that write to a folder."""
    found = subprocess.run(
        ["ps", "-eo", "pid,args"], capture_output=True, text=True, check=True
    )
    lines = found.stdout.splitlines()
    return [x for x in lines if str(path.parent) in x and "worker" in x]


def wait_for_workers(path: Path) -> None:
    """Waits until orphans have seen that their parents are gone."""
    end = time.monotonic() + 20
    while workers(path) and time.monotonic() < end:
        time.sleep(0.2)


def kills_of_saves(folder: Path, kills: int) -> Counts:
    """Kills `cascade.save` over a file."""
    path, cascade = folder / "m.keras", build()
    return replacing(
        path,
        lambda: cascade.save(path),
        lambda: keras.saving.load_model(path),
        kills,
    )


def kills_of_weights(folder: Path, kills: int) -> Counts:
    """Kills `cascade.save_weights` over a file."""
    path, cascade = folder / "m.weights.h5", build()
    return replacing(
        path,
        lambda: cascade.save_weights(path),
        lambda: cascade.load_weights(path),
        kills,
    )


def kills_of_exports(folder: Path, kills: int, format: str) -> Counts:
    """Kills `kc.export` over a file of a format."""
    path, cascade = folder / ENDINGS[format], build(64)
    return replacing(
        path,
        lambda: kc.export(cascade, path, format=format, verbose=False),
        lambda: kc.read_card(path),
        kills,
    )


def kills_of_fits(folder: Path, kills: int, processes: int) -> Counts:
    """Kills fits that cache in one folder.

    A fit that follows gives the losses of a live one, whether the killed one
    stored nothing ("old") or something ("new").
    """
    path = folder / "features"
    wanted = train(build(), False)
    longest = duration(lambda: train(build(), str(path)))
    counts = Counts()
    for _ in range(kills):
        shutil.rmtree(path, ignore_errors=True)
        fits = [lambda: train(build(), str(path))] * processes
        kill_at_random(fits, 1.1 * longest)
        stored = any(path.glob("*/*.npy"))
        right = succeeds(lambda: check(train(build(), str(path)), wanted))
        name = ("new" if stored else "old") if right else "broken"
        counts = counts._replace(**{name: getattr(counts, name) + 1})
        counts = counts._replace(residue=counts.residue + unfinished(path))
    return counts


def train(cascade: kc.Cascade, cache: str | bool) -> list[float]:
    """Returns the losses of three epochs."""
    history = cascade.fit(
        *(X, Y, 32, 3, 0), shuffle=False, cache_features=cache
    )
    return history.history["loss"]


def check(losses: list[float], wanted: list[float]) -> None:
    """Raises an error for other losses."""
    np.testing.assert_allclose(losses, wanted, rtol=1e-5)


def unfinished(path: Path) -> int:
    """Counts the files of a cache that belong to no finished shard."""
    finished = {x.with_suffix("") for x in path.glob("*/*.json")}
    shards = [x for x in path.glob("*/*") if x.suffix == ".npy"]
    hidden = [x for x in path.rglob(".*") if x.is_file()]
    return len(hidden) + sum(
        x.with_name(x.name.split(".")[0]) not in finished for x in shards
    )


KINDS: dict[str, Callable[[Path, int], Counts]] = {
    "save": kills_of_saves,
    "weights": kills_of_weights,
    "cached": lambda folder, kills: kills_of_fits(folder, kills, 1),
    "cached by two": lambda folder, kills: kills_of_fits(folder, kills, 2),
    **{
        name: lambda folder, kills, name=name: kills_of_exports(
            folder, kills, name
        )
        for name in ENDINGS
    },
}


def main() -> None:
    """Prints the counts of the kinds that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kinds", nargs="*", metavar="kind", default=[*KINDS])
    parser.add_argument("--kills", type=int, default=30)
    arguments = parser.parse_args()
    failed = False
    print(f"{'':15}{'old':>6}{'new':>6}{'broken':>8}{'residue':>9}")
    for kind in arguments.kinds:
        with tempfile.TemporaryDirectory() as folder:
            counts = KINDS[kind](Path(folder), arguments.kills)
        old, new, broken, residue = counts
        print(f"{kind:15}{old:6}{new:6}{broken:8}{residue:9}", flush=True)
        failed = failed or broken + residue > 0
    sys.exit(failed)


if __name__ == "__main__":
    main()
