"""How far a file's answers are from the model's."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_cascade import _keras_compat as compat
from keras_cascade.exporting.samples import Samples

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
    spread = float(wanted.std(axis=0).mean()) or float(wanted.std()) or 1.0
    difference = np.abs(given - wanted)
    # A file that answers with NaN differs as far as can be.
    difference = np.where(np.isfinite(given), difference, np.inf)
    return OutputParity(
        spread,
        float(difference.max()) / spread,
        float(difference.mean()) / spread,
        _agreement(wanted, given),
    )


def _agreement(wanted: np.ndarray, given: np.ndarray) -> float | None:
    if wanted.shape[1] > 1:
        return float((wanted.argmax(1) == given.argmax(1)).mean())
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
    for batch in samples:
        flat = [batch[tensor.name] for tensor in model.inputs]
        given = keras.tree.pack_sequence_as(model.input, flat)
        found = keras.tree.flatten(model.predict_on_batch(given))
        batches.append(dict(zip(names, found, strict=True)))
    return {
        name: np.concatenate([np.asarray(x[name]) for x in batches])
        for name in names
        if name in kept
    }


def has_metrics(model: Any) -> bool:
    """Whether a model was compiled with metrics."""
    if not getattr(model, "compiled", False):
        return False
    return bool(compat.compile_arguments(model).get("metrics"))


def metric_names(model: Any) -> str:
    """What the metrics are, for errors."""
    metrics = compat.compile_arguments(model)["metrics"]
    names = [getattr(x, "name", x) for x in keras.tree.flatten(metrics)]
    return ", ".join(f"'{name}'" for name in names)


def score(
    model: Any, answers: Mapping[str, np.ndarray], labels: list[Any]
) -> dict[str, float]:
    """The model's own metrics of some answers.

    Args:
        model: What was compiled with metrics; they are reset.
        answers: Its outputs by name, in its own order.
        labels: Of each batch.
    """
    flat = [keras.ops.convert_to_tensor(x) for x in answers.values()]
    given = keras.tree.pack_sequence_as(model.output, flat)
    truth = keras.tree.map_structure(
        lambda *parts: keras.ops.convert_to_tensor(np.concatenate(parts)),
        *labels,
    )
    model.reset_metrics()
    found = model.compute_metrics(None, truth, given)
    values = {name: float(x) for name, x in found.items()}
    model.reset_metrics()
    # Nothing was trained: what is kept of losses is 0.
    return {k: v for k, v in values.items() if not k.endswith("loss")}
