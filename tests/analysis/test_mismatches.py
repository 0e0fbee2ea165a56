"""Tests the differences between ranges that are reported, and the advice."""

import pytest

from keras_cascade.analysis.mismatches import find_mismatch
from keras_cascade.values.value_ranges import PIXELS, ValueRange

PROBABILITIES = ValueRange(0, 1, sums_to_one=True, source="Softmax 'p'")
STANDARDISED = ValueRange(sums_to_one=False, standardised=True, source="norm")
RECTIFIED = ValueRange(0.0, source="ReLU 'r'")


@pytest.mark.parametrize(
    ("values", "arriving", "expected", "says"),
    [
        (PROBABILITIES, PROBABILITIES, STANDARDISED, "LogitsAdapter"),
        (PROBABILITIES, ValueRange(), STANDARDISED, "LogitsAdapter"),
        (PROBABILITIES, PROBABILITIES, PIXELS, "Rescaling"),
        (STANDARDISED, STANDARDISED, PIXELS, "Rescaling"),
        (RECTIFIED, RECTIFIED, STANDARDISED, "Normalization"),
        (STANDARDISED, STANDARDISED, RECTIFIED, "activation"),
    ],
    ids=["as_is", "through", "scale", "standard", "sign", "rectified"],
)
def test_a_mismatch_comes_with_advice(values, arriving, expected, says):
    found = find_mismatch("tap", values, arriving, expected)
    assert says in found.advice


@pytest.mark.parametrize(
    ("values", "arriving", "expected"),
    [
        (PROBABILITIES, ValueRange(high=0.0, sums_to_one=False), STANDARDISED),
        (PROBABILITIES, PROBABILITIES, PROBABILITIES),
        (PROBABILITIES, PROBABILITIES, ValueRange()),
        (STANDARDISED, STANDARDISED, STANDARDISED),
        (RECTIFIED, RECTIFIED, RECTIFIED),
        (RECTIFIED, ValueRange(), STANDARDISED),
        (ValueRange(), ValueRange(), STANDARDISED),
    ],
)
def test_matching_and_unknown_ranges_are_no_mismatch(
    values, arriving, expected
):
    assert find_mismatch("tap", values, arriving, expected) is None
