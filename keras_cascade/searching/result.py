"""Defines what a search returns: its trials, and the best cascade.

Tested by `tests/searching/test_search.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from keras_cascade._reporting import tables
from keras_cascade._reporting.frames import frame
from keras_cascade._reporting.messages import finite
from keras_cascade.cascade.cascade import Cascade

if TYPE_CHECKING:
    import pandas

_NAMED = 5


@dataclass(frozen=True)
class Trial:
    """A combination that was trained.

    Attributes:
        taps: The name of the taps.
        adapters: The name of the adapters.
        entry: The name of the entry, or of the fusion.
        score: The best score on the validation data.
        rungs: The number of trainings, each longer than the one before, to
            which the better combinations go on.
        epochs: The number of epochs of all of them; the one that the budget
            ended counts.
        seconds: The seconds of building, training and scoring.
    """

    taps: str
    adapters: str
    entry: str
    score: float
    rungs: int
    epochs: int
    seconds: float


class SearchResult(tables.Tabular):
    """The trials of a search, the best first, which is shown as a table.

    Attributes:
        best: The best cascade, as trained as the search left it.
        trials: The trials, the best first.
        objective: The name of the score.
        seconds: The time of the search, earlier parts included.
        not_tried: The combinations for which no time was left.
        refused: Why combinations cannot be built, by their names.
    """

    def __init__(
        self,
        best: Cascade,
        trials: Sequence[Trial],
        objective: str,
        seconds: float,
        not_tried: Sequence[str],
        refused: Mapping[str, str],
    ):
        self.best, self.trials = best, tuple(trials)
        self.objective, self.seconds = objective, seconds
        self.not_tried, self.refused = tuple(not_tried), dict(refused)

    def to_dict(self) -> dict[str, Any]:
        """Returns the trials in plain values."""
        return finite(
            {
                "objective": self.objective,
                "seconds": self.seconds,
                "trials": [asdict(trial) for trial in self.trials],
                "not_tried": list(self.not_tried),
                "refused": dict(self.refused),
            }
        )

    def to_pandas(self) -> "pandas.DataFrame":
        """Returns a table with a row for each trial.

        Raises:
            ImportError: If pandas is not installed.
        """
        rows = [asdict(trial) for trial in self.trials]
        return frame(rows, "SearchResult.to_pandas")

    def _line(self) -> str:
        best = self.trials[0]
        return (
            f"<SearchResult of {len(self.trials)} trials: {best.taps} | "
            f"{best.adapters} | {best.entry}, {self.objective} "
            f"{best.score:.4g}>"
        )

    def _parts(self) -> list[tables.Part]:
        columns = ("taps", "adapters", "entry", self.objective)
        counted = ("trainings", "epochs", "seconds")
        rows = [
            (
                *(trial.taps, trial.adapters, trial.entry),
                f"{trial.score:.4g}",
                str(trial.rungs),
                str(trial.epochs),
                f"{trial.seconds:.1f}",
            )
            for trial in self.trials
        ]
        title = f"Combinations by {self.objective}, {self.seconds:.0f} s"
        right = (self.objective, *counted)
        table = tables.Table(title, (*columns, *counted), rows, right=right)
        return [table, *self._notes()]

    def _notes(self) -> list[tables.Note]:
        notes = []
        if self.not_tried:
            text = "no time was left for "
            notes.append(tables.Note(text + _some(self.not_tried), "warning"))
        reasons: dict[str, list[str]] = {}
        for label, reason in self.refused.items():
            reasons.setdefault(reason, []).append(label)
        for reason, (first, *more) in list(reasons.items())[:_NAMED]:
            others = f" and {len(more)} more" if more else ""
            text = f"{first}{others} cannot be built: {reason}"
            notes.append(tables.Note(text, "note"))
        return notes


def _some(names: Sequence[str]) -> str:
    shown = "; ".join(names[:_NAMED])
    left = len(names) - _NAMED
    return f"{shown}; and {left} more" if left > 0 else shown
