"""Divides layers by depth, and lowers learning rates towards the input."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, fields
from typing import Any

import keras
from keras.optimizers.schedules import LearningRateSchedule

from keras_cascade.graph.flattening import flatten
from keras_cascade.graph.graph import Graph
from keras_cascade.graph.paths import LayerPath, names_of
from keras_cascade.graph.program import Program, Step
from keras_cascade.training.rates.block_rates import Rate, validate_rate


@keras.saving.register_keras_serializable(package="keras_cascade")
@dataclass(frozen=True)
class LayerwiseDecay:
    """A learning rate that falls by a factor with each group of layers.

    A value of `learning_rates`. Layers near the input have learned general
    features and should change least: the group nearest to the output has
    `learning_rate`, the next `learning_rate * decay_rate`, and so on. Depth
    is the longest path through layers with weights to the output of the
    block, or of the cascade where the pattern covers several blocks: the
    graph counts, not the order in which layers were made.

    Args:
        learning_rate: The rate of the top group: a float or a
            `LearningRateSchedule`.
        decay_rate: The factor from one group to the next, above 0 and at most
            1.
        groups: The number of groups of equal depth that the covered layers
            are divided into; no more than there are depths. Defaults to `12`.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
    >>> rates = {"upstream": LayerwiseDecay(1e-4, 0.75)}
    >>> cascade = build_cascade(network, head=10, learning_rates=rates)

    Source: Clark et al., ELECTRA (2020), and the `layer_decay` of timm.
    """

    learning_rate: Rate
    decay_rate: float
    groups: int = 12

    def __post_init__(self) -> None:
        validate_rate("LayerwiseDecay(learning_rate=...)", self.learning_rate)
        if not _is_number(self.decay_rate) or not 0 < self.decay_rate <= 1:
            raise ValueError(
                "LayerwiseDecay(decay_rate=...) must be above 0 and at most 1; "
                f"received {self.decay_rate!r}."
            )
        if type(self.groups) is not int or self.groups < 1:
            raise ValueError(
                "LayerwiseDecay(groups=...) must be a whole number of at least "
                f"1; received {self.groups!r}."
            )

    def rate_of(self, group: int) -> Rate:
        """Returns the rate of a group; group 0 is nearest to the output."""
        factor = self.decay_rate**group
        if isinstance(self.learning_rate, (int, float)):
            return float(self.learning_rate) * factor
        return ScaledSchedule(self.learning_rate, factor)

    def get_config(self) -> dict[str, Any]:
        """Returns plain values, for a `.keras` file."""
        serialize = keras.saving.serialize_keras_object
        return {f.name: serialize(getattr(self, f.name)) for f in fields(self)}

    @classmethod
    def from_config(cls, config: dict) -> "LayerwiseDecay":
        """Returns the decay of a config."""
        return cls(**keras.saving.deserialize_keras_object(config))


@keras.saving.register_keras_serializable(package="keras_cascade")
class ScaledSchedule(LearningRateSchedule):
    """A schedule times a factor."""

    def __init__(self, schedule: LearningRateSchedule, factor: float):
        super().__init__()
        self.schedule, self.factor = schedule, factor

    def __call__(self, step: object) -> Any:
        """Returns the rate at a step."""
        return keras.ops.multiply(self.schedule(step), self.factor)

    def get_config(self) -> dict[str, Any]:
        """Returns plain values, for a `.keras` file."""
        schedule = keras.saving.serialize_keras_object(self.schedule)
        return {"schedule": schedule, "factor": self.factor}

    @classmethod
    def from_config(cls, config: dict) -> "ScaledSchedule":
        """Returns the schedule of a config."""
        schedule = keras.saving.deserialize_keras_object(config["schedule"])
        return cls(schedule, config["factor"])


def groups_by_depth(
    graph: Graph, paths: Collection[LayerPath], number: int
) -> dict[LayerPath, int]:
    """Divides layers into a number of groups of equal depth.

    There is at most one group for each depth; group 0 is nearest to the
    output. A layer without weights is in the group of the layers around it.
    If no layer has weights there are no groups.
    """
    blocks = {path[0] for path in paths}
    block = blocks.pop() if len(blocks) == 1 else None
    depths, weighted = depths_of(graph, block)
    counted = [depths[path] for path in paths if path in weighted]
    if not counted:
        return {}
    lowest, levels = min(counted), max(counted) - min(counted) + 1
    number = min(number, levels)

    def group(depth: int) -> int:
        inside = min(max(depth - lowest, 0), levels - 1)
        return inside * number // levels

    return {path: group(depths[path]) for path in paths if path in depths}


def depths_of(
    graph: Graph, block: str | None
) -> tuple[dict[LayerPath, int], set[LayerPath]]:
    """Returns the depth of each operation, and which have weights.

    The depth is the largest number of layers with weights on a path to the
    output of the block, or of the cascade where that is None; of several
    calls of a layer the deepest counts.
    """
    flat = flatten(graph)
    inside = [c for c in flat.steps if block in (None, names_of(c.address)[0])]
    known: dict[int, int] = {}
    depths: dict[LayerPath, int] = {}
    for call in reversed(inside):  # the calls that use an output come first
        known[id(call)] = _depth(call, flat, known)
        path = names_of(call.address)
        depths[path] = max(depths.get(path, 0), known[id(call)])
    weighted = {names_of(c.address) for c in inside if _has_weights(c)}
    return depths, weighted


def _depth(call: Step, flat: Program, known: Mapping[int, int]) -> int:
    users = [
        user
        for output in call.outputs
        for user in flat.data_consumers.get(output, ())
        if id(user) in known
    ]
    return max((known[id(u)] + _has_weights(u) for u in users), default=0)


def _has_weights(call: Step) -> bool:
    return isinstance(call.operation, keras.Layer) and bool(
        call.operation.weights
    )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
