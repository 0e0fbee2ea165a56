"""Defines the picture of a cascade: shown in notebooks, written to files.

Tested by `tests/display/test_picture.py`.
"""

from pathlib import Path

from keras_cascade._cascade_view import CascadeView
from keras_cascade._reporting.messages import listed
from keras_cascade.display.picture.figure import as_figure
from keras_cascade.display.picture.layout import lay_out
from keras_cascade.display.picture.reading import read_diagram
from keras_cascade.display.picture.shapes import Drawing, draw
from keras_cascade.display.picture.svg import as_html, as_svg

ENDINGS = (".svg", ".png")
DPI = 144  # of PNG files: two pixels a unit


class CascadePicture:
    """The picture of a cascade, as `Cascade.plot` returns it.

    A notebook shows it as the value of a cell, on a white ground.

    Attributes:
        drawing: The shapes that it consists of.
    """

    def __init__(self, drawing: Drawing):
        self.drawing = drawing

    @property
    def svg(self) -> str:
        """The picture as the text of an SVG file, on a white ground."""
        return as_svg(self.drawing)

    def save(self, path: str | Path) -> None:
        """Writes the picture to a file.

        Args:
            path: The file, `.svg` or `.png`. PNG needs matplotlib.

        Raises:
            ValueError: If the ending is another.
            ImportError: If it is a PNG file, and matplotlib is not installed.
        """
        path = check_path(path)
        if path.suffix.lower() == ".svg":
            path.write_text(self.svg, "utf-8")
        else:
            as_figure(self.drawing).savefig(path, dpi=DPI)

    def __repr__(self) -> str:
        width, height = round(self.drawing.width), round(self.drawing.height)
        return f"<picture of {self.drawing.title}, {width} x {height}>"

    def _repr_html_(self) -> str:
        return as_html(self.drawing)


def draw_cascade(cascade: CascadeView) -> CascadePicture:
    """Returns the picture of a cascade."""
    diagram = read_diagram(cascade)
    return CascadePicture(draw(diagram.title, lay_out(diagram)))


def check_path(path: str | Path) -> Path:
    """Returns the path of a picture, or raises an error about its ending.

    Raises:
        ValueError: If pictures are not written to files of its ending.
    """
    path = Path(path)
    if path.suffix.lower() not in ENDINGS:
        raise ValueError(
            f"plot('{path}') cannot tell the format by the ending "
            f"'{path.suffix}'. Possible: {listed(ENDINGS)}."
        )
    return path
