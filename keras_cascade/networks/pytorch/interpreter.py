"""Walks a module's graph and builds the same of Keras layers.

Tested by `tests/networks/pytorch/test_conversion.py`.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import keras

from keras_cascade import _keras_compat as compat
from keras_cascade._reporting.messages import listed
from keras_cascade.networks.pytorch import rules as _rules  # noqa: F401
from keras_cascade.networks.pytorch.builder import Builder
from keras_cascade.networks.pytorch.folding import (
    fold,
    fold_filled,
    sizes_in,
    takes_shapes_only,
)
from keras_cascade.networks.pytorch.modules import Modules
from keras_cascade.networks.pytorch.naming import keras_name
from keras_cascade.networks.pytorch.nodes import (
    bind,
    is_node,
    is_number,
    keras_dtype,
    leaves,
    name_of,
    nodes_in,
)
from keras_cascade.networks.pytorch.operation import Operation
from keras_cascade.networks.pytorch.parameters import Parameter
from keras_cascade.networks.pytorch.preprocessing import Steps
from keras_cascade.networks.pytorch.registry import Rule, find_rule
from keras_cascade.networks.pytorch.uses import Uses
from keras_cascade.networks.pytorch.values import (
    Value,
    channels_last,
    in_plain_order,
    plain,
)
from keras_cascade.networks.pytorch.writing import changes_others, is_write

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Node


class Interpreter:
    """Builds a Keras network of an exported program.

    Args:
        program: What torch.export gives.
        channels_first: Whether images enter with their channels first.
        preprocess: What is done with them.
    """

    def __init__(
        self,
        program: "ExportedProgram",
        channels_first: bool,
        preprocess: Steps | None = None,
    ) -> None:
        self._preprocess = preprocess
        self._program = program
        self._channels_first = channels_first
        self._nodes = list(program.graph.nodes)
        self._modules = Modules(self._nodes)
        self._builder = Builder(ends=self._modules.ends())
        self._values: dict[Any, Any] = {}
        self._uses = Uses()
        self._read_placeholders()

    @property
    def builder(self) -> Builder:
        """Returns what is built."""
        return self._builder

    def run(self) -> list[Any]:
        """Builds the network and returns the values of its outputs."""
        self._refuse_unknown()
        self._uses.note(self._live_nodes(), self._values)
        for node in self._nodes:
            if node.op == "call_function":
                self._values[node] = self._result(node)
                self._finish_modules(node)
        (output,) = (node for node in self._nodes if node.op == "output")
        return [self._values[x] if is_node(x) else x for x in output.args[0]]

    # Placeholders.

    def _read_placeholders(self) -> None:
        from torch.export.graph_signature import InputKind

        program = self._program
        specs = program.graph_signature.input_specs
        nodes = [node for node in self._nodes if node.op == "placeholder"]
        for node, spec in zip(nodes, specs, strict=True):
            if spec.kind is InputKind.PARAMETER:
                tensor = program.state_dict[spec.target]
                self._values[node] = Parameter(
                    spec.target,
                    tensor.detach().cpu().float().numpy(),
                    tensor.requires_grad,
                )
            elif spec.kind is InputKind.USER_INPUT:
                self._values[node] = self._input(node)
            else:
                kept = program.state_dict.get(spec.target)
                self._values[node] = (
                    (program.constants[spec.target] if kept is None else kept)
                    .detach()
                    .clone()
                )

    def _input(self, node: "Node") -> Any:
        example = node.meta.get("val")
        if not hasattr(example, "shape"):
            return example
        shape = sizes_in(example.shape)
        dtype = keras_dtype(example.dtype)
        is_image = len(shape) >= 4 and dtype.startswith("float")
        last = is_image and not self._channels_first
        order = channels_last(len(shape)) if last else plain(len(shape))
        sizes = [shape[axis] for axis in order]
        name = self._builder.names.new(node.name)
        open_ = [s if isinstance(s, int) else None for s in sizes[1:]]
        steps = self._preprocess if is_image else None
        entry: Any = keras.Input(
            steps[1](open_) if steps else open_, name=name, dtype=dtype
        )
        self._builder.entries[name] = entry
        tensor = steps[0](entry) if steps else entry
        value = Value(tensor, shape, order)
        self._builder.inputs[name] = value
        return value

    # Before anything is built.

    def unknown(self) -> dict[Any, set[str]]:
        """Returns the operations that nothing here does, with their modules.

        They have no rule, or write into a tensor that others share.
        """
        missing: dict[Any, set[str]] = {}
        for node in self._live_nodes():
            no_rule = find_rule(name_of(node)) is None
            if no_rule or changes_others(self._nodes, node):
                missing.setdefault(node.target, set()).add(
                    self._modules.path_of(node) or "the module itself"
                )
        return missing

    def _refuse_unknown(self) -> None:
        """Raises an error that names each operation without a rule."""
        missing = {str(x): paths for x, paths in self.unknown().items()}
        if missing:
            found = "; ".join(
                f"{name} in {listed(sorted(paths)[:4])}"
                f"{' and others' if len(paths) > 4 else ''}"
                for name, paths in sorted(missing.items())
            )
            raise ValueError(
                f"There is no rule for {len(missing)} of the module's "
                f"operations: {found}. Add one for each with "
                "kc.register_torch_op, or end the module before them."
            )

    def _live_nodes(self) -> Iterator["Node"]:
        """Yields the nodes that depend on an input or a parameter."""
        live = {
            node
            for node, value in self._values.items()
            if isinstance(value, Value | Parameter)
        }
        for node in self._nodes:
            is_call = node.op == "call_function" and not is_number(node)
            if not is_call or takes_shapes_only(node):
                continue
            if live.intersection(node.all_input_nodes):
                live.add(node)
                yield node

    # One node.

    def _result(self, node: "Node") -> Any:
        if is_number(node):
            return sizes_in([node.meta.get("val")])[0]
        if takes_shapes_only(node):
            return fold_filled(node, self._builder.batch_sizes())
        from torch.fx.node import map_aggregate

        args, kwargs = map_aggregate(
            (node.args, node.kwargs),
            lambda x: self._values[x] if is_node(x) else x,
        )
        if not any(
            isinstance(x, Value | Parameter) for x in leaves((args, kwargs))
        ):
            return fold(node, args, kwargs, self._builder.batch_sizes())
        args, kwargs = map_aggregate(
            (node.args, node.kwargs),
            lambda x: self._given(x) if is_node(x) else x,
        )
        return self._apply(node, args, kwargs)

    def _given(self, node: "Node") -> Any:
        """Returns what a node gave to one that depends on an input.

        A constant with several rows for each sample, as masks of windows
        have, was computed for one sample: it is repeated for each.
        """
        given = self._values[node]
        example = node.meta.get("val")
        if not hasattr(given, "detach") or not hasattr(example, "shape"):
            return given
        shape = sizes_in(example.shape)
        rows = [
            dim
            for dim, (known, size) in enumerate(
                zip(given.shape, shape, strict=True)
            )
            if not isinstance(size, int) and known > 1
        ]
        if not rows:
            return given
        path = self._modules.name_of(node)
        return self._builder.repeated(given, shape, rows[0], path)

    def _apply(self, node: "Node", args: Any, kwargs: Any) -> Any:
        name = name_of(node)
        found = find_rule(name)
        if found is None:
            raise ValueError(f"There is no rule for {name}.")
        operation = self._operation(node, found)
        try:
            result = _call(found, operation, node, args, kwargs)
        except (IndexError, KeyError, TypeError, ValueError) as error:
            error.add_note(
                f"In the rule of {name} at {operation.path!r}, for shapes "
                f"{[getattr(x, 'shape', x) for x in leaves((args, kwargs))]}."
            )
            raise
        for x in leaves(result):
            if isinstance(x, Value):
                self._builder.name_new(x.tensor, operation.path)
        # Later readers of a tensor that was written see the new values.
        if is_write(node) and isinstance(self._values[node.args[0]], Value):
            self._values[node.args[0]] = result
        return result

    def _operation(self, node: "Node", found: Rule) -> Operation:
        example = node.meta.get("val")
        shape = (
            tuple(sizes_in(getattr(x, "shape", ())) for x in example)
            if isinstance(example, list | tuple)
            else sizes_in(getattr(example, "shape", ()))
        )
        bound = bind(node, node.args, node.kwargs)
        weights = [n for k in found.weights for n in nodes_in(bound.get(k))]
        values = [self._values[n] for n in weights]
        return Operation(
            self._builder,
            self._modules.name_of(node),
            name_of(node),
            shape,
            keras_dtype(getattr(example, "dtype", None)),
            self._uses.key_of(node),
            self._uses.make_a_layer(values),
        )

    def _finish_modules(self, node: "Node") -> None:
        """Gives the output of each module that ends here the module's name."""
        for path, output in self._modules.ended_by(node):
            value = self._values.get(output)
            if not isinstance(value, Value):
                continue
            # A tap has a row for each sample, also where all are the same.
            value = self._builder.for_each_sample(value)
            operation, _ = compat.producer(value.tensor)
            if operation.name != keras_name(path):
                name = self._builder.names.new(path)
                layer = keras.layers.Identity(name=name)
                value = value.with_tensor(layer(value.tensor))
                self._builder.name_new(value.tensor, path)
                self._values[output] = value


def _call(
    found: Rule, operation: Operation, node: "Node", args: Any, kwargs: Any
) -> Any:
    if found.plain:
        return _call_users(found, operation, args, kwargs)
    given = bind(node, args, kwargs)
    given = {k.replace("self", "input"): x for k, x in given.items()}
    return found.function(operation, **given)


def _call_users(
    found: Rule, operation: Operation, args: Any, kwargs: Any
) -> Any:
    from torch.fx.node import map_aggregate

    def given(x: Any) -> Any:
        if isinstance(x, Value | Parameter):
            return in_plain_order(operation.value(x)).tensor
        return operation.array(x) if hasattr(x, "detach") else x

    args, kwargs = map_aggregate((args, kwargs), given)
    result = found.function(*args, **kwargs)
    several = isinstance(result, list | tuple)
    shapes = operation.shape if several else [operation.shape]
    values = [
        Value(x, shape, plain(len(shape)))
        for x, shape in zip(
            result if several else [result], shapes, strict=True
        )
    ]
    return tuple(values) if several else values[0]
