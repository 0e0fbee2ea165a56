"""Estimates the width of text, and shortens names.

SVG has no measure of text, so widths are those of DejaVu Sans, which is wider
than most fonts without serifs: text in another font stays within its place.

Tested by `tests/display/picture/test_text.py`.
"""

SIZE = 13  # of most text, in pixels
SMALL = 11
LINE = 1.3  # the height of a line, in sizes
# Names of layers longer than this many characters lose their middle.
LONGEST = 28

# The advance of characters in DejaVu Sans, rounded up, in hundredths of the
# size. Others of Latin scripts are no wider than 0.7, and further ones than 1.
_ADVANCES = {
    29: "'ijlIJ",
    34: " ,.·/:;\\|",
    41: "f-()[]t!r",
    50: '*_`–"',
    56: "sz?cL",
    60: "FkvxyP",
    64: "TYaoeESbdghnpqu$0123456789{}σ",
    70: "KAVBRXZC",
    79: "UHNDG&OQ",
    86: "w#+<=>^~×→⊕M",
    100: "%mW@…",
}
_WIDTHS = {
    character: advance / 100
    for advance, several in _ADVANCES.items()
    for character in several
}
_LAST_LATIN = 0x24F
_BOLD = 1.17


def text_width(text: str, size: float = SIZE, bold: bool = False) -> float:
    """Returns the estimated width of text in pixels."""
    other = (0.7 if ord(x) <= _LAST_LATIN else 1.0 for x in text)
    total = sum(_WIDTHS.get(x, o) for x, o in zip(text, other, strict=True))
    return total * size * (_BOLD if bold else 1)


def shortened(name: str, longest: int = LONGEST) -> str:
    """Returns a name with at most so many characters, `a_long…name`."""
    if len(name) <= longest:
        return name
    kept = longest - 1
    return f"{name[: kept - kept // 2]}…{name[-(kept // 2) :]}"


def stretch_lines(first: str, last: str) -> tuple[str, ...]:
    """Returns the names of the ends of a stretch, on one line if they fit."""
    if first == last:
        return (shortened(first),)
    if len(first) + len(last) + 3 <= LONGEST:
        return (f"{first} … {last}",)
    return shortened(first), f"… {shortened(last, LONGEST - 2)}"
