"""Tests the estimated widths of text against matplotlib's measure."""

import pytest

from keras_cascade.display.picture.text import (
    LONGEST,
    shortened,
    stretch_lines,
    text_width,
)

NAMES = (
    "stage2_out",
    "conv5_block3_3_relu",
    "MultiHeadAttention",
    "16 × 16 × 1,024",
    "upstream/mmmWWW … 0123456789",
    "LoRA 8: 4,312 train at 1e-05",
    "(jlift.|:;')",
)


@pytest.mark.parametrize("bold", [False, True])
@pytest.mark.parametrize("text", NAMES)
def test_an_estimate_is_a_little_more_than_the_measure(text, bold):
    pytest.importorskip("matplotlib")
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    weight = "bold" if bold else "normal"
    font = FontProperties(family="DejaVu Sans", weight=weight)
    measured = TextPath((0, 0), text, size=13, prop=font).get_extents().x1
    assert measured <= text_width(text, 13, bold) <= 1.15 * measured


def test_long_names_keep_their_ends():
    name = "a_name_of_more_than_forty_characters_in_all"
    short = shortened(name)
    assert len(short) == LONGEST
    assert short.startswith("a_name_of_") and short.endswith("s_in_all")
    assert shortened("stem") == "stem"


def test_a_stretch_has_one_line_if_its_ends_fit():
    assert stretch_lines("stem", "block3") == ("stem … block3",)
    assert stretch_lines("top", "top") == ("top",)
    first, last = stretch_lines("upstream/rescaling", "upstream/stage3_out")
    assert (first, last) == ("upstream/rescaling", "… upstream/stage3_out")
