"""Compares a file's answers with the model's."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_cascade import _keras_compat as compat
from keras_cascade.data import to_numpy
from keras_cascade.exporting.samples import Samples
from keras_cascade.networks.loading import as_functional

Answers = dict[str, np.ndarray]


@dataclass(frozen=True)
class OutputParity:
    """The differences of a file's answers from the model's at one output.

    Attributes:
        spread: The standard deviation of the model's answers over the
            samples, a mean over the output's values.
        maximum: The largest difference, in spreads.
        mean: The mean difference, in spreads.
        agreement: The share of samples whose top answer is the same: the
            largest value, or the rounding of a single one; None if neither
            makes sense.
    """

    spread: float
    maximum: float
    mean: float
    agreement: float | None


def compare(expected: Answers, found: Answers) -> dict[str, OutputParity]:
    """Compares the model's answers with the file's, output by output.

    Raises:
        ValueError: The file has other outputs or shapes.
    """
    return {
        name: _compare(name, values, found) for name, values in expected.items()
    }


def _compare(name: str, expected: np.ndarray, found: Answers) -> OutputParity:
    if name not in found or found[name].shape != expected.shape:
        shape = found[name].shape if name in found else None
        raise ValueError(
            f"The file gives output '{name}' as {shape}, the model as "
            f"{expected.shape}."
        )
    wanted = expected.astype("float64").reshape(len(expected), -1)
    given = found[name].astype("float64").reshape(len(expected), -1)
    spread = _spread(wanted)
    difference = _difference(wanted, given)
    return OutputParity(
        spread,
        float(difference.max()) / spread,
        float(difference.mean()) / spread,
        _agreement(wanted, given),
    )


def _spread(wanted: np.ndarray) -> float:
    """Returns the standard deviation over samples, or over a single one."""
    finite = np.ma.masked_invalid(wanted)
    if not finite.count():
        return 1.0
    return float(finite.std(axis=0).mean()) or float(finite.std()) or 1.0


def _difference(wanted: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Returns the absolute differences.

    Infinity is the difference of a value that is not finite from any other.
    """
    same = (wanted == given) | (np.isnan(wanted) & np.isnan(given))
    finite = np.isfinite(wanted) & np.isfinite(given)
    apart = np.subtract(wanted, given, out=np.zeros_like(wanted), where=finite)
    return np.where(same | finite, np.abs(apart), np.inf)


def _agreement(wanted: np.ndarray, given: np.ndarray) -> float | None:
    if wanted.shape[1] > 1:
        # `argmax` takes NaN for the largest value.
        both = np.isnan(wanted).any(1) == np.isnan(given).any(1)
        same = wanted.argmax(1) == given.argmax(1)
        return float((both & same).mean())
    if (wanted < 0).any() or (wanted > 1).any():
        return None
    return float((wanted.round() == given.round()).mean())


def model_answers(
    model: keras.Model,
    samples: Samples,
    names: Sequence[str],
    kept: Sequence[str],
) -> Answers:
    """Returns the model's answers at some of its outputs.

    `names` are all outputs, flat; `kept` are those that are wanted.
    """
    graph, batches = _graph_of(model), []
    for batch in samples:
        flat = [batch[compat.input_name(x)] for x in graph.inputs]
        given = keras.tree.pack_sequence_as(graph.input, flat)
        found = keras.tree.flatten(model.predict_on_batch(given))
        batches.append(dict(zip(names, found, strict=True)))
    return {
        name: np.concatenate([np.asarray(x[name]) for x in batches])
        for name in names
        if name in kept
    }


def has_metrics(model: keras.Model) -> bool:
    """Whether a model was compiled with metrics."""
    return bool(_metrics_of(model))


def metric_names(model: keras.Model) -> str:
    """Returns the names of the metrics, for errors."""
    # Each is a metric, a function, or a string.
    names = (
        getattr(x, "name", getattr(x, "__name__", None)) or x
        for x in keras.tree.flatten(_metrics_of(model))
    )
    return ", ".join(f"'{name}'" for name in names)


def score(
    model: keras.Model, answers: Answers, labels: Sequence[Any]
) -> dict[str, float]:
    """Returns a compiled model's own metrics of some answers, and resets them.

    The answers are those of all outputs, in the model's order; the labels are
    in batches. A metric with a value for each class gives the mean.
    """
    flat = [keras.ops.convert_to_tensor(x) for x in answers.values()]
    given = keras.tree.pack_sequence_as(_graph_of(model).output, flat)
    # All batches at once: metrics such as AUC are no means over batches.
    truth = keras.tree.map_structure(
        lambda *parts: keras.ops.convert_to_tensor(np.concatenate(parts)),
        *labels,
    )
    model.reset_metrics()
    found = model.compute_metrics(None, truth, given)
    # Training tracks losses in means, which are empty here.
    empty = {
        x.name
        for x in model.metrics
        if isinstance(x, keras.metrics.Mean) and not float(x.count)
    }
    values = {
        name: float(np.mean(to_numpy(x)))
        for name, x in found.items()
        if name not in empty
    }
    model.reset_metrics()
    return values


def _graph_of(model: keras.Model) -> keras.Model:
    # A Sequential has inputs and outputs only in its functional model.
    return as_functional(model) or model


def _metrics_of(model: keras.Model) -> list[Any]:
    """Returns the metrics that a model was compiled with, as given."""
    if not getattr(model, "compiled", False):
        return []
    arguments = compat.compile_arguments(model)
    given = [arguments.get(x) for x in ("metrics", "weighted_metrics")]
    return [x for x in given if x]
