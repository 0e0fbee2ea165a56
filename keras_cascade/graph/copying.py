"""Copies the part of a network that some of its tensors need, as a block."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras

from keras_cascade import _keras_compat as compat
from keras_cascade.graph.block import Block
from keras_cascade.graph.names import name_variables
from keras_cascade.graph.reading import Graph, Node, Reference, read_graph
from keras_cascade.graph.tensors import input_like


def copy_network(
    network: keras.Model,
    name: str,
    outputs: Mapping[str, Reference] | None = None,
    share: bool = False,
) -> Block:
    """Copies a network, or the part of it that some tensors need.

    All outputs come from one forward pass. What lies behind the last of them
    is not in the copy, at any level of nesting, and neither are inputs that
    none of them needs.

    Args:
        network: A built Functional or Sequential model. It stays as it is.
        name: The name of the copy. The path of each weight begins with it.
        outputs: The tensors that the copy gives, by their new names. `None`
            keeps the network's own outputs, and all inputs. Defaults to
            `None`.
        share: Whether to use the network's own layers instead of copies, with
            the names that they have. Defaults to `False`.

    Returns:
        The copy, with the network's weights and flags.
    """
    graph = read_graph(network, keep_names=share)
    replay = Replay(share=share)
    if outputs is None:
        block = replay.whole(graph, name)
    else:
        block, _ = replay.part(graph, name, outputs)
    if not share:
        replay.fill()
        name_variables(block, name)
    return block


@dataclass
class Need:
    """What some tensors need of a graph.

    Attributes:
        inputs: The positions of the inputs, in order.
        nodes: The keys of the calls.
        inside: The references wanted inside nested networks, by the network's
            name.
    """

    inputs: list[int] = field(default_factory=list)
    nodes: set[str] = field(default_factory=set)
    inside: dict[str, dict[Reference, None]] = field(default_factory=dict)


def need(
    graph: Graph, wanted: Iterable[Reference], per_call: bool = False
) -> Need:
    """Finds what some tensors need of a graph, by walking it backward.

    A nested network that is called several times is one block with the union
    of what its calls are asked for, so the walk is repeated until the demands
    inside nested networks no longer grow.

    Args:
        graph: The network.
        wanted: The tensors.
        per_call: Whether each call of a nested network is asked for its own
            tensors only; `inside` then goes by the call's key. Defaults to
            `False`.
    """
    wanted = list(wanted)
    found = Need()
    while True:
        before = {name: len(refs) for name, refs in found.inside.items()}
        tensors = {id(graph.tensor(ref)) for ref in wanted if len(ref) == 2}
        taps: dict[str, list[Reference]] = {}
        for ref in wanted:
            if len(ref) > 2:
                taps.setdefault(str(ref[0]), []).append(ref[1:])
        for node in reversed(graph.nodes):
            name = node.key if per_call else node.name
            inside = taps.get(node.key, [])
            _walk_back(node, tensors, inside, found, name, per_call)
        if before == {n: len(refs) for n, refs in found.inside.items()}:
            break
    found.inputs = [i for i, x in enumerate(graph.inputs) if id(x) in tensors]
    return found


def _walk_back(
    node: Node,
    tensors: set[int],
    taps: list[Reference],
    found: Need,
    name: str,
    per_call: bool,
) -> None:
    used = [i for i, x in enumerate(node.outputs) if id(x) in tensors]
    if not used and not taps:
        return
    found.nodes.add(node.key)
    if node.inner is None:
        tensors.update(map(id, node.tensors))
        return
    inside = found.inside.setdefault(name, {})
    inside.update(dict.fromkeys(_inner_outputs(node.inner, used)))
    inside.update(dict.fromkeys(taps))
    inner_need = need(node.inner, inside, per_call)
    tensors.update(id(node.inner_arguments[i]) for i in inner_need.inputs)


def _inner_outputs(graph: Graph, positions: Iterable[int]) -> list[Reference]:
    return [graph.reference(graph.outputs[i]) for i in positions]


@dataclass
class Replay:
    """Builds blocks from graphs; each layer is copied once.

    Attributes:
        share: Whether the layers themselves are used instead of copies.
        network_class: What the networks are made as.
        replace: What stands for a layer in the copy, where it is another one:
            a list of layers to apply in order, by the layer's id.
    """

    share: bool = False
    network_class: type[keras.Model] = Block
    replace: Mapping[int, list[keras.Layer]] = field(default_factory=dict)
    copies: dict[int, tuple[keras.Operation, keras.Operation]] = field(
        default_factory=dict
    )
    blocks: dict[int, tuple] = field(default_factory=dict)

    def whole(self, graph: Graph, name: str) -> keras.Model:
        """The network with all its inputs and outputs, as it takes them."""
        inputs = [_copy_input(graph, i) for i in range(len(graph.inputs))]
        values = dict(zip(map(id, graph.inputs), inputs, strict=True))
        for node in graph.nodes:
            if not node.is_input:
                self._run_whole(node, values)
        outputs = [values[id(tensor)] for tensor in graph.outputs]
        return self.network_class(
            keras.tree.pack_sequence_as(graph.input_structure, inputs),
            keras.tree.pack_sequence_as(graph.output_structure, outputs),
            name=name,
        )

    def part(
        self, graph: Graph, name: str, outputs: Mapping[str, Reference]
    ) -> tuple[keras.Model, list[int]]:
        """The network as far as some tensors need it.

        Returns:
            The network, which gives a dict of tensors, and the positions of
            the inputs that it still takes.
        """
        demand = need(graph, outputs.values())
        positions = demand.inputs
        inputs = [_copy_input(graph, i) for i in positions]
        values = {
            id(graph.inputs[i]): x
            for i, x in zip(positions, inputs, strict=True)
        }
        inner: dict[Reference, keras.KerasTensor] = {}
        for node in graph.nodes:
            if node.key in demand.nodes and not node.is_input:
                self._run_part(node, demand, values, inner)
        results = {
            key: inner[ref] if len(ref) > 2 else values[id(graph.tensor(ref))]
            for key, ref in outputs.items()
        }
        all_inputs = len(positions) == len(graph.inputs)
        if all_inputs:
            inputs = keras.tree.pack_sequence_as(graph.input_structure, inputs)
        return self.network_class(inputs, results, name=name), positions

    def fill(self) -> None:
        """Gives the copies the weights and flags of the originals."""
        for source, target in self.copies.values():
            if isinstance(source, keras.Layer) and isinstance(
                target, keras.Layer
            ):
                copy_state(source, target)

    def _run_whole(self, node: Node, values: dict) -> None:
        if node.inner is None:
            outputs = self._call(node, values)
        else:
            block, _ = self._nested(node, None)
            given = [values[id(x)] for x in node.inner_arguments]
            outputs = block(_packed_like(block, given))
        _store(node.outputs, outputs, values)

    def _run_part(
        self, node: Node, demand: Need, values: dict, inner: dict
    ) -> None:
        if node.inner is None:
            _store(node.outputs, self._call(node, values), values)
            return
        wanted = demand.inside[node.name]
        if _is_whole(node.inner, wanted):
            self._run_whole(node, values)
            for position, tensor in enumerate(node.inner.outputs):
                ref = (node.key, *node.inner.reference(tensor))
                inner[ref] = values[id(node.outputs[position])]
            return
        block, positions = self._nested(node, wanted)
        given = [values[id(node.inner_arguments[i])] for i in positions]
        results = block(_packed_like(block, given))
        for ref in wanted:
            inner[node.key, *ref] = results[_output_key(ref)]
        for position, tensor in enumerate(node.inner.outputs):
            ref = node.inner.reference(tensor)
            if ref in wanted:
                values[id(node.outputs[position])] = inner[node.key, *ref]

    def _nested(
        self, node: Node, wanted: Iterable[Reference] | None
    ) -> tuple[keras.Model, list[int]]:
        """The copy of a nested network, the same for all its calls."""
        key, inner = id(node.operation), node.inner
        if key not in self.blocks and inner is not None:
            if wanted is None:
                block = self.whole(inner, node.name)
                positions = list(range(len(inner.inputs)))
            else:
                names = {_output_key(ref): ref for ref in wanted}
                block, positions = self.part(inner, node.name, names)
            self.blocks[key] = (block, positions)
        return self.blocks[key]

    def _call(self, node: Node, values: dict) -> Any:
        """Calls the copy of a layer as the layer itself was called."""

        def value(x: Any) -> Any:
            return values[id(x)] if isinstance(x, keras.KerasTensor) else x

        args: Any = keras.tree.map_structure(value, node.args)
        kwargs: Any = keras.tree.map_structure(value, node.kwargs)
        stand_in = self.replace.get(id(node.operation))
        if stand_in is not None:
            return _apply_in_order(stand_in, args, kwargs)
        return self._copy(node)(*args, **kwargs)

    def _copy(self, node: Node) -> keras.Operation:
        if self.share:
            return node.operation
        key = id(node.operation)
        if key not in self.copies:
            copy = copy_operation(node.operation, node.name)
            self.copies[key] = (node.operation, copy)
        return self.copies[key][1]


def copy_operation(operation: keras.Operation, name: str) -> keras.Operation:
    """A copy of a layer or operation under another name, without weights."""
    if isinstance(operation, keras.layers.Lambda):
        return _copy_lambda(operation, name)
    try:
        config = operation.get_config()
        return type(operation).from_config({**config, "name": name})
    except (NotImplementedError, TypeError) as error:
        raise ValueError(
            f"Layer '{operation.name}' ({type(operation).__name__}) cannot be "
            f"copied from its config: {_first_line(error)} Give the class a "
            "get_config() with all its constructor arguments, or build with "
            "copy=False."
        ) from error


def _first_line(error: Exception) -> str:
    """Keras's errors go on over pages."""
    return str(error).partition("\n")[0]


