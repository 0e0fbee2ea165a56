"""Tells labels that a loss cannot take, before the first step.

Keras tells some of them inside a loss, by shapes that name neither the labels
nor the loss. Labels out of range train on JAX without a word.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_cascade._reporting.messages import closest, listed

_LOSSES = keras.losses
# The losses whose labels are known, by the kind of labels that they take.
_KINDS: dict[str, tuple[object, ...]] = {
    "sparse": (
        _LOSSES.SparseCategoricalCrossentropy,
        _LOSSES.sparse_categorical_crossentropy,
    ),
    "one-hot": (
        _LOSSES.CategoricalCrossentropy,
        _LOSSES.CategoricalFocalCrossentropy,
        _LOSSES.categorical_crossentropy,
        _LOSSES.categorical_focal_crossentropy,
    ),
    "binary": (
        _LOSSES.BinaryCrossentropy,
        _LOSSES.BinaryFocalCrossentropy,
        _LOSSES.binary_crossentropy,
        _LOSSES.binary_focal_crossentropy,
    ),
    "number": (
        _LOSSES.MeanSquaredError,
        _LOSSES.MeanAbsoluteError,
        _LOSSES.Huber,
        _LOSSES.mean_squared_error,
        _LOSSES.mean_absolute_error,
        _LOSSES.huber,
    ),
}
_Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class OutputLoss:
    """The loss of an output, of which the labels are known.

    Attributes:
        output: The name of the output; empty if there is one.
        kind: `"sparse"`, `"one-hot"`, `"binary"` or `"number"`.
        name: The name of the loss.
        ignored: The label that the loss leaves out.
        from_logits: Whether the loss takes logits; None if it takes neither
            these nor probabilities.
    """

    output: str
    kind: str
    name: str
    ignored: int | None
    from_logits: bool | None = None

    def check_shape(self, labels: _Shape, outputs: _Shape) -> None:
        """Raises a ValueError for labels of a shape that the loss cannot take.

        Args:
            labels: The shape of the labels, batch included.
            outputs: The shape of the output.
        """
        check = {"sparse": self._sparse, "one-hot": self._one_hot}
        check.get(self.kind, self._same)(labels, outputs)

    def check_values(self, labels: np.ndarray, width: int | None) -> None:
        """Raises a ValueError for labels that are out of the loss's range.

        Args:
            labels: The labels of all samples, or of some.
            width: The number of values of the output; None if it is open.
        """
        if labels.dtype.kind == "f" and not np.isfinite(labels).all():
            count = int(np.sum(~np.isfinite(labels)))
            raise ValueError(
                f"{self._labels} have {count:,} values that are not finite "
                "(NaN or infinity), from which the loss becomes NaN. Leave "
                "those rows out: np.isfinite(y) finds them."
            )
        if self.kind == "sparse" and width is not None:
            self._check_classes(labels, width)
        if self.kind == "binary" and _leaves(labels, 0, 1):
            raise ValueError(
                f"{self._labels} lie in [{labels.min():g}, {labels.max():g}], "
                f"and the loss '{self.name}' takes labels from 0 to 1. For "
                "several classes: head=number of classes, loss="
                "'sparse_categorical_crossentropy'."
            )

    @property
    def _labels(self) -> str:
        of = f" of '{self.output}'" if self.output else ""
        return f"The labels{of}"

    def _check_classes(self, labels: np.ndarray, width: int) -> None:
        kept = (
            labels if self.ignored is None else labels[labels != self.ignored]
        )
        if kept.dtype.kind == "f" and np.any(kept != np.floor(kept)):
            raise ValueError(
                f"{self._labels} have values such as "
                f"{kept[kept != np.floor(kept)][0]:g}, and the loss "
                f"'{self.name}' takes class numbers, which are whole. For "
                "values of any size: head=1 output without activation, "
                "loss='mse'."
            )
        if not _leaves(kept, 0, width - 1):
            return
        low, high = int(kept.min()), int(kept.max())
        hint = f"For {high + 1} classes: head={high + 1}."
        if low and high - low < width:
            sign = "-" if low > 0 else "+"
            hint = f"For labels that begin at {low}: y {sign} {abs(low)}."
        if low < 0 and self.ignored is None:
            hint += (
                " To leave rows out: keras.losses."
                f"SparseCategoricalCrossentropy(ignore_class={low})."
            )
        raise ValueError(
            f"{self._labels} go from {low} to {high}, and the output has "
            f"{width} classes, which the loss '{self.name}' numbers from 0 to "
            f"{width - 1}. {hint}"
        )

    def _sparse(self, labels: _Shape, outputs: _Shape) -> None:
        width = outputs[-1]
        if width == 1:
            raise ValueError(
                f"The loss '{self.name}' takes an output of a value for each "
                "class, and this one has a single value. Use "
                "loss='binary_crossentropy', or head=number of classes."
            )
        if len(labels) == len(outputs) and labels[-1] not in (1, None):
            one_hot = labels[-1] == width
            hint = "loss='categorical_crossentropy', or y.argmax(-1)"
            raise ValueError(
                f"{self._labels} have the shape {_text(labels)}"
                f"{', as one-hot rows have,' * one_hot} and the loss "
                f"'{self.name}' takes class numbers, {_text(outputs[:-1])}."
                + f" Use {hint}."
                * one_hot
            )
        self._compare(labels, outputs[:-1])

    def _one_hot(self, labels: _Shape, outputs: _Shape) -> None:
        width = outputs[-1]
        numbers = len(labels) == len(outputs) - 1 or labels[-1] == 1
        if numbers and width != 1:
            raise ValueError(
                f"{self._labels} have the shape {_text(labels)}, as class "
                f"numbers have, and the loss '{self.name}' takes one-hot rows, "
                f"{_text(outputs)}. Use loss='sparse_categorical_crossentropy'"
                f", or keras.utils.to_categorical(y, {width})."
            )
        self._compare(labels, outputs)

    def _same(self, labels: _Shape, outputs: _Shape) -> None:
        # Keras adds or drops a last axis of one.
        if outputs[-1] == 1 and len(labels) == len(outputs) - 1:
            return
        if labels[-1] == 1 and len(outputs) == len(labels) - 1:
            return
        self._compare(labels, outputs)

    def _compare(self, labels: _Shape, outputs: _Shape) -> None:
        if len(labels) == len(outputs) + 1 and labels[-1] == 1:
            labels = labels[:-1]
        sizes = zip(labels[1:], outputs[1:], strict=False)
        if len(labels) == len(outputs) and all(
            a == b or 1 in (a, b) or None in (a, b) for a, b in sizes
        ):
            return
        width = labels[-1] if len(labels) == len(outputs) > 1 else None
        hint = f" For {width} values: head={width}." if width else ""
        raise ValueError(
            f"{self._labels} have the shape {_text(labels)}, and the loss "
            f"'{self.name}' compares them with an output of the shape "
            f"{_text(outputs)}.{hint}"
        )


def output_losses(
    loss: object, outputs: Sequence[str]
) -> dict[str, OutputLoss]:
    """Returns the loss of each output whose labels are known.

    Args:
        loss: The argument of `compile`.
        outputs: The names of the outputs, `[""]` if there is a single one.
    """
    return {
        name: found
        for name, one in _by_output(loss, outputs)
        if (found := _describe(name, one)) is not None
    }


def check_labels(
    losses: Mapping[str, OutputLoss], y: Any, outputs: Any
) -> None:
    """Raises a ValueError for labels whose shapes do not fit the outputs.

    Args:
        losses: From `output_losses`.
        y: The labels, or their symbols.
        outputs: The outputs.
    """
    for one, labels in _pairs(losses, y, outputs):
        result = outputs[one.output] if one.output else outputs
        if hasattr(labels, "shape") and hasattr(result, "shape"):
            one.check_shape(tuple(labels.shape), tuple(result.shape))


def check_label_values(
    losses: Mapping[str, OutputLoss], y: Any, outputs: Any
) -> None:
    """Raises a ValueError for labels that a loss's output does not have.

    Args:
        losses: From `output_losses`.
        y: The labels, as arrays.
        outputs: The symbolic outputs.
    """
    for one, labels in _pairs(losses, y, outputs):
        result = outputs[one.output] if one.output else outputs
        if isinstance(labels, np.ndarray) and labels.dtype.kind in "biuf":
            one.check_values(labels, result.shape[-1])


def check_has_labels(
    losses: Mapping[str, OutputLoss], y: object, what: str
) -> None:
    """Raises a ValueError if there are losses and there are no labels."""
    if y is None and losses:
        names = listed(dict.fromkeys(x.name for x in losses.values()))
        raise ValueError(
            f"{what} have no labels, and the cascade has the loss {names}. "
            "Pass them as y, or data that give (x, y)."
        )


def _pairs(
    losses: Mapping[str, OutputLoss], y: Any, outputs: Any
) -> Iterator[tuple[OutputLoss, Any]]:
    """Yields each loss with its labels."""
    if not isinstance(outputs, Mapping):
        if "" in losses and not isinstance(y, Mapping | list | tuple):
            yield losses[""], y
        return
    if y is None or not losses:
        return
    if isinstance(y, list | tuple):
        return
    if not isinstance(y, Mapping):
        if len(outputs) > 1:
            raise ValueError(
                f"The cascade has the outputs {listed(outputs)}, and the "
                "labels are one array. Pass a dict with labels for each."
            )
        y = dict.fromkeys(losses, y)
    for name, one in losses.items():
        if name not in y:
            raise ValueError(
                f"The labels lack '{name}', an output of the cascade: they "
                f"have {listed(y)}.{closest(name, map(str, y))} Pass a dict "
                f"with labels for each of {listed(losses)}."
            )
        yield one, y[name]


def _by_output(
    loss: object, outputs: Sequence[str]
) -> Iterator[tuple[str, object]]:
    if isinstance(loss, Mapping):
        if len(outputs) == 1 and outputs[0] == "" and len(loss) == 1:
            yield "", next(iter(loss.values()))
        else:
            yield from ((n, loss[n]) for n in outputs if n in loss)
    elif isinstance(loss, list | tuple):
        if len(loss) == len(outputs):
            yield from zip(outputs, loss, strict=True)
    else:
        yield from ((name, loss) for name in outputs)


def _describe(output: str, loss: object) -> OutputLoss | None:
    """Returns the loss of an output, if it is one of Keras's own."""
    found = keras.losses.get(loss) if isinstance(loss, str) else loss
    for kind, several in _KINDS.items():
        if any(found is x or type(found) is x for x in several):
            default = getattr(found, "__name__", "")
            name = loss if isinstance(loss, str) else default
            name = name or getattr(found, "name", kind)
            ignored = getattr(found, "ignore_class", None)
            logits = None
            if kind != "number":
                logits = bool(getattr(found, "from_logits", False))
            return OutputLoss(output, kind, str(name), ignored, logits)
    return None


def _leaves(labels: np.ndarray, low: float, high: float) -> bool:
    """Returns whether labels leave a range; NaN does not."""
    return bool(np.any(labels < low) or np.any(labels > high))


def _text(shape: _Shape) -> str:
    sizes = ["batch", *("any" if x is None else str(x) for x in shape[1:])]
    return f"({', '.join(sizes)}{',' * (len(sizes) == 1)})"
