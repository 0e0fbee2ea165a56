"""What the package needs of Keras that Keras does not make public.

Each piece says why it is needed and on which version it was seen to work;
`tests/test_keras_compat.py` fails when Keras changes it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import MethodType
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


def trainable_kind(layer: keras.Layer) -> list[keras.Variable]:
    """A layer's own variables that training can move, whatever its flag.

    Publicly a frozen layer tells its kernel from its moments only once it is
    unfrozen, and unfreezing it to look would lose the flags inside it.
    """
    return list(layer._trainable_variables)


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


def set_keras_mask(tensor: Any, mask: Any) -> None:
    """Hangs a mask on a tensor, as Keras's layers do."""
    masking.set_keras_mask(tensor, mask)


# --- LoRA (seen on Keras 3.15.1) ---------------------------------------------
#
# Keras's layers compute low-rank updates (`enable_lora`), but write the merged
# kernel into a file and load A = B = 0, of which the gradients are 0; `Dense`
# and `Embedding` made from a config take an alpha equal to the rank; and the
# frozen kernel stays among the variables that `layer.trainable = True` sets.


@contextmanager
def low_rank_hidden(layer: Any) -> Iterator[None]:
    """Has a layer show and write its kernel without its low-rank update."""
    layer.lora_enabled = False
    try:
        yield
    finally:
        layer.lora_enabled = True


@contextmanager
def without_low_rank_configs(layers: Iterable[Any]) -> Iterator[None]:
    """Has layers leave their low-rank updates out of their configs.

    What is made of such a config has the plain layer's variables.
    """
    hidden = [(x, x.lora_rank) for x in layers if x.lora_enabled]
    for layer, _ in hidden:
        layer.lora_rank = None
    try:
        yield
    finally:
        for layer, rank in hidden:
            layer.lora_rank = rank


def never_train(
    layer: keras.Layer, variables: Iterable[keras.Variable]
) -> None:
    """Moves variables of a layer to those that its flag does not reach.

    `variable.trainable = False` alone lasts until the layer's flag is set.
    """
    for variable in list(variables):
        variable.trainable = False
        layer._untrack_variable(variable)
        was_locked = layer._tracker.locked
        layer._tracker.unlock()
        layer._track_variable(variable)
        if was_locked:
            layer._tracker.lock()


def save_and_load_with(layer: Any, save: Callable, load: Callable) -> None:
    """Has one layer, not its class, write and read its variables otherwise.

    A class of our own would stand in the file in place of Keras's.
    """
    vars(layer)["save_own_variables"] = MethodType(save, layer)
    vars(layer)["load_own_variables"] = MethodType(load, layer)


# --- Compiling and random states (seen on Keras 3.15.1) --------------------


def compile_arguments(model: keras.Model) -> dict[str, Any]:
    """What a model was compiled with, as the objects that were passed.

    The public `get_compile_config` serializes them, which fails for a loss
    that is a function of the user's.
    """
    return dict(model._compile_config.config)  # type: ignore[attr-defined]


def take_resumed_epoch(model: keras.Model) -> int | None:
    """The epoch that BackupAndRestore goes on with, which `fit` then forgets.

    Keras 3.15 hands it to `fit` in the attribute `_initial_epoch`, which goes
    before the argument, and keeps it.

    Args:
        model: The model.
    """
    epoch = model._initial_epoch  # type: ignore[attr-defined]
    model._initial_epoch = None  # type: ignore[attr-defined]
    return epoch


def is_passed_on(attribute: str) -> bool:
    """Whether a model keeps arrays there from one step on JAX to the next.

    Keras (3.15) goes through all of them each time it is set, as through any
    attribute, to see whether there are layers among them: with many variables
    that takes longer than a small step.
    """
    return attribute == "_jax_state"


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


def set_untracked(owner: Any, name: str, value: Any) -> None:
    """Sets an attribute past Keras's tracking, which would wrap a list."""
    vars(owner)[name] = value


