"""Finds the values that networks expect as inputs, and tells other values.

Tested by `tests/analysis/test_input_requirements.py`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import keras
import numpy as np

from keras_cascade.graph.graph import Reference
from keras_cascade.graph.program import Program, Step
from keras_cascade.networks.applications import Recognised, recognise
from keras_cascade.networks.preprocessing import MODE_SCALINGS, Preprocess
from keras_cascade.values.range_inference import NORMALISATIONS, consumers_of
from keras_cascade.values.trained_statistics import (
    is_untrained,
    trained_moments,
)
from keras_cascade.values.value_ranges import (
    PIXELS,
    UNKNOWN,
    ValueRange,
    pixels_for,
)


@dataclass(frozen=True, eq=False)
class Requirement:
    """The values that a network needs at an input of a cascade.

    Attributes:
        network: The network's role: `upstream`, or its name.
        title: The role and the network's own name.
        own: The range that the network itself expects.
        preprocess: The preprocessing that the cascade does before it, if any.
        recognised: The Keras application that the network is, if it is one.
    """

    network: str
    title: str
    own: ValueRange
    preprocess: Preprocess | None
    recognised: Recognised | None

    @property
    def values(self) -> ValueRange:
        """The range that is needed at the cascade's input."""
        chosen = self.preprocess
        return self.own if chosen is None else pixels_for(chosen.name)

    @property
    def fix(self) -> tuple[str, str] | None:
        """The network and module for `preprocess` to bring pixels to it."""
        found = self.recognised
        if self.preprocess is not None or found is None or not found.needs:
            return None
        return self.network, found.module

    @property
    def conflict(self) -> tuple[str, str] | None:
        """How the preprocessing and the network disagree, and what to do."""
        chosen = self.preprocess
        arriving = UNKNOWN if chosen is None else _pixels_through(chosen)
        if chosen is None or not arriving.is_bounded:
            return None
        if not is_off_scale(self.own, arriving.low, arriving.high):
            return None
        return (
            f"The cascade preprocesses the input of {self.title} "
            f"({chosen.name}), which gives values in [{arriving.low:.4g}, "
            f"{arriving.high:.4g}], and the network expects values {self.own}.",
            "Where the network's own layers preprocess, pass "
            f"preprocess={{'{self.network}': None}}.",
        )

    def off_scale(self, low: float, high: float) -> tuple[str, str] | None:
        """Returns how data in [low, high] do not fit, and what to do."""
        if not is_off_scale(self.values, low, high):
            return None
        return (
            f"The data lie in [{low:.4g}, {high:.4g}], and {self.title} "
            f"expects values {self.values}.",
            self._advice(low, high),
        )

    def _advice(self, low: float, high: float) -> str:
        is_pixels = self.values.source.startswith("pixels")
        if self.fix and low >= 0 and high <= 255:
            network, module = self.fix
            return (
                f"If these are pixels, preprocess={{'{network}': '{module}'}} "
                "does that."
            )
        if not is_pixels:
            return "Rescale the data to that range."
        if low >= 0:
            return "Feed pixels in [0, 255], not scaled ones."
        by = "cascade" if self.preprocess else "network"
        instead = f", or pass preprocess={{'{self.network}': None}}"
        return (
            "They look preprocessed already, and the "
            f"{by} does that itself: feed pixels in [0, 255]"
            f"{instead * (self.preprocess is not None)}."
        )


def required_range(
    flat: Program, reference: Reference, network: keras.Model
) -> ValueRange:
    """Returns the range that a network expects at an input, if layers show.

    A Keras application shows its preprocessing, a Rescaling shows that pixels
    are expected, and a BatchNormalization or Normalization the statistics it
    was trained on.

    Args:
        flat: The network's graph, or one that the network is a part of.
        reference: The tensor that goes into it.
        network: The network itself.
    """
    found = recognise(network)
    if found is not None:
        return application_range(found)
    return range_shown_by(consumers_of(flat, reference))


def range_shown_by(calls: Iterable[Step]) -> ValueRange:
    """Returns the range that the first layers after an input show."""
    expected = map(_expected_by, calls)
    return next((x for x in expected if x is not None), UNKNOWN)


def application_range(found: Recognised) -> ValueRange:
    """Returns the range that a Keras application expects."""
    if found.needs is None:
        return pixels_for(found.module)
    mode = MODE_SCALINGS[found.needs]
    return replace(
        PIXELS.rescaled(mode.scale, mode.offset),
        sums_to_one=False,
        source=f"{mode.text}, for {found.module}",
    )


def is_off_scale(values: ValueRange, low: float, high: float) -> bool:
    """Returns whether data leave a range, or fill less than a fiftieth.

    They leave it if they exceed it by more than a tenth.
    """
    if not values.is_bounded:
        return False
    width = values.high - values.low
    outside = high > values.high + width / 10 or low < values.low - width / 10
    return outside or high - low < width / 50


def _pixels_through(chosen: Preprocess) -> ValueRange:
    """Returns the range of preprocessed pixels, if the layers show it."""
    found = PIXELS if chosen.layers else UNKNOWN
    for layer in chosen.layers:
        if isinstance(layer, keras.layers.Rescaling):
            found = found.rescaled(layer.scale, layer.offset)
        elif layer.name != "rgb_to_bgr":
            return UNKNOWN
    return found


def _expected_by(call: Step) -> ValueRange | None:
    operation = call.operation
    if isinstance(operation, keras.layers.Rescaling):
        # 1 / 255, 1 / 127.5 and their like make pixels small.
        if np.max(np.abs(np.asarray(operation.scale))) <= 1 / 50:
            return pixels_for(call.label)
        return ValueRange(source=f"rescaled by {call.label}")
    moments = trained_moments(operation)
    if moments is not None:
        return _range_of_moments(call.label, *moments)
    if isinstance(operation, NORMALISATIONS):
        return ValueRange(source=f"normalised first, by {call.label}")
    return None


def _range_of_moments(
    name: str, mean: np.ndarray, variance: np.ndarray
) -> ValueRange:
    # No value in [0, 1] varies by more than 1/4 (Popoviciu): with other
    # moments, the layer was not trained on probabilities.
    plausible = bool(
        np.all((mean >= 0) & (mean <= 1)) and np.all(variance <= 0.25)
    )
    deviation = np.sqrt(variance)
    centred = float(np.median(np.abs(mean) / np.maximum(deviation, 1e-12)))
    state = ", never trained" if is_untrained(mean, variance) else ""
    return ValueRange(
        sums_to_one=None if plausible else False,
        standardised=centred < 0.5 and 0.5 <= np.median(deviation) <= 2,
        source=f"{name}{state}",
    )
