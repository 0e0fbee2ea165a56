"""Trains combinations by successive halving, within a time.

Tested by `tests/searching/test_search.py`.

Source: Jamieson, Talwalkar 2016, "Non-stochastic best arm identification and
hyperparameter optimization".
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import keras

from keras_cascade._reporting.console import Bar
from keras_cascade.adapters.fitting import learners
from keras_cascade.cache.feature_cache import FeatureCache
from keras_cascade.cascade.cascade import Cascade
from keras_cascade.searching.combinations import Combination
from keras_cascade.searching.record import Outcome, Record
from keras_cascade.searching.samples import Samples

# Of the combinations of a rung, one in so many goes on to the next, where it
# is trained for so many times the epochs.
REDUCTION = 3


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The settings of a search.

    Attributes:
        budget: The seconds that the search may take.
        epochs: The epochs of the first rung.
        objective: The name of the score in the logs of `evaluate`.
        maximize: Whether larger scores are better.
    """

    budget: float
    epochs: int
    objective: str
    maximize: bool

    def better(self, score: float, other: float) -> bool:
        """Returns whether a score is better than another; NaN is worst."""
        if math.isnan(other):
            return not math.isnan(score)
        return score > other if self.maximize else score < other

    def key(self, score: float) -> float:
        """Returns the number by which scores are sorted, the best first."""
        worst = math.inf if math.isnan(score) else score
        return -worst if self.maximize and worst != math.inf else worst


@dataclass(eq=False)
class Halving:
    """The loop of a search.

    Attributes:
        combinations: The combinations, in the order of the first rung.
        samples: The data to train on, and to score.
        settings: The settings.
        record: The outcomes so far.
        cache: The features of frozen layers.
    """

    combinations: Sequence[Combination]
    samples: Samples
    settings: Settings
    record: Record
    cache: FeatureCache
    _slowest_build: float = field(default=0.0, init=False)

    def __post_init__(self):
        # Time that an earlier process took is part of the budget.
        self._start = time.monotonic() - self.record.seconds
        self._numbers = {x: i for i, x in enumerate(self.combinations)}

    @property
    def rungs(self) -> int:
        """The number of rungs: the last has one combination."""
        count, rungs = len(self.combinations), 1
        while count > 1:
            count, rungs = -(-count // REDUCTION), rungs + 1
        return rungs

    @property
    def seconds(self) -> float:
        """The time that the search took, in all processes."""
        return time.monotonic() - self._start

    def run(self, bar: Bar) -> None:
        """Trains combinations until the last rung, or the end of the time."""
        pool = list(self.combinations)
        for rung in range(self.rungs):
            # The last combination is built again, to be returned.
            share = self.settings.budget * (rung + 1) / self.rungs
            for combination in pool:
                self._train_to(rung, combination, share, bar)
            tried = [x for x in pool if self._outcome(x).rungs > rung]
            if not tried:
                return
            pool = self._best(tried)[: -(-len(pool) // REDUCTION)]
            self._forget([x for x in tried if x not in pool])

    def best(self) -> Cascade:
        """Returns the best cascade, with the weights that it was left with."""
        first, *_ = self.sorted()
        return self._build(first)

    def sorted(self) -> list[Combination]:
        """Returns the combinations that were tried, the best first."""
        tried = [x for x in self.combinations if self._outcome(x).rungs]
        return self._best(tried)

    def outcome(self, combination: Combination) -> Outcome:
        """Returns the outcome of a combination."""
        return self._outcome(combination)

    def _outcome(self, combination: Combination) -> Outcome:
        return self.record.outcomes.get(combination.label, Outcome())

    def _best(self, tried: Sequence[Combination]) -> list[Combination]:
        return sorted(
            tried,
            key=lambda x: (
                self.settings.key(self._outcome(x).score),
                -self._outcome(x).rungs,
            ),
        )

    def _train_to(
        self, rung: int, combination: Combination, share: float, bar: Bar
    ) -> None:
        """Trains a combination on a rung, if that is left to do."""
        before = self._outcome(combination)
        is_late = self.seconds >= share - self._slowest_build
        if before.rungs > rung or (is_late and self.record.outcomes):
            return
        if not self.record.weights(self._numbers[combination]).is_file():
            before = Outcome()
        bar(self._text(combination), len(self.sorted()))
        epochs = self.settings.epochs * REDUCTION**rung
        start = time.monotonic()
        cascade = self._build(combination)
        stop = _Deadline(self, share)
        cascade.fit(
            *self.samples.train,
            epochs=max(epochs - before.epochs, 1),
            callbacks=[stop],
            cache_features=self.cache,
            verbose=0,
        )
        score = self._score(cascade)
        if self.settings.better(score, before.score) or not before.rungs:
            self.record.save(self._numbers[combination], cascade)
        else:
            score = before.score
        self.record.outcomes[combination.label] = Outcome(
            rungs=rung + 1,
            epochs=before.epochs + stop.epochs,
            score=score,
            seconds=before.seconds + time.monotonic() - start,
        )
        self.record.seconds = self.seconds
        self.record.write()

    def _build(self, combination: Combination) -> Cascade:
        """Returns a cascade, with the weights of its last training."""
        start = time.monotonic()
        cascade = Cascade.from_arguments(combination.arguments)
        weights = self.record.weights(self._numbers[combination])
        if weights.is_file():
            # With slots, so that the optimizer goes on as well.
            cascade.optimizer.build(cascade.trainable_variables)
            cascade.load_weights(weights)
        elif learners(cascade):
            cascade.adapt(*self.samples.train, verbose=False)
        took = time.monotonic() - start
        self._slowest_build = max(self._slowest_build, took)
        return cascade

    def _score(self, cascade: Cascade) -> float:
        logs: Mapping[str, Any] = cascade.evaluate(
            *self.samples.validation,
            cache_features=self.cache,
            return_dict=True,
            verbose=0,
        )
        if self.settings.objective not in logs:
            raise ValueError(
                f"There is no score '{self.settings.objective}'. The cascade "
                f"has {', '.join(logs)}: pass objective= one of these, or "
                "metrics=."
            )
        return float(logs[self.settings.objective])

    def _forget(self, dropped: Sequence[Combination]) -> None:
        """Removes the weights of combinations that do not go on."""
        for combination in dropped:
            path = self.record.weights(self._numbers[combination])
            path.unlink(missing_ok=True)

    def _text(self, combination: Combination) -> str:
        done = self.sorted()
        if not done:
            return combination.label
        score = self._outcome(done[0]).score
        return f"{combination.label}, best {score:.4g}"


class _Deadline(keras.callbacks.Callback):
    """Ends a training when its time is over."""

    def __init__(self, halving: Halving, seconds: float):
        super().__init__()
        self._halving, self._seconds = halving, seconds
        self.epochs = 0

    def on_epoch_begin(self, epoch: int, logs: object = None) -> None:
        """Counts the epochs that began."""
        self.epochs += 1

    def on_train_batch_end(self, batch: int, logs: object = None) -> None:
        """Stops at the end of the time."""
        model: Any = self.model
        if self._halving.seconds >= self._seconds:
            model.stop_training = True
