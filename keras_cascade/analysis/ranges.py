"""Value ranges: what the layers around a tensor say of its values."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import keras
import numpy as np

from keras_cascade.adapters import Adapter, LabelMapAdapter, PCAAdapter
from keras_cascade.adapters.dense import DenseAdapter
from keras_cascade.adapters.logits import LogitsAdapter
from keras_cascade.adapters.projecting import ProjectingAdapter
from keras_cascade.data import to_numpy
from keras_cascade.graph.as_input import AsInput
from keras_cascade.graph.flattening import FlatCall, FlatGraph
from keras_cascade.graph.graph import Reference
from keras_cascade.networks.applications import recognise
from keras_cascade.networks.preprocessing import MODE_SCALINGS


@dataclass(frozen=True)
class Values:
    """What is known of a tensor's values.

    Attributes:
        low: None of them is below.
        high: None of them is above.
        sums_to_one: Whether they are probabilities that sum to one; None
            where that is not known.
        standardised: Whether they have a mean of about zero and a deviation
            of about one.
        source: What says so.
    """

    low: float = -math.inf
    high: float = math.inf
    sums_to_one: bool | None = None
    standardised: bool = False
    source: str = ""

    @property
    def is_bounded(self) -> bool:
        """Whether both ends are known."""
        return math.isfinite(self.low) and math.isfinite(self.high)

    def __str__(self) -> str:
        source = f" ({self.source})" if self.source else ""
        return f"{self._text()}{source}"

    def _text(self) -> str:
        if self.sums_to_one:
            return "probabilities that sum to one"
        if self.standardised:
            return "standardised"
        if self.is_bounded:
            return f"in [{self.low:.4g}, {self.high:.4g}]"
        if math.isfinite(self.low):
            return f"at least {self.low:.4g}"
        if math.isfinite(self.high):
            return f"at most {self.high:.4g}"
        return "features" if self.source else "not known"


UNKNOWN = Values()
PIXELS = Values(0.0, 255.0, sums_to_one=False, source="pixels")


def values_at(
    flat: FlatGraph,
    reference: Reference,
    known: Mapping[Reference, Values] | None = None,
) -> Values:
    """What the last operations before a tensor say of its values.

    Activations bound it, normalisations standardise it; what moves, drops,
    pools or pads values is looked through, and sums, products and
    concatenations are followed by interval arithmetic.

    Args:
        flat: The network.
        reference: The tensor.
        known: What is known of other tensors, such as its inputs. Defaults to
            `None`.

    Example:
    >>> network = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(2, "softmax", name="p")]
    ... )
    >>> graph = read_graph(network)
    >>> str(values_at(flatten(graph), graph.reference(graph.outputs[0])))
    "probabilities that sum to one (Dense 'p')"
    """
    return _values(flat, flat.resolve(reference), dict(known or {}))


def expected_at_input(
    flat: FlatGraph, reference: Reference, network: keras.Model
) -> Values:
    """What a network expects at an input, as far as it shows.

    A Keras application shows its preprocessing, a Rescaling that pixels come
    in, and a BatchNormalization or Normalization what it was trained on.

    Args:
        flat: The network's graph.
        reference: The input.
        network: The network itself.
    """
    found = recognise(network)
    if found is not None:
        return application_values(found.module, found.needs)
    for call in readers(flat, reference):
        expected = _expected_by(call)
        if expected is not None:
            return expected
    return UNKNOWN


def application_values(module: str, needs: str | None) -> Values:
    """The values that a Keras application was trained on."""
    if needs is None:
        return replace(PIXELS, source=f"pixels, for {module}")
    mode = MODE_SCALINGS[needs]
    low = np.min(mode.offset)
    high = np.max(255 * np.asarray(mode.scale) + np.asarray(mode.offset))
    source = f"{mode.text}, for {module}"
    return Values(float(low), float(high), sums_to_one=False, source=source)


def readers(flat: FlatGraph, reference: Reference) -> Iterator[FlatCall]:
    """What reads a tensor, looking through what leaves it as it is."""
    for call in flat.consumers.get(flat.resolve(reference), []):
        if keeps_tensor(call.operation):
            yield from readers(flat, call.outputs[0])
        else:
            yield call


def keeps_tensor(operation: keras.Operation) -> bool:
    """Whether inference gives what went in: values, shape and all."""
    if isinstance(operation, AsInput):
        return operation.rank is None
    if isinstance(operation, keras.layers.Activation):
        return activation_name(operation) == "linear"
    return isinstance(operation, _IDENTITIES)


def activation_name(layer: Any) -> str | None:
    """The name of a layer's activation, if it is one of Keras's."""
    function = getattr(layer, "activation", None)
    name = getattr(function, "__name__", "")
    own = getattr(keras.activations, name, None) is function
    return name if own and function is not None else None


def _values(
    flat: FlatGraph, reference: Reference, known: dict[Reference, Values]
) -> Values:
    if reference not in known:
        call = flat.producers.get(reference)
        known[reference] = UNKNOWN
        if call is not None:
            known[reference] = _after(flat, call, known)
    return known[reference]


def _after(
    flat: FlatGraph, call: FlatCall, known: dict[Reference, Values]
) -> Values:
    """What a call gives; looks further back only where that matters."""
    operation: Any = call.operation
    if isinstance(operation, keras.layers.TimeDistributed):
        operation = operation.layer
    source = f"{type(operation).__name__} '{'/'.join(call.address)}'"
    settled = _settles(operation)
    if settled is not None:
        return replace(settled, source=source)

    def given() -> list[Values]:
        return [
            UNKNOWN if x is None else _values(flat, x, known)
            for x in call.inputs
        ]

    for kinds, rule in _FOLLOWED:
        if isinstance(operation, kinds) or _is_operation(operation, kinds):
            found = rule(operation, given())
            return found if found else UNKNOWN
    return UNKNOWN


def _settles(operation: Any) -> Values | None:
    """What an operation gives whatever goes in, if it says."""
    if isinstance(operation, _NORMALISATIONS):
        return Values(sums_to_one=False, standardised=True)
    if isinstance(operation, keras.layers.UnitNormalization):
        return Values(-1.0, 1.0)
    if isinstance(operation, keras.layers.Softmax):
        return _ACTIVATIONS["softmax"]
    if isinstance(operation, keras.layers.ReLU):
        return _of_relu(operation)
    if isinstance(operation, keras.layers.ELU):
        return Values(-float(operation.alpha))
    if isinstance(operation, Adapter):
        return _of_adapter(operation)
    if isinstance(operation, _ACTIVATED):
        return _of_activation(operation)
    if not isinstance(operation, keras.Layer):
        return _ACTIVATIONS.get(_OPERATIONS.get(type(operation).__name__, ""))
    return None


def _of_relu(layer: Any) -> Values:
    high = math.inf if layer.max_value is None else float(layer.max_value)
    return Values(-math.inf if layer.negative_slope else 0.0, high)


def _of_activation(layer: Any) -> Values | None:
    """A linear one says nothing, and an `Activation` then passes values on."""
    if isinstance(layer.activation, keras.Layer):
        return _settles(layer.activation)
    return _ACTIVATIONS.get(activation_name(layer) or "")


def _of_adapter(adapter: Any) -> Values | None:
    if isinstance(adapter, LogitsAdapter):
        sigmoid = adapter.activation == "sigmoid"
        return Values(high=math.inf if sigmoid else 0.0, sums_to_one=False)
    if isinstance(adapter, LabelMapAdapter):
        if adapter.output_kind == "probabilities":
            return _PROBABILITIES
        is_log = adapter.output_kind == "log_probabilities"
        return Values(high=0.0 if is_log else math.inf, sums_to_one=False)
    if isinstance(adapter, PCAAdapter):
        return Values(sums_to_one=False, standardised=adapter.whiten)
    if isinstance(adapter, DenseAdapter | ProjectingAdapter):
        return _of_activation(adapter)
    return None


def _same(operation: Any, given: Sequence[Values]) -> Values:
    return given[0]


def _if_linear(operation: Any, given: Sequence[Values]) -> Values:
    return given[0] if keeps_tensor(operation) else UNKNOWN


def _unless_projected(operation: Any, given: Sequence[Values]) -> Values:
    """Resampling takes means; a projection gives anything."""
    means = operation.interpolation in _CONVEX
    passes = operation.channels is None and means
    return given[0] if passes and len(given) == 1 else UNKNOWN


def _resized(operation: Any, given: Sequence[Values]) -> Values:
    return given[0] if operation.interpolation in _CONVEX else UNKNOWN


def _maximum_of_positions(operation: Any, given: Sequence[Values]) -> Values:
    return replace(given[0], sums_to_one=None)


def _padded(operation: Any, given: Sequence[Values]) -> Values:
    return _hull([given[0], Values(0.0, 0.0)], given[0])


def _joined(operation: Any, given: Sequence[Values]) -> Values | None:
    """Each value of the result is one of what is given, or between them."""
    return _hull(given, given[0]) if given else None


def _sum(operation: Any, given: Sequence[Values]) -> Values | None:
    # A constant beside a tensor is not among what is given.
    if len(given) < 2:
        return None
    return Values(sum(x.low for x in given), sum(x.high for x in given))


def _product(operation: Any, given: Sequence[Values]) -> Values | None:
    if len(given) < 2:
        return None
    if all(x.is_bounded for x in given):
        low, high = given[0].low, given[0].high
        for one in given[1:]:
            ends = [a * b for a in (low, high) for b in (one.low, one.high)]
            low, high = min(ends), max(ends)
        return Values(low, high)
    return Values(0.0) if all(x.low >= 0 for x in given) else None


def _rescaled(operation: Any, given: Sequence[Values]) -> Values | None:
    if not given[0].is_bounded:
        return None
    scale, offset = np.asarray(operation.scale), np.asarray(operation.offset)
    ends = [end * scale + offset for end in (given[0].low, given[0].high)]
    low = float(min(np.min(end) for end in ends))
    high = float(max(np.max(end) for end in ends))
    return Values(low, high, source=given[0].source)


def _hull(given: Sequence[Values], like: Values) -> Values:
    """What holds for all; the rest of what is known of one is forgotten."""
    if all(x == like for x in given):
        return like
    standardised = all(x.standardised for x in given)
    return Values(
        min(x.low for x in given),
        max(x.high for x in given),
        sums_to_one=False if standardised else None,
        standardised=standardised,
        source=", ".join(dict.fromkeys(x.source for x in given if x.source)),
    )


def _expected_by(call: FlatCall) -> Values | None:
    operation: Any = call.operation
    if isinstance(operation, keras.layers.Rescaling):
        if np.max(np.abs(np.asarray(operation.scale))) <= 1 / 50:
            return replace(PIXELS, source=f"pixels, for {call.name}")
        return Values(source=f"rescaled by {call.name}")
    moments = trained_moments(operation)
    if moments is not None:
        return _expected_moments(call.name, *moments)
    if isinstance(operation, _NORMALISATIONS):
        return Values(source=f"normalised first, by {call.name}")
    return None


def trained_moments(layer: Any) -> tuple[np.ndarray, np.ndarray] | None:
    """Mean and variance that a layer was trained to see, per channel."""
    if isinstance(layer, keras.layers.BatchNormalization) and layer.built:
        found = (layer.moving_mean, layer.moving_variance)
    elif isinstance(layer, keras.layers.Normalization) and not layer.invert:
        found = (getattr(layer, "mean", None), getattr(layer, "variance", None))
    else:
        return None
    if any(x is None for x in found):
        return None
    to_host = keras.ops.convert_to_numpy
    mean, variance = (to_numpy(to_host(x)).reshape(-1) for x in found)
    return mean.astype("float64"), variance.astype("float64")


def is_untrained(mean: np.ndarray, variance: np.ndarray) -> bool:
    """Whether moments are those that layers begin with."""
    return bool(np.all(mean == 0) and np.all(variance == 1))


def _expected_moments(
    name: str, mean: np.ndarray, variance: np.ndarray
) -> Values:
    deviation = np.sqrt(variance)
    # No value in [0, 1] varies by more than 1/4 (Popoviciu).
    plausible = bool(
        np.all((mean >= 0) & (mean <= 1)) and np.all(variance <= 0.25)
    )
    centred = float(np.median(np.abs(mean) / np.maximum(deviation, 1e-12)))
    state = ", never trained" if is_untrained(mean, variance) else ""
    return Values(
        sums_to_one=None if plausible else False,
        standardised=centred < 0.5 and 0.5 <= np.median(deviation) <= 2,
        source=f"{name}{state}",
    )


def _layers(*names: str) -> tuple[type, ...]:
    """Layers of Keras by name; those that a version lacks are left out."""
    found = (getattr(keras.layers, name, None) for name in names)
    return tuple(layer for layer in found if layer is not None)


def _is_operation(operation: Any, kinds: tuple[type, ...]) -> bool:
    """Operations that are no layers go by the names of those that do so.

    Their classes are not public (`keras.src.ops`), their names are.
    """
    names = {kind.__name__ for kind in kinds} & _FOLLOWED_OPERATIONS
    is_layer = isinstance(operation, keras.Layer)
    return not is_layer and type(operation).__name__ in names


_CONVEX = ("nearest", "bilinear", "area")
_RANKS = ("1D", "2D", "3D")


def _ranked(*names: str) -> tuple[type, ...]:
    return _layers(*(f"{name}{rank}" for name in names for rank in _RANKS))


_IDENTITIES = _layers(
    "ActivityRegularization",
    "AlphaDropout",
    "Dropout",
    "GaussianDropout",
    "GaussianNoise",
    "Identity",
) + _ranked("SpatialDropout")
_NORMALISATIONS = _layers(
    "BatchNormalization",
    "GroupNormalization",
    "LayerNormalization",
    "Normalization",
    "RMSNormalization",
)
# Layers that apply their `activation` last. Others, as encoders of KerasHub,
# have one inside.
_ACTIVATED = (
    _layers("Activation", "Dense", "EinsumDense", "GRU", "LSTM", "SimpleRNN")
    + _ranked(
        "Conv",
        "DepthwiseConv",
        "SeparableConv",
    )
    + _layers("Conv1DTranspose", "Conv2DTranspose", "Conv3DTranspose")
)

Rule = Callable[[Any, Sequence[Values]], Values | None]
_MOVED = (
    AsInput,
    *_layers("Flatten", "Permute", "RepeatVector", "Reshape"),
)
_FOLLOWED: list[tuple[tuple[type, ...], Rule]] = [
    (_layers("Activation"), _if_linear),
    (_IDENTITIES + _MOVED, _same),
    (_ranked("AveragePooling", "GlobalAveragePooling", "Cropping"), _same),
    (_ranked("MaxPooling", "GlobalMaxPooling"), _maximum_of_positions),
    (_ranked("ZeroPadding"), _padded),
    (_layers("UpSampling1D", "UpSampling3D"), _same),
    (_layers("UpSampling2D", "Resizing"), _resized),
    (_layers("Average", "Concatenate", "Maximum", "Minimum"), _joined),
    (_layers("Add"), _sum),
    (_layers("Multiply"), _product),
    (_layers("Rescaling"), _rescaled),
    ((ProjectingAdapter,), _unless_projected),
]
_FOLLOWED_OPERATIONS = {"Add", "Concatenate", "Multiply", "Reshape"}

_NOT_NEGATIVE = Values(0.0)
_UNIT = Values(0.0, 1.0)
_SYMMETRIC = Values(-1.0, 1.0)
_PROBABILITIES = Values(0.0, 1.0, sums_to_one=True)
# What keras.activations give, their smallest values rounded down.
_ACTIVATIONS = {
    "celu": Values(-1.0),
    "elu": Values(-1.0),
    "exponential": _NOT_NEGATIVE,
    "gelu": Values(-0.17),
    "hard_sigmoid": _UNIT,
    "hard_silu": Values(-0.375),
    "hard_tanh": _SYMMETRIC,
    "log_sigmoid": Values(high=0.0),
    "log_softmax": Values(high=0.0, sums_to_one=False),
    "mish": Values(-0.309),
    "relu": _NOT_NEGATIVE,
    "relu6": Values(0.0, 6.0),
    "selu": Values(-1.759),
    "sigmoid": _UNIT,
    "silu": Values(-0.279),
    "softmax": _PROBABILITIES,
    "softplus": _NOT_NEGATIVE,
    "softsign": _SYMMETRIC,
    "sparse_plus": _NOT_NEGATIVE,
    "sparse_sigmoid": _UNIT,
    "sparsemax": _PROBABILITIES,
    "squareplus": _NOT_NEGATIVE,
    "tanh": _SYMMETRIC,
}
# Operations that are no layers, by the name of their class.
_OPERATIONS = {
    "Elu": "elu",
    "Exp": "exponential",
    "Gelu": "gelu",
    "HardSigmoid": "hard_sigmoid",
    "HardSilu": "hard_silu",
    "HardTanh": "hard_tanh",
    "LogSigmoid": "log_sigmoid",
    "LogSoftmax": "log_softmax",
    "Relu": "relu",
    "Relu6": "relu6",
    "Selu": "selu",
    "Sigmoid": "sigmoid",
    "Silu": "silu",
    "Softmax": "softmax",
    "Softplus": "softplus",
    "Softsign": "softsign",
    "Sparsemax": "sparsemax",
    "Tanh": "tanh",
}
