"""Reads the names that a network itself has for tensors.

Tested by `tests/graph/test_taps.py`.
"""

from collections.abc import Container, Iterator, Mapping
from itertools import chain, count

import keras


def named_outputs(network: keras.Model | None) -> dict[str, keras.KerasTensor]:
    """Returns the tensors that a network has names for.

    These are the maps of a feature pyramid in KerasHub's backbones (`P3`), and
    several outputs: by their keys (`pooled_output`), else `output`,
    `output_1` and so on.

    Args:
        network: Any network, or none.

    Returns:
        The tensors by their names; empty for networks that name none.
    """
    found: dict[str, keras.KerasTensor] = {}
    for attribute in ("output", "pyramid_outputs"):
        named = getattr(network, attribute, None)
        if not isinstance(named, Mapping | list | tuple):
            continue
        for name, tensor in output_leaves(named):
            if isinstance(tensor, keras.KerasTensor):
                found.setdefault(_free(name or "output", found), tensor)
    return found


def output_leaves(
    structure: object, name: str = ""
) -> Iterator[tuple[str, object]]:
    """Yields outputs by their keys: `states_0` for the first of `states`.

    Those of a list that has no key have the name `""`.
    """
    if isinstance(structure, Mapping):
        for key, value in structure.items():
            full = f"{name}_{key}" if name else str(key)
            yield from output_leaves(value, full)
    elif isinstance(structure, list | tuple):
        for index, value in enumerate(structure):
            yield from output_leaves(value, f"{name}_{index}" if name else "")
    else:
        yield name, structure


def _free(name: str, taken: Container[str]) -> str:
    """Returns the name, or the first of `name_1`, `name_2` ... not taken."""
    numbers = (f"{name}_{number}" for number in count(1))
    return next(x for x in chain([name], numbers) if x not in taken)
