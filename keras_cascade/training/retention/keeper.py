"""Defines the layer that stores the pretrained values of retention.

Tested by `tests/training/retention/test_retention_of_cascades.py`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_cascade import _keras_compat as compat
from keras_cascade._cascade_view import CascadeView, as_model
from keras_cascade.graph.block import Block, leaf_layers
from keras_cascade.graph.layer_copying import to_numpy_copy
from keras_cascade.graph.names import name_variables
from keras_cascade.graph.paths import LayerPath
from keras_cascade.training.retention.distillation import Distillation
from keras_cascade.training.retention.ewc import EWC
from keras_cascade.training.retention.lwf import LwF
from keras_cascade.training.retention.method import Retention
from keras_cascade.training.retention.output_kinds import Kind
from keras_cascade.training.retention.targets import Weight, value_readers

# What the paths of the layer's variables begin with.
PREFIX = "retention"

# What reads a weight's value, its pretrained value, and for EWC its Fisher
# information.
Pull = tuple[Callable[[], Any], *tuple[keras.Variable, ...]]


def retained_path(path: str) -> str:
    """Returns the path of the weight that a variable was retained of.

    `retention/anchors/upstream/conv/kernel` is retained of
    `upstream/conv/kernel`. Other paths are returned unchanged.
    """
    if not path.startswith(f"{PREFIX}/"):
        return path
    return path.split("/", 2)[2]


# Keras finds the layer's values in a file by the name of this class.
@keras.saving.register_keras_serializable(package="keras_cascade")
class Keeper(keras.Layer):
    """Stores pretrained weights, their Fisher information, and old networks.

    A cascade has it beside its blocks, so that its values are saved with the
    cascade and are part of its state, and gets the penalties from it. None of
    its variables trains, whatever flag is set.
    """

    def __init__(
        self,
        methods: Mapping[str, Retention],  # by pattern
        weights: Mapping[str, Sequence[Weight]],  # by pattern of the method
        teachers: Mapping[str, Block],  # the networks as they were, by block
        taught: Mapping[str, str],  # block to pattern of its `LwF`
        kinds: Mapping[str, Sequence[Kind]],  # of the outputs, by block
        **kwargs: Any,
    ):
        super().__init__(**{"name": PREFIX, **kwargs})
        self._attached = _Attached({}, {})
        self._methods, self._pulled = dict(methods), dict(weights)
        self._taught, self._kinds = dict(taught), dict(kinds)
        self.teachers = dict(teachers)
        for block, teacher in teachers.items():
            _freeze(teacher)
            # Copies have the names of the block: paths would not be unique.
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
            keras.metrics.Mean(name=name) for name in _loss_names(methods)
        ]
        # A call would build the layer, but it is never called.
        self.built = True

    @property
    def trainable(self) -> bool:
        """Always False."""
        # `cascade.trainable = True` reaches every tracked layer.
        return False

    @trainable.setter
    def trainable(self, value: bool) -> None:
        pass

    def remember(
        self,
        anchors: Mapping[str, np.ndarray],
        fishers: Mapping[str, np.ndarray],
    ) -> None:
        """Stores the pretrained values and their information, by path."""
        for path, value in anchors.items():
            self.anchors[path].assign(value)
        for path, value in fishers.items():
            self.fishers[path].assign(value)

    def known_fishers(self) -> dict[str, np.ndarray]:
        """Returns the Fisher information of the weights, by their paths."""
        return {p: to_numpy_copy(fisher) for p, fisher in self.fishers.items()}

    def attach(self, cascade: CascadeView) -> None:
        """Finds the weights and blocks of the cascade that are penalised."""
        layers = dict(leaf_layers(as_model(cascade)))
        pulls = {
            pattern: [self._pull(weight, layers) for weight in several]
            for pattern, several in self._pulled.items()
        }
        distillations = {
            block: Distillation(cascade, block, teacher)
            for block, teacher in self.teachers.items()
        }
        self._attached = _Attached(pulls, distillations)

    def penalties(self, x: object) -> list[Any]:
        """Returns the penalty of each method for a batch of the cascade."""
        values = [self._penalty(pattern, x) for pattern in self._methods]
        first: Any = None if x is None else keras.tree.flatten(x)[0]
        shape: Any = (None,) if x is None else ops.shape(first)
        for tracker, value in zip(self.trackers, values, strict=True):
            # By rows, as Keras averages its own losses over batches.
            tracker.update_state(
                ops.stop_gradient(value), sample_weight=shape[0]
            )
        return values

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments; the values are in the weights file."""
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "methods": {k: serialize(m) for k, m in self._methods.items()},
            "weights": {
                pattern: [asdict(weight) for weight in several]
                for pattern, several in self._pulled.items()
            },
            "teachers": {k: serialize(t) for k, t in self.teachers.items()},
            "taught": dict(self._taught),
            "kinds": {k: list(kinds) for k, kinds in self._kinds.items()},
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "Keeper":
        """Returns the layer of a config."""
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
            # Under mixed_float16 penalties would be those of rounded values.
            autocast=False,
        )
        compat.set_variable_path(variable, f"{PREFIX}/{kind}/{weight.path}")
        return variable

    def _pull(
        self, weight: Weight, layers: Mapping[LayerPath, keras.Layer]
    ) -> Pull:
        reader = value_readers(layers[weight.layer])[weight.number]
        fisher = self.fishers.get(weight.path)
        anchor = self.anchors[weight.path]
        return (reader, anchor) if fisher is None else (reader, anchor, fisher)

    def _penalty(self, pattern: str, x: object) -> Any:
        method: Any = self._methods[pattern]
        if not isinstance(method, LwF):
            pulls = self._attached.pulls[pattern]
            return method.penalty([(read(), *kept) for read, *kept in pulls])
        if x is None:
            raise ValueError(
                f"The retention of '{pattern}' is LwF, which needs the inputs: "
                "cascade.compute_loss(x=inputs, ...)."
            )
        return sum(
            _mean(
                method.penalty(old, new, kinds)
                for old, new in self._attached.distillations[b].outputs(x)
            )
            for b, kinds in self._kinds.items()
            if self._taught[b] == pattern
        )


@dataclass(frozen=True)
class _Attached:
    """The cascade's weights, and outputs of blocks, that are penalised.

    Keras does not track layers in a dataclass: these are not the keeper's own.
    """

    pulls: Mapping[str, Sequence[Pull]]  # by pattern
    distillations: Mapping[str, Distillation]  # by block


def _mean(values: Iterable[Any]) -> Any:
    several = list(values)
    return several[0] if len(several) == 1 else sum(several) / len(several)


def _loss_names(methods: Mapping[str, Retention]) -> list[str]:
    """Returns the names of the patterns' losses in the logs."""
    times = Counter(method.loss_name for method in methods.values())
    return [
        f"{m.loss_name}/{p}" if times[m.loss_name] > 1 else m.loss_name
        for p, m in methods.items()
    ]


def _freeze(network: keras.Model) -> None:
    for _, layer in leaf_layers(network):
        for inner in compat.sublayers(layer):
            inner.trainable = False
