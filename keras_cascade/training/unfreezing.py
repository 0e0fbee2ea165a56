"""What starts to train in which epoch: the stages of one fit."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras

from keras_cascade._cascade_view import CascadeView
from keras_cascade.adapters import Adapter
from keras_cascade.graph.block import apply_flags, read_flags
from keras_cascade.graph.paths import LayerPath
from keras_cascade.training.layer_lookup import LayerLookup
from keras_cascade.training.rates.layerwise_decay import groups_by_depth
from keras_cascade.training.trainable_flags import covered_by, set_flags

Unfreeze = Mapping[int, str | Sequence[str]] | str | None
RECIPES = ("lp-ft", "gradual")
# Blocks that begin with random weights; the others are networks.
NEW_BLOCKS = ("adapters", "fusion", "head")


@dataclass(frozen=True)
class Stage:
    """What changes at the beginning of an epoch.

    Attributes:
        epoch: The epoch, counted from 0.
        flags: The layers whose flag is set, by their paths.
        said: What the user said, for messages.
    """

    epoch: int
    flags: Mapping[LayerPath, bool]
    said: str


def plan_stages(
    lookup: LayerLookup, cascade: CascadeView, unfreeze: Unfreeze, epochs: int
) -> list[Stage]:
    """What `fit(unfreeze=...)` means, in order of the epochs.

    Args:
        lookup: The cascade's layers.
        cascade: The cascade.
        unfreeze: `{epoch: path pattern or list of them}`, the name of a
            recipe, or None.
        epochs: The epoch to stop before.

    Raises:
        ValueError: If an epoch is none of the training's, a pattern matches
            nothing, or a stage would freeze.
        TypeError: If it is of another kind.
    """
    if unfreeze is None:
        return []
    if isinstance(unfreeze, str):
        return _recipe(lookup, cascade, unfreeze, epochs)
    if not isinstance(unfreeze, Mapping):
        raise TypeError(
            "unfreeze must be {epoch: path pattern or list of patterns} or "
            f"one of {', '.join(map(repr, RECIPES))}; received {unfreeze!r}."
        )
    for epoch in unfreeze:
        _check_epoch(epoch, epochs)
    return [_stage(lookup, e, unfreeze[e]) for e in sorted(unfreeze)]


def variables_that_train(
    lookup: LayerLookup, cascade: keras.Model, stages: Sequence[Stage]
) -> list[list[keras.Variable]]:
    """What trains to begin with, and after each stage.

    Flags are as they were afterwards.
    """
    with _flags_kept(lookup.layers.values()):
        found = [list(cascade.trainable_variables)]
        for stage in stages:
            set_flags(lookup, stage.flags)
            found.append(list(cascade.trainable_variables))
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


def _stage(lookup: LayerLookup, epoch: int, wanted: Any) -> Stage:
    said = f"unfreeze[{epoch}]"
    if isinstance(wanted, Mapping):
        wanted = _only_true(wanted, said)
    paths = covered_by(lookup, wanted, said)
    shown = wanted if isinstance(wanted, str) else list(wanted)
    return Stage(epoch, dict.fromkeys(paths, True), f"{said} = {shown!r}")


def _only_true(wanted: Mapping, said: str) -> list[str]:
    for pattern, flag in wanted.items():
        if flag is not True:
            raise ValueError(
                f"{said} would set '{pattern}' to {flag!r}. A stage only has "
                "more train, as what an earlier one trains would lose its "
                "momentum on the way: list what it unfreezes, and call "
                "cascade.freeze() between two fits."
            )
    return list(wanted)


def _recipe(
    lookup: LayerLookup, cascade: CascadeView, name: str, epochs: int
) -> list[Stage]:
    if name not in RECIPES:
        raise ValueError(
            f"unfreeze={name!r} is no recipe. There are "
            f"{', '.join(map(repr, RECIPES))}; a stage of your own is "
            f"{{epoch: path pattern}}, such as {{3: {name!r}}}."
        )
    if epochs < 2:
        raise ValueError(
            f"unfreeze={name!r} needs at least 2 epochs, as it has stages; "
            f"received epochs={epochs}."
        )
    new = _new_layers(lookup)
    networks = [p for p in lookup.layers if p[0] not in NEW_BLOCKS]
    if name == "lp-ft":
        return _probe_then_all(new, networks, epochs)
    return _gradual(cascade, new, networks, epochs)


def _probe_then_all(
    new: list[LayerPath], networks: list[LayerPath], epochs: int
) -> list[Stage]:
    if not new:
        raise ValueError(
            "unfreeze='lp-ft' trains what is new first, and this cascade has "
            "no weights in adapters, fusion or head. Name its stages by "
            "patterns: {epoch: 'downstream/...'}."
        )
    said = "unfreeze='lp-ft'"
    probe = dict.fromkeys(networks, False) | dict.fromkeys(new, True)
    everything = dict.fromkeys(networks, True)
    half = (epochs + 1) // 2
    return [Stage(0, probe, said), Stage(half, everything, said)]


def _gradual(
    cascade: CascadeView,
    new: list[LayerPath],
    networks: list[LayerPath],
    epochs: int,
) -> list[Stage]:
    said = "unfreeze='gradual'"
    first = 1 if new else 0
    groups = groups_by_depth(cascade, networks, epochs - first)
    start = dict.fromkeys(networks, False) | dict.fromkeys(new, True)
    stages: list[Stage] = [Stage(0, start, said)]
    for group in sorted(set(groups.values())):
        paths = [path for path, of in groups.items() if of == group]
        stages.append(Stage(first + group, dict.fromkeys(paths, True), said))
    return stages


def _new_layers(lookup: LayerLookup) -> list[LayerPath]:
    """The layers that begin with random weights.

    An adapter that was made with `trainable=False` stays as it is.
    """
    return [
        path
        for path, layer in lookup.layers.items()
        if path[0] in NEW_BLOCKS
        and layer.weights
        and not (isinstance(layer, Adapter) and not layer.trainable)
    ]


@contextmanager
def _flags_kept(layers: Iterable[keras.Layer]) -> Iterator[None]:
    before = [(layer, read_flags(layer)) for layer in layers]
    try:
        yield
    finally:
        for layer, flags in before:
            apply_flags(layer, flags)
