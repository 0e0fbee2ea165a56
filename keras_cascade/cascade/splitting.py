"""Splits a cascade into its frozen and its trainable part."""

from typing import Any

import keras

from keras_cascade.graph.cutting import find_cut
from keras_cascade.graph.flattening import as_program
from keras_cascade.graph.program_model import ProgramModel


def split(cascade: keras.Model) -> tuple[ProgramModel, ProgramModel]:
    """Splits a cascade where its frozen part ends.

    `fit(cache_features=True)` does this by itself. By hand it serves training
    loops of your own, and features that are used elsewhere. The frozen part
    gives the same outputs for the same sample in every epoch, by the flags
    that the cascade has when it is split; the cut is where the fewest bytes
    cross it. Frozen layers that cost less than 1 % of all operations may be
    left to the trainable part, where that makes features smaller.

    Frozen layers run in inference mode, as in a cascade. The losses that a
    cascade adds to those of its layers, for retention, are the cascade's own.

    Args:
        cascade: A cascade, or any functional model. It stays as it is, and
            both parts share its variables.

    Returns:
        The frozen part, from the cascade's inputs to `{name: features}`, and
        the trainable part, from those (and the inputs that it takes as they
        are) to what the cascade gives. Features with a mask come with it,
        under their name followed by `:mask`.

    Raises:
        ValueError: If nothing is frozen, or random layers come before all
            frozen ones.

    Example:
    >>> frozen, trainable = keras_cascade.split(cascade)
    >>> features = frozen(images)
    >>> answers = trainable(features)  # equal to cascade(images)
    """
    if not isinstance(cascade, keras.Model):
        raise TypeError(
            "split(cascade) takes a cascade or a functional model; received "
            f"{cascade!r} of type {type(cascade).__name__}."
        )
    program = as_program(cascade)
    cut = find_cut(program)
    if not cut.frozen.steps:
        raise ValueError(
            f"'{cascade.name}' has no frozen part: {cut.why_nothing()}. Freeze "
            "the layers at its inputs (trainable=, cascade.freeze(pattern)), "
            "or move random layers after it."
        )
    given: Any = cascade.output
    return (
        ProgramModel(cut.frozen, taken=cascade.input, name="frozen"),
        ProgramModel(cut.trainable, given, name="trainable"),
    )
