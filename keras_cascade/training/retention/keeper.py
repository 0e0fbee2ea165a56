"""The layer that holds what is kept of pretrained networks."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_cascade import _keras_compat as compat
from keras_cascade._cascade_view import CascadeView
from keras_cascade.graph.block import Block, leaf_layers
from keras_cascade.graph.layer_copying import to_numpy_copy
from keras_cascade.graph.names import name_variables
from keras_cascade.training.retention.distillation import Distillation
from keras_cascade.training.retention.ewc import EWC
from keras_cascade.training.retention.lwf import LwF
from keras_cascade.training.retention.method import Retention
from keras_cascade.training.retention.output_kinds import Kind
from keras_cascade.training.retention.targets import Weight, current_values

# What the paths of its variables begin with.
PREFIX = "retention"


def retained_path(path: str) -> str:
    """The path of what a variable is kept of; of others their own.

    `retention/anchors/upstream/conv/kernel` is of `upstream/conv/kernel`.
    """
    if not path.startswith(f"{PREFIX}/"):
        return path
    return path.split("/", 2)[2]


@keras.saving.register_keras_serializable(package="keras_cascade")
class Keeper(keras.Layer):
    """Holds pretrained weights, their Fisher information, and old networks.

    A cascade has it beside its blocks, so that all this is saved with it and
    is part of its state, and asks it for the penalties. Nothing of it trains,
    whatever flag is set.

    Args:
        methods: Path pattern to method.
        weights: The weights that the methods pull, by the pattern of the
            method.
        teachers: The networks as they were, by their blocks.
        taught: Block to the pattern of its `LwF`.
        kinds: Block to what each output of its network is.
    """

    def __init__(
        self,
        methods: Mapping[str, Retention],
        weights: Mapping[str, Sequence[Weight]],
        teachers: Mapping[str, Block],
        taught: Mapping[str, str],
        kinds: Mapping[str, Sequence[Kind]],
        **kwargs: Any,
    ):
        super().__init__(**{"name": PREFIX, **kwargs})
        self._plan = _Plan(methods, weights, taught, kinds)
        self._ties = _Ties({}, {})
        self.teachers = dict(teachers)
        for block, teacher in teachers.items():
            _freeze(teacher)
            name_variables(teacher, f"{PREFIX}/teachers/{block}")
        self.anchors: dict[str, keras.Variable] = {}
        self.fishers: dict[str, keras.Variable] = {}
        for pattern, several in weights.items():
            for weight in several:
                self.anchors[weight.path] = self._zeros("anchors", weight)
                if isinstance(methods[pattern], EWC):
                    fisher = self._zeros("fishers", weight)
                    self.fishers[weight.path] = fisher
        self.trackers = [
            keras.metrics.Mean(name=name)
            for name in self._plan.names().values()
        ]
        self.built = True

    @property
    def trainable(self) -> bool:
        """Never: a flag of the whole cascade does not reach it."""
        return False

    @trainable.setter
    def trainable(self, value: bool) -> None:
        pass

    @property
    def methods(self) -> dict[str, Retention]:
        """Path pattern to method."""
        return dict(self._plan.methods)

    def remember(
        self,
        anchors: Mapping[str, np.ndarray],
        fishers: Mapping[str, np.ndarray],
    ) -> None:
        """Takes what the weights were and their information, by their paths."""
        for path, value in anchors.items():
            self.anchors[path].assign(value)
        for path, value in fishers.items():
            self.fishers[path].assign(value)

    def known_fishers(self) -> dict[str, np.ndarray]:
        """The Fisher information of the weights, by their paths."""
        return {
            path: to_numpy_copy(fisher) for path, fisher in self.fishers.items()
        }

    def attach(self, cascade: CascadeView) -> None:
        """Ties what is kept to the weights and blocks of its cascade.

        Raises:
            ValueError: If a network that is taught lacks an input.
        """
        layers = dict(leaf_layers(cascade))
        pulls = {
            pattern: [self._pull(weight, layers) for weight in several]
            for pattern, several in self._plan.weights.items()
        }
        lessons = {
            block: Distillation(cascade, block, teacher)
            for block, teacher in self.teachers.items()
        }
        self._ties = _Ties(pulls, lessons)

    def penalties(self, x: Any) -> list[Any]:
        """The penalty of each method, which its metric notes down.

        Args:
            x: What the cascade gets, for the methods that compare answers.
        """
        values = [self._penalty(pattern, x) for pattern in self._plan.methods]
        first: Any = None if x is None else keras.tree.flatten(x)[0]
        shape: Any = (None,) if x is None else ops.shape(first)
        for tracker, value in zip(self.trackers, values, strict=True):
            # By rows, as Keras's own losses are averaged over batches.
            tracker.update_state(
                ops.stop_gradient(value), sample_weight=shape[0]
            )
        return values

    def get_config(self) -> dict[str, Any]:
        """What it keeps, but for the values."""
        serialize = keras.saving.serialize_keras_object
        plan = self._plan
        return {
            "name": self.name,
            "methods": {k: serialize(m) for k, m in plan.methods.items()},
            "weights": {
                pattern: [weight.get_config() for weight in several]
                for pattern, several in plan.weights.items()
            },
            "teachers": {
                block: serialize(teacher)
                for block, teacher in self.teachers.items()
            },
            "taught": dict(plan.taught),
            "kinds": {
                block: list(kinds) for block, kinds in plan.kinds.items()
            },
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Keeper":
        """The keeper, its values to be loaded."""
        load = keras.saving.deserialize_keras_object
        config = dict(config)
        config["methods"] = {k: load(m) for k, m in config["methods"].items()}
        config["teachers"] = {k: load(t) for k, t in config["teachers"].items()}
        config["weights"] = {
            pattern: [Weight.from_config(weight) for weight in several]
            for pattern, several in config["weights"].items()
        }
        return cls(**config)

    def _zeros(self, kind: str, weight: Weight) -> keras.Variable:
        variable = self.add_weight(
            shape=weight.shape,
            dtype=weight.dtype,
            initializer="zeros",
            trainable=False,
            autocast=False,
        )
        compat.set_variable_path(variable, f"{PREFIX}/{kind}/{weight.path}")
        return variable

    def _pull(
        self, weight: Weight, layers: Mapping[tuple, keras.Layer]
    ) -> tuple[Any, ...]:
        value = current_values(layers[weight.layer])[weight.number]
        pull = (value, self.anchors[weight.path])
        fisher = self.fishers.get(weight.path)
        return pull if fisher is None else (*pull, fisher)

    def _penalty(self, pattern: str, x: Any) -> Any:
        method: Any = self._plan.methods[pattern]
        if not isinstance(method, LwF):
            pulls = self._ties.pulls[pattern]
            return method.penalty([(now(), *kept) for now, *kept in pulls])
        if x is None:
            raise ValueError(
                f"The retention of '{pattern}' is LwF, which needs the inputs: "
                "cascade.compute_loss(x=inputs, ...)."
            )
        return sum(
            method.penalty(*self._ties.lessons[block].answers(x), kinds)
            for block, kinds in self._plan.kinds.items()
            if self._plan.taught[block] == pattern
        )


@dataclass(frozen=True)
class _Plan:
    """The arguments of a keeper; Keras does not track what is in a dataclass.

    Attributes:
        methods: As `Keeper` has them, and so on.
        weights: The weights that are pulled.
        taught: The networks that are taught.
        kinds: What their outputs are.
    """

    methods: Mapping[str, Retention]
    weights: Mapping[str, Sequence[Weight]]
    taught: Mapping[str, str]
    kinds: Mapping[str, Sequence[Kind]]

    def names(self) -> dict[str, str]:
        """Pattern to the name of its loss in the logs."""
        names = {p: m.loss_name for p, m in self.methods.items()}
        times = Counter(names.values())
        return {
            pattern: f"{name}/{pattern}" if times[name] > 1 else name
            for pattern, name in names.items()
        }


@dataclass(frozen=True)
class _Ties:
    """What a keeper looks at in its cascade, which is not its own to track.

    Attributes:
        pulls: What gives a weight's value beside what is kept of it, by
            pattern.
        lessons: Old and new answers, by block.
    """

    pulls: Mapping[str, Sequence[tuple]]
    lessons: Mapping[str, Distillation]


def _freeze(network: keras.Model) -> None:
    for _, layer in leaf_layers(network):
        for inner in compat.sublayers(layer):
            inner.trainable = False
