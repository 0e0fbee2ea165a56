"""Writes a drawing as SVG, which needs no other package.

Tested by `tests/display/test_picture.py`.
"""

from collections.abc import Iterator
from html import escape
from itertools import pairwise

from keras_cascade.display.picture.shapes import (
    PAGE,
    Drawing,
    Path,
    Polygon,
    Rectangle,
    Shape,
    Text,
)

FONTS = "system-ui, 'Segoe UI', Roboto, Helvetica, Arial, sans-serif"
LEAST = 0.75  # the share of its width to which a page may shrink a picture
PAPER, PEN = "#ffffff", "#1b1b1b"


def as_svg(drawing: Drawing, in_page: bool = False) -> str:
    """Returns a drawing as SVG.

    Args:
        drawing: The drawing.
        in_page: Whether it becomes part of a page, whose text colour it then
            has and into whose width it shrinks; else it has a white ground.
            Defaults to `False`.
    """
    width, height = _number(drawing.width), _number(drawing.height)
    title = escape(drawing.title)
    look = (
        f"style='max-width: 100%; min-width: {LEAST * drawing.width:.0f}px; "
        "height: auto'"
        if in_page
        else f"color='{PEN}'"
    )
    ground = f"<rect width='100%' height='100%' fill='{PAPER}'/>"
    lines = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' "
        f"height='{height}' viewBox='0 0 {width} {height}' {look} "
        f"role='img' font-family=\"{FONTS}\">",
        f"<title>{title}</title>",
        *([] if in_page else [ground]),
        *(_element(shape) for shape in drawing.shapes),
        "</svg>",
    ]
    return "\n".join(lines)


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
            f"stroke='{_colour(shape.line)}' "
            f"stroke-width='{shape.thickness}'/>"
        )
    if isinstance(shape, Polygon):
        points = " ".join(f"{_number(x)},{_number(y)}" for x, y in shape.points)
        return f"<polygon points='{points}' fill='{_colour(shape.fill)}'/>"
    return _text(shape)


def _text(shape: Text) -> str:
    weight = " font-weight='bold'" if shape.bold else ""
    anchor = " text-anchor='end'" if shape.at_end else ""
    return (
        f"<text x='{_number(shape.x)}' y='{_number(shape.y)}' "
        f"font-size='{shape.size}'{weight}{anchor} "
        f"fill='{_colour(shape.fill)}'>{escape(shape.text)}</text>"
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


def _colour(name: str) -> str:
    return "currentColor" if name == PAGE else name


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
