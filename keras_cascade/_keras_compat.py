"""What the package needs of Keras that Keras does not make public.

Each piece says why it is needed and on which version it was seen to work;
`tests/test_keras_compat.py` fails when Keras changes it.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import keras
import numpy as np
from keras.src.backend.common import global_state, masking
from keras.src.models.functional import Functional
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR

# --- Graphs (seen on Keras 3.15.1) -----------------------------------------


class Call(NamedTuple):
    """One call of one operation in a functional network."""

    operation: keras.Operation
    args: tuple
    kwargs: dict
    outputs: list[keras.KerasTensor]
    is_input: bool
    number: int  # among all calls that the operation ever had


def is_functional(network: object) -> bool:
    """Whether the network is a graph that can be read call by call.

    A subclass of Functional with a `call` of its own does something that its
    graph does not show, so it does not count.
    """
    if not isinstance(network, Functional):
        return False
    kind: Any = type(network)
    return kind.call is Functional.call or getattr(
        kind, "interprets_its_graph", False
    )


def has_inputs(network: keras.Model) -> bool:
    """Whether the network is a Functional, with a `call` of its own or not."""
    return isinstance(network, Functional)


def functional_calls(network: keras.Model) -> list[Call]:
    """The calls of a functional network, inputs first, in topological order.

    The public way, `clone_model` with a recording `call_function`, repeats
    the whole symbolic pass and leaves a second node on every layer of the
    user's network; reading `_nodes_by_depth` leaves it as it was.
    """
    by_depth = network._nodes_by_depth  # type: ignore[attr-defined]
    deepest_first = sorted(by_depth, reverse=True)
    nodes = [node for depth in deepest_first for node in by_depth[depth]]
    nodes.sort(key=lambda node: not node.is_input)
    return [
        Call(
            node.operation,
            node.arguments.args,
            node.arguments.kwargs,
            list(node.outputs),
            node.is_input,
            node.operation._inbound_nodes.index(node),
        )
        for node in nodes
        if node.operation is not None
    ]


def has_own_config(network: object) -> bool:
    """Whether a functional network's class says itself what rebuilds it."""
    if not is_functional(network):
        return False
    kind: Any = type(network)
    return kind.get_config is not Functional.get_config


def forget_calls(operation: keras.Operation) -> None:
    """Takes an operation out of every graph that it is in.

    The calls tie a layer to those before and behind it: what is cut off would
    stay in memory, and Keras finds a loaded layer's calls by their number.
    """
    operation._inbound_nodes.clear()
    operation._outbound_nodes.clear()


@contextmanager
def without_configs(operations: Iterable[keras.Operation]) -> Iterator[None]:
    """Has operations write an empty config while it lasts.

    `Functional.get_config` asks every layer for its config, and fails where
    one has none; no hook lets a network write something else for it.
    """
    hidden = list(operations)
    for operation in hidden:
        vars(operation)["get_config"] = dict
    try:
        yield
    finally:
        for operation in hidden:
            del vars(operation)["get_config"]


def run_graph(
    network: keras.Model,
    inputs: Any,
    mask: Any,
    operation_function: Callable[[keras.Operation], Callable],
) -> Any:
    """`Functional.call`, with a say in how each operation is called.

    `Functional.call` hands one `training` to every layer; frozen layers need
    another one than trained ones, and no public hook tells them apart.
    """
    flat = network._standardize_inputs(inputs)  # type: ignore[attr-defined]
    masks = [None] * len(flat) if mask is None else keras.tree.flatten(mask)
    for tensor, tensor_mask in zip(flat, masks, strict=False):
        if tensor_mask is not None:
            masking.set_keras_mask(tensor, tensor_mask)
    outputs = network._run_through_graph(  # type: ignore[attr-defined]
        flat, operation_fn=operation_function
    )
    if isinstance(outputs, list | tuple) and len(outputs) == 1:
        return outputs[0]
    return outputs


# --- Layers and variables (seen on Keras 3.15.1) ---------------------------


def sublayers(layer: keras.Layer) -> Iterator[keras.Layer]:
    """The layer itself and all layers inside it, parents first.

    Only models show their layers publicly; flags and states inside composite
    layers (an encoder block, a Bidirectional) have no other way in.
    """
    return iter(layer._flatten_layers())


def set_variable_path(variable: keras.Variable, path: str) -> None:
    """Renames a variable: its `path`, and its `name`, the last segment.

    Keras fixes a path when the variable is created, from the layer names at
    that moment: nested networks and unnamed weights get paths that are
    neither unique nor the same in the next process.
    """
    variable._path = path
    variable._name = path.rsplit("/", 1)[-1]


def keras_mask(tensor: Any) -> Any:
    """The mask that Keras carries along with a tensor, or None."""
    return masking.get_keras_mask(tensor)


# --- Compiling and random states (seen on Keras 3.15.1) --------------------


def compile_arguments(model: keras.Model) -> dict[str, Any]:
    """What a model was compiled with, as the objects that were passed.

    The public `get_compile_config` serializes them, which fails for a loss
    that is a function of the user's.
    """
    return dict(model._compile_config.config)  # type: ignore[attr-defined]


def global_seed() -> Any:
    """The state that unseeded `keras.random` draws from, or None before any.

    `keras.random` has no way to look at it, or to put it back.
    """
    generator = global_state.get_global_attribute(GLOBAL_SEED_GENERATOR)
    return (
        None
        if generator is None
        else np.array(keras.ops.convert_to_numpy(generator.state))
    )


