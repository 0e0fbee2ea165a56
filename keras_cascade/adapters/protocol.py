"""How batches are handed to what learns from them."""

import inspect
from collections.abc import Mapping
from typing import Any

import keras


def learn(
    layer: keras.Layer, batch: Any, mask: Any = None, labels: Any = None
) -> None:
    """Calls `update_state` with what it takes of what there is.

    Args:
        layer: What learns: it has `update_state(batch)`, which may also take
            `mask` and `labels`.
        batch: The features.
        mask: Which steps of a sequence count. Defaults to `None`.
        labels: One array, a label a sample or position. Defaults to `None`.
    """
    update: Any = layer.update_state  # type: ignore[attr-defined]
    given = {"mask": mask, "labels": labels}
    taken = {
        name: value
        for name, value in given.items()
        if value is not None and _argument(layer, name) is not None
    }
    update(batch, **taken)


def takes_labels(layer: keras.Layer) -> bool:
    """Whether a layer learns from labels, where there are any."""
    return _argument(layer, "labels") is not None


def one_label_array(learners: Mapping[str, keras.Layer], labels: Any) -> Any:
    """The labels of a batch as those who learn from them need them.

    Args:
        learners: By its name, each layer that learns.
        labels: What the data has: an array, a structure of arrays, or None.

    Returns:
        One array; None where there is none and it is not needed.

    Raises:
        ValueError: There is none and it is needed, or there are several.
    """
    takers = {n: layer for n, layer in learners.items() if takes_labels(layer)}
    if labels is None:
        needing = {n: x for n, x in takers.items() if _needs_labels(x)}
        if needing:
            raise ValueError(_no_labels(needing))
        return None
    flat = keras.tree.flatten(labels)
    if takers and len(flat) != 1:
        raise ValueError(_several_labels(takers, labels))
    return flat[0] if takers else None


def _argument(layer: keras.Layer, name: str) -> inspect.Parameter | None:
    update: Any = getattr(layer, "update_state", None)
    if update is None:
        return None
    return inspect.signature(update).parameters.get(name)


def _needs_labels(layer: keras.Layer) -> bool:
    argument = _argument(layer, "labels")
    return argument is not None and argument.default is argument.empty


def _no_labels(needing: Mapping[str, keras.Layer]) -> str:
    return (
        f"{_listed(needing)} learns from labels, and the data has none. Give "
        "it with labels: arrays as a tuple, adapt((x, y)), or batches of "
        "(x, y)."
    )


def _several_labels(takers: Mapping[str, keras.Layer], labels: Any) -> str:
    names = (
        "a dict of " + ", ".join(map(repr, labels))
        if isinstance(labels, Mapping)
        else f"{len(keras.tree.flatten(labels))} arrays"
    )
    return (
        f"{_listed(takers)} learns from one array of labels, received {names}. "
        "Give the one that belongs to it: adapt((x, y)) with one array y."
    )


def _listed(layers: Mapping[str, keras.Layer]) -> str:
    kinds = [f"'{name}' ({type(x).__name__})" for name, x in layers.items()]
    return f"Adapter {' and '.join(kinds)}"
