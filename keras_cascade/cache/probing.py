"""Finds what in a frozen part is not the same each time, by running it twice.

What draws random numbers in training is known from its kind; a layer of the
user's may do so whatever mode it is in, count its calls, or answer on a sample
by the others in its batch.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_cascade.cache.frozen import Arrays, Compiled
from keras_cascade.graph.graph import Reference
from keras_cascade.graph.layer_copying import to_numpy_copy
from keras_cascade.graph.program import Program, Step, run_step
from keras_cascade.training.random_states import preserve_random_states

# Rows that are run operation by operation, to find the one that differs.
_ROWS = 4
# Of a batch, the rows that stay when others come to the places between.
_STAYING, _MOVING = slice(1, None, 2), slice(0, None, 2)
# What a sample's place in a batch may change, of the largest value: rounding.
_ROUNDING = {"float32": 1e-3, "float64": 1e-3}
_COARSE_ROUNDING = 5e-2


def probe(
    function: Compiled, program: Program, inputs: Arrays
) -> tuple[Arrays, dict[str, str]]:
    """Runs a frozen part twice on the same samples, among others.

    Args:
        function: The part, compiled.
        program: What it computes.
        inputs: A batch.

    Returns:
        What it gave, and what is not the same each time: the name of a step
        to the reason. Seeds and random states are as before.
    """
    before, others = _states(program.steps), _among_others(inputs)
    with preserve_random_states():
        first, second = function(inputs), function(others)
        found = _moving(program.steps, before, function.moved)
        found |= _adding_losses(program.steps, function.adds_losses)
        rows = len(next(iter(inputs.values())))
        found |= _without_rows(program, first, rows)
        if not found and not _stay(first.values(), second.values(), rows):
            found = _differing(program, inputs)
    _restore(before)
    return first, found


def _states(
    steps: Sequence[Step],
) -> list[tuple[Step, keras.Variable, np.ndarray]]:
    """What may move while a frozen part runs: what no loss trains."""
    return [
        (step, variable, to_numpy_copy(variable))
        for step in steps
        for variable in getattr(step.operation, "variables", ())
        if not variable.trainable or "seed_generator" in variable.path
    ]


def _moving(
    steps: Sequence[Step],
    before: Sequence[tuple[Step, keras.Variable, np.ndarray]],
    moved: Sequence[str],
) -> dict[str, str]:
    return {
        step.name: f"changes its state '{variable.path}' in every call"
        for step, variable, value in before
        if variable.path in moved
        or not np.array_equal(to_numpy_copy(variable), value)
    }


def _restore(
    before: Sequence[tuple[Step, keras.Variable, np.ndarray]],
) -> None:
    for _, variable, value in before:
        if not np.array_equal(to_numpy_copy(variable), value):
            variable.assign(value)


def _adding_losses(steps: Sequence[Step], traced: bool) -> dict[str, str]:
    reason = "adds a loss of its own"
    found = {
        step.name: reason
        for step in steps
        if isinstance(step.operation, keras.Layer) and step.operation.losses
    }
    if traced and not found:
        # JAX collects them without saying whose they are.
        return {s.name: reason for s in steps if _is_foreign(s.operation)}
    return found


def _without_rows(
    program: Program, outputs: Arrays, rows: int
) -> dict[str, str]:
    """The steps that give something that is not of single samples."""
    return {
        program.producers[reference].name: "gives no row for each sample"
        for name, reference in program.outputs.items()
        if reference in program.producers and outputs[name].shape[:1] != (rows,)
    }


def _is_foreign(operation: Any) -> bool:
    return type(operation).__module__.partition(".")[0] != "keras"


def _among_others(inputs: Mapping[str, np.ndarray]) -> Arrays:
    """Every second row stays, beside rows from the other end of the batch."""
    found = {}
    for name, array in inputs.items():
        found[name] = np.array(array[::-1])
        found[name][_STAYING] = array[_STAYING]
    return found


def _differing(program: Program, inputs: Arrays) -> dict[str, str]:
    """The first step that gives something else when it is run again."""
    few = {name: array[:_ROWS] for name, array in inputs.items()}
    rows = len(next(iter(few.values())))
    given, others = _start(program, few), _start(program, _among_others(few))
    for step, outputs, again in _both(program, given, given):
        if not _equal(outputs, again):
            return {step.name: "gives something else each time"}
    for step, outputs, changed in _both(program, given, others):
        if not _stay(outputs, changed, rows):
            return {step.name: "answers by the other samples in a batch"}
    return {
        step.name: "is part of what gives something else each time"
        for step in program.steps[-1:]
    }


def _start(program: Program, inputs: Arrays) -> dict[Reference, Any]:
    return {
        port.reference: keras.ops.convert_to_tensor(inputs[port.name])
        for port in program.inputs
    }


def _both(
    program: Program,
    one: Mapping[Reference, Any],
    other: Mapping[Reference, Any],
) -> Iterator[tuple[Step, list[Any], list[Any]]]:
    """What each step gives on the tensors of either start."""
    values, others = dict(one), dict(other)
    for step in program.steps:
        outputs, changed = run_step(step, values), run_step(step, others)
        yield step, outputs, changed
        values.update(zip(step.outputs, outputs, strict=True))
        others.update(zip(step.outputs, changed, strict=True))


def _stay(one: Iterable[Any], other: Iterable[Any], rows: int) -> bool:
    """Whether a sample's answer is the same, wherever and with whom it is."""
    return all(
        _alike(a, b)
        if a.shape[:1] == (rows,) and rows > 1
        else _equal([a], [b])
        for a, b in zip(map(_array, one), map(_array, other), strict=True)
    )


def _alike(one: np.ndarray, other: np.ndarray) -> bool:
    moved = one[::-1][_MOVING], other[_MOVING]
    if not _equal([one[_STAYING]], [other[_STAYING]]):
        return False
    if "float" not in one.dtype.name:
        return _equal(*([x] for x in moved))
    share = _ROUNDING.get(one.dtype.name, _COARSE_ROUNDING)
    a, b = (x.astype("float64") for x in moved)
    bound = share * np.max(np.abs(a[np.isfinite(a)]), initial=0.0)
    return np.allclose(a, b, rtol=0.0, atol=bound, equal_nan=True)


def _equal(one: Iterable[Any], other: Iterable[Any]) -> bool:
    return all(
        np.array_equal(a, b, equal_nan="float" in a.dtype.name)
        for a, b in zip(map(_array, one), map(_array, other), strict=True)
    )


def _array(x: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(x))
