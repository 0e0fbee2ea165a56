"""Sets what trains: block by block, layer by layer."""

from collections.abc import Mapping, Sequence
from typing import TypeVar

from keras_cascade.adapters import Adapter
from keras_cascade.graph import low_rank
from keras_cascade.graph.paths import LayerPath
from keras_cascade.training.layer_lookup import LayerLookup
from keras_cascade.training.lora import (
    LoRA,
    adopt_own,
    apply_lora,
    possible_paths,
)

Value = TypeVar("Value")


def set_trainable(
    lookup: LayerLookup, trainable: bool | Mapping[str, bool | LoRA] | None
) -> None:
    """Sets the flags of a cascade's layers.

    Flags are set on the layers that have weights of their own, not on the
    networks around them: Keras does not hand a network's flag on where it is
    set to what it was.

    Args:
        lookup: The cascade's layers.
        trainable: None freezes the upstreams; a bool holds for everything but
            adapters that were made with `trainable=False`, which stay as they
            are; a mapping of path patterns applies on top of None. `LoRA`
            trains low-rank updates only.

    Raises:
        ValueError: If a pattern matches nothing, later ones override all
            that it says, or it asks for LoRA where no layer has it.
    """
    adopt_own(lookup.layers.values())
    if isinstance(trainable, bool):
        _set_all(lookup, trainable)
        return
    for path, layer in lookup.layers.items():
        if path[0] in lookup.upstreams:
            low_rank.set_flag(layer, False)
    patterns = trainable or {}
    owners = lookup.deciding_patterns(patterns, "trainable")
    _check_none_is_overridden(lookup, patterns, owners)
    _apply(lookup, patterns, owners)


def covered_by(
    lookup: LayerLookup, patterns: str | Sequence[str], argument: str
) -> list[LayerPath]:
    """The layers that one or several patterns cover.

    Args:
        lookup: The cascade's layers.
        patterns: A path pattern, or a list of them.
        argument: Where they stand, for errors.

    Raises:
        ValueError: If one matches nothing.
        TypeError: If one is no text.
    """
    several = [patterns] if isinstance(patterns, str) else patterns
    if not isinstance(several, list | tuple) or not several:
        raise TypeError(
            f"{argument} must be a path pattern or a list of them, such as "
            f"'upstream/conv*'; received {patterns!r}."
        )
    for pattern in several:
        if not isinstance(pattern, str):
            raise TypeError(
                f"{argument} names {pattern!r}; a path pattern is text, such "
                "as 'upstream/conv*'."
            )
    found = [path for p in several for path in lookup.covered(p, argument)]
    return list(dict.fromkeys(found))


def set_flags(lookup: LayerLookup, flags: Mapping[LayerPath, bool]) -> None:
    """Sets the flags of single layers, by their paths."""
    for path, flag in flags.items():
        low_rank.set_flag(lookup.layers[path], flag)


def _set_all(lookup: LayerLookup, flag: bool) -> None:
    for layer in lookup.layers.values():
        kept = isinstance(layer, Adapter) and not layer.trainable
        if not (flag and kept):
            low_rank.set_flag(layer, flag)


def _apply(
    lookup: LayerLookup,
    patterns: Mapping[str, bool | LoRA],
    owners: Mapping[LayerPath, str],
) -> None:
    updated = set()
    for path, pattern in owners.items():
        layer, value = lookup.layers[path], patterns[pattern]
        if not isinstance(value, LoRA):
            low_rank.set_flag(layer, value)
        elif apply_lora(layer, value, "/".join(path)):
            updated.add(pattern)
    for pattern, value in patterns.items():
        if isinstance(value, LoRA) and pattern not in updated:
            raise ValueError(_nothing_to_update(lookup, pattern, value))


def _nothing_to_update(lookup: LayerLookup, pattern: str, lora: LoRA) -> str:
    paths = possible_paths(lookup.layers)
    some = ", ".join(f"'{path}'" for path in paths[:8]) or "none"
    more = f" and {len(paths) - 8} more" if len(paths) > 8 else ""
    return (
        f"trainable['{pattern}'] is {lora}, and no layer there takes low-rank "
        "updates: Dense, EinsumDense, convolutions and Embedding do, adapters "
        f"do not. In this cascade: {some}{more}."
    )


def _check_none_is_overridden(
    lookup: LayerLookup,
    patterns: Mapping[str, Value],
    owners: Mapping[LayerPath, str],
) -> None:
    for pattern in patterns:
        if pattern in owners.values():
            continue
        over = {owners[path] for path in lookup.covered(pattern, "trainable")}
        later = ", ".join(f"'{name}'" for name in sorted(over))
        raise ValueError(
            f"trainable: '{pattern}' changes nothing, as the later {later} "
            "overrides it everywhere. Put the general pattern first, or drop "
            "it."
        )
