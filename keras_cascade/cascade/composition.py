"""What a cascade is made of: its spec, its blocks, and their sources."""

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import keras

from keras_cascade.graph.block import Block
from keras_cascade.injection.merging import FEEDS
from keras_cascade.planning.spec import BLOCKS, CascadeSpec
from keras_cascade.training.retention.keeper import Keeper


class Composition(Block):
    """The blocks of a cascade, and the spec that they were built from."""

    def __init__(self, *args: Any, **kwargs: Any):
        spec = kwargs.pop("spec", None)
        super().__init__(*args, **kwargs)
        if isinstance(spec, Mapping):
            spec = CascadeSpec.from_config(spec)
        self._spec: CascadeSpec = spec or CascadeSpec({}, {}, {})
        if spec is None:
            self._spec = self._spec_of_a_clone()
        self._sources: dict[str, Any] | None = None
        # At most one keeper: a list lets Keras forget what leaves it.
        self._kept: list[Keeper] = []
        self._learning_rates: dict[str, Any] = {}
        # The flags of all layers; those, and the optimizer's state, for which
        # the step was traced.
        self._read_flags: Callable[[], list[bool]] = list
        self._traced: tuple[list[bool], int] | None = None
        # What is fitted stays so: looked up until it is, then no more.
        self._all_fitted = False

    @property
    def spec(self) -> CascadeSpec:
        """What the cascade was asked to be."""
        return self._spec

    @property
    def blocks(self) -> dict[str, keras.Layer]:
        """The parts of the cascade by their names.

        Each is a network that can be tapped inside, saved and used again; an
        upstream's gives `{tap name: tensor}`.
        """
        layers = {
            layer.name: layer
            for layer in self.layers
            if not isinstance(layer, keras.layers.InputLayer)
        }
        upstreams = self._spec.upstreams or [
            n for n in layers if n not in BLOCKS
        ]
        order = ("preprocessing", *upstreams, *BLOCKS)
        return {n: layers[n] for n in dict.fromkeys(order) if n in layers}

    @property
    def upstreams(self) -> list[str]:
        """The names of the blocks that taps are read from."""
        others = [name for name in BLOCKS if name != "upstream"]
        return [name for name in self.blocks if name not in others]

    @property
    def taps(self) -> dict[str, str]:
        """Tap name to its path in the upstream.

        With several upstreams a path begins with the name of one.
        """
        return dict(self._spec.taps)

    @property
    def adapters(self) -> dict[str, keras.Layer]:
        """Tap or extra input to its adapter, of those that have one."""
        block = self.blocks.get("adapters")
        layers = {
            layer.name: layer
            for layer in ([] if block is None else block.layers)
            if layer.name != FEEDS
            and not isinstance(layer, keras.layers.InputLayer)
        }
        order = dict.fromkeys((*self._spec.adapters, *layers))
        return {name: layers[name] for name in order if name in layers}

    @property
    def path_prefix(self) -> str:
        """Nothing: paths of variables begin with their block."""
        return ""

    def source(self, block: str) -> keras.Model | None:
        """The network that a block was copied from, if it is still there."""
        reference = (self._sources or {}).get(block, lambda: None)
        kept = [keeper.teachers.get(block) for keeper in self._kept]
        return next((x for x in (reference(), *kept) if x is not None), None)

    def remember_sources(self, sources: Mapping[str, keras.Model]) -> None:
        """Keeps weak references to the networks that it was built from."""
        self._sources = {k: weakref.ref(v) for k, v in sources.items()}

    def remember_started_anew(self, paths: tuple[str, ...]) -> None:
        """Keeps which weights a rebuild could not carry over."""
        self._spec = self._spec.with_changes(started_anew=paths)

    def keep_network_info(
        self, old: "Composition", changed: Mapping[str, Any]
    ) -> None:
        """Tells of blocks of another cascade what they were to begin with."""
        names = set(changed) | (
            set(self.upstreams) if "upstream" in changed else set()
        )
        kept = {
            k: v
            for k, v in old.spec.networks.items()
            if k not in names and k in self._spec.networks
        }
        networks = {**self._spec.networks, **kept}
        self._spec = self._spec.with_changes(networks=networks)

    def _spec_of_a_clone(self) -> CascadeSpec:
        """What the graph tells where `clone_model` leaves the spec out."""
        taps = [
            tap
            for name in self.upstreams
            if isinstance(outputs := self.blocks[name].output, dict)
            for tap in outputs
        ]
        block = self.blocks.get("adapters")
        adapters = list(block.output) if block is not None else []
        return CascadeSpec(
            networks={},
            taps={tap: tap for tap in taps},
            adapters=dict.fromkeys(adapters, "auto"),
        )
