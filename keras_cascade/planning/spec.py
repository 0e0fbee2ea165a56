"""The user's arguments: validated once, normalised, and what is serialised."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import keras

from keras_cascade._messages import closest, listed
from keras_cascade.adapters import DenseAdapter, PCAAdapter
from keras_cascade.graph.layers import check_layer
from keras_cascade.injection.arguments import Injection
from keras_cascade.training.lora import LoRA
from keras_cascade.training.rates.block_rates import validate_rate
from keras_cascade.training.rates.layerwise_decay import LayerwiseDecay
from keras_cascade.training.retention import Retention

# What blocks are called, but for several upstreams, which the user names.
BLOCKS = (
    "preprocessing",
    "upstream",
    "adapters",
    "fusion",
    "downstream",
    "head",
)

MERGES = {
    "concat": keras.layers.Concatenate,
    "add": keras.layers.Add,
    "average": keras.layers.Average,
    "multiply": keras.layers.Multiply,
    "maximum": keras.layers.Maximum,
}

# "auto", None for nothing, or the layer of which the cascade has a copy.
AdapterChoice = str | None | keras.Layer


@dataclass(frozen=True)
class NetworkInfo:
    """What a network was before it became a block.

    Attributes:
        name: Its own name.
        type: Its class.
        preprocess: What is done to the cascade's input for it, in words.
    """

    name: str
    type: str
    preprocess: str = ""

    @classmethod
    def of(cls, network: keras.Model) -> "NetworkInfo":
        """What a network is."""
        return cls(network.name, type(network).__name__)


@dataclass(frozen=True)
class ExtraInput:
    """A side feature: its shape without the batch, and its dtype."""

    shape: tuple[int | None, ...]
    dtype: str

    @property
    def tensor(self) -> keras.KerasTensor:
        """What it looks like in a graph, batch included."""
        return keras.KerasTensor((None, *self.shape), dtype=self.dtype)


@dataclass(frozen=True)
class CascadeSpec:
    """What a cascade was asked to be.

    Attributes:
        networks: Block to what its network was.
        taps: Tap name to its path in the upstream, fully spelt.
        adapters: Tap or extra input to its adapter.
        fusion: The name of a merge, a merging layer, or None.
        inject: Tap or extra input to the places that it enters.
        inputs: Network to {its input: input of the cascade}.
        extra_inputs: Name to shape and dtype.
        downstream_input: What the downstream sees, as the user gave it.
        head: Output name to its layers, or to a number of classes; one
            output has the name "". None is no head.
        preprocess: Network to what is done to its input.
        trainable: As the user gave it.
        learning_rates: Path pattern to rate.
        retention: Path pattern to method; loaded ones have no data.
        shares: Whether the networks' own layers are used.
        reinitialized: The weights that a `rebuild` could not carry over.
    """

    networks: dict[str, NetworkInfo]
    taps: dict[str, str]
    adapters: dict[str, AdapterChoice]
    fusion: str | keras.Layer | None = "concat"
    inject: dict[str, tuple[Injection, ...]] = field(default_factory=dict)
    inputs: dict[str, dict[str, str]] = field(default_factory=dict)
    extra_inputs: dict[str, ExtraInput] = field(default_factory=dict)
    downstream_input: str | None = None
    head: dict[str, Any] | None = None
    preprocess: dict[str, Any] = field(default_factory=dict)
    trainable: bool | dict[str, bool | LoRA] | None = None
    learning_rates: dict[str, Any] = field(default_factory=dict)
    retention: dict[str, Retention] = field(default_factory=dict)
    shares: bool = False
    reinitialized: tuple[str, ...] = ()

    @property
    def upstreams(self) -> list[str]:
        """The names of the upstreams' blocks."""
        return [name for name in self.networks if name != "downstream"]

    def get_config(self) -> dict[str, Any]:
        """Plain values, for a `.keras` file."""
        config = {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name not in ("networks", "extra_inputs", "shares")
        }
        plain: Any = keras.saving.serialize_keras_object(config)
        # Files have it under its first name.
        plain["started_anew"] = plain.pop("reinitialized")
        plain["networks"] = {k: vars(v) for k, v in self.networks.items()}
        plain["extra_inputs"] = {
            name: {"shape": list(extra.shape), "dtype": extra.dtype}
            for name, extra in self.extra_inputs.items()
        }
        return plain

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "CascadeSpec":
        """The spec that `get_config` wrote."""
        config = dict(config)
        networks = config.pop("networks")
        extras = config.pop("extra_inputs")
        values = keras.saving.deserialize_keras_object(config)
        values["reinitialized"] = tuple(values.pop("started_anew"))
        values["inject"] = {
            name: tuple(several)
            for name, several in values.get("inject", {}).items()
        }
        return cls(
            networks={k: NetworkInfo(**v) for k, v in networks.items()},
            extra_inputs={
                name: ExtraInput(tuple(extra["shape"]), extra["dtype"])
                for name, extra in extras.items()
            },
            **values,
        )

    def with_changes(self, **changes: Any) -> "CascadeSpec":
        """A copy with some attributes changed."""
        return replace(self, **changes)

    def with_preprocess(self, preprocess: Mapping[str, Any]) -> "CascadeSpec":
        """A copy that knows what is done to the networks' inputs."""
        networks = {
            name: replace(info, preprocess=chosen.name)
            if (chosen := preprocess.get(name))
            else info
            for name, info in self.networks.items()
        }
        return replace(self, networks=networks, preprocess=dict(preprocess))


