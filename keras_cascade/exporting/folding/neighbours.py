"""What a rule of folding asks of the steps around one."""

import keras

from keras_cascade.exporting.folding import affine
from keras_cascade.graph.graph import Reference
from keras_cascade.graph.program import Program, Step


def before(program: Program, step: Step) -> Step | None:
    """The step that alone feeds this one, and nothing else."""
    if step.only_input is None:
        return None
    found = program.producers.get(step.only_input)
    if found is None or program.only_consumer(step.only_input) is not step:
        return None
    return found if found.only_input or joined(found) else None


def is_shared(program: Program, step: Step) -> bool:
    """Whether other steps call its layer, which would stay beside the new."""
    return program.uses[id(step.operation)] > 1


def followed_alike(
    program: Program, first: Step, second: Step
) -> list[tuple[Step, Step]]:
    """The calls of one layer, each with that of another which takes it.

    Of a network that is called twice both can be folded. Empty if a call goes
    anywhere else.
    """
    calls = [x for x in program.steps if x.operation is first.operation]
    after = [program.only_consumer(x.outputs[0]) for x in calls]
    alike = [
        (call, found)
        for call, found in zip(calls, after, strict=True)
        if found is not None
        and found.operation is second.operation
        and found.only_input is not None
    ]
    return alike if len(alike) == len(calls) else []


def is_float32(program: Program, tensor: Reference) -> bool:
    """Whether a tensor is what a layer in float32 takes without a cast."""
    return program.dtypes[tensor] == "float32"


def mixes(program: Program, step: Step) -> bool:
    """Whether a step mixes channels with a layer of its own."""
    return affine.mixes(step.operation) and not is_shared(program, step)


def joined(step: Step) -> list[Reference]:
    """The tensors that a concatenation joins; none for another step."""
    if type(step.operation) is not keras.layers.Concatenate or step.kwargs:
        return []
    constants = len(keras.tree.flatten(step.args)) - len(step.inputs)
    if constants or not affine.is_float32(step.operation):
        return []
    return list(step.inputs)
