"""Describes in words how the weights of some layers train.

Tested by `tests/display/picture/test_reading.py`.
"""

from collections.abc import Iterable, Mapping, Sequence

import keras

from keras_cascade.display.blocks import count_parameters
from keras_cascade.graph import low_rank


def state_of(operation: keras.Operation) -> str:
    """Returns how the weights of one layer train, a key of `STATES` or ""."""
    if not isinstance(operation, keras.Layer) or not operation.weights:
        return ""
    if not operation.trainable_variables:
        return "frozen"
    return "lora" if any(low_rank.low_rank_layers(operation)) else "trains"


def joined_state(states: Iterable[str]) -> str:
    """Returns the state of several layers together."""
    found = set(states) - {""}
    if len(found) < 2:
        return next(iter(found), "")
    # Layers without low-rank updates stay frozen beside those that have them.
    return "lora" if found == {"frozen", "lora"} else "part"


def weight_lines(
    operations: Iterable[keras.Operation], rates: Mapping[str, float]
) -> tuple[str, ...]:
    """Returns the number of parameters, and how many train at which rate."""
    layers = [x for x in operations if isinstance(x, keras.Layer)]
    weights = _unique(v for layer in layers for v in layer.weights)
    if not weights:
        return ()
    training = _unique(v for x in layers for v in x.trainable_variables)
    total, number = count_parameters(weights), count_parameters(training)
    words = f"{total:,} parameter" + "s" * (total != 1)
    return words, _training_words(layers, number, _rate(training, rates))


def _training_words(
    layers: Sequence[keras.Layer], number: int, rate: str
) -> str:
    state = joined_state(map(state_of, layers))
    if state == "lora":
        ranks = {
            inner.lora_rank
            for layer in layers
            for inner in low_rank.low_rank_layers(layer)
        }
        words = ", ".join(map(str, sorted(ranks)))
        return f"LoRA {words}: {number:,} train{rate}"
    if state == "part":
        return f"{number:,} train{rate}"
    return "frozen" if state == "frozen" else f"trains{rate}"


def _rate(
    variables: Iterable[keras.Variable], rates: Mapping[str, float]
) -> str:
    found = {rates[v.path] for v in variables if v.path in rates}
    if not found:
        return ""
    low, high = min(found), max(found)
    return f" at {low:g}" if low == high else f" at {low:.2g} to {high:.2g}"


def _unique(variables: Iterable[keras.Variable]) -> list[keras.Variable]:
    return list({id(v): v for v in variables}.values())
