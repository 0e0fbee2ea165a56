"""Empty figures to draw on; matplotlib is imported only here, when asked."""

from typing import Any

# Readable side by side, also in grey and by most who see colours otherwise
# (Okabe and Ito 2008, without yellow).
COLOURS = (
    "#0072B2",
    "#D55E00",
    "#009E73",
    "#CC79A7",
    "#56B4E9",
    "#E69F00",
    "#000000",
)
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def figure(panels: int, columns: int, what: str) -> tuple[Any, list[Any]]:
    """A figure with panels in rows.

    It is not among pyplot's open figures: a notebook shows it once, as the
    value of its cell, and nothing has to be closed.

    Args:
        panels: How many panels.
        columns: How many stand side by side at most.
        what: What is drawn, for the error.

    Returns:
        The `matplotlib.figure.Figure` and its axes, in order.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    pyplot = _pyplot(what)
    columns = min(columns, panels)
    rows = -(-panels // columns)
    drawn, grid = pyplot.subplots(
        rows,
        columns,
        figsize=(1 + 4.4 * columns, 3.6 * rows),
        squeeze=False,
        layout="constrained",
    )
    pyplot.close(drawn)
    axes = list(grid.flat)
    for empty in axes[panels:]:
        empty.remove()
    for axis in axes[:panels]:
        axis.grid(True, color="0.9", linewidth=0.8)
        axis.set_axisbelow(True)
        axis.spines[["top", "right"]].set_visible(False)
    return drawn, axes[:panels]


def style(number: int) -> dict[str, str]:
    """Colour and marker of the line with a number; they repeat."""
    return {
        "color": COLOURS[number % len(COLOURS)],
        "marker": MARKERS[number % len(MARKERS)],
    }


def _pyplot(what: str) -> Any:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            f"{what} needs matplotlib, which is not installed: "
            "pip install 'keras_cascade[analysis]'"
        ) from error
    return pyplot
