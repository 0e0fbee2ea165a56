"""Tables as text: what they fold, what they keep."""

from collections import Counter

import pytest
from rich.cells import cell_len

from keras_cascade._reporting.tables import Note, Table, as_text
from keras_cascade._reporting.tables.folding import fold

# No backend takes part in it.
pytestmark = pytest.mark.once

COLUMNS = ("path", "shape", "layer", "parameters")
ROWS = [
    ("encoder/stage2_conv", "16 × 16 × 32", "Conv2D", "12,345,678"),
    ("encoder/[bold]:map:", "8 × 8 × 64", "GlobalAveragePooling2D", "7"),
    ("名前/に漢字", None, "Dense", "1,024"),
]
TABLE = Table("Taps of a network", COLUMNS, ROWS, right=("parameters",))


def letters(text):
    """Returns how often each letter and digit is in a text."""
    return Counter(x for x in text if x.isalnum() or x in "[]:×_,")


def widest(text):
    return max(map(cell_len, text.splitlines()))


def test_without_a_width_each_cell_is_a_line():
    lines = as_text([TABLE]).splitlines()
    assert lines[0] == "Taps of a network"
    for row in ROWS:
        (line,) = (line for line in lines if row[0] in line)
        assert all(str(cell) in line for cell in row if cell)


@pytest.mark.parametrize("width", [30, 40, 50, 60, 70, 80, 100, 120])
def test_a_table_fits_its_width_and_loses_nothing(width):
    note = Note("A long remark about " + "many " * 30 + "things.", "warning")
    text = as_text([TABLE, note], width)
    assert widest(text) <= width
    cells = [*COLUMNS, *(cell or "" for row in ROWS for cell in row)]
    expected = letters("".join([TABLE.title, note.text, note.label, *cells]))
    assert not expected - letters(text)


@pytest.mark.parametrize("width", [30, 50, 60, 80])
def test_neither_numbers_nor_shapes_are_folded(width):
    text = as_text([TABLE], width)
    for whole in ("12,345,678", "1,024", "16 × 16 × 32", "8 × 8 × 64"):
        assert whole in text


def test_names_are_folded_at_their_joints():
    text = as_text([TABLE], 60)
    for piece in ("GlobalAverage", "Pooling2D", "encoder/", "stage2_"):
        assert piece in text


def test_where_rows_would_be_higher_each_is_a_record():
    rows = [
        ("a", *[" ".join(["sentence"] * 12)] * 2, None),
        ("b", "x", None, "y"),
    ]
    text = as_text([Table("", ("name", "one", "two", "three"), rows)], 40)
    lines = text.splitlines()
    assert lines[0] == "a" and lines[1].split()[:2] == ["one", "sentence"]
    assert lines[-3:] == ["b", "  one    x", "  three  y"]


def test_the_total_is_apart():
    rows = [("a", "1"), ("b", "2"), ("total", "3")]
    table = Table("", ("name", "count"), rows, ("count",), total=True)
    lines = as_text([table]).splitlines()
    before = lines[next(i for i, x in enumerate(lines) if "total" in x) - 1]
    assert set(before) <= set("├─┼┤")


@pytest.mark.parametrize(
    "text, width, expected",
    [
        ("one two three", 7, ["one two", "three"]),
        ("one\ntwo three", 9, ["one", "two three"]),
        ("block1/conv_2", 8, ["block1/", "conv_2"]),
        ("a PCAAdapter(n=3)", 13, ["a", "PCAAdapter(n=", "3)"]),
        ("x (Functional)", 12, ["x", "(Functional)"]),
        ("incomprehensible", 6, ["incomp", "rehens", "ible"]),
        ("漢字漢字", 4, ["漢字", "漢字"]),
        ("  indented text", 10, ["  indented", "  text"]),
    ],
)
def test_text_is_folded_at_words(text, width, expected):
    assert fold(text, width).split("\n") == expected
