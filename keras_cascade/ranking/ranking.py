"""Defines what ranking returns: taps with scores, costs and baselines."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_cascade._reporting import tables
from keras_cascade._reporting.frames import frame
from keras_cascade._reporting.messages import finite, in_bytes
from keras_cascade.graph.taps import Tap
from keras_cascade.ranking import chart, selection
from keras_cascade.ranking.candidates import Networks
from keras_cascade.ranking.labels import Labels

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class RankedTap:
    """A tap with its scores and its cost.

    Attributes:
        path: The path, a `taps=` argument.
        network: The block of its network.
        shape: The shape, with the batch as the first entry.
        features: The number of features after pooling.
        scores: The scores by name; larger is better.
        errors: The bootstrap standard errors of scores that have one.
        parameters: The number of parameters up to the tap.
        flops: The floating-point operations for a sample up to the tap;
            `None` if a size is open.
        milliseconds: The time for a sample up to the tap: that of the whole
            pass as measured, shared out by operations.
        bytes: The bytes of a sample in a cache; `None` if a size is open.
        depth: The position of the tap's call in its network.
        is_constant: Whether its features are equal for all samples.
    """

    path: str
    network: str
    shape: tuple[int | None, ...]
    features: int
    scores: dict[str, float]
    errors: dict[str, float]
    parameters: int
    flops: int | None
    milliseconds: float | None
    bytes: int | None
    depth: int
    is_constant: bool
    tap: Tap = field(repr=False)

    @property
    def cost(self) -> int:
        """The operations up to the tap, else the parameters."""
        return self.parameters if self.flops is None else self.flops

    def to_dict(self) -> dict[str, Any]:
        """Returns the tap in plain values."""
        names = ("path", "network", "features", "parameters", "flops")
        more = ("milliseconds", "bytes")
        return {
            **{name: getattr(self, name) for name in names + more},
            "shape": list(self.shape[1:]),
            "scores": dict(self.scores),
            "standard_errors": dict(self.errors),
        }


@dataclass(frozen=True, eq=False)
class Evidence:
    """The samples that taps were ranked by.

    Attributes:
        features: The features of each tap, by its path.
        labels: The labels; None if there are none.
        samples: The number of samples that were read.
    """

    features: dict[str, np.ndarray]
    labels: Labels | None
    samples: int


class TapRanking(tables.Tabular):
    """Taps in the order of a score, which is shown as a table.

    Attributes:
        rows: The taps, the best first.
        score: The name of the score that ranks.
        baselines: `"deepest"`, the last tap of each network by its path, and
            for several networks `"largest"`, the last tap of the one with the
            most parameters.
    """

    def __init__(
        self,
        rows: Iterable[RankedTap],
        scores: Sequence[str],
        networks: Networks,
        evidence: Evidence,
    ):
        self.score = scores[0]
        self.rows = tuple(
            sorted(rows, key=lambda x: (-x.scores[self.score], x.cost))
        )
        self._scores, self._networks = tuple(scores), networks
        self._evidence = evidence
        self.baselines = self._find_baselines()

    def best(
        self,
        k: int = 1,
        max_flops: float | None = None,
        max_bytes: float | None = None,
    ) -> list[str]:
        """Returns the taps to use, as a `taps=` argument.

        One tap is the cheapest within one standard error of the best. Several
        are chosen one after another, each the one that helps most beside those
        chosen before: by `probe` on the features of all of them together.

        Args:
            k: int, the number of taps. Defaults to `1`.
            max_flops: The operations for a sample that all of them together
                may take. Defaults to `None`: any number.
            max_bytes: The bytes for a sample that all of them together may
                take in a cache. Defaults to `None`: any number.

        Raises:
            ValueError: If no tap is within the limits, there are fewer than
                `k`, or several are asked for without labels.
        """
        limits = selection.Limits(self._networks, max_flops, max_bytes)
        if k == 1:
            return [selection.cheapest(self.rows, self.score, limits).path]
        evidence = self._evidence
        if evidence.labels is None:
            raise ValueError(
                f"best(k={k}) chooses taps by the labels, and the data had "
                "none. Rank with (x, y)."
            )
        return selection.greedy(
            self.rows, evidence.features, evidence.labels, k, limits
        )

    def plot(self) -> "Figure":
        """Draws the score of each tap against its cost.

        Returns:
            A `matplotlib.figure.Figure`: a point for each tap, a line through
            those that no cheaper tap beats, with their names.

        Raises:
            ImportError: If matplotlib is not installed.
        """
        return chart.draw(self.rows, self.score, self.baselines)

    def to_dict(self) -> dict[str, Any]:
        """Returns the ranking in plain values."""
        return finite(
            {
                "score": self.score,
                "samples": self._evidence.samples,
                "baselines": self.baselines,
                "beats_baselines": self.beats_baselines,
                "taps": [row.to_dict() for row in self.rows],
            }
        )

    def to_pandas(self) -> "pandas.DataFrame":
        """Returns a table with a row for each tap.

        Raises:
            ImportError: If pandas is not installed.
        """
        rows = []
        for row in self.rows:
            plain = row.to_dict()
            errors = plain.pop("standard_errors")
            scores = plain.pop("scores")
            named = {f"{k}_error": x for k, x in errors.items()}
            rows.append({**plain, **scores, **named})
        return frame(rows, "TapRanking.to_pandas")

    @property
    def beats_baselines(self) -> bool:
        """Returns whether the best tap is better than each baseline.

        Better is by more than a standard error, where the score has one.
        """
        best = self.rows[0]
        margin = best.errors.get(self.score, 0.0)
        others = [self._row(path) for path in self.baselines.values()]
        score = best.scores[self.score]
        return all(score - x.scores[self.score] > margin for x in others)

    def _line(self) -> str:
        best = self.rows[0]
        return (
            f"<TapRanking of {len(self.rows)} taps by {self.score}: "
            f"'{best.path}' {best.scores[self.score]:.3f}>"
        )

    def _row(self, path: str) -> RankedTap:
        return next(row for row in self.rows if row.path == path)

    def _find_baselines(self) -> dict[str, str]:
        last: dict[str, RankedTap] = {}
        for row in sorted(self.rows, key=lambda x: x.depth):
            last[row.network] = row
        if len(self._networks.given) == 1:
            return {"deepest": next(iter(last.values())).path}
        largest = max(last, key=self._networks.parameters)
        deepest = {f"deepest of {k}": row.path for k, row in last.items()}
        return {**deepest, "largest": last[largest].path}

    def _parts(self) -> list[tables.Part]:
        labels = self._evidence.labels
        measure = f", {labels.measure}" if labels else ""
        columns = ["tap", "features"]
        columns += [
            f"{name}{measure if name in ('probe', 'knn') else ''}"
            for name in self._scores
        ]
        columns += ["parameters", "FLOPs", "ms", "bytes"]
        title = f"Taps by {self.score}, {self._evidence.samples:,} samples"
        rows = [self._cells(row) for row in self.rows]
        table = tables.Table(title, columns, rows, right=columns[1:])
        return [table, *self._notes()]

    def _cells(self, row: RankedTap) -> list[str]:
        return [
            row.path,
            f"{row.features:,}",
            *(_score(row, name) for name in self._scores),
            tables.count(row.parameters),
            tables.count(row.flops),
            "?" if row.milliseconds is None else f"{row.milliseconds:.3g}",
            "?" if row.bytes is None else in_bytes(row.bytes),
        ]

    def _notes(self) -> list[tables.Note]:
        places = {row.path: i + 1 for i, row in enumerate(self.rows)}
        notes = [
            tables.Note(
                f"{path}: {_score(self._row(path), self.score)}, place "
                f"{places[path]} of {len(places)}",
                name,
            )
            for name, path in self.baselines.items()
        ]
        if not self.beats_baselines:
            text = "no tap is better than this by more than a standard error."
            several = "the best of these" if len(notes) > 1 else "this"
            notes.append(tables.Note(text.replace("this", several), "note"))
        constant = [row.path for row in self.rows if row.is_constant]
        if constant:
            shown = ", ".join(constant[:5]) + ", ..." * (len(constant) > 5)
            text = f"features are equal for all samples at {shown}"
            notes.append(tables.Note(text, "warning"))
        return notes


def _score(row: RankedTap, name: str) -> str:
    error = row.errors.get(name)
    text = f"{row.scores[name]:.3f}"
    return text if error is None else f"{text} ± {error:.3f}"