class RatedUpdates(keras.optimizers.Optimizer):
    """Mixin that gives each group of variables a rate and steps of its own.

    It stands before the optimizer's class. What reaches `update_step`,
    torch's `_parallel_update_step` and `_apply_weight_decay` is the group's
    rate, and `iterations`, which bias corrections go by, counts the steps of
    the variable that is updated.
    """

    block_rates: Any  # rates_at(), rate_at() and group_of(), set by its maker
    # For each variable the step at which it began to train, set as well.
    began_at: Any = None
    _decaying_group: int | None = None
    _own_steps: Any = None

    @property
    def iterations(self):
        own = self._own_steps
        return super().iterations if own is None else own

    def build(self, variables):
        super().build(variables)
        set_untracked(self, "_built_on", list(variables))
        if self.use_ema:
            averages = list(self._model_variables_moving_average)
            set_untracked(self, "_every_average", averages)

    def use_variables(self, variables):
        """Has steps without a list of variables work on these.

        `stateless_apply` and averaging read `_trainable_variables`, the
        slots of all variables stay where they are.
        """
        set_untracked(self, "_trainable_variables", list(variables))
        if self.use_ema:
            indices = map(self._get_variable_index, variables)
            averages = [self._every_average[i] for i in indices]
            set_untracked(self, "_model_variables_moving_average", averages)

    def _backend_update_step(self, grads, trainable_variables, learning_rate):
        # Once a step, not once a variable. Keras hands the list on as it
        # hands on a rate; tf.distribute also maps it over its replicas.
        rates = self.block_rates.rates_at(learning_rate, self._iterations)
        steps = super().iterations - self.began_at
        super()._backend_update_step(
            grads, trainable_variables, [*rates, steps]
        )

    def update_step(self, gradient, variable, learning_rate):
        *rates, steps = learning_rate
        group = self.block_rates.group_of(self._var_key(variable))
        with self._counting(steps[self._get_variable_index(variable)]):
            super().update_step(gradient, variable, rates[group])

    def _parallel_update_step(self, grads, variables, learning_rate):
        *rates, steps = learning_rate
        # Torch's Nadam advances a state of the whole step in each call.
        shared: Any = getattr(self, "_u_product", None)
        before = None if shared is None else keras.ops.copy(shared.value)
        gradient_of = dict(zip(map(id, variables), grads, strict=True))
        alike = self._by_group_and_steps(variables, steps)
        for (group, count), members in alike.items():
            if shared is not None:
                shared.assign(before)
            with self._counting(count):
                super()._parallel_update_step(  # type: ignore[misc]
                    [gradient_of[id(v)] for v in members],
                    members,
                    rates[group],
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

    @contextmanager
    def _counting(self, steps):
        self._own_steps = steps
        try:
            yield
        finally:
            self._own_steps = None

    def _by_group(self, variables):
        groups: dict[int, list] = {}
        for variable in variables:
            group = self.block_rates.group_of(self._var_key(variable))
            groups.setdefault(group, []).append(variable)
        return groups

    def _by_group_and_steps(self, variables, steps):
        # One read for all: torch's variables are where Python can read them.
        own: Any = keras.ops.convert_to_numpy(steps)
        counts = own.tolist()
        alike: dict[tuple[int, int], list] = {}
        for variable in variables:
            key = self._var_key(variable)
            count = counts[self._trainable_variables_indices[key]]
            group = self.block_rates.group_of(key)
            alike.setdefault((group, count), []).append(variable)
        return alike

    # What wraps it saves its variables; Keras would write them a second time.
    def save_own_variables(self, store):
        del store

    def load_own_variables(self, store):
        del store


def use_variables(
    optimizer: keras.optimizers.Optimizer, variables: Iterable[keras.Variable]
) -> None:
    """Has a wrapper around optimizers work on these variables.

    `stateless_apply` expects a value for each of `_trainable_variables`, the
    variables that the optimizer was built on.
    """
    set_untracked(optimizer, "_trainable_variables", list(variables))


def built_on(
    optimizer: keras.optimizers.Optimizer,
) -> list[keras.Variable]:
    """The variables that any built optimizer has slots for."""
    return list(optimizer._trainable_variables)


def zero_accumulators(
    optimizer: keras.optimizers.Optimizer, indices: Iterable[int]
) -> None:
    """Drops gradients that were accumulated before variables were frozen."""
    for index in indices:
        accumulated = optimizer._accumulated_gradients[index]  # type: ignore[attr-defined]
        if accumulated is not None:
            zeros = keras.ops.zeros(accumulated.shape, accumulated.dtype)
            accumulated.assign(zeros)


def start_averages(
    optimizer: keras.optimizers.Optimizer, indices: Iterable[int]
) -> None:
    """Has moving averages start from the variables' values.

    Keras starts them at the first step of all, which may be long past.
    """
    variables = optimizer._built_on  # type: ignore[attr-defined]
    for index in indices:
        average = optimizer._every_average[index]  # type: ignore[attr-defined]
        if average is not None:
            # A copy: JAX's step gives both arrays away.
            average.assign(keras.ops.copy(variables[index]))


def copy_slots(
    source: keras.optimizers.Optimizer,
    target: keras.optimizers.Optimizer,
    positions: Mapping[int, int],
) -> None:
    """Copies the state of a built optimizer into one of more variables.

    Optimizers keep slots in lists in the order of the variables that they
    were built on, whatever they call them, and what all variables share in
    attributes of its own.

    Args:
        source: The optimizer.
        target: One of the same class, built.
        positions: Where in the source a variable stands to where in the
            target.
    """
    for name, own in list(vars(source).items()):
        other: Any = vars(target).get(name)
        if name in _NO_SLOTS:
            continue
        if isinstance(own, keras.Variable):
            other.assign(own)
        elif _holds_slots(own):
            for old, new in positions.items():
                if own[old] is not None:
                    other[new].assign(own[old])


# Variables that are no state of the optimizer's own, or only some of it.
_NO_SLOTS = (
    "_variables",
    "_trainable_variables",
    "_built_on",
    "_model_variables_moving_average",
    "began_at",
)


def _holds_slots(value: Any) -> bool:
    return isinstance(value, list) and any(
        isinstance(slot, keras.Variable) for slot in value
    )


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


def undecayed_names(optimizer: keras.optimizers.Optimizer) -> str | None:
    """The pattern of the names that are excluded from weight decay."""
    pattern = getattr(optimizer, "_exclude_from_weight_decay_pattern", None)
    return None if pattern is None else pattern.pattern


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
