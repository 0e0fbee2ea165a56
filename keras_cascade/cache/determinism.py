"""Finds steps of a frozen part that are not deterministic, by running it twice.

Layers that draw random numbers in training are known by their kind. A layer of
the user's may do so in inference too, count its calls, or answer on a sample
by the others in its batch.

Tested by `tests/cache/test_refusing.py`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_cascade.cache.compiled import Arrays, CompiledModel
from keras_cascade.graph.layer_copying import to_numpy_copy
from keras_cascade.graph.program import Program, Step, run_step
from keras_cascade.training.random_states import preserve_random_states

# Rows that are run step by step, to find the one that differs.
_ROWS = 4
# The rows of a batch that stay when others come to the places between.
_STAYING, _MOVING = slice(1, None, 2), slice(0, None, 2)
# The rounding, relative to the largest value, of a sample in another place.
_ROUNDING = {"float32": 1e-3, "float64": 1e-3}
_COARSE_ROUNDING = 5e-2

State = tuple[Step, keras.Variable, np.ndarray]


def find_nondeterministic(
    function: CompiledModel, program: Program, inputs: Arrays
) -> tuple[Arrays, dict[str, str]]:
    """Runs a frozen part twice on the same samples, among other samples.

    Args:
        function: The part, compiled.
        program: The operations of the part.
        inputs: A batch.

    Returns:
        The outputs of the first run, and the steps that are not
        deterministic: name to reason. Seeds and random states are as before.
    """
    before, others = _states(program.steps), _among_others(inputs)
    # The trial must not change what a live training would draw.
    with preserve_random_states():
        first, second = function(inputs), function(others)
        found = _changing_states(before, function.changed)
        found |= _adding_losses(program.steps, function.adds_losses)
        rows = len(next(iter(inputs.values())))
        found |= _without_rows(program, first, rows)
        if not found and not _are_kept(first.values(), second.values(), rows):
            found = _first_difference(program, inputs)
    for _, variable, value in before:
        if not np.array_equal(to_numpy_copy(variable), value):
            variable.assign(value)
    return first, found


def _states(steps: Sequence[Step]) -> list[State]:
    """Returns the variables that may change in inference, with their values."""
    return [
        (step, variable, to_numpy_copy(variable))
        for step in steps
        for variable in getattr(step.operation, "variables", ())
        if not variable.trainable or "seed_generator" in variable.path
    ]


def _changing_states(
    before: Sequence[State], changed: Sequence[str]
) -> dict[str, str]:
    return {
        step.name: f"changes its state '{variable.path}' in every call"
        for step, variable, value in before
        if variable.path in changed
        or not np.array_equal(to_numpy_copy(variable), value)
    }


def _adding_losses(steps: Sequence[Step], traced: bool) -> dict[str, str]:
    reason = "adds a loss of its own"
    found = {
        step.name: reason
        for step in steps
        if isinstance(step.operation, keras.Layer) and step.operation.losses
    }
    if traced and not found:
        # JAX collects losses without saying which layer added them: any that
        # is not Keras's may have.
        return {
            step.name: reason
            for step in steps
            if type(step.operation).__module__.partition(".")[0] != "keras"
        }
    return found


def _without_rows(
    program: Program, outputs: Arrays, rows: int
) -> dict[str, str]:
    return {
        program.producers[reference].name: "gives no row for each sample"
        for name, reference in program.outputs.items()
        if reference in program.producers and outputs[name].shape[:1] != (rows,)
    }


def _among_others(inputs: Mapping[str, np.ndarray]) -> Arrays:
    """Returns a batch in which every second row stays, the rest reversed."""
    found = {}
    for name, array in inputs.items():
        found[name] = np.array(array[::-1])
        found[name][_STAYING] = array[_STAYING]
    return found


def _first_difference(program: Program, inputs: Arrays) -> dict[str, str]:
    """Returns the first step that answers otherwise when it is run again."""
    few = {name: array[:_ROWS] for name, array in inputs.items()}
    rows = len(next(iter(few.values())))
    convert = keras.ops.convert_to_tensor
    runs = [
        {
            port.reference: convert(x[port.name]) if port.name in x else None
            for port in program.inputs
        }
        for x in (few, few, _among_others(few))
    ]
    for step in program.steps:
        found = [run_step(step, values) for values in runs]
        outputs, again, changed = ([*map(_array, x)] for x in found)
        if not all(map(_equal, outputs, again)):
            return {step.name: "gives something else each time"}
        if not _are_kept(outputs, changed, rows):
            return {step.name: "answers by the other samples in a batch"}
        for values, tensors in zip(runs, found, strict=True):
            values.update(zip(step.outputs, tensors, strict=True))
    reason = "is part of what gives something else each time"
    return {step.name: reason for step in program.steps[-1:]}


def _are_kept(
    one: Iterable[np.ndarray], other: Iterable[np.ndarray], rows: int
) -> bool:
    """Whether a sample's answers do not depend on its place and neighbours."""
    return all(
        _is_kept(a, b) if a.shape[:1] == (rows,) and rows > 1 else _equal(a, b)
        for a, b in zip(one, other, strict=True)
    )


def _is_kept(one: np.ndarray, other: np.ndarray) -> bool:
    if not _equal(one[_STAYING], other[_STAYING]):
        return False
    a, b = one[::-1][_MOVING], other[_MOVING]
    if "float" not in one.dtype.name:
        return _equal(a, b)
    share = _ROUNDING.get(one.dtype.name, _COARSE_ROUNDING)
    a, b = a.astype("float64"), b.astype("float64")
    bound = share * np.max(np.abs(a[np.isfinite(a)]), initial=0.0)
    return np.allclose(a, b, rtol=0.0, atol=bound, equal_nan=True)


def _equal(a: np.ndarray, b: np.ndarray) -> bool:
    return np.array_equal(a, b, equal_nan="float" in a.dtype.name)


def _array(x: Any) -> np.ndarray:
    return np.asarray(keras.ops.convert_to_numpy(x))
