"""Reads graphs and layers where Keras 3.15.1 has no public way to."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import wraps
from types import MethodType
from typing import Any, NamedTuple

import keras
import numpy as np
from keras.src.backend.common import global_state, masking
from keras.src.models.functional import Functional
from keras.src.random.seed_generator import GLOBAL_SEED_GENERATOR
from keras.src.saving import serialization_lib

Config = dict[str, Any]
# The key of an object's number, by which Keras finds an object again that it
# made of a config before. Of a layer that two networks share, Keras 3.15.1
# writes it into the second config only, and then cannot load its own file:
# `get_config` of a Functional returns a copy, and the first is changed later.
SHARED = "shared_object_id"
# The attribute in which Keras keeps these objects.
_SHARED_OBJECTS = "shared_objects/id_to_obj_map"

# --- Graphs ----------------------------------------------------------------


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

    A subclass of Functional with a `call` of its own may do what its graph
    does not show, so it does not count.
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


def may_be_none(tensor: keras.KerasTensor) -> bool:
    """Whether a tensor is an input that is optional.

    Only the `InputLayer` knows, and a tensor does not show its layer.
    """
    history = getattr(tensor, "_keras_history", None)
    return bool(history and getattr(history.operation, "optional", False))


def input_name(tensor: Any) -> str:
    """Returns the name of an input: that of its layer, which files keep.

    The tensor of an `Input()` without a name is called by the number of
    tensors before it, and otherwise once the model is loaded from a file.
    """
    history = getattr(tensor, "_keras_history", None)
    return tensor.name if history is None else history.operation.name


def functional_calls(network: keras.Model) -> list[Call]:
    """Returns the calls of a functional network in topological order.

    The inputs come first. The public way, `clone_model` with a recording
    `call_function`, repeats the whole symbolic pass and leaves a second node
    on every layer of the user's network; reading `_nodes_by_depth` changes
    nothing.
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
    """Whether the class of a functional network overrides `get_config`."""
    if not is_functional(network):
        return False
    kind: Any = type(network)
    return kind.get_config is not Functional.get_config


def forget_calls(operation: keras.Operation) -> None:
    """Removes an operation from every graph that it is in.

    The calls tie a layer to those before and after it: layers that are cut
    off would stay in memory, and Keras finds a loaded layer's calls by their
    number.
    """
    operation._inbound_nodes.clear()
    operation._outbound_nodes.clear()


def with_configs(
    functions: Iterable[tuple[keras.Operation, Callable[[], dict]]],
) -> AbstractContextManager[None]:
    """Makes operations write other configs within the context.

    `Functional.get_config` asks every layer for its config, and fails where
    one has none; no hook lets a network write something else for it.
    """
    return with_methods("get_config", functions)


@contextmanager
def with_methods(
    name: str,
    functions: Iterable[tuple[keras.Operation, Callable[..., Any]]],
) -> Iterator[None]:
    """Replaces a method of single operations within the context.

    Keras looks `call` and `get_config` up on the operation itself; they are
    set past its tracking of attributes.
    """
    changed = []
    for operation, function in functions:
        own = getattr(operation, name)
        changed.append((operation, vars(operation).get(name)))
        # Keras marks the `get_config` that makes a config by itself.
        replacement = wraps(own)(lambda *a, f=function, **k: f(*a, **k))
        vars(operation)[name] = replacement
    try:
        yield
    finally:
        for operation, before in reversed(changed):
            del vars(operation)[name]
            if before is not None:
                vars(operation)[name] = before


@contextmanager
def share_objects() -> Iterator[None]:
    """Makes Keras save and load one object as one within the context.

    Keras has a context of its own while it writes and reads a file, which a
    second one would end; for `get_config` and `from_config` alone it has none.
    """
    if global_state.get_global_attribute(_SHARED_OBJECTS) is not None:
        yield
        return
    with serialization_lib.ObjectSharingScope():
        yield


