"""The Cascade: holds the spec and the blocks, and delegates."""

import weakref
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from keras_cascade import _keras_compat as compat
from keras_cascade.adapters import Adapter
from keras_cascade.display.summary import print_summary
from keras_cascade.graph.block import Block, leaf_layers
from keras_cascade.graph.reading import Graph, read_graph
from keras_cascade.graph.replaying import Replay
from keras_cascade.injection.merging import FEEDS
from keras_cascade.networks.loading import as_network
from keras_cascade.spec import BLOCKS, CascadeSpec, normalise_rates
from keras_cascade.training.adaptation import fit_adapters, unfitted
from keras_cascade.training.block_rates import to_float
from keras_cascade.training.fitting import (
    callbacks_for_fit,
    known_variables,
    prepare_optimizer,
)
from keras_cascade.training.learning_rates import (
    find_blockwise,
    is_multiple,
    with_block_rates,
)
from keras_cascade.training.rate_groups import rate_groups
from keras_cascade.training.retention import Retention
from keras_cascade.training.retention.covering import normalise_retention
from keras_cascade.training.retention.keeper import Keeper
from keras_cascade.training.retention.keeping import make_keeper
from keras_cascade.training.routing import Routes
from keras_cascade.training.stages import Unfreeze
from keras_cascade.training.trainability import covered_by, set_flags


