"""Checks the arguments of a DriftMonitor against the cascade it watches.

Tested by `tests/training/drift/test_monitor.py`.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import keras

from keras_cascade import data as user_data
from keras_cascade._cascade_view import CascadeView, is_cascade
from keras_cascade._reporting.messages import listed
from keras_cascade.data.inputs import (
    check_shape,
    fit_last_axis,
    input_paths,
    sort_inputs,
)
from keras_cascade.training.drift.pretrained_copies import pretrained_blocks


def check_numbers(**numbers: object) -> None:
    """Raises a ValueError for a number that is not an int of at least 1."""
    for name, number in numbers.items():
        if not isinstance(number, int) or number < 1:
            raise ValueError(
                f"{name} must be an integer of at least 1; received {number!r}."
            )


def check_reiterable(name: str, data: object) -> None:
    """Raises a ValueError for data that can be read only once."""
    if not user_data.is_reiterable(data):
        raise ValueError(
            f"{name} is read after every epoch, and a "
            f"{type(data).__name__} gives one pass. Pass an array, a data set "
            "or a PyDataset."
        )


def pack_inputs(cascade: CascadeView, batch: object) -> Any:
    """Returns a batch of reference data in the structure of the inputs."""
    paths = input_paths(cascade.input)
    found = sort_inputs(batch, paths, "reference_data")
    for tensor in cascade.inputs:
        x = fit_last_axis(found[tensor.name], tensor.shape)
        check_shape(x, tensor.shape, tensor.name, "reference_data")
    return keras.tree.pack_sequence_as(cascade.input, list(found.values()))


def find_sources(
    cascade: CascadeView, pretrained: Mapping[str, keras.Model]
) -> dict[str, keras.Model]:
    """Returns the original networks by their blocks, as far as they exist."""
    if not is_cascade(cascade):
        raise TypeError(
            "DriftMonitor watches a Cascade, which build_cascade makes; the "
            f"model that is fitted is the {type(cascade).__name__} "
            f"'{cascade.name}'."
        )
    possible = pretrained_blocks(cascade)
    pretrained = _by_block(cascade, pretrained)
    _check_blocks("pretrained", pretrained, possible)
    if cascade.spec.shares:
        # The networks share the cascade's layers, and move with it.
        return dict(pretrained)
    found = {n: pretrained.get(n) or cascade.source(n) for n in possible}
    return {n: network for n, network in found.items() if network is not None}


def find_old_tasks(
    cascade: CascadeView, old_task: object, sources: Mapping[str, keras.Model]
) -> dict[str, tuple[keras.Model, Any]]:
    """Returns the original network and the data of each block's old task."""
    if old_task is None:
        return {}
    upstreams = cascade.upstreams
    if not isinstance(old_task, Mapping):
        if len(upstreams) > 1:
            raise ValueError(
                f"There are {len(upstreams)} upstreams: pass old_task="
                f"{{'{upstreams[0]}': (x, y), ...}}."
            )
        old_task = {upstreams[0]: old_task}
    old_task = _by_block(cascade, old_task)
    _check_blocks("old_task", old_task, pretrained_blocks(cascade))
    found = {}
    for name, data in old_task.items():
        check_reiterable(f"old_task of '{name}'", data)
        # With copy=False there are no sources, and the cascade's layers are
        # the network's own.
        network = sources.get(name) or cascade.source(name)
        if network is None:
            raise ValueError(
                f"old_task needs the original network of '{name}' for its old "
                "head, and it no longer exists. Keep it in a variable until "
                f"fit, or pass pretrained={{'{name}': network}}."
            )
        found[name] = network, data
    return found


def _by_block(cascade: CascadeView, given: Mapping[str, Any]) -> dict[str, Any]:
    """Returns values by the blocks of the networks that they were given for."""
    roles = cascade.spec.roles.items()
    block_of = {name: block for block, names in roles for name in names}
    return {block_of.get(name, name): value for name, value in given.items()}


def _check_blocks(
    argument: str, names: Iterable[str], possible: list[str]
) -> None:
    for name in names:
        if name not in possible:
            raise ValueError(
                f"{argument} names '{name}', which is no pretrained block. "
                f"There are: {listed(possible)}."
            )
