"""Tests where the items of a picture's columns stand."""

import numpy as np
import pytest

from keras_cascade.display.picture import ordering
from keras_cascade.display.picture.ordering import Item, arrange, connect


def test_items_that_would_overlap_stand_as_isotonic_regression_has_them():
    isotonic = pytest.importorskip("sklearn.isotonic")
    rng = np.random.default_rng(0)
    heights, wishes = rng.uniform(10, 30, 8), np.sort(rng.uniform(0, 90, 8))
    # The first column does not move: its items have room.
    fixed = [Item(1.0) for _ in wishes]
    column = [Item(height) for height in heights]
    far = 1000.0
    for number, (left, right) in enumerate(zip(fixed, column, strict=True)):
        connect(left, wishes[number] - number * far, right, 0.0)
    for number, left in enumerate(fixed):
        left.y = number * far
    found = [ordering._wish(item, ("left",)) for item in column]
    ordering._place(column, found, gap=5.0)
    starts = np.concatenate([[0], np.cumsum(heights + 5.0)[:-1]])
    expected = isotonic.isotonic_regression(wishes - starts) + starts
    np.testing.assert_allclose([x.y for x in column], expected)


def test_a_chain_is_straight_and_starts_at_the_top():
    chain = [[Item(40.0)], [Item(10.0)], [Item(25.0)]]
    (one,), (two,), (three,) = chain
    connect(one, 30.0, two, 5.0)
    connect(two, 5.0, three, 20.0)
    arrange(chain, gap=8.0)
    heights = [one.y + 30.0, two.y + 5.0, three.y + 20.0]
    assert heights == pytest.approx([heights[0]] * 3)
    assert min(one.y, two.y, three.y) == 0.0


def test_items_are_sorted_by_what_they_are_linked_with():
    left, right = [Item(20.0), Item(20.0)], [Item(20.0), Item(20.0)]
    first, second = right
    connect(left[0], 10.0, second, 10.0)
    connect(left[1], 10.0, first, 10.0)
    columns = [left, right]
    arrange(columns, gap=8.0)
    assert columns[1] == [second, first]
    assert first.y - second.y >= 28.0


def test_of_the_orders_that_are_tried_the_one_with_fewest_crossings_stays():
    left = [Item(20.0) for _ in range(4)]
    right = [Item(height) for height in (90.0, 10.0, 50.0, 10.0)]
    for number, other in enumerate((2, 0, 3, 1)):
        connect(left[number], 10.0, right[other], 5.0)
    columns = [left, right]
    arrange(columns, gap=8.0)
    linked = [columns[1].index(item.right[0][0]) for item in columns[0]]
    assert linked == [0, 1, 2, 3]