def set_global_seed(state: Any) -> None:
    """Puts back what `global_seed` gave; None is as before any draw."""
    generator = global_state.get_global_attribute(GLOBAL_SEED_GENERATOR)
    if state is None:
        global_state.set_global_attribute(GLOBAL_SEED_GENERATOR, None)
    elif generator is not None:
        generator.state.assign(state)


# --- Optimizers (seen on Keras 3.15.1) -------------------------------------
#
# Keras has no public way to give one optimizer several learning rates: the
# public `MultiOptimizer` clips and accumulates per optimizer, finds variables
# by name and does not reload. `update_step` is public, but decay and torch's
# grouped update go past it.


class RatedUpdates(keras.optimizers.Optimizer):
    """Mixin that makes an optimizer class ask for the rate of each group.

    It stands before the optimizer's class and changes nothing but the rate
    that reaches `update_step`, torch's `_parallel_update_step` and
    `_apply_weight_decay`.
    """

    block_rates: Any  # rates_at(), rate_at() and group_of(), set by its maker
    _decaying_group: int | None = None

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        # Once a step, not once a variable. Keras hands the list on as it
        # hands on a rate; tf.distribute also maps it over its replicas.
        rates = self.block_rates.rates_at(learning_rate, self._iterations)
        super()._backend_update_step(grads, trainable_variables, rates)

    def update_step(self, gradient, variable, learning_rate):
        group = self.block_rates.group_of(self._var_key(variable))
        super().update_step(gradient, variable, learning_rate[group])

    def _parallel_update_step(self, grads, variables, learning_rate):
        # Torch's Nadam advances a state of the whole step in each call.
        shared: Any = getattr(self, "_u_product", None)
        before = None if shared is None else keras.ops.copy(shared.value)
        gradient_of = dict(zip(map(id, variables), grads, strict=True))
        for group, members in self._by_group(variables).items():
            if shared is not None:
                shared.assign(before)
            super()._parallel_update_step(  # type: ignore[misc]
                [gradient_of[id(v)] for v in members],
                members,
                learning_rate[group],
            )

    def _apply_weight_decay(self, variables):
        decayed = [v for v in variables if self._use_weight_decay(v)]
        for group, members in self._by_group(decayed).items():
            self._decaying_group = group
            try:
                super()._apply_weight_decay(members)
            finally:
                self._decaying_group = None

    def _get_current_learning_rate(self):
        rate = super()._get_current_learning_rate()
        if self._decaying_group is None:
            return rate
        return self.block_rates.rate_at(
            self._decaying_group, rate, self._iterations
        )

    def _by_group(self, variables):
        groups: dict[int, list] = {}
        for variable in variables:
            group = self.block_rates.group_of(self._var_key(variable))
            groups.setdefault(group, []).append(variable)
        return groups

    # What wraps it saves its variables; Keras would write them a second time.
    def save_own_variables(self, store):
        del store

    def load_own_variables(self, store):
        del store


def copy_with_rates(
    optimizer: keras.optimizers.Optimizer, block_rates: Any
) -> keras.optimizers.Optimizer:
    """Copy an optimizer, unbuilt, so that its updates ask for block rates.

    The copy's class is one of the user's class: what it overrides holds.
    """
    plain_class = type(optimizer)
    rated_class = type(
        f"Rated{plain_class.__name__}", (RatedUpdates, plain_class), {}
    )
    copy = rated_class.from_config(optimizer.get_config())
    copy.block_rates = block_rates
    copy_decay_exclusions(optimizer, copy)
    return copy


def copy_optimizer(optimizer: Any) -> Any:
    """Copy an optimizer, unbuilt, with what its config leaves out."""
    if optimizer is None:
        return None
    copy = type(optimizer).from_config(optimizer.get_config())
    copy_decay_exclusions(optimizer, copy)
    return copy


def copy_decay_exclusions(
    source: keras.optimizers.Optimizer, target: keras.optimizers.Optimizer
) -> None:
    """Carry over `exclude_from_weight_decay`, which no config holds."""
    for name in (
        "_exclude_from_weight_decay",
        "_exclude_from_weight_decay_pattern",
    ):
        if hasattr(source, name):
            setattr(target, name, getattr(source, name))


def undecayed(
    optimizer: keras.optimizers.Optimizer, variables: list[keras.Variable]
) -> tuple[int, ...]:
    """The indices of the variables that are excluded from weight decay."""
    return tuple(
        index
        for index, variable in enumerate(variables)
        if not optimizer._use_weight_decay(variable)
    )


def learning_rate_source(optimizer: keras.optimizers.Optimizer) -> Any:
    """An optimizer's schedule, callable or variable: the property hides it."""
    return optimizer._learning_rate


def schedule_step(optimizer: keras.optimizers.Optimizer) -> keras.Variable:
    """The step that schedules see; `iterations` counts accumulated ones."""
    return optimizer._iterations


def serialize_optimizer(optimizer: keras.optimizers.Optimizer) -> dict:
    """Serialize an optimizer so that it loads on every backend.

    On torch Keras writes `keras.src.backend.torch.optimizers…`, which other
    backends cannot import; the public class is one of its bases.
    """
    config: Any = keras.saving.serialize_keras_object(optimizer)
    if config["module"].startswith("keras.src.backend.torch.optimizers."):
        config = {
            **config,
            "module": "keras.optimizers",
            "registered_name": None,
        }
    return config
