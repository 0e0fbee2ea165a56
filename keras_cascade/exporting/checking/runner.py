"""Runs an exported file with its own runtime, in a process of its own.

It is run from its path, outside the package, and imports nothing of it: the
file is seen to work without it.

Tested by `tests/exporting/test_every_format.py`.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

Batch = Mapping[str, np.ndarray]
Run = Callable[[Batch], dict[str, np.ndarray]]

# The names of arrays in files begin so: NumPy gives some names a meaning.
_KEY = "tensor:"
# Single samples are timed for so many seconds or runs, after a warm-up.
_WARM_UP = 5
_SECONDS = 2.0
_RUNS = 200


def main(request_path: str) -> None:
    """Answers every batch, times single samples, and writes the results."""
    request = json.loads(Path(request_path).read_text())
    run = answer(request)
    first = read_batch(_batches(request)[0])
    size = request["batch_size"]
    times = _time(run, {name: x[:size] for name, x in first.items()})
    latency = {
        "median_ms": float(np.median(times)),
        "p95_ms": float(np.percentile(times, 95)),
        "runs": len(times),
    }
    costs = {"latency": latency, "peak_memory_bytes": _peak_memory()}
    Path(request["result"]).write_text(json.dumps(costs))


def answer(request: dict[str, Any]) -> Run:
    """Opens a file, and writes its answers to all batches."""
    run = _by_model_names(_OPENERS[request["format"]](request), request)
    folder = Path(request["answers"])
    folder.mkdir()
    for path in _batches(request):
        write_batch(folder / path.name, run(read_batch(path)))
    return run


def _batches(request: dict[str, Any]) -> list[Path]:
    return sorted(Path(request["batches"]).glob("*.npz"))


def read_batch(path: Path) -> dict[str, np.ndarray]:
    """Reads the arrays of a file by their names."""
    with np.load(path, allow_pickle=False) as arrays:
        return {key.removeprefix(_KEY): x for key, x in arrays.items()}


def write_batch(path: Path, batch: Batch) -> None:
    """Writes arrays by their names."""
    named: dict[str, Any] = {_KEY + name: x for name, x in batch.items()}
    np.savez(path, **named)


def _by_model_names(run: Run, request: dict[str, Any]) -> Run:
    """Returns a function that takes and gives arrays by the model's names."""
    inputs, outputs = (request["names"][x] for x in ("inputs", "outputs"))
    originals = {own: name for name, own in outputs.items()}

    def renamed(batch: Batch) -> dict[str, np.ndarray]:
        given = {own: batch[name] for name, own in inputs.items()}
        found = run({**batch, **given})
        return {originals.get(name, name): x for name, x in found.items()}

    return renamed


def _time(run: Run, batch: Batch) -> list[float]:
    """Returns the milliseconds of each run of a batch."""
    for _ in range(_WARM_UP):
        run(batch)
    times: list[float] = []
    end = time.perf_counter() + _SECONDS
    while len(times) < _RUNS and (time.perf_counter() < end or len(times) < 3):
        start = time.perf_counter()
        run(batch)
        times.append(1e3 * (time.perf_counter() - start))
    return times


def _peak_memory() -> int | None:
    """Returns the peak memory of this process; None on Windows."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Linux's `ru_maxrss` counts what the parent had when it forked.
        lines = status.read_text().splitlines()
        found = [x.split()[1] for x in lines if x.startswith("VmHWM:")]
        return 1024 * int(found[0]) if found else None
    try:
        import resource
    except ModuleNotFoundError:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _open_litert(request: dict[str, Any]) -> Run:
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ModuleNotFoundError:
        from tensorflow.lite import Interpreter
    # Without a number, LiteRT uses one thread.
    threads = request["threads"] or os.cpu_count()
    interpreter = Interpreter(request["file"], num_threads=threads)
    runner = interpreter.get_signature_runner("serving_default")
    inputs, outputs = runner.get_input_details(), runner.get_output_details()

    def run(batch: Batch) -> dict[str, np.ndarray]:
        given = {
            k: _as_bytes(batch[k], x)
            if k in request["pixels"]
            else _quantize(batch[k], x)
            for k, x in inputs.items()
        }
        found = runner(**given)
        return {k: _dequantize(found[k], x) for k, x in outputs.items()}

    return run


def _as_bytes(values: np.ndarray, detail: Mapping[str, Any]) -> np.ndarray:
    """Returns pixels as a camera gives them, whatever the file's scale is."""
    pixels = np.clip(np.round(values), 0, 255)
    shift = np.iinfo(detail["dtype"]).min
    return (pixels + shift).astype(detail["dtype"])


