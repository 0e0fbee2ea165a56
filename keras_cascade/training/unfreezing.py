"""Plans the stages of a fit: which layers start to train in which epoch."""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass

import keras

from keras_cascade._interrupts.cleanup import finally_twice
from keras_cascade._reporting.messages import listed
from keras_cascade.adapters import Adapter
from keras_cascade.graph.block import apply_flags, read_flags
from keras_cascade.graph.paths import LayerPath
from keras_cascade.training.layer_lookup import LayerLookup
from keras_cascade.training.rates.layerwise_decay import groups_by_depth
from keras_cascade.training.trainable_flags import set_flags

Unfreeze = Mapping[int, str | Sequence[str]] | str | None
RECIPES = ("lp-ft", "gradual")
# Blocks that begin with random weights; the others are networks.
NEW_BLOCKS = ("adapters", "fusion", "head")


@dataclass(frozen=True)
class Stage:
    """The flags of layers that are set at the beginning of an epoch."""

    epoch: int
    flags: Mapping[LayerPath, bool]
    argument: str  # of the user, for messages


def plan_stages(
    lookup: LayerLookup, unfreeze: Unfreeze, epochs: int
) -> list[Stage]:
    """Returns the stages of `fit(unfreeze=..., epochs=...)` by epoch.

    Raises:
        ValueError: If an epoch is not one of the training's, a pattern
            matches nothing, or a stage would freeze.
        TypeError: If `unfreeze` is of another type.
    """
    if unfreeze is None:
        return []
    if isinstance(unfreeze, str):
        return _plan_recipe(lookup, unfreeze, epochs)
    if not isinstance(unfreeze, Mapping):
        raise TypeError(
            "unfreeze must be {epoch: path pattern or list of patterns} or "
            f"one of {listed(RECIPES)}; received {unfreeze!r}."
        )
    for epoch in unfreeze:
        _check_epoch(epoch, epochs)
    return [_stage(lookup, e, unfreeze[e]) for e in sorted(unfreeze)]


def find_trainable_by_stage(
    lookup: LayerLookup, stages: Sequence[Stage]
) -> list[list[keras.Variable]]:
    """Returns the variables that train at first, and after each stage."""
    # Only Keras knows which variables a flag covers: set the flags and look.
    with _preserve_flags(lookup.layers.values()):
        found = [list(lookup.cascade.trainable_variables)]
        for stage in stages:
            set_flags(lookup, stage.flags)
            found.append(list(lookup.cascade.trainable_variables))
    return found


def _check_epoch(epoch: object, epochs: int) -> None:
    if not isinstance(epoch, int) or isinstance(epoch, bool) or epoch < 0:
        raise ValueError(
            f"unfreeze names epoch {epoch!r}. Epochs are whole numbers, "
            "counted from 0 as initial_epoch counts them."
        )
    if epoch >= epochs:
        raise ValueError(
            f"unfreeze has a stage at epoch {epoch}, and training ends before "
            f"epoch {epochs}: the last one is {epochs - 1}. Raise epochs, or "
            "let the stage begin earlier."
        )


def _stage(
    lookup: LayerLookup, epoch: int, patterns: str | Iterable[str]
) -> Stage:
    argument = f"unfreeze[{epoch}]"
    if isinstance(patterns, Mapping):
        patterns = _only_true(patterns, argument)
    paths = lookup.covered_by_any(patterns, argument)
    shown = patterns if isinstance(patterns, str) else list(patterns)
    return Stage(epoch, dict.fromkeys(paths, True), f"{argument} = {shown!r}")


def _only_true(flags: Mapping[str, object], argument: str) -> list[str]:
    for pattern, flag in flags.items():
        if flag is not True:
            raise ValueError(
                f"{argument} would set '{pattern}' to {flag!r}. A stage only "
                "unfreezes, as layers that an earlier stage trains would lose "
                "their momentum on the way: list what it unfreezes, and call "
                "cascade.freeze() between two fits."
            )
    return list(flags)


def _plan_recipe(lookup: LayerLookup, name: str, epochs: int) -> list[Stage]:
    if name not in RECIPES:
        raise ValueError(
            f"unfreeze={name!r} is no recipe. There are {listed(RECIPES)}; a "
            "stage of your own is {epoch: path pattern}, such as "
            f"{{3: {name!r}}}."
        )
    if epochs < 2:
        raise ValueError(
            f"unfreeze={name!r} needs at least 2 epochs, as it has stages; "
            f"received epochs={epochs}."
        )
    new = _new_layers(lookup)
    networks = [path for path in lookup.layers if path[0] not in NEW_BLOCKS]
    if name == "lp-ft":
        later = _all_in_second_half(networks, bool(new), epochs)
    else:
        later = _group_by_group(lookup, networks, bool(new), epochs)
    first = dict.fromkeys(networks, False) | dict.fromkeys(new, True)
    said = f"unfreeze={name!r}"
    stages = [
        Stage(epoch, dict.fromkeys(paths, True), said)
        for epoch, paths in sorted(later.items())
    ]
    return [Stage(0, first, said), *stages]


def _all_in_second_half(
    networks: list[LayerPath], has_new: bool, epochs: int
) -> dict[int, list[LayerPath]]:
    if not has_new:
        raise ValueError(
            "unfreeze='lp-ft' trains what is new first, and this cascade has "
            "no weights in adapters, fusion or head. Name its stages by "
            "patterns: {epoch: 'downstream/...'}."
        )
    return {(epochs + 1) // 2: networks}


def _group_by_group(
    lookup: LayerLookup, networks: list[LayerPath], has_new: bool, epochs: int
) -> dict[int, list[LayerPath]]:
    first = int(has_new)
    groups = groups_by_depth(lookup.graph, networks, epochs - first)
    later: dict[int, list[LayerPath]] = {}
    for path, group in groups.items():
        later.setdefault(first + group, []).append(path)
    return later


def _new_layers(lookup: LayerLookup) -> list[LayerPath]:
    """Returns the layers with random weights, but for frozen adapters."""
    return [
        path
        for path, layer in lookup.layers.items()
        if path[0] in NEW_BLOCKS
        and layer.weights
        # An adapter that was made with `trainable=False` stays as it is.
        and not (isinstance(layer, Adapter) and not layer.trainable)
    ]


def _preserve_flags(
    layers: Iterable[keras.Layer],
) -> AbstractContextManager[None]:
    before = [(layer, read_flags(layer)) for layer in layers]

    def restore() -> None:
        for layer, flags in before:
            apply_flags(layer, flags)

    return finally_twice(restore)
