"""Sets which layers of a cascade train."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import keras

from keras_cascade import _keras_compat as compat
from keras_cascade._cascade_view import as_model
from keras_cascade._interrupts.cleanup import finally_twice
from keras_cascade._reporting.messages import listed
from keras_cascade.adapters import Adapter
from keras_cascade.graph import low_rank
from keras_cascade.graph.inner_layers import set_flag_inside
from keras_cascade.graph.paths import LayerPath
from keras_cascade.training.layer_lookup import LayerLookup
from keras_cascade.training.lora import (
    LoRA,
    adopt_existing_updates,
    apply_lora,
    possible_paths,
)


class LayerFlags:
    """The `trainable` flags of all layers of a model, also inner ones.

    A plain object: Keras would track layers that are an attribute of a model.
    """

    def __init__(self, model: keras.Model):
        self._layers = list(compat.sublayers(model))

    def read(self) -> list[bool]:
        """Returns the flags."""
        return [layer.trainable for layer in self._layers]

    def restore(self, flags: Sequence[bool]) -> None:
        """Sets the flags that `read` returned."""
        # Parents come first: their flag spreads to the layers inside.
        for layer, flag in zip(self._layers, flags, strict=True):
            layer.trainable = flag
        for layer in filter(low_rank.has_low_rank, self._layers):
            low_rank.freeze_rest(layer)


def set_trainable(
    lookup: LayerLookup, trainable: bool | Mapping[str, bool | LoRA] | None
) -> None:
    """Sets the flags of a cascade's layers, as in `build_cascade`.

    None freezes the upstreams, and a mapping applies on top of that. True
    leaves adapters frozen that were made with `trainable=False`.
    """
    adopt_existing_updates(lookup.layers.values())
    if isinstance(trainable, bool):
        _set_all(lookup, trainable)
        return
    # On layers, not networks: Keras does not pass a network's flag on to its
    # layers where it is set to what it was.
    for path, layer in lookup.layers.items():
        if path[0] in lookup.cascade.upstreams:
            low_rank.set_flag(layer, False)
    patterns = trainable or {}
    deciding = lookup.deciding_patterns(patterns, "trainable")
    lookup.check_none_overridden(patterns, deciding, "trainable")
    _apply(lookup, patterns, deciding)


def set_flags(lookup: LayerLookup, flags: Mapping[LayerPath, bool]) -> None:
    """Sets the flags of single layers, by their paths: all, or none."""
    with _all_or_none(as_model(lookup.cascade)):
        for path, flag in flags.items():
            if path not in lookup.layers:
                lookup.covered("/".join(path), "unfreeze")
            _set_flag(lookup, path, flag)


@contextmanager
def _all_or_none(model: keras.Model) -> Iterator[None]:
    """Restores the flags of all layers if the block does not end."""
    flags = LayerFlags(model)
    before, ended = flags.read(), []

    def undo() -> None:
        if not ended:
            flags.restore(before)

    with finally_twice(undo):
        yield
        ended.append(True)


def _set_flag(lookup: LayerLookup, path: LayerPath, flag: bool) -> None:
    layer, holder = lookup.layers[path], lookup.holders.get(path)
    if holder is None:
        low_rank.set_flag(layer, flag)
    else:
        set_flag_inside(holder, layer, flag, "/".join(path))
    _set_in_others(lookup, path, flag)


def _set_in_others(lookup: LayerLookup, path: LayerPath, flag: bool) -> None:
    """Sets the flag where other layers call the same network once per step."""
    layer = lookup.layers[path]
    own = (layer, lookup.holders.get(path))
    inside = set(map(id, compat.sublayers(layer)))
    for other in lookup.layers.values():
        if isinstance(other, keras.layers.TimeDistributed) and other not in own:
            for inner in list(compat.sublayers(other)):
                if id(inner) in inside:
                    set_flag_inside(other, inner, flag, "/".join(path))


def _set_all(lookup: LayerLookup, flag: bool) -> None:
    for layer in lookup.layers.values():
        stays_frozen = isinstance(layer, Adapter) and not layer.trainable
        if not (flag and stays_frozen):
            low_rank.set_flag(layer, flag)


def _apply(
    lookup: LayerLookup,
    patterns: Mapping[str, bool | LoRA],
    deciding: Mapping[LayerPath, str],
) -> None:
    updated = set()
    for path, pattern in deciding.items():
        layer, value = lookup.layers[path], patterns[pattern]
        if not isinstance(value, LoRA):
            _set_flag(lookup, path, value)
        elif path in lookup.holders:
            raise ValueError(
                f"trainable['{pattern}'] is {value}, and '{'/'.join(path)}' "
                "is inside a layer. Give the pattern of the layer around it."
            )
        elif apply_lora(layer, value, "/".join(path)):
            updated.add(pattern)
    for pattern, value in patterns.items():
        if isinstance(value, LoRA) and pattern not in updated:
            raise ValueError(_nothing_to_update(lookup, pattern, value))


def _nothing_to_update(lookup: LayerLookup, pattern: str, lora: LoRA) -> str:
    paths = possible_paths(lookup.layers)
    more = f" and {len(paths) - 8} more" if len(paths) > 8 else ""
    return (
        f"trainable['{pattern}'] is {lora}, and no layer there takes low-rank "
        "updates: Dense, EinsumDense, convolutions and Embedding do, adapters "
        f"do not. In this cascade: {listed(paths[:8])}{more}."
    )
