"""Empty figures to draw on, in the one style of all plots.

Imports matplotlib only inside the calls that need it.
"""

from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours that differ for most colour-blind readers (Okabe and Ito 2008,
# without yellow). Some are one grey: dashes and markers tell lines apart.
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
DASHES = ("-", "--", "-.", ":")
FAINT = "0.7"  # of what lies behind the lines that count


def figure(
    panels: int, columns: int, caller: str
) -> tuple["Figure", "list[Axes]"]:
    """Returns a figure with panels in rows, and the axes of its panels.

    The figure is not among pyplot's open figures: a notebook shows it once, as
    the value of its cell, and nobody has to close it.

    Args:
        panels: The number of panels.
        columns: The largest number of panels in a row.
        caller: The function that draws, for the error.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    pyplot = _pyplot(caller)
    columns = min(columns, panels)
    rows = -(-panels // columns)
    drawn, grid = pyplot.subplots(
        rows,
        columns,
        figsize=(1 + 4.4 * columns, 4.2 * rows),
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


def canvas(width: float, height: float, caller: str) -> tuple["Figure", "Axes"]:
    """Returns a figure of a size in inches, and axes that are all of it.

    Args:
        width: The width.
        height: The height.
        caller: The function that draws, for the error.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    pyplot = _pyplot(caller)
    drawn = pyplot.figure(figsize=(width, height))
    pyplot.close(drawn)
    axis = drawn.add_axes((0, 0, 1, 1))
    axis.set_axis_off()
    return drawn, axis


def style(number: int) -> dict[str, Any]:
    """Returns the colour, dashes and marker of a line by its number.

    They repeat at different numbers, and survive a print in grey together.
    """
    return {
        "color": COLOURS[number % len(COLOURS)],
        "linestyle": DASHES[number % len(DASHES)],
        "marker": MARKERS[number % len(MARKERS)],
        "markeredgecolor": "white",
        "markersize": 7,
    }


def point_style(number: int) -> dict[str, Any]:
    """Returns the style of single points by their number."""
    return {**style(number), "linestyle": "none"}


def add_legend(axis: "Axes") -> None:
    """Adds a legend below a panel, where it hides nothing.

    Its samples of lines are long enough to show the dashes.
    """
    axis.legend(
        loc="upper center",
        bbox_to_anchor=(0.5, -0.18),
        ncols=2,
        frameon=False,
        handlelength=3.2,
    )


def _pyplot(caller: str) -> ModuleType:
    try:
        from matplotlib import pyplot
    except ImportError as error:
        raise ImportError(
            f"{caller} needs matplotlib, which is not installed: "
            "pip install 'keras_cascade[analysis]'"
        ) from error
    return pyplot
