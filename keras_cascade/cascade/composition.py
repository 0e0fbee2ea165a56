"""Holds the parts of a cascade: its spec, its blocks, their sources, retention.

Tested by `tests/cascade/test_cascade.py` and
`tests/training/retention/test_retention_of_cascades.py`.
"""

import weakref
from collections.abc import Mapping
from typing import Any, Self, cast

import keras

from keras_cascade._reporting.messages import listed
from keras_cascade.adapters.fitting import InnerFeatures
from keras_cascade.cascade.layer_paths import find_block, find_layer, no_block
from keras_cascade.graph.block import Block
from keras_cascade.graph.graph import Graph, read_graph
from keras_cascade.graph.names import name_variables
from keras_cascade.injection.merging import INJECTIONS
from keras_cascade.networks.loading import as_network
from keras_cascade.planning.plan import Plan
from keras_cascade.planning.spec import BLOCKS, CascadeSpec
from keras_cascade.training.layer_lookup import LayerLookup
from keras_cascade.training.retention import Retention
from keras_cascade.training.retention.keeper import Keeper
from keras_cascade.training.retention.setup import build_keeper
from keras_cascade.training.trainable_flags import set_trainable


class Composition(Block):
    """The blocks of a cascade, and the spec that they were built from."""

    def __init__(
        self,
        *args: Any,
        spec: CascadeSpec | Mapping[str, Any] | None = None,
        **kwargs: Any,
    ):
        super().__init__(*args, **kwargs)
        if isinstance(spec, Mapping):
            spec = CascadeSpec.from_config(spec)
        self._spec: CascadeSpec = spec or CascadeSpec({}, {}, {})
        if spec is None:
            self._spec = self._spec_of_a_clone()
        self._sources: dict[str, weakref.ref[keras.Model]] = {}
        # At most one keeper. Keras forgets a layer that leaves a list, but
        # not one that was an attribute. Files know it by the attribute's name.
        self._kept: list[Keeper] = []
        self._stitching = Stitching()

    @property
    def spec(self) -> CascadeSpec:
        """The arguments that the cascade was built from, normalised."""
        return self._spec

    @property
    def blocks(self) -> dict[str, keras.Layer]:
        """The parts of the cascade by their names.

        Each is a network that can be tapped inside, saved and used again; an
        upstream's returns `{tap name: tensor}`. Upstreams that are one
        network are one block, `anchor-positive`, which `blocks["anchor"]`
        finds, too.
        """
        layers = _by_name(self.layers)
        upstreams = [x for x in self._spec.roles if x != "downstream"] or [
            name for name in layers if name not in BLOCKS
        ]
        order = ("preprocessing", *upstreams, *BLOCKS)
        found = {n: layers[n] for n in dict.fromkeys(order) if n in layers}
        return Blocks(found, self._spec.one_block)

    @property
    def upstreams(self) -> list[str]:
        """The names of the blocks that taps are read from."""
        others = [name for name in BLOCKS if name != "upstream"]
        return [name for name in self.blocks if name not in others]

    @property
    def taps(self) -> dict[str, str]:
        """The path of each tap in the upstream, by its name.

        With several upstreams a path begins with the name of one.
        """
        return dict(self._spec.taps)

    @property
    def adapters(self) -> dict[str, keras.Layer]:
        """The adapters by their tap or extra input, of those that have one."""
        block = self.blocks.get("adapters")
        layers = _by_name([] if block is None else block.layers)
        layers.pop(INJECTIONS, None)
        order = dict.fromkeys((*self._spec.adapters, *layers))
        return {name: layers[name] for name in order if name in layers}

    @property
    def path_prefix(self) -> str:
        """Empty: paths of variables begin with their block."""
        return ""

    def in_weights_files(self) -> keras.Model:
        """Returns the cascade: no other model has weights in its layout."""
        return self

    def get_layer(
        self, name: str | None = None, index: int | None = None
    ) -> keras.Layer:
        """Returns a layer by its path, or as Keras does.

        Args:
            name: A path such as `"upstream/conv3"`, or the name of a block or
                input. Defaults to `None`.
            index: As Keras takes it. Defaults to `None`.

        Returns:
            The layer of the cascade, which is a copy of the network's own.

        Raises:
            ValueError: If the path matches nothing, or several layers.

        Example:
        >>> cascade.get_layer("upstream/stage2_out").trainable
        False
        """
        names = [layer.name for layer in self.layers]
        if not isinstance(name, str) or index is not None or name in names:
            return super().get_layer(name, index)
        return cast(keras.Layer, find_layer(self, name))

    def block_of(self, target: str | keras.Operation | keras.Variable) -> str:
        """Returns the name of the block that a layer or variable is in.

        Args:
            target: A path such as `"upstream/conv3"`, or a layer or a variable
                of the cascade.

        Raises:
            ValueError: If it is in no block.

        Example:
        >>> cascade.block_of(cascade.trainable_variables[0])
        'adapters'
        """
        return find_block(self, target)

    def source(self, block: str) -> keras.Model | None:
        """Returns the network that a block was copied from, if it lives."""
        reference = self._sources.get(block)
        networks = [keeper.teachers.get(block) for keeper in self._kept]
        if reference is not None:
            networks.insert(0, reference())
        return next((x for x in networks if x is not None), None)

    def set_up(self, plan: Plan) -> None:
        """Names variables, sets flags, and attaches retention, as planned.

        Raises:
            ValueError: If a pattern of flags, rates or retention matches
                nothing.
        """
        if not plan.spec.shares:
            name_variables(self, self.path_prefix)
        for name, block in self.blocks.items():
            if name not in plan.blocks:
                name_variables(block, name)
        lookup = LayerLookup(self)
        set_trainable(lookup, plan.spec.trainable)
        lookup.deciding_patterns(plan.spec.learning_rates, "learning_rates")
        self._sources = {
            block: weakref.ref(plan.sources[names[0]])
            for block, names in plan.spec.roles.items()
        }
        self.retain(plan.spec.retention, plan.blocks)

    @property
    def targets(self) -> InnerFeatures | None:
        """Computes the values for stitched taps; not in files or copies."""
        return self._stitching.targets

    def stitch_to(self, targets: keras.Model | None) -> None:
        """Sets the network that computes the values for stitched taps."""
        if targets is not None:
            self._stitching.targets = InnerFeatures(targets)

    def remember_reinitialized(self, paths: tuple[str, ...]) -> None:
        """Keeps the paths of weights that a rebuild could not carry over."""
        self._spec = self._spec.with_changes(reinitialized=paths)

    def keep_network_info(self, old: "Composition", replaced: set[str]) -> None:
        """Keeps what an earlier cascade knows of the networks that remain."""
        kept = {
            name: info
            for name, info in old.spec.networks.items()
            if name not in replaced and name in self._spec.networks
        }
        networks = {**self._spec.networks, **kept}
        self._spec = self._spec.with_changes(networks=networks)

    # --- Retention ---------------------------------------------------------

    @property
    def taught(self) -> list[str]:
        """The blocks that `LwF` holds to old outputs, on the inputs."""
        return [name for keeper in self._kept for name in keeper.teachers]

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Adds the penalties of retention; `Checked` documents it."""
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        penalties = [p for keeper in self._kept for p in keeper.penalties(x)]
        return sum(penalties, start=loss)

    def retain(
        self, retention: Mapping[str, Retention], graphs: Mapping[str, Graph]
    ) -> None:
        """Replaces the retention; `graphs` are the original networks'."""
        keeper = build_keeper(self, retention, graphs) if retention else None
        self._kept.clear()
        if keeper is not None:
            self._attach(keeper)

    def known_fishers(self) -> dict[str, Any]:
        """Returns the Fisher information that is kept, by paths of weights."""
        return {
            path: fisher
            for keeper in self._kept
            for path, fisher in keeper.known_fishers().items()
        }

    def _attach(self, keeper: Keeper) -> None:
        keeper.attach(self)
        self._kept.append(keeper)

    def _replace_retention(self, retention: Mapping[str, Retention]) -> None:
        """Retains the networks as they were before the cascade was built."""
        graphs = self._original_graphs() if retention else {}
        self.retain(retention, graphs)
        self._spec = self._spec.with_changes(retention=dict(retention))

    def _original_graphs(self) -> dict[str, Graph]:
        if self._spec.shares:
            raise ValueError(
                "compile(retention=...) needs the networks as they were, and "
                "with copy=False the cascade trains their own layers. Give "
                "retention to build_cascade."
            )
        blocks = [name for name in self.blocks if name in self._spec.roles]
        sources = {name: self.source(name) for name in blocks}
        if gone := [name for name, source in sources.items() if source is None]:
            raise ValueError(
                "compile(retention=...) needs the networks that the cascade "
                f"was built from, and those of {listed(gone)} no longer "
                "exist. Build it with them again: rebuild(upstream=network, "
                "downstream=network, retention=...)."
            )
        return {
            name: read_graph(as_network(source, name))
            for name, source in sources.items()
        }

    # --- Files -------------------------------------------------------------

    def get_config(self) -> dict:
        """Returns the graph, the spec, and the retained networks."""
        config = {**super().get_config(), "spec": self._spec.get_config()}
        serialize = keras.saving.serialize_keras_object
        if self._kept:
            config["kept"] = [serialize(keeper) for keeper in self._kept]
        return config

    @classmethod
    def from_config(
        cls, config: dict, custom_objects: dict | None = None
    ) -> Self:
        """Returns the cascade that `get_config` described."""
        config = dict(config)
        kept = config.pop("kept", [])
        cascade: Any = super().from_config(config, custom_objects)
        for keeper in kept:
            cascade._attach(keras.saving.deserialize_keras_object(keeper))
        return cascade

    def _spec_of_a_clone(self) -> CascadeSpec:
        """Reads from the graph what `clone_model` leaves out of the spec."""
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


class Stitching:
    """Holds a network that is no part of the cascade: Keras would track it."""

    targets: InnerFeatures | None = None


class Blocks(dict[str, keras.Layer]):
    """The blocks by their names, and by those of upstreams that share one.

    Iteration gives each block once.
    """

    def __init__(
        self, blocks: Mapping[str, keras.Layer], one_block: Mapping[str, str]
    ):
        super().__init__(blocks)
        self._one_block = dict(one_block)

    def __missing__(self, name: str) -> keras.Layer:
        if name not in self._one_block:
            raise KeyError(no_block(name, [*self, *self._one_block]))
        return self[self._one_block[name]]

    def __contains__(self, name: object) -> bool:
        return super().__contains__(name) or name in self._one_block

    def get(self, name: str, default: Any = None) -> Any:
        """Returns a block, or the default if there is none of that name."""
        return super().get(self._one_block.get(name, name), default)


def _by_name(layers: list[keras.Layer]) -> dict[str, keras.Layer]:
    """Returns the layers but the inputs, by their names."""
    is_input = keras.layers.InputLayer
    return {x.name: x for x in layers if not isinstance(x, is_input)}
