"""Infers the range of a tensor's values from the layers before it."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import keras

from keras_cascade.adapters import Adapter, LabelMapAdapter, PCAAdapter
from keras_cascade.adapters.logits import LogitsAdapter
from keras_cascade.adapters.projection import ProjectedAdapter
from keras_cascade.adapters.resizing import ResizingAdapter
from keras_cascade.graph.as_input import AsInput
from keras_cascade.graph.graph import Reference
from keras_cascade.graph.program import Program, Step
from keras_cascade.values.value_ranges import (
    PROBABILITIES,
    STANDARDISED,
    UNKNOWN,
    ValueRange,
    hull,
    product,
    total,
)


def infer_range(
    flat: Program,
    reference: Reference,
    known: dict[Reference, ValueRange] | None = None,
) -> ValueRange:
    """Returns the range of a tensor that follows from the operations before it.

    Activations bound values and normalisations standardise them. Operations
    that move, drop, pool or pad values pass a range on; sums, products and
    concatenations combine ranges by interval arithmetic.

    Args:
        flat: The network.
        reference: The tensor.
        known: The ranges of other tensors, such as the network's inputs; those
            that are inferred are added. Defaults to `None`.

    Example:
    >>> network = keras.Sequential(
    ...     [keras.Input((4,)), keras.layers.Dense(2, "softmax", name="p")]
    ... )
    >>> graph = read_graph(network)
    >>> str(infer_range(flatten(graph), graph.reference(graph.outputs[0])))
    "probabilities that sum to one (Dense 'p')"
    """
    known = {} if known is None else known
    reference = flat.resolve(reference)
    if reference not in known:
        call = flat.producers.get(reference)
        known[reference] = _output_range(flat, call, known) if call else UNKNOWN
    return known[reference]


def consumers_of(flat: Program, reference: Reference) -> Iterator[Step]:
    """Yields the calls that read a tensor, those after an identity included."""
    for call in flat.data_consumers.get(flat.resolve(reference), []):
        if is_identity(call.operation):
            yield from consumers_of(flat, call.outputs[0])
        else:
            yield call


def last_activation(flat: Program, reference: Reference) -> str | None:
    """Returns the name of the activation that a tensor is the result of.

    Layers after it that only move or average values are passed over. None if
    it is none of Keras's.
    """
    call = flat.producers.get(flat.resolve(reference))
    if call is None:
        return None
    if isinstance(call.operation, _ACTIVATED):
        name = activation_name(call.operation)
        if name != "linear" or not is_identity(call.operation):
            return name
    elif not is_identity(call.operation) and not isinstance(
        call.operation, _REARRANGEMENTS
    ):
        return None
    (before,) = call.data_inputs
    return None if before is None else last_activation(flat, before)


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


def _output_range(
    flat: Program, call: Step, known: dict[Reference, ValueRange]
) -> ValueRange:
    operation: Any = call.operation
    if isinstance(operation, keras.layers.TimeDistributed):
        operation = operation.layer
    fixed = _fixed_range(operation)
    if fixed is not None:
        source = f"{type(operation).__name__} '{'/'.join(call.address)}'"
        return replace(fixed, source=source)
    rule = _rule(operation)
    if rule is None:
        return UNKNOWN
    # Only now: most ranges are found without walking the whole network.
    return rule(
        [
            UNKNOWN if x is None else infer_range(flat, x, known)
            for x in call.data_inputs
        ]
    )


def _rule(operation: keras.Operation) -> "Rule | None":
    """Returns the rule that gives an operation's range from its inputs'."""
    match operation:
        case keras.layers.Rescaling(scale=scale, offset=offset):
            return lambda given: given[0].rescaled(scale, offset)
        case keras.layers.Resizing() | keras.layers.UpSampling2D():
            return _first if operation.interpolation in _MEANS else None
        case ResizingAdapter(channels=None):
            return _only if operation.interpolation in _MEANS else None
    if is_identity(operation):
        return _first
    if not isinstance(operation, keras.Layer | AsInput):
        # The classes of functions are not public (`keras.src.ops`); their
        # names are.
        return _FUNCTION_RULES.get(type(operation).__name__)
    return next((rule for x, rule in _RULES if isinstance(operation, x)), None)


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
        case ProjectedAdapter():
            return _activation_range(adapter)
        case _:
            return None
    return ValueRange(high=0.0 if is_log else math.inf, sums_to_one=False)


def _layers(patterns: str) -> tuple[type[keras.Layer], ...]:
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

Rule = Callable[[Sequence[ValueRange]], ValueRange]


def _first(given: Sequence[ValueRange]) -> ValueRange:
    return given[0]


def _only(given: Sequence[ValueRange]) -> ValueRange:
    return given[0] if len(given) == 1 else UNKNOWN


def _maximum(given: Sequence[ValueRange]) -> ValueRange:
    # The maxima over positions of several classes may exceed one in sum.
    return replace(given[0], sums_to_one=None)


def _padded(given: Sequence[ValueRange]) -> ValueRange:
    return hull([given[0], ValueRange(0.0, 0.0)])


_RULES: list[tuple[tuple[type, ...], Rule]] = [
    ((AsInput, *_REARRANGEMENTS), _first),
    (_layers("MaxPooling?D GlobalMaxPooling?D"), _maximum),
    (_layers("ZeroPadding?D"), _padded),
    # Each result is one of the values, or lies between them.
    (_layers("Average Concatenate Maximum Minimum"), hull),
    (_layers("Add"), total),
    (_layers("Multiply"), product),
]
_FUNCTION_RULES: dict[str, Rule] = {
    "Add": total,
    "Concatenate": hull,
    "Multiply": product,
    "Reshape": _first,
}

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
