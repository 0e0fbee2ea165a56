"""Checks single arguments of `build_cascade` and brings each into one form.

Tested by `tests/planning/test_spec.py`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from keras_cascade._reporting.messages import closest, listed
from keras_cascade.adapters import DenseAdapter, PCAAdapter
from keras_cascade.adapters.fusions import FUSIONS
from keras_cascade.graph.layers import check_layer
from keras_cascade.planning.spec import AdapterChoice, ExtraInput
from keras_cascade.training.lora import LoRA
from keras_cascade.training.rates.block_rates import validate_rate
from keras_cascade.training.rates.layerwise_decay import LayerwiseDecay


def check_fusion(fusion: object) -> str | keras.Layer | None:
    """Returns the fusion itself, if it is possible.

    Raises:
        ValueError: If no merge has that name.
        TypeError: If it is neither a name nor a layer.
    """
    if fusion is None or isinstance(fusion, keras.Layer):
        return fusion
    if isinstance(fusion, str):
        if fusion not in FUSIONS:
            raise ValueError(
                f"Unknown fusion '{fusion}'. Possible: {listed(FUSIONS)}, a "
                "merging layer of Keras, or None."
            )
        return fusion
    return check_layer(fusion, "fusion", "a name, None, or ")


def check_name(name: object) -> None:
    """Raises an error for a name that no model can have."""
    if not isinstance(name, str):
        raise TypeError(f"name is the name of the cascade; received {name!r}.")
    if not name or "/" in name:
        raise ValueError(
            f"name={name!r} cannot be the name of a model: it is text without "
            "'/', and not empty."
        )


def normalise_extra_inputs(
    extra_inputs: Mapping[str, Any] | None, taken: Mapping[str, str]
) -> dict[str, ExtraInput]:
    """Returns the shapes and dtypes of the extra inputs.

    Args:
        extra_inputs: Name to a shape without batch, or a `keras.Input`.
        taken: Names that are in use, each with a description of its owner.

    Raises:
        ValueError: If a name is no identifier or is taken, or a shape is not
            valid.
    """
    if extra_inputs is not None and not isinstance(extra_inputs, Mapping):
        raise TypeError(
            "extra_inputs must be a mapping {name: shape without batch}, such "
            f"as {{'metadata': (2,)}}; received {extra_inputs!r}."
        )
    result = {}
    for name, value in (extra_inputs or {}).items():
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"Extra input name {name!r} is no identifier.")
        if name in taken:
            raise ValueError(
                f"Extra input '{name}' has the name of {taken[name]}; give it "
                "another."
            )
        result[name] = _extra_input(name, value)
    return result


def normalise_adapters(
    adapters: object, taps: Sequence[str], extras: Sequence[str]
) -> dict[str, AdapterChoice]:
    """Returns the adapter of each tap and extra input.

    Raises:
        ValueError: If there are too many or too few, a name is no tap and no
            extra input, or an adapter has no width before it is fitted.
        TypeError: If a value is no adapter.
    """
    if isinstance(adapters, Mapping):
        choices = _adapters_by_name(adapters, taps, extras)
    elif isinstance(adapters, list | tuple):
        choices = _adapters_in_order(adapters, taps, extras)
    else:
        choices = dict.fromkeys(taps, adapters) | dict.fromkeys(extras)
    return {name: _adapter(name, value) for name, value in choices.items()}


def normalise_head(head: object) -> dict[str, Any] | None:
    """Returns each output's number of classes or list of layers."""
    if head is None:
        return None
    if not isinstance(head, Mapping):
        return {"": _head(head, "head")}
    if not head:
        raise ValueError("head={} gives no output; leave it out, or name one.")
    for name in head:
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(f"Output name {name!r} in head is no identifier.")
    return {n: _head(value, f"head['{n}']") for n, value in head.items()}


def normalise_trainable(
    trainable: object,
) -> bool | dict[str, bool | LoRA] | None:
    """Returns the argument `trainable` itself, if its values are valid."""
    if trainable is None or isinstance(trainable, bool):
        return trainable
    if isinstance(trainable, Mapping):
        _check_patterns(trainable, "trainable")
        for pattern, value in trainable.items():
            if not isinstance(value, bool | LoRA):
                raise TypeError(
                    f"trainable['{pattern}'] must be True, False or a LoRA, "
                    f"such as LoRA(8); received {value!r}."
                )
        return dict(trainable)
    hint = ""
    if isinstance(trainable, LoRA):
        hint = (
            " LoRA is for networks, not for adapters and heads: name the "
            f"block, trainable={{'upstream': {trainable}}}."
        )
    raise TypeError(
        "trainable must be None, a bool or a mapping {path pattern: bool or "
        f"LoRA}}; received {trainable!r}.{hint}"
    )


