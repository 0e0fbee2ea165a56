"""Folds text to a width, at words where it can.

Tested by `tests/_reporting/tables/test_text.py`.
"""

import re
from collections.abc import Iterator, Sequence

from rich.cells import cell_len, chop_cells

# Words end at spaces, but not inside of a shape, `8 × 8 × 32`.
_SPACES = re.compile(r"(?<!×) (?!×)")
# Long words may end after these: `block1/conv_2`, `PCAAdapter(n_components=3)`,
# and before a capital: `GlobalAveragePooling2D`.
_PIECE = re.compile(
    r"[(\['\"]*.[^/_.,(=:\-]*?(?:[/_.,(=:\-]+|(?=[A-Z][a-z])|$)"
)


def width_of(text: str) -> int:
    """Returns the columns that the longest line of a text takes."""
    return max(map(cell_len, text.split("\n")))


def longest_word(text: str) -> int:
    """Returns the columns that the longest word takes."""
    words = (x for line in text.split("\n") for x in _SPACES.split(line))
    return max(map(cell_len, words))


def longest_piece(text: str) -> int:
    """Returns the columns of the longest part of a word that stays whole."""
    words = (x for line in text.split("\n") for x in _SPACES.split(line))
    pieces = (piece for word in words for piece in pieces_of(word))
    return max(map(cell_len, pieces), default=0)


def pieces_of(word: str) -> list[str]:
    """Returns the parts of a word that stay whole."""
    return [word] if " " in word else _PIECE.findall(word)


def fold(text: str, width: int, indent: str = "") -> str:
    """Returns a text in lines of at most a width.

    Args:
        text: The text; its own line breaks stay.
        width: The width in columns.
        indent: The beginning of lines that go on. Defaults to `""`.
    """
    lines = []
    for line in text.split("\n"):
        lines += _fold_line(line, width, indent)
    return "\n".join(lines)


def share_width(
    widest: Sequence[int], least: Sequence[int], available: int
) -> list[int]:
    """Returns the widths of columns that share a width.

    The widest columns give first.

    Args:
        widest: The width of each column that needs no folding.
        least: The least width of each column.
        available: The sum to reach; it may stay above.
    """
    widths = list(widest)
    while sum(widths) > available:
        can = [i for i, x in enumerate(widths) if x > least[i]]
        if not can:
            break
        widths[max(can, key=widths.__getitem__)] -= 1
    return widths


def _fold_line(line: str, width: int, indent: str) -> Iterator[str]:
    current = line[: len(line) - len(line.lstrip())]
    indent = current + indent
    for word in _SPACES.split(line.lstrip()):
        start = f"{current} " if current.strip() else current
        if cell_len(start + word) <= width:
            current = start + word
            continue
        if current.strip():
            yield current
            current = indent
        for piece in pieces_of(word):
            for part in chop_cells(piece, max(width - len(indent), 1)):
                if current.strip() and cell_len(current + part) > width:
                    yield current
                    current = indent
                current += part
    yield current
