"""What every cascade must keep, checked on one."""

from collections import Counter
from typing import Any

import keras
import numpy as np

from keras_cascade.cascade.cascade import Cascade
from keras_cascade.graph.block import leaf_layers
from keras_cascade.testing.checks import (
    expect,
    expect_equal,
    outputs,
    reloaded,
    run,
)
from keras_cascade.training.retention.keeper import PREFIX


def check_cascade(cascade: Cascade, inputs: Any) -> list[str]:
    """Checks that a cascade keeps what the library promises.

    Names are unique and begin with a block; save and load give the same
    answers, flags and paths; frozen layers do not move in training mode.

    Args:
        cascade: A cascade whose adapters are fitted; it stays as it is.
        inputs: A batch that it takes.

    Returns:
        The names of the checks that were run.

    Raises:
        CheckError: If one does not hold.

    Example:
        >>> check_cascade(cascade, images[:8])[0]
        'paths_are_unique_and_begin_with_a_block'
    """
    checks = [
        paths_are_unique_and_begin_with_a_block,
        save_and_load_give_the_same,
        frozen_layers_do_not_move,
    ]
    return run(checks, cascade, inputs)


def paths_are_unique_and_begin_with_a_block(
    cascade: Cascade, inputs: Any
) -> None:
    """No two variables share a path; what is retained lies beside them."""
    paths = [variable.path for variable in cascade.variables]
    twice = [path for path, count in Counter(paths).items() if count > 1]
    expect(not twice, f"Several variables have one path: {twice}.")
    known = {*cascade.blocks, PREFIX}
    astray = [p for p in paths if p.split("/")[0] not in known]
    expect(not astray, f"Paths that begin with no block: {astray}.")


def save_and_load_give_the_same(cascade: Cascade, inputs: Any) -> None:
    """Answers, paths and flags survive a file."""
    again = reloaded(cascade)
    expect_equal(
        outputs(again, inputs), outputs(cascade, inputs), "After save and load"
    )
    for what in ("variables", "trainable_variables"):
        before, after = (
            [variable.path for variable in getattr(model, what)]
            for model in (cascade, again)
        )
        expect(before == after, f"{what} after save and load: {after}.")


def frozen_layers_do_not_move(cascade: Cascade, inputs: Any) -> None:
    """A pass in training mode leaves frozen variables as they are."""
    again = reloaded(cascade)
    frozen = {
        variable.path: variable
        for _, layer in leaf_layers(again)
        if not layer.trainable
        for variable in layer.variables
    }
    before = {path: _value(variable) for path, variable in frozen.items()}
    again(inputs, training=True)
    moved = [
        path
        for path, variable in frozen.items()
        if not np.array_equal(before[path], _value(variable))
    ]
    expect(not moved, f"Frozen, but moved in training mode: {moved}.")


def _value(variable: keras.Variable) -> np.ndarray:
    return np.array(keras.ops.convert_to_numpy(variable))