def with_made_layers(config: Config, custom_objects: object) -> Config:
    """Returns a network's config, of which the layers are made already.

    A config counts the calls of a layer from 0, and Keras finds them by these
    numbers. Where networks share a layer, its first calls may be those of
    another network, and its calls are counted on. Needs `share_objects`.
    """
    entries, layers = [], {}
    for entry in config["layers"]:
        layer: Any = serialization_lib.deserialize_keras_object(
            entry, custom_objects=custom_objects
        )
        number = f"made {id(layer)}"
        serialization_lib.record_object_after_deserialization(layer, number)
        entries.append({**entry, SHARED: number})
        layers[entry["name"]] = layer
    counts = {
        # The call of an input is its own.
        name: len(layer._inbound_nodes)
        for name, layer in layers.items()
        if not isinstance(layer, keras.layers.InputLayer)
    }
    if any(counts.values()):
        for entry in entries:
            entry["inbound_nodes"] = _count_on(entry["inbound_nodes"], counts)
        outputs = _count_on_outputs(config["output_layers"], counts)
        config = {**config, "output_layers": outputs}
    return {**config, "layers": entries}


def _count_on(nodes: Any, counts: Mapping[str, int]) -> Any:
    """Returns calls whose tensors are of later calls of their layers."""
    if isinstance(nodes, list | tuple):
        return [_count_on(x, counts) for x in nodes]
    if not isinstance(nodes, dict):
        return nodes
    if nodes.get("class_name") != "__keras_tensor__":
        return {name: _count_on(x, counts) for name, x in nodes.items()}
    name, number, *rest = nodes["config"]["keras_history"]
    history = [name, number + counts.get(name, 0), *rest]
    return {**nodes, "config": {**nodes["config"], "keras_history": history}}


def _count_on_outputs(outputs: Any, counts: Mapping[str, int]) -> Any:
    """Does the same for a structure of [layer, call, tensor]."""
    if isinstance(outputs, dict):
        return {k: _count_on_outputs(x, counts) for k, x in outputs.items()}
    name, *rest = outputs if outputs else ("",)
    if not isinstance(name, str) or not rest:
        return type(outputs)(_count_on_outputs(x, counts) for x in outputs)
    return [name, rest[0] + counts.get(name, 0), *rest[1:]]


def run_graph(
    network: keras.Model,
    inputs: Any,
    mask: Any,
    operation_function: Callable[[keras.Operation], Callable],
) -> Any:
    """Runs `Functional.call`, with another callable for each operation.

    `Functional.call` passes one `training` to every layer; frozen layers need
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


# --- Layers and variables --------------------------------------------------


def sublayers(layer: keras.Layer) -> Iterator[keras.Layer]:
    """Yields the layer itself and all layers inside it, parents first.

    Only models show their layers publicly; flags and states inside composite
    layers (an encoder block, a Bidirectional) have no other way in.
    """
    return iter(layer._flatten_layers())


def losses_of_step(model: Any) -> list:
    """Returns the losses that a step on JAX added in its forward pass.

    Keras passes them from there to `compute_loss` in an attribute, which goes
    before all else in the public `losses`. Seen on Keras 3.15.1.
    """
    return model._losses_override


def own_metrics(layer: keras.Layer) -> list[keras.Metric]:
    """Returns the metrics that a layer's own code updates.

    The public `metrics` of a model has those of its `compile` as well, which
    a layer in a larger model does not update. Seen on Keras 3.15.1.
    """
    return list(layer._metrics)


def children(layer: keras.Layer) -> Iterator[keras.Layer]:
    """Yields the layers directly inside a layer, which only models show."""
    return iter(layer._flatten_layers(include_self=False, recursive=False))


def trainable_kind(layer: keras.Layer) -> list[keras.Variable]:
    """Returns a layer's own weights without moments, whatever its flag.

    Publicly a layer shows which of its variables are moments only while it
    trains, and unfreezing it to look would lose the flags inside it.
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
    """Returns the mask that Keras carries along with a tensor, or None."""
    return masking.get_keras_mask(tensor)


def set_keras_mask(tensor: Any, mask: Any) -> None:
    """Attaches a mask to a tensor, as Keras's layers do."""
    masking.set_keras_mask(tensor, mask)


def set_untracked(owner: object, name: str, value: object) -> None:
    """Sets an attribute past Keras's tracking, which would wrap a list."""
    vars(owner)[name] = value


