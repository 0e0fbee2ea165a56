"""Scores the features of a tap by each of the methods.

Tested by `tests/ranking/test_rank.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from keras_cascade._reporting.messages import closest, listed
from keras_cascade.ranking.covariances import effective_rank, h_score
from keras_cascade.ranking.evidence import log_evidence
from keras_cascade.ranking.labels import Labels
from keras_cascade.ranking.neighbours import neighbour_means
from keras_cascade.ranking.ridge import leave_one_out
from keras_cascade.ranking.spectrum import Features, one_thread

_DRAWS, _SEED = 200, 0


@dataclass(frozen=True)
class Score:
    """A score of a tap: larger is better.

    Attributes:
        value: The score.
        error: Its standard error; None if it is not known.
    """

    value: float
    error: float | None = None


def probe(features: Features, labels: Labels) -> Score:
    """Returns the leave-one-out accuracy, or R², of a ridge regression."""
    found = leave_one_out(features.spectrum, labels.signs)
    return _measured(labels.parts_of(found.predictions))


def knn(features: Features, labels: Labels) -> Score:
    """Returns the accuracy, or R², of the nearest neighbours' vote."""
    means = neighbour_means(features.rows, labels.targets)
    if labels.kind == "labels":
        means = 2.0 * means - 1.0
    return _measured(labels.parts_of(means))


def logme(features: Features, labels: Labels) -> Score:
    """Returns the log evidence of the labels."""
    return Score(log_evidence(features.spectrum, labels.targets))


def hscore(features: Features, labels: Labels) -> Score:
    """Returns the shrunk H-score, of classes."""
    return Score(h_score(features.rows, labels.targets))


def _measured(parts: np.ndarray) -> Score:
    """Returns the mean over samples, with its bootstrap standard error.

    The same samples are drawn for each tap.
    """
    means = _draws(len(parts)) @ parts[:, 0] / len(parts)
    return Score(float(parts.mean()), float(means.std(ddof=1)))


@lru_cache(maxsize=1)
def _draws(count: int) -> np.ndarray:
    """Returns how often each sample is in each bootstrap sample."""
    draw = np.random.default_rng(_SEED)
    share = np.full(count, 1.0 / count)
    # Products of whole numbers would not go through BLAS.
    return draw.multinomial(count, share, size=_DRAWS).astype("float64")


Method = Callable[[Features, Labels], Score]
METHODS: dict[str, Method] = {
    "probe": probe,
    "knn": knn,
    "logme": logme,
    "hscore": hscore,
    "effective_rank": lambda x, _: Score(effective_rank(x.rows)),
}
_WITHOUT_LABELS = ("effective_rank",)


def check_scores(scores: object) -> tuple[str, ...]:
    """Returns the names of scores, or raises a ValueError for other names."""
    names = (scores,) if isinstance(scores, str) else scores
    if not isinstance(names, list | tuple) or not names:
        raise ValueError(
            f"scores is a list of names: {listed(METHODS)}; received "
            f"{scores!r}."
        )
    for name in names:
        if name not in METHODS:
            raise ValueError(
                f"There is no score {name!r}.{closest(str(name), METHODS)} "
                f"Possible: {listed(METHODS)}."
            )
    return tuple(dict.fromkeys(names))


def possible_scores(
    names: tuple[str, ...], labels: Labels | None
) -> tuple[str, ...]:
    """Returns the scores that the labels allow.

    Without labels these are the ones that need none.

    Raises:
        ValueError: If H-score is asked for without classes.
    """
    if labels is None:
        return tuple(x for x in names if x in _WITHOUT_LABELS) or (
            _WITHOUT_LABELS
        )
    if "hscore" in names and labels.kind != "classes":
        raise ValueError(
            "The score 'hscore' is of classes, one for each sample; the "
            f"labels are {labels.kind}. Leave it out of `scores`."
        )
    return names


def score_taps(
    features: dict[str, np.ndarray],
    names: tuple[str, ...],
    labels: Labels | None,
    show: Callable[[int], None],
) -> dict[str, dict[str, Score]]:
    """Returns the scores of each tap.

    Taps of equal features, as before and after a Dropout, are scored once.
    """
    known: dict[bytes, dict[str, Score]] = {}
    found = {}
    nothing = Labels("numbers", np.zeros((0, 0)))
    with one_thread():
        for number, (tap, rows) in enumerate(features.items()):
            show(number)
            key = hash_of(rows)
            if key not in known:
                one = Features(rows)
                known[key] = {
                    x: METHODS[x](one, labels or nothing) for x in names
                }
            found[tap] = known[key]
    return found


def hash_of(rows: np.ndarray) -> bytes:
    """Returns a hash of some rows."""
    from hashlib import blake2b

    return blake2b(
        np.ascontiguousarray(rows).tobytes(), digest_size=16
    ).digest()
