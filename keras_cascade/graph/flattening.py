"""Flattens a graph to a program: every call of every level, one after another.

A tensor that enters or leaves a nested network keeps the reference of the call
that gives it. Where Keras casts it or adjusts its rank on entering, that is a
step too, and its output has the reference of the input.
"""

from collections.abc import Sequence
from typing import Any

import keras

from keras_cascade import _keras_compat as compat
from keras_cascade.graph.as_input import as_input
from keras_cascade.graph.block import recorded_mode
from keras_cascade.graph.graph import Graph, Node, Reference, read_graph
from keras_cascade.graph.paths import Address
from keras_cascade.graph.program import Port, Program, Source, Step

# The tensors that are known at a level, by their ids, and where they come
# from; None if that is not in the graph.
_Origins = dict[int, Reference | None]


def as_program(model: keras.Model) -> Program:
    """Reads a functional model as a program on the model's own layers."""
    return flatten(read_graph(model, keep_names=True))


def flatten(graph: Graph) -> Program:
    """Returns the calls of a graph and of the networks nested in it."""
    flattening = _Flattening()
    inputs, origins = [], {}
    for tensor in graph.inputs:
        reference = origins[id(tensor)] = graph.reference(tensor)
        flattening.add_tensor(reference, tensor)
        shape = tuple(tensor.shape)
        optional = compat.may_be_none(tensor)
        port = Port(
            compat.input_name(tensor), shape, tensor.dtype, reference, optional
        )
        inputs.append(port)
    found = flattening.add_level(graph, (), origins)
    outputs = [reference for reference in found if reference is not None]
    names = output_names(graph.output_structure, outputs)
    return Program(
        inputs=tuple(inputs),
        outputs=dict(zip(names, outputs, strict=True)),
        shapes=flattening.shapes,
        dtypes=flattening.dtypes,
        steps=tuple(flattening.steps),
        aliases=flattening.aliases,
    )


def output_names(
    structure: object, references: Sequence[Reference]
) -> list[str]:
    """Returns the names of a model's outputs in exported files.

    They are the keys of a dict, `head` if a cascade ends in its head, else the
    operations that give the outputs.
    """
    if isinstance(structure, dict):
        paths = (path for path, _ in keras.tree.flatten_with_path(structure))
        return ["_".join(map(str, path)) for path in paths]
    names = [
        "head" if ref[0] == "head" else str(ref[-2]).partition(":")[0]
        for ref in references
    ]
    return [
        f"{name}_{names[:place].count(name)}" if name in names[:place] else name
        for place, name in enumerate(names)
    ]


class _Flattening:
    """Collects the steps, level by level."""

    def __init__(self):
        self.steps: list[Step] = []
        self.shapes: dict[Reference, tuple[int | None, ...]] = {}
        self.dtypes: dict[Reference, str] = {}
        self.aliases: dict[Reference, Reference] = {}

    def add_tensor(
        self, reference: Reference, tensor: keras.KerasTensor
    ) -> None:
        self.shapes[reference] = tuple(tensor.shape)
        self.dtypes[reference] = tensor.dtype

    def add_level(
        self,
        graph: Graph,
        prefix: Address,
        origins: _Origins,
        mode: bool | None = None,
    ) -> list[Reference | None]:
        """Adds the calls of one level; returns the origins of its outputs.

        `mode` is what calls of the networks around it record as `training`.
        """
        for node in graph.nodes:
            if node.is_input:
                continue
            address = (*prefix, node.key)
            recorded = recorded_mode(node.operation, node.kwargs)
            own = recorded if mode is None else mode
            if node.inner is None:
                outputs = self.add_call(node, address, origins, own)
            else:
                outputs = self.add_nested(
                    node, node.inner, address, origins, own
                )
            origins.update(zip(map(id, node.outputs), outputs, strict=True))
        return [origins.get(id(tensor)) for tensor in graph.outputs]

    def add_call(
        self,
        node: Node,
        address: Address,
        origins: _Origins,
        mode: bool | None,
    ) -> list[Any]:
        """Adds a call of an operation; returns its outputs."""

        def source(x: Any) -> Any:
            is_tensor = isinstance(x, keras.KerasTensor)
            return Source(origins.get(id(x))) if is_tensor else x

        args: Any = keras.tree.map_structure(source, node.args)
        given: Any = keras.tree.map_structure(source, node.kwargs)
        # Programs run in inference mode unless told otherwise; Keras passes a
        # mask that comes from outside the graph on by itself.
        kwargs = {
            name: x
            for name, x in given.items()
            if name != "training" and not (name == "mask" and _is_lost(x))
        }
        # Inference mode is what steps run in without.
        kwargs |= {"training": True} if mode else {}
        outputs = [(*address, index) for index in range(len(node.outputs))]
        step = Step(address, node.operation, args, kwargs, tuple(outputs))
        self.steps.append(step)
        for reference, tensor in zip(outputs, node.outputs, strict=True):
            self.add_tensor(reference, tensor)
        return outputs

    def add_nested(
        self,
        node: Node,
        inner: Graph,
        address: Address,
        origins: _Origins,
        mode: bool | None,
    ) -> list[Reference | None]:
        """Adds the calls of a nested network; returns its outputs' origins."""
        own: _Origins = {}
        for given, tensor in zip(
            node.inner_arguments, inner.inputs, strict=True
        ):
            reference = (*address, *inner.reference(tensor))
            origin = self.convert(origins.get(id(given)), reference, tensor)
            own[id(tensor)] = origin
            if origin is not None and origin != reference:
                self.aliases[reference] = origin
        outputs = self.add_level(inner, address, own, mode)
        for index, origin in enumerate(outputs):
            if origin is not None:
                self.aliases[*address, index] = origin
        return outputs

    def convert(
        self,
        origin: Reference | None,
        reference: Reference,
        tensor: keras.KerasTensor,
    ) -> Reference | None:
        """Returns `origin` as an input takes it, after a step if it must be."""
        if origin is None:
            return None
        operation = as_input(self.shapes[origin], self.dtypes[origin], tensor)
        if operation is None:
            return origin
        address, args = tuple(map(str, reference[:-1])), (Source(origin),)
        self.steps.append(Step(address, operation, args, {}, (reference,)))
        self.add_tensor(reference, tensor)
        return reference


def _is_lost(mask: object) -> bool:
    """Whether a mask, or one of several, is not in the graph."""
    return any(
        x is None or (isinstance(x, Source) and x.reference is None)
        for x in keras.tree.flatten(mask)
    )
