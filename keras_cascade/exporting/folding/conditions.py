"""Finds and checks the steps around one, for the folding rules.

Tested by `tests/exporting/folding/test_rules.py`.
"""

import keras

from keras_cascade.exporting.folding import affine
from keras_cascade.graph.graph import Reference
from keras_cascade.graph.program import Program, Step


def sole_predecessor(program: Program, step: Step) -> Step | None:
    """Returns the step that gives a step's only input, and nothing else.

    It takes one tensor itself, or concatenates several.
    """
    if step.only_input is None:
        return None
    found = program.producers.get(step.only_input)
    if found is None or program.only_consumer(step.only_input) is not step:
        return None
    return found if found.only_input or concatenated(found) else None


def is_shared(program: Program, step: Step) -> bool:
    """Whether other steps call the layer of a step."""
    # The layer would stay for them, beside the one that it is folded into.
    return program.uses[id(step.operation)] > 1


def paired_calls(
    program: Program, first: Step, second: Step
) -> list[tuple[Step, Step]]:
    """Returns each call of a layer with the call of another that follows it.

    Empty if any call goes elsewhere: a layer is folded in all calls or none.
    """
    calls = [x for x in program.steps if x.operation is first.operation]
    pairs = [(x, program.only_consumer(x.outputs[0])) for x in calls]
    alike = [
        (call, after)
        for call, after in pairs
        if after is not None
        and after.operation is second.operation
        and after.only_input is not None
    ]
    return alike if len(alike) == len(calls) else []


def mixes_channels(program: Program, step: Step) -> bool:
    """Whether a step mixes channels with a layer that it alone calls."""
    mixes = affine.mixes_channels(step.operation)
    return mixes and not is_shared(program, step)


def concatenated(step: Step) -> list[Reference]:
    """Returns the tensors that a step concatenates; empty for other steps."""
    if type(step.operation) is not keras.layers.Concatenate or step.kwargs:
        return []
    # A constant among the parts has no step whose layer could be folded.
    constants = len(keras.tree.flatten(step.args)) - len(step.inputs)
    if constants or not affine.is_float32(step.operation):
        return []
    return list(step.inputs)
