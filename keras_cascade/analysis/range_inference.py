"""Infers the range of a tensor's values from the layers before it."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import keras

from keras_cascade.adapters import Adapter, LabelMapAdapter, PCAAdapter
from keras_cascade.adapters.dense import DenseAdapter
from keras_cascade.adapters.logits import LogitsAdapter
from keras_cascade.adapters.projecting import ProjectingAdapter
from keras_cascade.analysis.value_ranges import (
    PROBABILITIES,
    STANDARDISED,
    UNKNOWN,
    ValueRange,
    hull,
    product,
    total,
)
from keras_cascade.graph.as_input import AsInput
from keras_cascade.graph.flattening import FlatCall, FlatGraph
from keras_cascade.graph.graph import Reference


def infer_range(
    flat: FlatGraph,
    reference: Reference,
    known: Mapping[Reference, ValueRange] | None = None,
) -> ValueRange:
    """Returns the range of a tensor that follows from the operations before it.

    Activations bound values and normalisations standardise them. Operations
    that move, drop, pool or pad values pass a range on; sums, products and
    concatenations combine ranges by interval arithmetic.

    Args:
        flat: The network.
        reference: The tensor.
        known: The ranges of other tensors, such as the network's inputs.
            Defaults to `None`.

    Example:
    >>> network = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(2, "softmax", name="p")]
    ... )
    >>> graph = read_graph(network)
    >>> str(infer_range(flatten(graph), graph.reference(graph.outputs[0])))
    "probabilities that sum to one (Dense 'p')"
    """
    return _range_at(flat, flat.resolve(reference), dict(known or {}))


def consumers_of(flat: FlatGraph, reference: Reference) -> Iterator[FlatCall]:
    """Yields the calls that read a tensor, those after an identity included."""
    for call in flat.consumers.get(flat.resolve(reference), []):
        if is_identity(call.operation):
            yield from consumers_of(flat, call.outputs[0])
        else:
            yield call


def is_identity(operation: keras.Operation) -> bool:
    """Whether an operation returns its input unchanged in inference mode."""
    if isinstance(operation, AsInput):
        return operation.rank is None
    if isinstance(operation, keras.layers.Activation):
        return activation_name(operation) == "linear"
    return isinstance(operation, _IDENTITIES)


def activation_name(layer: keras.Layer) -> str | None:
    """Returns the name of a layer's activation if it is one of Keras's."""
    function = getattr(layer, "activation", None)
    name = getattr(function, "__name__", "")
    # A function of the user's may have the name of one of Keras's.
    found = getattr(keras.activations, name, None)
    return name if function is not None and found is function else None


def _range_at(
    flat: FlatGraph, reference: Reference, known: dict[Reference, ValueRange]
) -> ValueRange:
    if reference not in known:
        call = flat.producers.get(reference)
        known[reference] = _output_range(flat, call, known) if call else UNKNOWN
    return known[reference]


def _output_range(
    flat: FlatGraph, call: FlatCall, known: dict[Reference, ValueRange]
) -> ValueRange:
    operation: Any = call.operation
    if isinstance(operation, keras.layers.TimeDistributed):
        operation = operation.layer
    fixed = _fixed_range(operation)
    if fixed is not None:
        source = f"{type(operation).__name__} '{'/'.join(call.address)}'"
        return replace(fixed, source=source)
    for kinds, rule in _RULES:
        if isinstance(operation, kinds) or _is_function(operation, kinds):
            # Only now: most ranges are found without the whole network.
            given = [
                UNKNOWN if x is None else _range_at(flat, x, known)
                for x in call.inputs
            ]
            return rule(operation, given)
    return UNKNOWN


def _fixed_range(operation: keras.Operation) -> ValueRange | None:
    """Returns the range of an operation's outputs if no input changes it."""
    match operation:
        case keras.layers.UnitNormalization():
            return ValueRange(-1.0, 1.0)
        case keras.layers.Softmax():
            return PROBABILITIES
        case keras.layers.ReLU():
            low = -math.inf if operation.negative_slope else 0.0
            high = operation.max_value
            return ValueRange(low, math.inf if high is None else float(high))
        case keras.layers.ELU():
            return ValueRange(-float(operation.alpha))
        case Adapter():
            return _adapter_range(operation)
    if isinstance(operation, NORMALISATIONS):
        return STANDARDISED
    if isinstance(operation, _ACTIVATED):
        return _activation_range(operation)
    if not isinstance(operation, keras.Layer):
        return _FUNCTIONS.get(type(operation).__name__.lower())
    return None


def _activation_range(layer: keras.Layer) -> ValueRange | None:
    if isinstance(layer.activation, keras.Layer):
        return _fixed_range(layer.activation)
    return _ACTIVATIONS.get(activation_name(layer) or "")


