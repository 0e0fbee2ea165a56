"""Tables as HTML: read again by Python's own parser."""

from html.parser import HTMLParser

import pytest

from keras_cascade._reporting.tables import Note, Table, as_html

# No backend takes part in it.
pytestmark = pytest.mark.once

HOSTILE = "<script>alert('&amp;')</script>"


class Reader(HTMLParser):
    """Collects the text of each cell, and whether tags are closed."""

    def __init__(self, text):
        super().__init__()
        self.cells, self.tags, self.open, self.attributes = [], set(), [], []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if tag in ("br", "wbr"):
            if tag == "br":
                self.handle_data("\n")
            return
        self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] in ("td", "th"):
            self.cells[-1] += data


def test_cells_are_read_back_as_they_were():
    cells = [HOSTILE, "a\nb", "block1/conv_2", "x" * 30 + "_y(z=1)", None, 3]
    columns = ["<b>", "1 & 2", *"abcd"]
    read = Reader(as_html([Table(HOSTILE, columns, [cells])]))
    expected = ["" if x is None else str(x) for x in (*columns, *cells)]
    assert read.cells == expected and read.open == []


@pytest.mark.parametrize(
    "part",
    [
        Table(HOSTILE, ["a"], [[1]]),
        Table("t", [HOSTILE], [[HOSTILE]], right=(HOSTILE,)),
        Note(HOSTILE, HOSTILE),
    ],
)
def test_text_makes_no_tags(part):
    text = as_html([part])
    assert "script" not in Reader(text).tags
    assert HOSTILE not in text


def test_nothing_is_loaded_and_no_colour_is_fixed():
    read = Reader(text := as_html([Table("t", ["a"], [[1]], right=["a"])]))
    assert not {"script", "link", "img", "iframe"} & read.tags
    assert not {"src", "href"} & {name for name, _ in read.attributes}
    assert "url(" not in text and "@import" not in text and "#" not in text
    for fixed in ("black", ": white", "rgb("):
        assert fixed not in text


def test_a_table_scrolls_in_its_own_box():
    text = as_html([Table("t", ["a"], [[1]])])
    assert text.index('<div class="scroll">') < text.index("<table>")
    assert ".scroll {overflow: auto; max-width: 100%" in text


def test_a_width_limits_the_lines():
    assert 'style="max-width: 70ch"' in as_html([Note("x")], 70)


def test_long_words_may_break_where_a_reader_would_break_them():
    rows = [["(BatchNormalization"], ["PCAAdapter(n_components=32)"], ["short"]]
    text = as_html([Table("t", ["a"], rows)])
    assert "Batch<wbr>Normalization<" in text
    assert "PCAAdapter(<wbr>n_<wbr>components=<wbr>32)<" in text
    assert ">short<" in text
