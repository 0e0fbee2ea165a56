"""Times LiteRT files side by side, a sample at a time on one thread."""

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

Inputs = dict[str, np.ndarray]
Route = Callable[[Inputs], np.ndarray]


def open_file(path: Path) -> Callable[[Inputs], Inputs]:
    """Returns a file as a function of one sample, on one thread."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path), num_threads=1)
    interpreter.allocate_tensors()
    # By indices, which costs less than the names of a signature.
    runner = interpreter.get_signature_runner("serving_default")
    given = {k: x["index"] for k, x in runner.get_input_details().items()}
    found = {k: x["index"] for k, x in runner.get_output_details().items()}

    def run_file(inputs: Inputs) -> Inputs:
        for name, index in given.items():
            interpreter.set_tensor(index, inputs[name])
        interpreter.invoke()
        return {name: interpreter.get_tensor(x) for name, x in found.items()}

    return run_file


def only_output(run_file: Callable[[Inputs], Inputs]) -> Route:
    """Returns a file of one output as a function that returns it."""

    def route(inputs: Inputs) -> np.ndarray:
        (answer,) = run_file(inputs).values()
        return answer

    return route


def in_turns(
    routes: Sequence[Route], sample: Inputs, pairs: int, runs: int
) -> list[list[float]]:
    """Returns pairs of medians: the seconds of a sample by each route."""
    for route in routes:
        _block(route, sample, runs)  # warms up
    times = []
    for pair in range(pairs):
        order = routes[::-1] if pair % 2 else routes
        seconds = [_block(route, sample, runs) for route in order]
        times.append(seconds[::-1] if pair % 2 else seconds)
    return times


def _block(route: Route, sample: Inputs, runs: int) -> float:
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        route(sample)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def sample_of(inputs: Inputs, row: int) -> Inputs:
    """Returns one of the samples, as a batch."""
    return {name: x[row : row + 1] for name, x in inputs.items()}
