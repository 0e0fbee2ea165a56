"""Finds tensors whose values do not suit the place where they go."""

import math

from keras_cascade.analysis.report import Finding
from keras_cascade.values.value_ranges import ValueRange


def find_mismatch(
    tap: str, values: ValueRange, arriving: ValueRange, expected: ValueRange
) -> Finding | None:
    """Returns the first mismatch that the ranges show, as a finding.

    Args:
        tap: The name of the tap.
        values: The range of the tap.
        arriving: The range of the adapter's output.
        expected: The range expected where that output goes.
    """
    return (
        _probabilities(tap, values, arriving, expected)
        or _scale(tap, arriving, expected)
        or _sign(tap, arriving, expected)
        or _rectified(tap, arriving, expected)
    )


def _probabilities(
    tap: str, values: ValueRange, arriving: ValueRange, expected: ValueRange
) -> Finding | None:
    """Compares probabilities with features that are none."""
    fit = not values.sums_to_one or expected.sums_to_one is not False
    # An adapter such as LogitsAdapter has changed them.
    changed = arriving.sums_to_one is False
    # Bounds of another size are reported by `_scale`.
    wide = expected.is_bounded and expected.high > 10
    if fit or changed or wide:
        return None
    through = "" if arriving == values else ", through an adapter that learns,"
    return Finding(
        "warning",
        (tap,),
        f"{values}{through} go where {expected} are expected: most lie near "
        "zero, and differences between them that matter are tiny.",
        f"adapters={{'{tap}': kc.adapters.LogitsAdapter()}} gives their "
        "logarithms, which are spread as features are.",
    )


def _scale(
    tap: str, arriving: ValueRange, expected: ValueRange
) -> Finding | None:
    """Compares the widths of intervals: a factor of four is too much."""
    if not expected.is_bounded:
        return None
    wanted = expected.high - expected.low
    # Nearly all standardised values lie within three deviations.
    width = 6.0 if arriving.standardised else arriving.high - arriving.low
    if not math.isfinite(width) or wanted <= 0 or width <= 0:
        return None
    if 0.25 <= width / wanted <= 4:
        return None
    return Finding(
        "warning",
        (tap,),
        f"{arriving} go where values {expected} are expected.",
        f"Rescale them: adapters={{'{tap}': keras.layers.Rescaling(scale, "
        "offset)}.",
    )


def _sign(
    tap: str, arriving: ValueRange, expected: ValueRange
) -> Finding | None:
    if arriving.low < 0 or not expected.standardised:
        return None
    return Finding(
        "note",
        (tap,),
        f"Values {arriving} go where {expected} ones are expected, of which "
        "about half are negative.",
        f"adapters={{'{tap}': keras.layers.Normalization()}} standardises "
        "them; adapt fits it.",
    )


def _rectified(
    tap: str, arriving: ValueRange, expected: ValueRange
) -> Finding | None:
    negative = arriving.standardised or -math.inf < arriving.low < 0
    if not negative or expected.low < 0:
        return None
    return Finding(
        "note",
        (tap,),
        f"Values {arriving} go where those expected are never negative "
        f"({expected.source}).",
        "Give the adapter the same activation.",
    )