# --- LoRA ------------------------------------------------------------------
#
# Keras's layers compute low-rank updates (`enable_lora`), but write the merged
# kernel into a file and load A = B = 0, of which the gradients are 0; `Dense`
# and `Embedding` made from a config take an alpha equal to the rank; and the
# frozen kernel stays among the variables that `layer.trainable = True` sets.


def low_rank_hidden(layer: keras.Layer) -> AbstractContextManager[None]:
    """Makes a layer show and write its kernel without its low-rank update."""
    return _temporarily([layer], "lora_enabled", False)


def without_low_rank_configs(
    layers: Iterable[keras.Layer],
) -> AbstractContextManager[None]:
    """Makes layers leave their low-rank updates out of their configs.

    A layer made of such a config has the plain layer's variables.
    """
    return _temporarily(layers, "lora_rank", None)


@contextmanager
def _temporarily(
    layers: Iterable[keras.Layer], name: str, value: object
) -> Iterator[None]:
    before = [(layer, getattr(layer, name)) for layer in layers]
    for layer, _ in before:
        setattr(layer, name, value)
    try:
        yield
    finally:
        for layer, old in before:
            setattr(layer, name, old)


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


def save_and_load_with(
    layer: keras.Layer,
    save: Callable[[Any, Any], None],
    load: Callable[[Any, Any], None],
) -> None:
    """Makes one layer, not its class, save and load with these functions.

    A class of our own would stand in the file in place of Keras's.
    """
    layer.save_own_variables = MethodType(save, layer)
    layer.load_own_variables = MethodType(load, layer)


# --- Compiling and random states -------------------------------------------


def compile_arguments(model: keras.Model) -> dict[str, Any]:
    """Returns the very objects that were passed to `compile`.

    The public `get_compile_config` serializes them, which fails for a loss
    that is a function of the user's.
    """
    return dict(model._compile_config.config)  # type: ignore[attr-defined]


def take_resumed_epoch(model: keras.Model) -> int | None:
    """Returns and resets the epoch that BackupAndRestore resumes with.

    Keras passes it to `fit` in the attribute `_initial_epoch`, which takes
    precedence over the argument, and never resets it.
    """
    epoch = model._initial_epoch  # type: ignore[attr-defined]
    model._initial_epoch = None  # type: ignore[attr-defined]
    return epoch


def is_passed_on(attribute: str) -> bool:
    """Whether a model keeps arrays there from one step on JAX to the next.

    Keras searches the value of any attribute that is set for layers: with
    many variables that takes longer than a small step.
    """
    return attribute == "_jax_state"


def global_seed() -> np.ndarray | None:
    """Returns the state that unseeded `keras.random` draws from.

    It is None before the first draw. `keras.random` has no way to read the
    state, or to restore it.
    """
    generator = global_state.get_global_attribute(GLOBAL_SEED_GENERATOR)
    if generator is None:
        return None
    return np.array(keras.ops.convert_to_numpy(generator.state))


def set_global_seed(state: np.ndarray | None) -> None:
    """Restores a state that `global_seed` returned."""
    generator = global_state.get_global_attribute(GLOBAL_SEED_GENERATOR)
    if state is None:
        global_state.set_global_attribute(GLOBAL_SEED_GENERATOR, None)
    elif generator is not None:
        generator.state.assign(state)


def producer(
    tensor: keras.KerasTensor,
) -> tuple[keras.Operation, list[keras.KerasTensor]]:
    """Returns the operation that made a symbolic tensor, and what it read.

    A tensor alone does not show it; `functional_calls` needs the network,
    which does not exist while it is being built.
    """
    history: Any = getattr(tensor, "_keras_history")  # noqa: B009
    node = history.operation._inbound_nodes[history.node_index]
    return history.operation, list(node.input_tensors)


def is_torch_module(value: object) -> bool:
    """Returns whether a value is a PyTorch module that is no Keras layer.

    On the torch backend every Keras layer is one. PyTorch is not imported for
    it: a module of it cannot be without.
    """
    if isinstance(value, keras.Operation):
        return False
    module = getattr(sys.modules.get("torch.nn"), "Module", None)
    return module is not None and isinstance(value, module)