def check_fusion(fusion: Any) -> str | keras.Layer | None:
    """The fusion itself, if there is such a one.

    Raises:
        ValueError: If there is none of that name.
        TypeError: If it is neither a name nor a layer.
    """
    if fusion is None or isinstance(fusion, keras.Layer):
        return fusion
    if isinstance(fusion, str):
        if fusion not in MERGES:
            known = ", ".join(f"'{name}'" for name in MERGES)
            raise ValueError(
                f"Unknown fusion '{fusion}'. Possible: {known}, a merging "
                "layer of Keras, or None."
            )
        return fusion
    return check_layer(fusion, "fusion", "a name, None, or ")


def normalise_extra_inputs(
    extra_inputs: Mapping[str, Any] | None, taken: Mapping[str, str]
) -> dict[str, ExtraInput]:
    """Shapes and dtypes of the extra inputs.

    Args:
        extra_inputs: Name to a shape without batch, or a `keras.Input`.
        taken: Names that something else has, with what that is.

    Raises:
        ValueError: If a name is no identifier or is taken, or a shape is none.
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
    adapters: Any, taps: Sequence[str], extras: Sequence[str]
) -> dict[str, AdapterChoice]:
    """The adapter of each tap and extra input.

    Raises:
        ValueError: If there are too many or too few, one belongs to nothing,
            or one has no width before it is fitted.
        TypeError: If one is none.
    """
    if isinstance(adapters, Mapping):
        choices = _adapters_by_name(adapters, taps, extras)
    elif isinstance(adapters, list | tuple):
        choices = _adapters_in_order(adapters, taps, extras)
    else:
        choices = dict.fromkeys(taps, adapters) | dict.fromkeys(extras)
    return {name: _adapter(name, value) for name, value in choices.items()}


def normalise_head(head: Any) -> dict[str, Any] | None:
    """Output name to a number of classes or a list of layers."""
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
    trainable: Any,
) -> bool | dict[str, bool | LoRA] | None:
    """The flags as the user gave them, if they are any."""
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


def normalise_rates(learning_rates: Any) -> dict[str, Any]:
    """Path pattern to rate.

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


def _extra_input(name: str, value: Any) -> ExtraInput:
    if isinstance(value, keras.KerasTensor):
        return ExtraInput(tuple(value.shape[1:]), value.dtype)
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


def _adapter(name: str, value: Any) -> AdapterChoice:
    if value is None or value == "auto":
        return value
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


def _head(value: Any, what: str) -> Any:
    if isinstance(value, int) and not isinstance(value, bool):
        if value < 1:
            raise ValueError(f"{what}={value}: a head has at least 1 unit.")
        return value
    layers = value if isinstance(value, list | tuple) else [value]
    if not layers:
        raise ValueError(f"{what}=[] has no layer; leave it out.")
    possible = "a number of units, or "
    return [check_layer(layer, what, possible) for layer in layers]