def normalise_rates(learning_rates: object) -> dict[str, Any]:
    """Returns the rates by their path patterns.

    Raises:
        ValueError: If a rate is negative or not finite.
        TypeError: If it is no mapping.
    """
    if learning_rates is None:
        return {}
    if not isinstance(learning_rates, Mapping):
        raise TypeError(
            "learning_rates must be a mapping {path pattern: rate}; received "
            f"{learning_rates!r}. One rate for all is the optimizer's."
        )
    _check_patterns(learning_rates, "learning_rates")
    return {
        pattern: rate
        if isinstance(rate, LayerwiseDecay)
        else validate_rate(pattern, rate)
        for pattern, rate in learning_rates.items()
    }


def _check_patterns(patterns: Iterable[object], argument: str) -> None:
    for pattern in patterns:
        if not isinstance(pattern, str):
            raise TypeError(
                f"{argument} names {pattern!r}; a path pattern is text, such "
                "as 'upstream/conv*'."
            )


def _extra_input(name: str, value: object) -> ExtraInput:
    if isinstance(value, keras.KerasTensor):
        tensor: Any = value
        return ExtraInput(tuple(tensor.shape[1:]), tensor.dtype)
    sizes = value if isinstance(value, list | tuple) else None
    if sizes is None or not all(
        size is None or (isinstance(size, int) and size > 0) for size in sizes
    ):
        raise ValueError(
            f"Extra input '{name}' must have a shape without batch, such as "
            f"(2,), or be a keras.Input; received {value!r}."
        )
    return ExtraInput(tuple(sizes), keras.config.floatx())


def _adapters_by_name(
    adapters: Mapping, taps: Sequence[str], extras: Sequence[str]
) -> dict[str, Any]:
    known = [*taps, *extras]
    for name in adapters:
        if name not in known:
            raise ValueError(
                f"adapters names '{name}', which is no tap and no extra input."
                f"{closest(str(name), known)} There are: {listed(known)}."
            )
    defaults = dict.fromkeys(taps, "auto") | dict.fromkeys(extras)
    return {name: adapters.get(name, defaults[name]) for name in known}


def _adapters_in_order(
    adapters: Sequence, taps: Sequence[str], extras: Sequence[str]
) -> dict[str, Any]:
    if len(adapters) not in (len(taps), len(taps) + len(extras)):
        raise ValueError(
            f"adapters lists {len(adapters)} for {len(taps)} taps "
            f"({listed(taps)}) and {len(extras)} extra inputs: give one for "
            "each tap, in order, or a mapping by name."
        )
    names = [*taps, *extras]
    given = dict(zip(names, adapters, strict=False))
    return {name: given.get(name) for name in names}


def _adapter(name: str, value: object) -> AdapterChoice:
    if value is None:
        return None
    if value == "auto":
        return "auto"
    if isinstance(value, int) and not isinstance(value, bool):
        value = DenseAdapter(value, name=name)
    possible = "'auto', None, a number of units, or "
    layer = check_layer(value, f"The adapter of '{name}'", possible)
    if isinstance(layer, PCAAdapter) and layer.n_components_ is None:
        call = f"PCAAdapter({layer.n_components}).adapt(features)"
        raise ValueError(
            f"The PCAAdapter of '{name}' keeps a fraction of the variance, "
            f"{layer.n_components}, so it has no width before it is fitted. "
            f"Pass {call}, with features of that tap, or an int."
        )
    return layer


def _head(value: object, what: str) -> int | list[keras.Layer | int]:
    if units := _units(value, what):
        return units
    if not isinstance(value, list | tuple):
        return [_last(value, what)]
    if not value:
        raise ValueError(f"{what}=[] has no layer; leave it out.")
    named = [(layer, f"{what}[{i}]") for i, layer in enumerate(value)]
    return [*(_inner(*layer) for layer in named[:-1]), _last(*named[-1])]


def _last(value: object, what: str) -> keras.Layer | int:
    possible = "a number of units, or "
    return _units(value, what) or check_layer(value, what, possible)


def _inner(value: object, what: str) -> keras.Layer:
    """Returns a layer that others follow, which no number of classes is."""
    if units := _units(value, what):
        raise TypeError(
            f"{what}={units}: a number of classes is the last of a list. "
            f"Before it, write keras.layers.Dense({units})."
        )
    return check_layer(value, what)


def _units(value: object, what: str) -> int | None:
    """Returns a number of classes, or None for anything that is no int."""
    if not isinstance(value, int) or isinstance(value, bool):
        return None
    if value < 1:
        raise ValueError(f"{what}={value}: a head has at least 1 unit.")
    return value
