"""Finds what in a frozen part is not the same each time, by running it twice.

What draws random numbers in training is known from its kind; a layer of the
user's may do so whatever mode it is in, or count its calls.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_cascade.cache.frozen import Arrays, Compiled
from keras_cascade.graph.program import Program, Step, run_step
from keras_cascade.operations import own
from keras_cascade.training.random_states import random_states_kept

# Rows that are run operation by operation, to find the one that differs.
_ROWS = 2


def probe(
    function: Compiled, program: Program, inputs: Arrays
) -> tuple[Arrays, dict[str, str]]:
    """Runs a frozen part twice on the same batch.

    Args:
        function: The part, compiled.
        program: What it computes.
        inputs: A batch.

    Returns:
        What it gave, and what is not the same each time: the name of a step
        to the reason. Seeds and random states are as before.
    """
    before = _states(program.steps)
    with random_states_kept():
        first, second = function(inputs), function(inputs)
        found = _moving(program.steps, before, function.moved)
        found |= _adding_losses(program.steps, function.adds_losses)
        if not found and not _equal(first.values(), second.values()):
            found = _differing(program, inputs)
    _restore(before)
    return first, found


def _states(
    steps: Sequence[Step],
) -> list[tuple[Step, keras.Variable, np.ndarray]]:
    """What may move while a frozen part runs: what no loss trains."""
    return [
        (step, variable, own(variable))
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
        if variable.path in moved or not np.array_equal(own(variable), value)
    }


def _restore(
    before: Sequence[tuple[Step, keras.Variable, np.ndarray]],
) -> None:
    for _, variable, value in before:
        if not np.array_equal(own(variable), value):
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


def _is_foreign(operation: Any) -> bool:
    return type(operation).__module__.partition(".")[0] != "keras"


def _differing(program: Program, inputs: Arrays) -> dict[str, str]:
    """The first step that gives something else when it is run again."""
    given = [
        keras.ops.convert_to_tensor(inputs[port.name][:_ROWS])
        for port in program.inputs
    ]
    for step, outputs, again in _twice(program, given):
        if not _equal(outputs, again):
            return {step.name: "gives something else each time"}
    return {
        step.name: "is part of what gives something else each time"
        for step in program.steps[-1:]
    }


def _twice(
    program: Program, given: Sequence[Any]
) -> Iterator[tuple[Step, list[Any], list[Any]]]:
    values: Mapping = {}
    values = {
        port.reference: tensor
        for port, tensor in zip(program.inputs, given, strict=True)
    }
    for step in program.steps:
        outputs, again = (run_step(step, values) for _ in range(2))
        yield step, outputs, again
        values.update(zip(step.outputs, outputs, strict=True))


def _equal(one: Any, other: Any) -> bool:
    def array(x: Any) -> Any:
        return keras.ops.convert_to_numpy(x)

    return all(
        np.array_equal(array(a), array(b), equal_nan=array(a).dtype.kind == "f")
        for a, b in zip(one, other, strict=True)
    )