def copy_state(source: keras.Layer, target: keras.Layer) -> None:
    """Copies weights, seeds and flags of a layer, and of layers inside it."""
    for old, new in zip(
        compat.sublayers(source), compat.sublayers(target), strict=True
    ):
        store: dict[str, Any] = {}
        old.save_own_variables(store)
        if store:
            new.load_own_variables({k: own(v) for k, v in store.items()})
        if new.trainable != old.trainable:
            new.trainable = old.trainable
    for old, new in zip(source.variables, target.variables, strict=True):
        if old.path.endswith("seed_generator_state"):
            new.assign(own(old))


def own(value: Any) -> Any:
    """A value that nobody else holds.

    JAX's training gives arrays away: two variables with one array would lose
    it to whichever trains first.
    """
    if isinstance(value, keras.Variable):
        value = value.value
    return keras.ops.convert_to_numpy(value)


def _copy_lambda(layer: keras.layers.Lambda, name: str) -> keras.layers.Lambda:
    """`from_config` refuses Python functions; the function is at hand."""
    config = layer.get_config()
    return keras.layers.Lambda(
        layer.function,
        output_shape=config.get("output_shape"),
        mask=layer.mask,
        arguments=layer.arguments,
        name=name,
        dtype=layer.dtype_policy,
        trainable=layer.trainable,
    )


