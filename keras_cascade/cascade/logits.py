"""Tells losses that take logits for probabilities, or the other way round.

Both train, towards something else, without a word from Keras.

Tested by `tests/cascade/test_logits.py`.
"""

from collections.abc import Iterable, Iterator

from keras_cascade.graph.program import Program
from keras_cascade.training.labels import OutputLoss
from keras_cascade.values.range_inference import infer_range, last_activation


def doubts_about_logits(
    losses: Iterable[OutputLoss], program: Program
) -> Iterator[str]:
    """Yields what does not fit between outputs and their losses.

    Args:
        losses: Losses that take logits or probabilities.
        program: The model, all of whose layers are steps.
    """
    for loss in losses:
        name = loss.output or next(iter(program.outputs))
        reference = program.outputs[name]
        found = infer_range(program, reference)
        is_probability = found.low >= 0 and found.high <= 1
        activation = last_activation(program, reference)
        if loss.from_logits and is_probability:
            yield (
                f"the output '{name}' is {found}, and the loss '{loss.name}' "
                "with from_logits=True takes it for logits. Use "
                "from_logits=False, or a head without activation."
            )
        elif not loss.from_logits and not is_probability and activation:
            last = "sigmoid" if loss.kind == "binary" else "softmax"
            yield (
                f"the output '{name}' has the activation '{activation}', and "
                f"the loss '{loss.name}' takes it for probabilities, from 0 to "
                "1: others are clipped, and do not train. Use the loss's class "
                f"with from_logits=True, or the activation '{last}'."
            )
