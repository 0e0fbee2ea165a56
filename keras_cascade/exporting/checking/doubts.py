"""Tells why a check of a file proves little."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_cascade.data import to_numpy

# Answers that differ by less, as a share of the largest, differ by rounding.
_ROUNDING = 1e-6


def find_unproven(expected: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Returns for each output whose answers do not vary the reason.

    A file that gives the same answer to everything would pass there.

    Args:
        expected: The model's answers, by output.
    """
    found = {}
    for name, answers in expected.items():
        if len(answers) == 1:
            found[name] = "check_data has one sample"
        elif not _varies(answers):
            found[name] = f"the model answers all {len(answers)} samples alike"
    return found


def find_one_label(labels: Sequence[Any]) -> str:
    """Returns why labels prove little, if all samples of some have the same.

    Args:
        labels: The labels of each batch.
    """
    known = [batch for batch in labels if batch is not None]
    if not known or len(known) < len(labels):
        return ""
    whole = keras.tree.map_structure(
        lambda *parts: np.concatenate([to_numpy(x) for x in parts]), *known
    )
    for path, leaf in keras.tree.flatten_with_path(whole):
        if len(leaf) > 1 and np.all(leaf == leaf[:1]):
            of = f" of '{'/'.join(map(str, path))}'" if path else ""
            value = np.array2string(leaf[0], threshold=6)
            return f"all {len(leaf)} labels{of} are {value}"
    return ""


def _varies(answers: np.ndarray) -> bool:
    values = np.ma.masked_invalid(answers.astype("float64"))
    if not values.count():
        return False
    spread = np.ma.filled(np.ptp(values, axis=0), 0.0)
    return bool(spread.max() > _ROUNDING * np.abs(values).max())