def _copy_input(graph: Graph, position: int) -> keras.KerasTensor:
    tensor = graph.inputs[position]
    node, _ = graph.sources[id(tensor)]
    optional = getattr(node.operation, "optional", False)
    return input_like(tensor, node.name, optional)


def _is_whole(graph: Graph, wanted: Iterable[Reference]) -> bool:
    own = {graph.reference(tensor) for tensor in graph.outputs}
    inputs = need(graph, wanted).inputs
    return set(wanted) == own and len(inputs) == len(graph.inputs)


def _output_key(ref: Reference) -> str:
    """`block/conv` for the first output of a call, `block/lstm.1` else."""
    path = "/".join(map(str, ref[:-1]))
    return f"{path}.{ref[-1]}" if ref[-1] else path


def _packed_like(block: keras.Model, flat: list) -> Any:
    return keras.tree.pack_sequence_as(block.input, flat)


def _store(
    tensors: Iterable[keras.KerasTensor], outputs: Any, values: dict
) -> None:
    flat = keras.tree.flatten(outputs)
    values.update(zip(map(id, tensors), flat, strict=True))


def _apply_in_order(
    layers: list[keras.Layer], args: tuple, kwargs: dict
) -> Any:
    # Keras hands masks on by itself, and notes them down as arguments.
    kwargs = {name: x for name, x in kwargs.items() if name != "mask"}
    if not layers:
        return args[0]
    outputs = layers[0](*args, **kwargs)
    for layer in layers[1:]:
        outputs = layer(outputs)
    return outputs
