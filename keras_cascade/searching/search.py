"""Searches for the combination of taps, adapters and entry that trains best."""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_cascade._reporting.console import progress
from keras_cascade._reporting.messages import listed
from keras_cascade.cache.feature_cache import FeatureCache
from keras_cascade.planning.arguments import Arguments, Network
from keras_cascade.searching.combinations import Combination, combine
from keras_cascade.searching.halving import Halving, Settings
from keras_cascade.searching.record import Record
from keras_cascade.searching.result import SearchResult, Trial
from keras_cascade.searching.samples import Samples


def search(
    upstream: Network | Mapping[str, Network],
    downstream: Network | None,
    data: object,
    *,
    budget_seconds: float,
    loss: object,
    taps: object = "stages",
    adapters: object = ("auto",),
    entries: object = (None,),
    head: object = None,
    optimizer: object = "adam",
    metrics: object = None,
    objective: str = "loss",
    maximize: bool = False,
    validation_data: object = None,
    validation_split: float = 0.25,
    epochs: int = 2,
    extra_inputs: Mapping[str, Any] | None = None,
    preprocess: object = "auto",
    directory: str | Path | None = None,
    seed: int = 0,
) -> SearchResult:
    """Searches for the taps, adapters and entry that train best.

    Every combination is trained for a few epochs and scored on data that it
    was not trained on; the best third goes on, for three times the epochs,
    and so forth (successive halving). The upstream is frozen: its features
    are computed once and cached. Where `rank_taps` takes seconds and says
    which tap tells most, this takes minutes, and includes the downstream.

    Args:
        upstream: As in `build_cascade`.
        downstream: As in `build_cascade`; `None` with a `head`.
        data: `(x, y)` as arrays, or a data set that yields both, for which
            `validation_data` is needed.
        budget_seconds: The seconds that the search may take, time in earlier
            processes included. One combination is always tried.
        loss: As in `compile`.
        taps: The choices: a pattern or `"stages"`, whose taps are tried one
            by one; or a list of paths, and of lists of paths that are used
            together; or `{name: any of these}`. Defaults to `"stages"`.
        adapters: The choices, a list or `{name: choice}` of what
            `build_cascade` takes as `adapters`. Defaults to `("auto",)`.
        entries: The choices of where features enter, a list or `{name:
            choice}`: `None` (the input of the downstream), a path in the
            downstream, an `Injection`, or `{"fusion": "add"}` for the input
            by another fusion. Defaults to `(None,)`.
        head: As in `build_cascade`. Defaults to `None`.
        optimizer: As in `build_cascade`. Defaults to `"adam"`.
        metrics: As in `compile`. Defaults to `None`.
        objective: The name of the score, `"loss"` or that of a metric.
            Defaults to `"loss"`.
        maximize: Whether larger scores are better. Defaults to `False`.
        validation_data: As `data`, to score on. Defaults to `None`: a part
            of the data.
        validation_split: The share of the data that is held out to score.
            Defaults to `0.25`.
        epochs: The epochs of the first trainings. Defaults to `2`.
        extra_inputs: As in `build_cascade`. Defaults to `None`.
        preprocess: As in `build_cascade`. Defaults to `"auto"`.
        directory: A folder for trials, weights and features, in which a
            search that was interrupted, or that gets a larger budget, goes
            on. It belongs to one search of the same networks. Defaults to
            `None`: a temporary one.
        seed: Draws the part that is held out, and the order of the first
            trainings. Defaults to `0`.

    Returns:
        A `SearchResult`: a table of all trials, and `best`, the best cascade.

    Raises:
        ValueError: If no combination can be built, the data cannot be split,
            there is no such score, or the folder belongs to another search.

    Example:
    >>> found = kc.search(
    ...     kc.zoo.load("glyph_encoder"),
    ...     None,
    ...     (images, labels),
    ...     budget_seconds=1,
    ...     head=10,
    ...     loss="sparse_categorical_crossentropy",
    ... )
    >>> found.best.output_shape
    (None, 10)

    Source: Jamieson, Talwalkar 2016, "Non-stochastic best arm identification
    and hyperparameter optimization".
    """
    _check_positive("budget_seconds", budget_seconds, float)
    _check_positive("epochs", epochs, int)
    if loss is None:
        raise ValueError("search trains cascades, which needs a loss.")
    _check_objective(objective, metrics)
    samples = Samples.of(data, validation_data, validation_split, seed)
    base = Arguments(
        upstream=upstream,
        downstream=downstream,
        head=head,
        optimizer=optimizer,
        loss=loss,
        metrics=metrics,
        extra_inputs=extra_inputs,
        preprocess=preprocess,
    )
    found, refused = combine(base, taps, adapters, entries)
    order = np.random.default_rng(seed).permutation(len(found))
    combinations = [found[i] for i in order]
    settings = Settings(
        budget=float(budget_seconds),
        epochs=epochs,
        objective=objective,
        maximize=maximize,
    )
    with _folder(directory) as folder:
        described = _describe(combinations, samples, settings, seed)
        record = Record.open(folder, described)
        cache = FeatureCache(None if directory is None else folder / "features")
        halving = Halving(combinations, samples, settings, record, cache)
        with progress(len(combinations), visible=True) as bar:
            halving.run(bar)
        return _result(halving, refused)


def _check_positive(name: str, value: object, kind: type) -> None:
    kinds = (int,) if kind is int else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not value > 0:
        what = "a whole number" if kind is int else "a number"
        raise ValueError(f"{name} is {what} above 0; received {value!r}.")


def _check_objective(objective: str, metrics: object) -> None:
    """Raises a ValueError for a score that no cascade will have."""
    given = [] if metrics is None else keras.tree.flatten(metrics)
    names = ["loss", *map(_metric_name, given)]
    # With several outputs, their names come first.
    if not any(str(objective).endswith(name) for name in names):
        raise ValueError(
            f"There is no score {objective!r}. The cascades will have "
            f"{listed(names)}: pass objective= one of these, or metrics=."
        )


def _metric_name(metric: object) -> str:
    """Returns the name of a metric, as the logs of Keras have it."""
    if isinstance(metric, str):
        return metric
    named = getattr(metric, "name", None) or getattr(metric, "__name__", "")
    return str(named)


@contextlib.contextmanager
def _folder(directory: str | Path | None) -> Iterator[Path]:
    """Yields the folder of the search, which is removed if it is ours."""
    if directory is not None:
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
        return
    with tempfile.TemporaryDirectory() as made:
        yield Path(made)


def _describe(
    combinations: list[Combination],
    samples: Samples,
    settings: Settings,
    seed: int,
) -> dict[str, object]:
    """Returns the search in plain values, without its budget."""
    return {
        "combinations": [x.label for x in combinations],
        "data": samples.describe(),
        "epochs": settings.epochs,
        "objective": settings.objective,
        "maximize": settings.maximize,
        "seed": seed,
    }


def _result(halving: Halving, refused: Mapping[str, str]) -> SearchResult:
    order = halving.sorted()
    trials = [_trial(halving, one) for one in order]
    return SearchResult(
        halving.best(),
        trials,
        halving.settings.objective,
        halving.seconds,
        [x.label for x in halving.combinations if x not in order],
        refused,
    )


def _trial(halving: Halving, combination: Combination) -> Trial:
    outcome = halving.outcome(combination)
    return Trial(
        combination.taps,
        combination.adapters,
        combination.entry,
        outcome.score,
        outcome.rungs,
        outcome.epochs,
        outcome.seconds,
    )
