"""Defines what `stitchability` returns: pairs of taps and entries.

Tested by `tests/ranking/test_stitching.py`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_cascade._reporting import figures, tables
from keras_cascade._reporting.messages import finite
from keras_cascade.adapters import StitchAdapter
from keras_cascade.injection.arguments import Injection
from keras_cascade.ranking.stitched_scores import Quality

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class StitchedPair:
    """A tap, a place to enter, and how well the one stands in for the other.

    Attributes:
        tap: The path in the upstream.
        entry: The path in the downstream.
        cka: The linear CKA of the two, from 0 to 1.
        r2: The part of the variance at the entry that the affine map from
            the tap explains.
        control_cka: The same of the untrained upstream; None without control.
        control_r2: The same.
        loss: The loss of the stitched cascade; None if it was not measured.
        accuracy: Its accuracy; None for numbers.
        control_loss: The loss of the untrained upstream, stitched alike.
        control_accuracy: Its accuracy.
    """

    tap: str
    entry: str
    cka: float
    r2: float
    control_cka: float | None = None
    control_r2: float | None = None
    loss: float | None = None
    accuracy: float | None = None
    control_loss: float | None = None
    control_accuracy: float | None = None


@dataclass(frozen=True)
class Conditions:
    """The data that pairs were measured on, and the penalty.

    Attributes:
        samples: The number of samples that maps were fitted to.
        held_out: The number of others that R² and loss are of; 0 for the same.
        downstream: How well the downstream alone does; None without labels.
        penalty: The penalty of the maps.
    """

    samples: int
    held_out: int
    downstream: Quality | None
    penalty: float


class Stitchability(tables.Tabular):
    """Pairs of a tap and an entry, shown as a table.

    Attributes:
        rows: The pairs: those whose cascade was measured by their loss, then
            the others by R².
        downstream: The loss and accuracy of the downstream alone, on the same
            samples; None without labels.
    """

    def __init__(
        self,
        rows: Iterable[StitchedPair],
        conditions: Conditions,
        taps: Sequence[str],
        entries: Sequence[str],
    ):
        self.rows = tuple(sorted(rows, key=_place))
        self.downstream = conditions.downstream
        self._conditions = conditions
        self._order = {"tap": tuple(taps), "entry": tuple(entries)}

    def best(self) -> dict[str, Any]:
        """Returns the arguments of `build_cascade` that stitch the best pair.

        These are `taps`, `adapters` and `inject`.
        """
        best = self.rows[0]
        return {
            "taps": {"stitched": best.tap},
            "adapters": {
                "stitched": StitchAdapter(penalty=self._conditions.penalty)
            },
            "inject": {"stitched": Injection(best.entry, merge="replace")},
        }

    def plot(self) -> "Figure":
        """Draws heat maps of taps and entries.

        Returns:
            A `matplotlib.figure.Figure`: CKA and R², and R² of the untrained
            upstream beside it.

        Raises:
            ImportError: If matplotlib is not installed.
        """
        panels = {"linear CKA": "cka", "R²": "r2"}
        if self.rows[0].control_r2 is not None:
            panels["R², untrained upstream"] = "control_r2"
        figure, axes = figures.figure(len(panels), 3, "Stitchability.plot")
        taps, entries = self._names("tap"), self._names("entry")
        for axis, (title, name) in zip(axes, panels.items(), strict=True):
            values = np.full((len(taps), len(entries)), np.nan)
            for row in self.rows:
                place = taps.index(row.tap), entries.index(row.entry)
                values[place] = getattr(row, name)
            _draw(axis, values, title, taps, entries)
        return figure

    def to_dict(self) -> dict[str, Any]:
        """Returns the pairs in plain values."""
        conditions = self._conditions
        alone = None if self.downstream is None else asdict(self.downstream)
        return finite(
            {
                "samples": conditions.samples,
                "held_out": conditions.held_out,
                "downstream": alone,
                "pairs": [asdict(row) for row in self.rows],
            }
        )

    def to_pandas(self) -> "pandas.DataFrame":
        """Returns a table with a row for each pair.

        Raises:
            ImportError: If pandas is not installed.
        """
        try:
            import pandas
        except ImportError as error:
            raise ImportError(
                "Stitchability.to_pandas needs pandas, which is not "
                "installed: pip install pandas"
            ) from error
        return pandas.DataFrame([asdict(row) for row in self.rows])

    def _names(self, kind: str) -> list[str]:
        """Returns the taps or entries in the order of their networks."""
        order = self._order[kind]
        return [x for x in order if x in {getattr(r, kind) for r in self.rows}]

    def _line(self) -> str:
        best = self.rows[0]
        return (
            f"<Stitchability of {len(self.rows)} pairs: '{best.tap}' into "
            f"'{best.entry}' R² {best.r2:.3f}>"
        )

    def _parts(self) -> list[tables.Part]:
        columns = {
            "tap": "tap",
            "entry": "entry",
            "CKA": "cka",
            "R²": "r2",
            "untrained R²": "control_r2",
            "loss": "loss",
            "accuracy": "accuracy",
            "untrained accuracy": "control_accuracy",
        }
        shown = {
            title: name
            for title, name in columns.items()
            if any(getattr(row, name) is not None for row in self.rows)
        }
        if "accuracy" not in shown and self.rows[0].control_loss is not None:
            shown["untrained loss"] = "control_loss"
        cells = [
            [_cell(getattr(row, name)) for name in shown.values()]
            for row in self.rows
        ]
        title = f"Stitched pairs, {self._conditions.samples:,} samples"
        right = [x for x in shown if x not in ("tap", "entry")]
        table = tables.Table(title, list(shown), cells, right=right)
        return [table, *self._notes()]

    def _notes(self) -> list[tables.Note]:
        notes, conditions = [], self._conditions
        if self.downstream is not None:
            text = f"loss {self.downstream.loss:.3f}"
            if self.downstream.accuracy is not None:
                text += f", accuracy {self.downstream.accuracy:.3f}"
            notes.append(tables.Note(text, "downstream alone"))
        text = "R² and loss are of the samples that the maps were fitted to."
        if conditions.held_out:
            text = f"R² and loss are of {conditions.held_out:,} other samples."
        notes.append(tables.Note(text, "note"))
        if self._control_does_as_well:
            text = (
                "the untrained upstream does as well at the best pair: what "
                "the networks have learned does not show there."
            )
            notes.append(tables.Note(text, "warning"))
        return notes

    @property
    def _control_does_as_well(self) -> bool:
        """Whether the control is within a standard error of the best pair."""
        best, conditions = self.rows[0], self._conditions
        if best.accuracy is not None and best.control_accuracy is not None:
            count = conditions.held_out or conditions.samples
            spread = best.accuracy * (1.0 - best.accuracy)
            error = float(np.sqrt(max(spread, 0.0) / count))
            return best.accuracy - best.control_accuracy <= error
        return best.control_r2 is not None and best.control_r2 >= best.r2


def _place(row: StitchedPair) -> tuple[bool, float, float]:
    return row.loss is None, row.loss or 0.0, -row.r2


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def _draw(
    axis: "Axes",
    values: np.ndarray,
    title: str,
    taps: Sequence[str],
    entries: Sequence[str],
) -> None:
    axis.grid(False)
    axis.imshow(values, vmin=0.0, vmax=1.0, cmap="Blues", aspect="auto")
    axis.set_xticks(range(len(entries)), entries, rotation=45, ha="right")
    axis.set_yticks(range(len(taps)), taps)
    axis.set(title=title, xlabel="entry of the downstream")
    axis.set_ylabel("tap of the upstream")
    # More would not be legible.
    if values.size > 150:
        return
    for (i, j), value in np.ndenumerate(values):
        if np.isfinite(value):
            colour = "white" if value > 0.6 else "black"
            text = f"{value:.2f}"
            axis.text(j, i, text, ha="center", va="center", color=colour)
