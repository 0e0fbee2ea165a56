"""Checks that a cascade keeps the promises of the library.

Tested by `tests/testing/test_checks.py`.
"""

from collections import Counter
from collections.abc import Mapping

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

Inputs = np.ndarray | Mapping[str, np.ndarray]


def check_cascade(cascade: Cascade, inputs: Inputs) -> list[str]:
    """Checks that a cascade keeps the promises of the library.

    Paths of variables are unique and begin with a block. Saving and loading
    keeps outputs, flags and paths. Frozen layers do not move in training mode.

    Args:
        cascade: A cascade whose adapters are fitted. It is not changed.
        inputs: A batch of its inputs: an array, or arrays by input name.

    Returns:
        The names of the checks that were run.

    Raises:
        CheckError: If a check fails.
        TypeError: If it is no cascade.

    Example:
        >>> check_cascade(cascade, images[:8])[0]
        'paths_are_unique_and_begin_with_a_block'
    """
    if not isinstance(cascade, Cascade):
        raise TypeError(
            "check_cascade(cascade) takes what build_cascade returns; received "
            f"{cascade!r} of type {type(cascade).__name__}."
        )
    checks = [
        paths_are_unique_and_begin_with_a_block,
        save_and_load_give_the_same,
        frozen_layers_do_not_move,
    ]
    return run(checks, cascade, inputs)


def paths_are_unique_and_begin_with_a_block(
    cascade: Cascade, inputs: Inputs
) -> None:
    """Checks the paths; what retention keeps has a prefix of its own."""
    paths = [variable.path for variable in cascade.variables]
    shared = [path for path, count in Counter(paths).items() if count > 1]
    expect(not shared, f"Several variables have one path: {shared}.")
    known = {*cascade.blocks, PREFIX}
    unknown = [p for p in paths if p.split("/")[0] not in known]
    expect(not unknown, f"Paths that begin with no block: {unknown}.")


def save_and_load_give_the_same(cascade: Cascade, inputs: Inputs) -> None:
    """Checks that a file keeps outputs, paths and flags."""
    again = reloaded(cascade)
    expect_equal(
        outputs(again, inputs), outputs(cascade, inputs), "After save and load"
    )
    for kind in ("variables", "trainable_variables"):
        before, after = (
            [variable.path for variable in getattr(model, kind)]
            for model in (cascade, again)
        )
        expect(before == after, f"{kind} after save and load: {after}.")


def frozen_layers_do_not_move(cascade: Cascade, inputs: Inputs) -> None:
    """Checks that a call in training mode changes no frozen variable."""
    again = reloaded(cascade)
    frozen = [
        variable
        for _, layer in leaf_layers(again)
        if not layer.trainable
        for variable in layer.variables
    ]
    before = [_value(variable) for variable in frozen]
    again(inputs, training=True)
    moved = [
        variable.path
        for variable, value in zip(frozen, before, strict=True)
        if not np.array_equal(value, _value(variable))
    ]
    expect(not moved, f"Frozen, but moved in training mode: {moved}.")


def _value(variable: keras.Variable) -> np.ndarray:
    # A copy: on torch the array shares the memory of the variable.
    return np.array(keras.ops.convert_to_numpy(variable))
