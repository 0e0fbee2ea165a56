"""Stores the normalised arguments of a cascade, as files do.

Tested by `tests/planning/test_spec.py` and `tests/behaviour/test_saving.py`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

import keras

from keras_cascade.graph.layer_identity import identified_config
from keras_cascade.injection.arguments import Injection
from keras_cascade.training.lora import LoRA
from keras_cascade.training.retention import Retention

# The names of the blocks. Several upstreams are named by the user.
BLOCKS = (
    "preprocessing",
    "upstream",
    "adapters",
    "fusion",
    "downstream",
    "head",
)

# "auto", None for nothing, or the layer of which the cascade has a copy.
AdapterChoice = str | None | keras.Layer


@dataclass(frozen=True)
class NetworkInfo:
    """A network before it became a block.

    Attributes:
        name: Its own name.
        type: The name of its class.
        preprocess: The preprocessing of its input, in words.
    """

    name: str
    type: str
    preprocess: str = ""

    @classmethod
    def of(cls, network: keras.Model) -> "NetworkInfo":
        """Returns the info of a network."""
        return cls(network.name, type(network).__name__)


@dataclass(frozen=True)
class ExtraInput:
    """A side feature: its shape without the batch, and its dtype."""

    shape: tuple[int | None, ...]
    dtype: str

    @property
    def tensor(self) -> keras.KerasTensor:
        """A symbolic tensor of that shape and dtype, batch included."""
        return keras.KerasTensor((None, *self.shape), dtype=self.dtype)


@dataclass(frozen=True)
class CascadeSpec:
    """The normalised arguments of a cascade.

    Attributes:
        networks: Network to what it was before; `anchor` and `positive` may be
            one network, which is one block.
        taps: Tap name to its full path in the upstream.
        adapters: Tap or extra input to its adapter.
        fusion: The name of a merge, a merging layer, or None.
        inject: Tap or extra input to its injections.
        inputs: Network to {its input: input of the cascade}.
        extra_inputs: Name to shape and dtype.
        downstream_input: The argument as the user gave it.
        head: Output name to its layers, or to a number of classes; one
            output has the name "". None is no head.
        preprocess: Network to the preprocessing of its input.
        trainable: The argument as the user gave it.
        learning_rates: Path pattern to rate.
        retention: Path pattern to method; loaded ones have no data.
        one_block: Upstream to its block, of those that are one network.
        shares: Whether the networks' own layers are used (`copy=False`).
        reinitialized: The paths of weights that a `rebuild` could not carry
            over.
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
    one_block: dict[str, str] = field(default_factory=dict)
    shares: bool = False
    reinitialized: tuple[str, ...] = ()

    @property
    def upstreams(self) -> list[str]:
        """The names of the upstreams."""
        return [name for name in self.networks if name != "downstream"]

    @property
    def roles(self) -> dict[str, list[str]]:
        """The networks by their blocks, in order; several may be one block."""
        found: dict[str, list[str]] = {}
        for name in self.networks:
            found.setdefault(self.one_block.get(name, name), []).append(name)
        return found

    def get_config(self) -> dict[str, Any]:
        """Returns plain values, for a `.keras` file."""
        config = {
            f.name: getattr(self, f.name)
            for f in fields(self)
            if f.name not in ("networks", "extra_inputs", "shares")
        }
        serialize = keras.saving.serialize_keras_object
        plain: Any = identified_config(
            self._layers(), lambda: serialize(config)
        )
        # Files have it under its first name.
        plain["started_anew"] = plain.pop("reinitialized")
        plain["networks"] = {k: vars(v) for k, v in self.networks.items()}
        plain["extra_inputs"] = {
            name: {"shape": list(extra.shape), "dtype": extra.dtype}
            for name, extra in self.extra_inputs.items()
        }
        return plain

    def _layers(self) -> list[keras.Layer]:
        """Returns the layers among the arguments."""
        preprocessing = [
            getattr(chosen, "layers", None)
            for chosen in self.preprocess.values()
        ]
        given = (self.adapters, self.fusion, self.head, preprocessing)
        return [
            x for x in keras.tree.flatten(given) if isinstance(x, keras.Layer)
        ]

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> "CascadeSpec":
        """Returns the spec that `get_config` described."""
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
        """Returns a copy with some attributes changed."""
        return replace(self, **changes)

    def with_preprocess(self, preprocess: Mapping[str, Any]) -> "CascadeSpec":
        """Returns a copy with the preprocessing of the networks' inputs."""
        networks = {
            name: replace(info, preprocess=chosen.name)
            if (chosen := preprocess.get(name))
            else info
            for name, info in self.networks.items()
        }
        return replace(self, networks=networks, preprocess=dict(preprocess))
