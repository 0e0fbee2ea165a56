"""How far a file's answers are from the model's."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_cascade import _keras_compat as compat
from keras_cascade.exporting.samples import Samples
from keras_cascade.networks.loading import as_functional

Answers = dict[str, np.ndarray]


@dataclass(frozen=True)
class OutputParity:
    """The two answers of one output.

    Attributes:
        spread: The deviation of the model's answers over the samples, a mean
            over the output's values.
        maximum: The largest difference, in spreads.
        mean: The mean difference, in spreads.
        agreement: The share of samples whose top answer is the same: the
            largest value, or of a single one its rounding; None where
            neither makes sense.
    """

    spread: float
    maximum: float
    mean: float
    agreement: float | None


def compare(expected: Answers, found: Answers) -> dict[str, OutputParity]:
    """Compares the answers, output by output.

    Args:
        expected: The model's.
        found: The file's, by the same names.

    Raises:
        ValueError: The file gives other outputs or shapes.
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
    """Over the samples; of a single one, over its values."""
    finite = np.ma.masked_invalid(wanted)
    if not finite.count():
        return 1.0
    return float(finite.std(axis=0).mean()) or float(finite.std()) or 1.0


def _difference(wanted: np.ndarray, given: np.ndarray) -> np.ndarray:
    """Infinite where one is NaN or infinite, and the other is not the same."""
    same = (wanted == given) | (np.isnan(wanted) & np.isnan(given))
    finite = np.isfinite(wanted) & np.isfinite(given)
    apart = np.subtract(wanted, given, out=np.zeros_like(wanted), where=finite)
    return np.where(same | finite, np.abs(apart), np.inf)


def _agreement(wanted: np.ndarray, given: np.ndarray) -> float | None:
    if wanted.shape[1] > 1:
        # To NumPy a NaN is the largest value.
        told = np.isnan(wanted).any(1) == np.isnan(given).any(1)
        same = wanted.argmax(1) == given.argmax(1)
        return float((told & same).mean())
    if (wanted < 0).any() or (wanted > 1).any():
        return None
    return float((wanted.round() == given.round()).mean())


def model_answers(
    model: Any, samples: Samples, names: Iterable[str], kept: Iterable[str]
) -> Answers:
    """What the model answers.

    Args:
        model: It.
        samples: The inputs.
        names: What its outputs are called, flat.
        kept: Those that are wanted.
    """
    batches, names, kept = [], list(names), set(kept)
    graph = _graph_of(model)
    for batch in samples:
        flat = [batch[tensor.name] for tensor in graph.inputs]
        given = keras.tree.pack_sequence_as(graph.input, flat)
        found = keras.tree.flatten(model.predict_on_batch(given))
        batches.append(dict(zip(names, found, strict=True)))
    return {
        name: np.concatenate([np.asarray(x[name]) for x in batches])
        for name in names
        if name in kept
    }


def has_metrics(model: Any) -> bool:
    """Whether a model was compiled with metrics."""
    return bool(_metrics_of(model))


def metric_names(model: Any) -> str:
    """What the metrics are, for errors."""
    names = [_name(x) for x in keras.tree.flatten(_metrics_of(model))]
    return ", ".join(f"'{name}'" for name in names)


def score(
    model: Any, answers: Mapping[str, np.ndarray], labels: list[Any]
) -> dict[str, float]:
    """The model's own metrics of some answers.

    Args:
        model: What was compiled with metrics; they are reset.
        answers: Its outputs by name, in its own order.
        labels: Of each batch.

    Returns:
        Metric to its value; of one that has a value a class, their mean.
    """
    flat = [keras.ops.convert_to_tensor(x) for x in answers.values()]
    given = keras.tree.pack_sequence_as(_graph_of(model).output, flat)
    truth = keras.tree.map_structure(
        lambda *parts: keras.ops.convert_to_tensor(np.concatenate(parts)),
        *labels,
    )
    model.reset_metrics()
    found = model.compute_metrics(None, truth, given)
    idle = _idle(model)
    values = {k: _number(x) for k, x in found.items() if k not in idle}
    model.reset_metrics()
    return values


def _graph_of(model: Any) -> Any:
    """A Sequential has inputs and outputs only inside."""
    return as_functional(model) or model


def _metrics_of(model: Any) -> list[Any]:
    """What a model was compiled with to be measured by."""
    if not getattr(model, "compiled", False):
        return []
    arguments = compat.compile_arguments(model)
    given = [arguments.get(x) for x in ("metrics", "weighted_metrics")]
    return [x for x in given if x]


def _name(metric: Any) -> str:
    """Of a metric, a function or a string."""
    own = getattr(metric, "name", getattr(metric, "__name__", None))
    return own or str(metric)


def _idle(model: Any) -> set[str]:
    """The means that nothing was added to: those of losses, in training."""
    means = [x for x in model.metrics if isinstance(x, keras.metrics.Mean)]
    return {mean.name for mean in means if not float(mean.count)}


def _number(result: Any) -> float:
    """A metric's value; of one a class, such as F1, the mean."""
    values: Any = keras.ops.convert_to_numpy(result)
    return float(np.mean(values))
