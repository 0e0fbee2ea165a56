"""Ranks the taps of networks by how well they serve a task."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_cascade._reporting.console import progress
from keras_cascade.adapters.tokens import TokenAdapter
from keras_cascade.cascade.cascade import Cascade
from keras_cascade.data import labelled_batches, to_numpy
from keras_cascade.data.inputs import input_paths, sort_inputs
from keras_cascade.graph.taps import Tap, Taps
from keras_cascade.networks.loading import as_network, load_network
from keras_cascade.planning.arguments import Arguments
from keras_cascade.ranking.candidates import Network, Networks, bytes_of
from keras_cascade.ranking.features import (
    BATCH_SIZE,
    Collected,
    collect,
    predict,
    stacked,
)
from keras_cascade.ranking.labels import read_labels
from keras_cascade.ranking.ranking import (
    Evidence,
    RankedTap,
    TapRanking,
)
from keras_cascade.ranking.scores import (
    Score,
    check_scores,
    possible_scores,
    score_taps,
)

_SEQUENCE_RANK = 3


def rank_taps(
    network: Network | Mapping[str, Network],
    data: object,
    taps: Taps = "**",
    *,
    downstream: Network | None = None,
    scores: Sequence[str] = ("probe", "knn", "logme"),
    max_features: int = 1024,
    max_samples: int | None = None,
    class_token: bool = False,
    preprocess: object = "auto",
) -> TapRanking:
    """Ranks the taps of a network by how well they serve a task.

    Some hundred labelled samples say which tap to use, in one forward pass
    that yields all taps. Each is averaged over its positions (the steps that
    a mask lets through, for sequences), brought to `max_features` by a fixed
    sparse random projection, and scored. Memory is bounded: of very many
    samples a uniform part is kept.

    Args:
        network: A network that `build_cascade` takes, or `{name: network}`:
            paths then begin with the name.
        data: Inputs and labels, in every form that `fit` takes. Labels are
            classes (whole numbers, texts, one-hot), several labels of a
            sample (rows of zeros and ones), or numbers, one or several.
            Without labels only the score that needs none is computed.
        taps: The taps to rank: a path pattern, for each network; or as in
            `build_cascade`. Defaults to `"**"`, all.
        downstream: A network whose outputs for the same inputs stand in for
            the labels, as numbers: which tap tells most of what it knows?
            Defaults to `None`: the labels of the data.
        scores: The scores, the first of which ranks. `"probe"`: the accuracy
            (or R²) of a ridge regression on samples that were left out;
            `"knn"`: that of the vote of the five nearest others by cosine;
            `"logme"`: the log evidence of the labels; `"hscore"`: the share
            of variance between classes; `"effective_rank"`: the number of
            directions in use, which needs no labels. Defaults to
            `("probe", "knn", "logme")`.
        max_features: int, the width to which wider features are projected.
            Defaults to `1024`.
        max_samples: int, the number of samples to read, for data without end.
            Defaults to `None`: all.
        class_token: bool, whether sequences are ranked by their first token
            instead of their mean; a cascade reads it by
            `TokenAdapter("vector", class_token=True)`. Defaults to `False`.
        preprocess: As in `build_cascade`. Defaults to `"auto"`.

    Returns:
        A `TapRanking`, the best tap first, which is shown as a table, with
        the baselines that a ranking has to beat. `best()` is a `taps=`
        argument.

    Raises:
        ValueError: If no tap is selected, data or labels are too few, or
            features are not finite.
        TypeError: If the data are of another kind.

    Example:
    >>> network = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(3), keras.layers.ReLU()]
    ... )
    >>> x = np.random.default_rng(0).normal(size=(60, 4))
    >>> ranking = rank_taps(network, (x, x[:, 0] > 0))
    >>> len(ranking.rows), len(ranking.best())
    (2, 1)

    Source: the scores that hold up in Sorkhei et al. 2025 (arXiv 2503.18528)
    and Singh et al. 2025 (arXiv 2510.06448).
    """
    names = check_scores(scores)
    _check_count("max_features", max_features)
    if max_samples is not None:
        _check_count("max_samples", max_samples)
    networks = Networks.of(network)
    found = {f"tap_{i}": tap for i, tap in enumerate(networks.find(taps))}
    paths = {name: tap.path for name, tap in found.items()}
    arguments = Arguments(
        upstream=networks.as_upstream,
        taps=paths,
        adapters=_first_tokens(found) if class_token else "auto",
        fusion=None,
        preprocess=preprocess,
    )
    cascade = Cascade.from_arguments(arguments)
    if downstream is not None:
        data = _labelled_by(downstream, data, max_samples)
    collected = collect(cascade, data, paths, max_features, max_samples)
    labels = read_labels(stacked(collected.labels))
    names = possible_scores(names, labels)
    with progress(len(found), visible=True) as bar:
        scored = score_taps(
            collected.features, names, labels, lambda n: bar("Scoring taps", n)
        )
    rows = [
        _row(networks, tap, collected, name, scored[name])
        for name, tap in found.items()
    ]
    features = {tap.path: collected.features[k] for k, tap in found.items()}
    evidence = Evidence(features, labels, collected.samples)
    return TapRanking(rows, names, networks, evidence)


def _first_tokens(taps: Mapping[str, Tap]) -> dict[str, TokenAdapter]:
    """Returns the adapters that read the class tokens of sequences."""
    return {
        name: TokenAdapter("vector", class_token=True)
        for name, tap in taps.items()
        if len(tap.shape) == _SEQUENCE_RANK
    }


def _check_count(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(
            f"{name} is a whole number of at least 1; received {value!r}."
        )


def _labelled_by(
    downstream: Network, data: object, limit: int | None
) -> Iterator[tuple[Any, Any]]:
    """Yields batches whose labels are a network's outputs."""
    model = as_network(load_network(downstream, "downstream"), "downstream")
    paths = input_paths(model.input)
    for x, _ in labelled_batches(data, BATCH_SIZE, limit):
        found = predict(model, sort_inputs(x, paths, "data"))
        flat = [to_numpy(one) for one in keras.tree.flatten(found)]
        rows = [one.reshape(len(one), -1).astype("float64") for one in flat]
        yield x, np.concatenate(rows, axis=1)


def _row(
    networks: Networks,
    tap: Tap,
    collected: Collected,
    name: str,
    scores: Mapping[str, Score],
) -> RankedTap:
    flops, total = networks.flops([tap]), networks.total_flops
    share = None if flops is None or not total else flops / total
    rows = collected.features[name]
    return RankedTap(
        path=tap.path,
        network=tap.network,
        shape=tap.shape,
        features=collected.widths[name],
        scores={k: x.value for k, x in scores.items()},
        errors={k: x.error for k, x in scores.items() if x.error is not None},
        parameters=networks.costs[tap.network].parameters(tap.reference),
        flops=flops,
        milliseconds=None if share is None else 1e3 * collected.seconds * share,
        bytes=bytes_of(tap),
        depth=networks.depth(tap),
        is_constant=not bool(np.ptp(rows, axis=0).any()),
        tap=tap,
    )
