"""Says where values do not fit where they go, and what helps."""

import math
from dataclasses import dataclass

from keras_cascade.analysis.ranges import Values


@dataclass(frozen=True)
class Mismatch:
    """Values that are not what is expected where they go."""

    what: str
    advice: str
    is_grave: bool


def mismatch(
    tap: str, values: Values, arriving: Values, expected: Values
) -> Mismatch | None:
    """Says what does not go together, of what is known.

    Args:
        tap: The name of the tap.
        values: What is known of it.
        arriving: The same of what its adapter gives.
        expected: What is expected where that goes.
    """
    for rule in (_probabilities, _scale, _sign, _rectified):
        found = rule(tap, values, arriving, expected)
        if found is not None:
            return found
    return None


def _probabilities(
    tap: str, values: Values, arriving: Values, expected: Values
) -> Mismatch | None:
    """Softmax into what was trained on something else."""
    if not values.sums_to_one or expected.sums_to_one is not False:
        return None
    if arriving.sums_to_one is False:
        return None
    if expected.is_bounded and expected.high > 10:
        return None
    through = "" if arriving == values else ", through an adapter that learns,"
    return Mismatch(
        f"{values}{through} go where {expected} are expected: most lie near "
        "zero, and differences between them that matter are tiny.",
        f"adapters={{'{tap}': kc.adapters.LogitsAdapter()}} gives their "
        "logarithms, which are spread as features are.",
        True,
    )


def _scale(
    tap: str, values: Values, arriving: Values, expected: Values
) -> Mismatch | None:
    """Intervals of quite different widths."""
    if not expected.is_bounded:
        return None
    wanted = expected.high - expected.low
    # Standardised values lie within three deviations, nearly all.
    given = 6.0 if arriving.standardised else arriving.high - arriving.low
    if not math.isfinite(given) or wanted <= 0 or given <= 0:
        return None
    if 0.25 <= given / wanted <= 4:
        return None
    return Mismatch(
        f"{arriving} go where values {expected} are expected.",
        f"Bring them there: adapters={{'{tap}': keras.layers.Rescaling(scale, "
        "offset)}.",
        True,
    )


def _sign(
    tap: str, values: Values, arriving: Values, expected: Values
) -> Mismatch | None:
    if arriving.low < 0 or not expected.standardised:
        return None
    return Mismatch(
        f"Values {arriving} go where {expected} ones are expected, of which "
        "about half are negative.",
        f"adapters={{'{tap}': keras.layers.Normalization()}} standardises "
        "them; adapt fits it.",
        False,
    )


def _rectified(
    tap: str, values: Values, arriving: Values, expected: Values
) -> Mismatch | None:
    negative = arriving.standardised or -math.inf < arriving.low < 0
    if not negative or expected.low < 0:
        return None
    return Mismatch(
        f"Values {arriving} go where those expected are never negative "
        f"({expected.source}).",
        "Give the adapter the same activation.",
        False,
    )
