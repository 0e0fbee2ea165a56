"""Writes a drawing as SVG, which needs no other package.

Tested by `tests/display/test_picture.py`.
"""

import base64
from collections.abc import Iterator
from html import escape
from itertools import pairwise

from keras_cascade.display.picture.shapes import (
    Drawing,
    Path,
    Polygon,
    Rectangle,
    Shape,
    Text,
)

FONTS = "system-ui, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
PAPER = "#ffffff"
# The share of its width to which a page may shrink a picture.
LEAST = 0.75


def as_svg(drawing: Drawing) -> str:
    """Returns a drawing as the text of an SVG file, on a white ground."""
    width, height = _number(drawing.width), _number(drawing.height)
    lines = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' "
        f"height='{height}' viewBox='0 0 {width} {height}' "
        f"role='img' font-family=\"{FONTS}\">",
        f"<title>{escape(drawing.title)}</title>",
        f"<rect width='100%' height='100%' fill='{PAPER}'/>",
        *(_element(shape) for shape in drawing.shapes),
        "</svg>",
    ]
    return "\n".join(lines)


def as_html(drawing: Drawing) -> str:
    """Returns a drawing as an image in a page, which shrinks it to its width.

    Notebooks that are not trusted, and GitHub, remove the elements of an SVG
    from a page and leave its text; an image they show.
    """
    data = base64.b64encode(as_svg(drawing).encode()).decode()
    return (
        "<div style='overflow-x: auto'>"
        f"<img src='data:image/svg+xml;base64,{data}' "
        f"alt='Picture of {escape(drawing.title)}' "
        f"width='{drawing.width:.0f}' style='max-width: 100%; "
        f"min-width: {LEAST * drawing.width:.0f}px; height: auto'></div>"
    )


def _element(shape: Shape) -> str:
    if isinstance(shape, Rectangle):
        return (
            f"<rect x='{_number(shape.x)}' y='{_number(shape.y)}' "
            f"width='{_number(shape.width)}' height='{_number(shape.height)}' "
            f"fill='{shape.fill or 'none'}'"
            + (f" stroke='{shape.line}'/>" if shape.line else "/>")
        )
    if isinstance(shape, Path):
        return (
            f"<path d='{' '.join(_curve(shape))}' fill='none' "
            f"stroke='{shape.line}' "
            f"stroke-width='{shape.thickness}'/>"
        )
    if isinstance(shape, Polygon):
        points = " ".join(f"{_number(x)},{_number(y)}" for x, y in shape.points)
        return f"<polygon points='{points}' fill='{shape.fill}'/>"
    return _text(shape)


def _text(shape: Text) -> str:
    weight = " font-weight='bold'" if shape.bold else ""
    anchor = " text-anchor='end'" if shape.at_end else ""
    return (
        f"<text x='{_number(shape.x)}' y='{_number(shape.y)}' "
        f"font-size='{shape.size}'{weight}{anchor} "
        f"fill='{shape.fill}'>{escape(shape.text)}</text>"
    )


def _curve(path: Path) -> Iterator[str]:
    x, y = path.points[0]
    yield f"M{_number(x)} {_number(y)}"
    for (x, y), (to, height) in pairwise(path.points):
        if y == height:
            yield f"H{_number(to)}"
        else:
            middle = (x + to) / 2
            yield (
                f"C{_number(middle)} {_number(y)} {_number(middle)} "
                f"{_number(height)} {_number(to)} {_number(height)}"
            )


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
