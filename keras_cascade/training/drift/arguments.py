"""What a DriftMonitor is given: checked against the cascade it watches."""

from collections.abc import Iterable, Mapping
from typing import Any

import keras

from keras_cascade import data as user_data
from keras_cascade._cascade_view import CascadeView
from keras_cascade.data.inputs import (
    check_shape,
    fit_last_axis,
    input_paths,
    sort_inputs,
)
from keras_cascade.training.drift.pretrained_copies import pretrained_blocks


def check_numbers(**numbers: Any) -> None:
    """Each is an integer of at least 1, or an error names it."""
    for name, number in numbers.items():
        if not isinstance(number, int) or number < 1:
            raise ValueError(
                f"{name} must be an integer of at least 1; received {number!r}."
            )


def check_reiterable(name: str, data: Any) -> None:
    """The data can be read after every epoch, or an error names them."""
    if not user_data.is_reiterable(data):
        raise ValueError(
            f"{name} is read after every epoch, and a "
            f"{type(data).__name__} gives one pass. Pass an array, a data set "
            "or a PyDataset."
        )


def inputs_of(cascade: CascadeView, batch: Any) -> Any:
    """Returns a batch of reference data in the structure of the inputs.

    Raises:
        ValueError: If inputs are missing or have other shapes.
    """
    paths = input_paths(cascade.input)
    found = sort_inputs(batch, paths, "reference_data")
    for tensor in cascade.inputs:
        x = fit_last_axis(found[tensor.name], tensor.shape)
        check_shape(x, tensor.shape, tensor.name, "reference_data")
    return keras.tree.pack_sequence_as(cascade.input, list(found.values()))


def find_sources(
    cascade: CascadeView, pretrained: Mapping[str, keras.Model]
) -> dict[str, keras.Model]:
    """The original networks of the blocks, of those that are at hand."""
    if not hasattr(cascade, "upstreams"):
        raise TypeError(
            "DriftMonitor watches a Cascade, which build_cascade makes; the "
            f"model that is fitted is the {type(cascade).__name__} "
            f"'{cascade.name}'."
        )
    possible = pretrained_blocks(cascade)
    _check_blocks("pretrained", pretrained, possible)
    if cascade.spec.shares:
        # They are the cascade's own layers, and move with it.
        return dict(pretrained)
    found = {n: pretrained.get(n) or cascade.source(n) for n in possible}
    return {n: network for n, network in found.items() if network is not None}


def find_old_data(
    cascade: CascadeView, old_task: Any, sources: Mapping[str, keras.Model]
) -> dict[str, Any]:
    """The data of the old tasks by their blocks."""
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
    possible = pretrained_blocks(cascade)
    _check_blocks("old_task", old_task, possible)
    for name, data in old_task.items():
        check_reiterable(f"old_task of '{name}'", data)
        original_of(sources, name, cascade)
    return dict(old_task)


def original_of(
    sources: Mapping[str, keras.Model], name: str, cascade: CascadeView
) -> keras.Model:
    """The original network of a block, with its old head."""
    network = sources.get(name) or cascade.source(name)
    if network is None:
        raise ValueError(
            f"old_task needs the original network of '{name}' for its old "
            "head, and it is gone. Keep it in a variable until fit, or pass "
            f"pretrained={{'{name}': network}}."
        )
    return network


def _check_blocks(
    argument: str, names: Iterable[str], possible: list[str]
) -> None:
    for name in names:
        if name not in possible:
            raise ValueError(
                f"{argument} names '{name}', which is no pretrained block. "
                f"There are: {', '.join(map(repr, possible))}."
            )