def _quantize(values: np.ndarray, detail: Mapping[str, Any]) -> np.ndarray:
    scale, zero = detail["quantization"]
    if not scale:
        return values.astype(detail["dtype"])
    bounds = np.iinfo(detail["dtype"])
    steps = np.round(values / scale + zero)
    return np.clip(steps, bounds.min, bounds.max).astype(detail["dtype"])


def _dequantize(values: np.ndarray, detail: Mapping[str, Any]) -> np.ndarray:
    scale, zero = detail["quantization"]
    if not scale:
        return values
    return ((values.astype("float64") - zero) * scale).astype("float32")


def _open_onnx(request: dict[str, Any]) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # onnxruntime takes 0 for all cores.
    options.intra_op_num_threads = request["threads"] or 0
    session = onnxruntime.InferenceSession(
        request["file"], options, providers=["CPUExecutionProvider"]
    )
    names = [x.name for x in session.get_outputs()]
    wanted = [x.name for x in session.get_inputs()]

    def run(batch: Batch) -> dict[str, np.ndarray]:
        given = {name: batch[name] for name in wanted}
        return dict(zip(names, session.run(names, given), strict=True))

    return run


def _open_saved_model(request: dict[str, Any]) -> Run:
    import tensorflow as tf

    if request["threads"]:
        tf.config.threading.set_intra_op_parallelism_threads(request["threads"])
        tf.config.threading.set_inter_op_parallelism_threads(request["threads"])
    loaded = tf.saved_model.load(request["file"])
    signature = loaded.signatures["serving_default"]
    wanted = request["names"]["inputs"].values()

    # A default keeps `loaded`: the signature does not keep variables alive.
    def run(batch: Batch, _loaded: object = loaded) -> dict[str, np.ndarray]:
        found = signature(**{k: tf.constant(batch[k]) for k in wanted})
        return {name: x.numpy() for name, x in found.items()}

    return run


def _open_torch(request: dict[str, Any]) -> Run:
    import torch

    if request["threads"]:
        torch.set_num_threads(request["threads"])
    module = torch.export.load(request["file"]).module()
    wanted = request["names"]["inputs"].values()

    def run(batch: Batch) -> dict[str, np.ndarray]:
        with torch.no_grad():
            found = module(**{k: torch.as_tensor(batch[k]) for k in wanted})
        return {name: x.numpy() for name, x in found.items()}

    return run


def _open_keras(request: dict[str, Any]) -> Run:
    _limit_keras_threads(request)
    import keras

    model: Any = keras.saving.load_model(request["file"], compile=False)
    names = request["outputs"]
    # A Sequential has one input, in its functional model.
    structure = getattr(model, "input", None)

    def run(batch: Batch) -> dict[str, np.ndarray]:
        arrays = [batch[tensor.name] for tensor in model.inputs]
        given = keras.tree.pack_sequence_as(structure, arrays)
        found = keras.tree.flatten(model.predict_on_batch(given))
        pairs = zip(names, found, strict=True)
        return {name: np.asarray(x) for name, x in pairs}

    return run


def _limit_keras_threads(request: dict[str, Any]) -> None:
    """Sets the variables that backends read when they are imported."""
    if not (threads := request["threads"]):
        return
    for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS"):
        os.environ[name] = str(threads)
    # XLA's CPU has a switch for threads, and no number.
    if threads == 1:
        eigen = "--xla_cpu_multi_thread_eigen=false"
        flags = os.environ.get("XLA_FLAGS", "")
        os.environ["XLA_FLAGS"] = f"{flags} {eigen}".strip()


_OPENERS: dict[str, Callable[[dict[str, Any]], Run]] = {
    "keras": _open_keras,
    "onnx": _open_onnx,
    "saved_model": _open_saved_model,
    "tflite": _open_litert,
    "torch": _open_torch,
}