@keras.saving.register_keras_serializable(package="keras_cascade")
class Cascade(Block):
    """Pretrained networks as one Keras model, made by `build_cascade`.

    It is a Functional `keras.Model`: `fit`, `evaluate`, `predict`, `save` and
    `keras.saving.load_model` work as for any other, with `keras_cascade`
    imported where it is loaded. Frozen layers run in inference mode.

    Example:
    >>> cascade = keras_cascade.build_cascade(network, head=10, loss="mse")
    >>> list(cascade.blocks)
    ['upstream', 'head']
    """

    _rebuilder: Any = None

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
        # The flags of all layers, and those for which the step was traced.
        self._read_flags: Callable[[], list[bool]] = list
        self._traced_flags: list[bool] | None = None
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
    def rates(self) -> dict[str, Any]:
        """Path pattern to the rate that it was compiled with."""
        return dict(self._learning_rates)

    @property
    def path_prefix(self) -> str:
        """Nothing: paths of variables begin with their block."""
        return ""

    def adapt(
        self, data: Any, batch_size: int = 32, verbose: bool = True
    ) -> "Cascade":
        """Fits the adapters that learn from data, such as `PCAAdapter`.

        One pass over the data serves all of them; only an adapter that sees
        what another gives waits for a pass of its own. Call it before `fit`.

        Args:
            data: What `fit` takes: arrays, `tf.data`, `PyDataset`, a torch
                `DataLoader` or a generator, with or without labels. Adapters
                that learn from labels need `(x, y)`.
            batch_size: Rows at a time where the data are arrays. Defaults to
                `32`.
            verbose: Whether to show a progress bar. Defaults to `True`.

        Returns:
            The cascade itself.

        Raises:
            ValueError: If a tap gives what cannot be learned from (not
                finite, too few rows), labels that an adapter learns from are
                missing, or a generator would have to be read twice.

        Example:
        >>> cascade = cascade.adapt(images, verbose=False)
        >>> history = cascade.fit(images, labels, verbose=0)
        """
        fit_adapters(self, data, batch_size, verbose)
        # What was traced may hold the old state as constants.
        self.train_function = None
        self.test_function = None
        self.predict_function = None
        return self

    def compile(
        self,
        optimizer: Any = "adam",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
        weighted_metrics: Any = None,
        run_eagerly: bool = False,
        steps_per_execution: int = 1,
        jit_compile: Any = "auto",
        auto_scale_loss: bool = True,
        *,
        learning_rates: Mapping[str, Any] | None = None,
        retention: Mapping[str, Retention] | None = None,
    ) -> None:
        """Keras's `compile`, with learning rates by path pattern.

        The optimizer is copied: what was passed in stays as it is, and
        `cascade.optimizer` is what trains.

        Args:
            optimizer: Name or object. Defaults to `"adam"`.
            loss: As Keras takes it. Defaults to `None`.
            loss_weights: As Keras takes them. Defaults to `None`.
            metrics: As Keras takes them. Defaults to `None`.
            weighted_metrics: As Keras takes them. Defaults to `None`.
            run_eagerly: As Keras takes it. Defaults to `False`.
            steps_per_execution: As Keras takes it. Defaults to `1`.
            jit_compile: As Keras takes it. Defaults to `"auto"`.
            auto_scale_loss: As Keras takes it. Defaults to `True`.
            learning_rates: Path pattern to a float or `LearningRateSchedule`;
                what none matches has the optimizer's rate. `None` keeps the
                rates that the cascade was built with. Defaults to `None`.
            retention: Path pattern to `L2SP`, `EWC` or `LwF`, in the place of
                what the cascade has. It needs the networks that the cascade
                was built from. `None` keeps what the cascade has, `{}` drops
                it. Defaults to `None`.

        Raises:
            ValueError: If a pattern matches nothing, a rate is negative, or
                a network that is to be retained is not there any more.
        """
        rates = self._spec.learning_rates
        if learning_rates is not None:
            rates = normalise_rates(learning_rates)
        self._learning_rates = rates
        if retention is not None:
            self._retain_anew(normalise_retention(retention))
        super().compile(
            optimizer=self._own_optimizer(optimizer, rates),
            loss=loss,
            loss_weights=loss_weights,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            run_eagerly=run_eagerly,
            steps_per_execution=steps_per_execution,
            jit_compile=jit_compile,
            auto_scale_loss=auto_scale_loss,
        )
        # Keras would track layers that are kept in an attribute.
        layers = list(compat.sublayers(self))
        self._read_flags = lambda: [layer.trainable for layer in layers]
        self._traced_flags = None

    def get_compile_config(self) -> dict | None:
        """What `compile` was called with, for a `.keras` file."""
        config = super().get_compile_config()
        if config is not None and self.compiled:
            config["optimizer"] = self.optimizer and compat.serialize_optimizer(
                self.optimizer
            )
            config["learning_rates"] = keras.saving.serialize_keras_object(
                self._learning_rates
            )
            config["slots"] = [v.path for v in known_variables(self.optimizer)]
        return config

    def compile_from_config(self, config: dict) -> None:
        """Compiles as the saved cascade was, slots ready to be loaded."""
        arguments = keras.saving.deserialize_keras_object(config)
        slots = set(arguments.pop("slots"))
        self.compile(**arguments)
        if slots:
            known = [v for v in self.variables if v.path in slots]
            prepare_optimizer(self, known)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Keras's `compute_loss`, with the penalties of retention.

        Args:
            x: The inputs, which `LwF` needs. Defaults to `None`.
            y: As Keras takes it. Defaults to `None`.
            y_pred: As Keras takes it. Defaults to `None`.
            sample_weight: As Keras takes it. Defaults to `None`.
            training: As Keras takes it. Defaults to `True`.
        """
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        penalties = [p for keeper in self._kept for p in keeper.penalties(x)]
        return sum(penalties, start=loss)

    def fit(
        self,
        x: Any = None,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: Any = "auto",
        callbacks: Any = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: Any = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int = 1,
        *,
        unfreeze: Unfreeze = None,
    ) -> Any:
        """Keras's `fit`, in which blocks may start to train on the way.

        The logs hold the rate of each block, `learning_rate/<block>`, where
        there are rates or stages; 0 while it is frozen.

        Args:
            x: As Keras takes it, like all arguments up to `unfreeze`.
            y: Labels.
            batch_size: Rows at a time. Defaults to `None`: 32.
            epochs: The epoch to stop before. Defaults to `1`.
            verbose: As Keras takes it. Defaults to `"auto"`.
            callbacks: Keras callbacks. Defaults to `None`.
            validation_split: As Keras takes it. Defaults to `0.0`.
            validation_data: As Keras takes it. Defaults to `None`.
            shuffle: As Keras takes it. Defaults to `True`.
            class_weight: As Keras takes it. Defaults to `None`.
            sample_weight: As Keras takes it. Defaults to `None`.
            initial_epoch: The epoch to start with. Defaults to `0`.
            steps_per_epoch: As Keras takes it. Defaults to `None`.
            validation_steps: As Keras takes it. Defaults to `None`.
            validation_batch_size: As Keras takes it. Defaults to `None`.
            validation_freq: As Keras takes it. Defaults to `1`.
            unfreeze: `{epoch: path pattern or list of them}`: what starts to
                train with that epoch, counted from 0 as `initial_epoch`
                counts. Stages before the first epoch of this call apply at
                once. Or a recipe: `"lp-ft"` trains what is new (adapters,
                fusion, head) for the first half of the epochs, then
                everything; `"gradual"` what is new in the first epoch, and
                with each further one the next layers from the top. The
                optimizer goes on: slots of what was training are kept, and
                what joins counts its own steps. Flags stay as the last stage
                left them. Defaults to `None`.

        Returns:
            Keras's `History`.

        Raises:
            ValueError: If an adapter that learns from data has not been
                fitted (call `adapt` first), a stage's epoch is none of this
                call's, a pattern matches nothing, or a stage would freeze.

        Example:
        >>> history = cascade.fit(
        ...     images, labels, epochs=2, unfreeze={1: "upstream"}, verbose=0
        ... )

        Source: Kumar et al., Fine-Tuning can Distort Pretrained Features
        (2022), for `"lp-ft"`; Howard and Ruder, Universal Language Model
        Fine-tuning (2018), for `"gradual"`.
        """
        self._check_fitted("training")
        callbacks = callbacks_for_fit(
            self, unfreeze, initial_epoch, epochs, callbacks
        )
        return super().fit(
            x=x,
            y=y,
            batch_size=batch_size,
            epochs=epochs,
            verbose=verbose,
            callbacks=callbacks,
            validation_split=validation_split,
            validation_data=validation_data,
            shuffle=shuffle,
            class_weight=class_weight,
            sample_weight=sample_weight,
            initial_epoch=initial_epoch,
            steps_per_epoch=steps_per_epoch,
            validation_steps=validation_steps,
            validation_batch_size=validation_batch_size,
            validation_freq=validation_freq,
        )

    def freeze(self, pattern: str | Sequence[str]) -> "Cascade":
        """Stops the training of what a path pattern covers.

        The optimizer keeps its slots for when it is unfrozen again. Call it
        between fits.

        Args:
            pattern: A path pattern, such as `"upstream/conv5_*"`, or a list.

        Returns:
            The cascade itself.

        Raises:
            ValueError: If a pattern matches nothing.

        Example:
        >>> cascade = cascade.freeze("head")
        """
        return self._set_flags(pattern, False)

    def unfreeze(self, pattern: str | Sequence[str]) -> "Cascade":
        """Has what a path pattern covers train from the next fit on.

        What was training before goes on where it was, slots included; what is
        new counts its own steps.

        Args:
            pattern: A path pattern, such as `"upstream/conv5_*"`, or a list.

        Returns:
            The cascade itself.

        Raises:
            ValueError: If a pattern matches nothing.

        Example:
        >>> cascade = cascade.unfreeze("upstream")
        """
        return self._set_flags(pattern, True)

    def make_train_function(self, force: bool = False) -> Any:
        """Keras's hook before training; the adapters must be fitted.

        Flags that were changed since the last step, by hand or by `unfreeze`,
        take effect here: the step is traced again, and the optimizer takes up
        what trains now.
        """
        self._check_fitted("training")
        return super().make_train_function(self._flags_changed() or force)

    def _flags_changed(self) -> bool:
        flags = self._read_flags()
        if not self.compiled or flags == self._traced_flags:
            return False
        prepare_optimizer(self)
        self._traced_flags = flags
        return True

    def _set_flags(
        self, patterns: str | Sequence[str], flag: bool
    ) -> "Cascade":
        call = "unfreeze()" if flag else "freeze()"
        routes = Routes(self, self.upstreams)
        covered = covered_by(routes, patterns, call)
        set_flags(routes, dict.fromkeys(covered, flag))
        # At once, for training loops that never ask for a train function.
        if self.compiled and known_variables(self.optimizer):
            self.train_function = None
            self._flags_changed()
        return self

    def make_test_function(self, force: bool = False) -> Any:
        """Keras's hook before `evaluate`; the adapters must be fitted."""
        self._check_fitted("evaluation")
        return super().make_test_function(force)

    def make_predict_function(self, force: bool = False) -> Any:
        """Keras's hook before `predict`; the adapters must be fitted."""
        self._check_fitted("prediction")
        return super().make_predict_function(force)

    def summary(
        self,
        line_length: int | None = None,
        positions: list | None = None,
        print_fn: Any = None,
        expand_nested: bool = False,
        show_trainable: bool = False,
        layer_range: list | None = None,
    ) -> None:
        """Prints a table with a row a block.

        What each block is, its taps, the shapes that it gives, its
        parameters, how many of them train, and at which rate.

        Args:
            line_length: Width in characters; `None` is as wide as needed.
                Defaults to `None`.
            positions: For Keras's own tables. Defaults to `None`.
            print_fn: What each table is handed to; `None` prints. Defaults to
                `None`.
            expand_nested: Whether Keras's tables of each block's layers
                follow. Defaults to `False`.
            show_trainable: For Keras's own tables. Defaults to `False`.
            layer_range: For Keras's own tables. Defaults to `None`.
        """
        print_summary(self, line_length, print_fn)
        if expand_nested:
            for block in self.blocks.values():
                block.summary(
                    line_length=line_length,
                    positions=positions,
                    print_fn=print_fn,
                    expand_nested=True,
                    show_trainable=show_trainable,
                    layer_range=layer_range,
                )

    def to_plain(self) -> keras.Model:
        """The same model in stock Keras layers.

        It loads without this package. It answers the same; trained further,
        its frozen layers drop out again, as Keras's do.

        Returns:
            A stock Functional model with a copy of the weights, not compiled.

        Raises:
            NotImplementedError: If an adapter of yours has no `to_plain`.
            ValueError: If an adapter has not been fitted.
        """
        self._check_fitted("writing a plain model")
        graph = read_graph(self, keep_names=True)
        plain = {
            id(layer): layer.to_plain()
            for _, layer in leaf_layers(self)
            if isinstance(layer, Adapter)
        }
        replay = Replay(network_class=keras.Model, replace=plain)
        model = replay.whole(graph, self.name)
        replay.fill()
        return model

    def export(
        self,
        filepath: Any,
        format: str = "tf_saved_model",
        verbose: bool | None = None,
        input_signature: Any = None,
        **kwargs: Any,
    ) -> None:
        """Keras's `export`, with Keras's arguments.

        What is kept of the networks for training is left out.

        Args:
            filepath: As Keras takes it.
            format: As Keras takes it. Defaults to `"tf_saved_model"`.
            verbose: As Keras takes it. Defaults to `None`.
            input_signature: As Keras takes it. Defaults to `None`.
            **kwargs: As Keras takes them.
        """
        kept = list(self._kept)
        self._kept.clear()
        try:
            super().export(filepath, format, verbose, input_signature, **kwargs)
        finally:
            self._kept.extend(kept)

    def rebuild(self, **changes: Any) -> "Cascade":
        """Builds the cascade again with some arguments changed.

        Learned weights whose path and shape are the same are carried over;
        `spec.started_anew` of the result, and its summary, list the others.
        Taps that the cascade does not hold need the original network: it is
        used as long as it lives, and can be passed as `upstream=` else.

        Args:
            **changes: Arguments of `build_cascade`.

        Returns:
            A new cascade; this one stays as it is. It is compiled as this one
            is, without the optimizer's state.

        Example:
        >>> wider = cascade.rebuild(adapters={"shape": 64})
        """
        return type(self)._rebuilder(self, changes)

    def learning_rates(self) -> dict[str, float]:
        """The current learning rate of each trainable variable, by its path.

        Returns:
            Nothing where the cascade is not compiled.
        """
        if not self.compiled or self.optimizer is None:
            return {}
        own = to_float(self.optimizer.learning_rate)
        rates = {v.path: own for v in self.trainable_variables}
        blockwise = find_blockwise(self.optimizer)
        effective = blockwise.effective_rates() if blockwise else {}
        groups = rate_groups(self, self._learning_rates)
        for name, variables in groups.variables.items():
            for variable in variables:
                if variable.path in rates:
                    rates[variable.path] = effective[name]
        return rates

    def get_config(self) -> dict:
        """The graph, the spec, and what is kept of the networks."""
        config = {**super().get_config(), "spec": self._spec.get_config()}
        serialize = keras.saving.serialize_keras_object
        if self._kept:
            config["kept"] = [serialize(keeper) for keeper in self._kept]
        return config

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None):
        """The cascade, with what it keeps of the networks beside it."""
        config = dict(config)
        kept: list[Any] = config.pop("kept", [])
        cascade: Any = super().from_config(config, custom_objects)
        for keeper in kept:
            cascade._keep(keras.saving.deserialize_keras_object(keeper))
        return cascade

    @classmethod
    def set_rebuilder(cls, function: Any) -> None:
        """Tells how to build again: that stands above this module."""
        cls._rebuilder = staticmethod(function)

    def remember_started_anew(self, paths: tuple[str, ...]) -> None:
        """Keeps which weights a rebuild could not carry over."""
        self._spec = self._spec.with_changes(started_anew=paths)

    def keep_network_info(
        self, old: "Cascade", changed: Mapping[str, Any]
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

    def remember_sources(self, sources: Mapping[str, keras.Model]) -> None:
        """Keeps weak references to the networks that it was built from."""
        self._sources = {k: weakref.ref(v) for k, v in sources.items()}

    def source(self, block: str) -> keras.Model | None:
        """The network that a block was copied from, if it is still there."""
        reference = (self._sources or {}).get(block, lambda: None)
        kept = [keeper.teachers.get(block) for keeper in self._kept]
        return next((x for x in (reference(), *kept) if x is not None), None)

    def retain(
        self, retention: Mapping[str, Retention], graphs: Mapping[str, Graph]
    ) -> None:
        """Keeps what a mapping of retention asks for, and nothing else.

        Args:
            retention: Path pattern to method.
            graphs: The original networks, by their blocks.
        """
        keeper = make_keeper(self, retention, graphs) if retention else None
        self._kept.clear()
        if keeper is not None:
            self._keep(keeper)

    def known_fishers(self) -> dict[str, Any]:
        """The Fisher information that is kept, by the paths of weights."""
        return {
            path: fisher
            for keeper in self._kept
            for path, fisher in keeper.known_fishers().items()
        }

    def _keep(self, keeper: Keeper) -> None:
        keeper.attach(self)
        self._kept.append(keeper)

    def _retain_anew(self, retention: Mapping[str, Retention]) -> None:
        """Retention that comes after the cascade was built."""
        graphs = self._original_graphs() if retention else {}
        self.retain(retention, graphs)
        self._spec = self._spec.with_changes(retention=dict(retention))

    def _original_graphs(self) -> dict[str, Graph]:
        blocks = [name for name in self.blocks if name in self._spec.networks]
        if self._spec.shares:
            raise ValueError(
                "compile(retention=...) needs the networks as they were, and "
                "with copy=False the cascade trains their own layers. Give "
                "retention to build_cascade."
            )
        sources = {name: self.source(name) for name in blocks}
        if gone := [name for name, source in sources.items() if source is None]:
            names = ", ".join(f"'{name}'" for name in gone)
            raise ValueError(
                "compile(retention=...) needs the networks that the cascade "
                f"was built from, and those of {names} are not there any "
                "more. Build it with them again: rebuild(upstream=network, "
                "downstream=network, retention=...)."
            )
        return {
            name: read_graph(as_network(source, name))
            for name, source in sources.items()
            if source is not None
        }

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

    def _own_optimizer(self, optimizer: Any, rates: Mapping[str, Any]) -> Any:
        """A copy of the user's optimizer that knows each block's rate."""
        own = compat.copy_optimizer(keras.optimizers.get(optimizer))
        if own is None or (is_multiple(own) and not rates):
            return own
        groups = rate_groups(self, rates)
        known = find_blockwise(own)
        serialize = keras.saving.serialize_keras_object
        if known is None or serialize(known.rates) != serialize(groups.rates):
            own = with_block_rates(own, groups.rates)
        if (blockwise := find_blockwise(own)) is not None:
            blockwise.route(groups.variables)
        return own

    def _check_fitted(self, before: str) -> None:
        if self._all_fitted:
            return
        waiting = unfitted(self)
        self._all_fitted = not waiting
        if waiting:
            paths = ", ".join(f"'{'/'.join(path)}'" for path in waiting)
            raise ValueError(
                f"Adapters that learn from data have not been fitted: {paths}."
                f" Call cascade.adapt(data) before {before}."
            )