def _adapter_range(adapter: Adapter) -> ValueRange | None:
    match adapter:
        case LogitsAdapter():
            is_log = adapter.activation != "sigmoid"
        case LabelMapAdapter(output_kind="probabilities"):
            return PROBABILITIES
        case LabelMapAdapter():
            is_log = adapter.output_kind == "log_probabilities"
        case PCAAdapter():
            return replace(STANDARDISED, standardised=adapter.whiten)
        case DenseAdapter() | ProjectingAdapter():
            return _activation_range(adapter)
        case _:
            return None
    return ValueRange(high=0.0 if is_log else math.inf, sums_to_one=False)


def _is_function(operation: keras.Operation, kinds: tuple[type, ...]) -> bool:
    """Whether an operation is the function that does what some layers do.

    The classes of such operations are not public (`keras.src.ops`); their
    names are.
    """
    name = type(operation).__name__
    return (
        not isinstance(operation, keras.Layer)
        and name in ("Add", "Concatenate", "Multiply", "Reshape")
        and any(name == kind.__name__ for kind in kinds)
    )


def _layers(patterns: str) -> tuple[type, ...]:
    """Returns the layers of Keras whose names match any of some patterns."""
    return tuple(
        kind
        for name, kind in vars(keras.layers).items()
        if any(fnmatchcase(name, pattern) for pattern in patterns.split())
    )


_IDENTITIES = _layers(
    "ActivityRegularization AlphaDropout Dropout GaussianDropout GaussianNoise "
    "Identity SpatialDropout?D"
)
NORMALISATIONS = _layers(
    "BatchNormalization GroupNormalization LayerNormalization Normalization "
    "RMSNormalization"
)
# Layers that apply their `activation` last. Others, as encoders of KerasHub,
# have one inside.
_ACTIVATED = _layers(
    "Activation Dense EinsumDense GRU LSTM SimpleRNN Conv?D DepthwiseConv?D "
    "SeparableConv?D Conv?DTranspose"
)
# Layers that only move, repeat, drop or average values.
_REARRANGEMENTS = _layers(
    "Flatten Permute RepeatVector Reshape Cropping?D UpSampling1D UpSampling3D "
    "AveragePooling?D GlobalAveragePooling?D"
)
# Interpolations whose results are weighted means.
_MEANS = ("nearest", "bilinear", "area")

Rule = Callable[[Any, Sequence[ValueRange]], ValueRange]


def _if_identity(layer: keras.Layer, given: Sequence[ValueRange]) -> ValueRange:
    return given[0] if is_identity(layer) else UNKNOWN


def _if_means(layer: Any, given: Sequence[ValueRange]) -> ValueRange:
    return given[0] if layer.interpolation in _MEANS else UNKNOWN


def _if_not_projected(
    adapter: ProjectingAdapter, given: Sequence[ValueRange]
) -> ValueRange:
    is_one = adapter.channels is None and len(given) == 1
    return _if_means(adapter, given) if is_one else UNKNOWN


# The first rule that matches an operation gives its range.
_RULES: list[tuple[tuple[type, ...], Rule]] = [
    (_layers("Activation"), _if_identity),
    (
        (*_IDENTITIES, AsInput, *_REARRANGEMENTS),
        lambda _, given: given[0],
    ),
    (
        # Maxima of several positions: those of the classes exceed one in sum.
        _layers("MaxPooling?D GlobalMaxPooling?D"),
        lambda _, given: replace(given[0], sums_to_one=None),
    ),
    (
        _layers("ZeroPadding?D"),
        lambda _, given: hull([given[0], ValueRange(0.0, 0.0)]),
    ),
    (_layers("UpSampling2D Resizing"), _if_means),
    # Each result is one of the values, or lies between them.
    (
        _layers("Average Concatenate Maximum Minimum"),
        lambda _, given: hull(given),
    ),
    (_layers("Add"), lambda _, given: total(given)),
    (_layers("Multiply"), lambda _, given: product(given)),
    (
        _layers("Rescaling"),
        lambda layer, given: given[0].rescaled(layer.scale, layer.offset),
    ),
    ((ProjectingAdapter,), _if_not_projected),
]

# The ranges of keras.activations, the smallest values rounded down.
_ACTIVATIONS = {
    name: values
    for names, values in (
        ("celu elu", ValueRange(-1.0)),
        ("exponential relu softplus sparse_plus squareplus", ValueRange(0.0)),
        ("gelu", ValueRange(-0.17)),
        ("hard_sigmoid sigmoid sparse_sigmoid", ValueRange(0.0, 1.0)),
        ("hard_silu", ValueRange(-0.375)),
        ("hard_tanh softsign tanh", ValueRange(-1.0, 1.0)),
        ("log_sigmoid", ValueRange(high=0.0)),
        ("log_softmax", ValueRange(high=0.0, sums_to_one=False)),
        ("mish", ValueRange(-0.309)),
        ("relu6", ValueRange(0.0, 6.0)),
        ("selu", ValueRange(-1.759)),
        ("silu", ValueRange(-0.279)),
        ("softmax sparsemax", PROBABILITIES),
    )
    for name in names.split()
}
# The same by the classes of the functions in `keras.ops`, in lower case.
_FUNCTIONS = {
    **{name.replace("_", ""): x for name, x in _ACTIVATIONS.items()},
    "exp": _ACTIVATIONS["exponential"],
}
