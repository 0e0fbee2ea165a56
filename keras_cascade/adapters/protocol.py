"""Hands batches of features and labels to the layers that learn from them.

Tested by `tests/adapters/test_fitting.py`.
"""

import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import keras

from keras_cascade import data as user_data
from keras_cascade._keras_compat.annotations import Tensor


@runtime_checkable
class Learner(Protocol):
    """An adapter, or a layer of Keras, that learns batch by batch.

    Attributes:
        reset_state: Starts a pass.
        update_state: Learns from a batch; an adapter also takes `labels` and
            `mask`, one of Keras's own layers takes the batch alone.
        finalize_state: Sets the weights; ends a pass.
    """

    reset_state: Callable[[], None]
    update_state: Callable[..., None]
    finalize_state: Callable[[], None]


def learning_batches(
    learners: Mapping[str, keras.Layer], data: object, batch_size: int
) -> Iterator[tuple[Any, Any]]:
    """Yields the inputs of each batch of data, and one array of labels or None.

    Labels are left unread where no learner uses them: they may be of a kind
    that cannot be learned from.
    """
    users = {name: x for name, x in learners.items() if _uses_labels(x)}
    if not users:
        for x in user_data.batches(data, batch_size):
            yield x, None
        return
    for x, labels in user_data.labelled_batches(data, batch_size):
        yield x, _one_array(users, labels)


def learn(
    learner: Learner, batch: Tensor, labels: object, mask: object = None
) -> None:
    """Calls `update_state` with the batch, and the labels and mask it takes."""
    optional = {"labels": labels, "mask": mask}
    given = {n: x for n, x in optional.items() if x is not None}
    taken = {n: x for n, x in given.items() if _argument(learner, n)}
    learner.update_state(batch, **taken)


def _argument(learner: object, name: str) -> inspect.Parameter | None:
    update = getattr(learner, "update_state", None)
    return update and inspect.signature(update).parameters.get(name)


def _uses_labels(layer: keras.Layer) -> bool:
    uses = getattr(layer, "uses_labels", True)
    return uses and _argument(layer, "labels") is not None


def _needs_labels(layer: keras.Layer) -> bool:
    argument = _argument(layer, "labels")
    required = argument is not None and argument.default is argument.empty
    return required or getattr(layer, "needs_labels", False)


def _one_array(users: Mapping[str, keras.Layer], labels: object) -> Any:
    if labels is None:
        needing = {n: x for n, x in users.items() if _needs_labels(x)}
        if needing:
            raise ValueError(
                f"{_adapters(needing)} learns from labels, and the data has "
                "none. Give the data with labels: arrays as a tuple, "
                "adapt((x, y)), or batches of (x, y)."
            )
        return None
    flat = keras.tree.flatten(labels)
    if len(flat) == 1:
        return flat[0]
    received = f"{len(flat)} arrays"
    if isinstance(labels, Mapping):
        received = "a dict of " + ", ".join(map(repr, labels))
    raise ValueError(
        f"{_adapters(users)} learns from one array of labels, received "
        f"{received}. Give one array y: adapt((x, y))."
    )


def _adapters(layers: Mapping[str, keras.Layer]) -> str:
    kinds = [f"'{name}' ({type(x).__name__})" for name, x in layers.items()]
    return f"Adapter {' and '.join(kinds)}"
