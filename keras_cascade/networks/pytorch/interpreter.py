"""Walks a module's graph and builds the same of Keras layers.

Tested by `tests/networks/pytorch/test_conversion.py`.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import keras

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
from keras_cascade.networks.pytorch.operation import Operation
from keras_cascade.networks.pytorch.parameters import Parameter, Uses
from keras_cascade.networks.pytorch.preprocessing import Steps
from keras_cascade.networks.pytorch.registry import Rule, find_rule
from keras_cascade.networks.pytorch.reshaping import with_part
from keras_cascade.networks.pytorch.values import (
    Value,
    channels_last,
    in_plain_order,
    plain,
)

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
        self._builder = Builder()
        self._nodes = list(program.graph.nodes)
        self._modules = Modules(self._nodes)
        self._values: dict[Any, Any] = {}
        self._uses = Uses()
        self._keys: dict[Any, Any] = {}

    @property
    def builder(self) -> Builder:
        """Returns what is built."""
        return self._builder

    def run(self) -> list[Any]:
        """Builds the network and returns the values of its outputs."""
        self._read_placeholders()
        self._refuse_unknown()
        self._note_uses()
        for node in self._nodes:
            if node.op == "call_function":
                self._values[node] = self._result(node)
                self._finish_modules(node)
        (output,) = (node for node in self._nodes if node.op == "output")
        return [self._values[x] if _is_node(x) else x for x in output.args[0]]

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
        dtype = _keras_dtype(example.dtype)
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

    def _refuse_unknown(self) -> None:
        """Raises an error that names each operation without a rule."""
        missing: dict[str, set[str]] = {}
        for node in self._live_nodes():
            name = _name_of(node)
            if find_rule(name) is None:
                missing.setdefault(name, set()).add(
                    self._modules.path_of(node) or "the module itself"
                )
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
            is_call = node.op == "call_function" and not _is_number(node)
            if not is_call or takes_shapes_only(node):
                continue
            if live.intersection(node.all_input_nodes):
                live.add(node)
                yield node

    def _note_uses(self) -> None:
        """Notes of each parameter which calls use it, and how."""
        for node in self._live_nodes():
            found = find_rule(_name_of(node))
            bound = self._bind(node, node.args, node.kwargs)
            slots = found.weights if found else ()
            weights = {k: _flat(bound.get(k)) for k in slots}
            others = {k: x for k, x in bound.items() if k not in slots}
            self._keys[node] = (
                _name_of(node),
                str({k: self._setting(x) for k, x in others.items()}),
                tuple(
                    self._values[n].name
                    for ns in weights.values()
                    for n in ns
                    if isinstance(self._values.get(n), Parameter)
                ),
            )
            in_slots = {n for nodes in weights.values() for n in nodes}
            whole = all(
                not isinstance(self._values.get(n), type(None))
                for n in in_slots
            )
            for parameter in node.all_input_nodes:
                value = self._values.get(parameter)
                if isinstance(value, Parameter):
                    direct = parameter in in_slots and whole
                    elsewhere = any(
                        parameter in _flat(x) for x in others.values()
                    )
                    kind = (
                        self._keys[node] if direct and not elsewhere else None
                    )
                    self._uses.add(value, kind)

    def _setting(self, argument: Any) -> Any:
        """Returns an argument without what differs from call to call."""
        if _is_node(argument):
            value = self._values.get(argument)
            return value.name if isinstance(value, Parameter) else "tensor"
        if isinstance(argument, list | tuple):
            return [self._setting(x) for x in argument]
        return str(argument)

    # One node.

    def _result(self, node: "Node") -> Any:
        if _is_number(node):
            return sizes_in([node.meta.get("val")])[0]
        if takes_shapes_only(node):
            return fold_filled(node)
        from torch.fx.node import map_aggregate

        args, kwargs = map_aggregate(
            (node.args, node.kwargs),
            lambda x: self._values[x] if _is_node(x) else x,
        )
        if not any(
            isinstance(x, Value | Parameter) for x in _leaves((args, kwargs))
        ):
            return fold(node, args, kwargs)
        args, kwargs = map_aggregate(
            (node.args, node.kwargs),
            lambda x: self._given(x) if _is_node(x) else x,
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
        name = _name_of(node)
        found = find_rule(name)
        if found is None:
            raise ValueError(f"There is no rule for {name}.")
        operation = self._operation(node, found)
        try:
            arguments = self._bind(node, args, kwargs)
            result = _call(found, operation, arguments)
        except (IndexError, KeyError, TypeError, ValueError) as error:
            error.add_note(
                f"In the rule of {name} at {operation.path!r}, for shapes "
                f"{[getattr(x, 'shape', x) for x in _leaves((args, kwargs))]}."
            )
            raise
        for x in _leaves(result):
            if isinstance(x, Value):
                self._builder.name_new(x.tensor, operation.path)
        self._write_in_place(node, result)
        return result

    def _operation(self, node: "Node", found: Rule) -> Operation:
        example = node.meta.get("val")
        shape = (
            tuple(sizes_in(getattr(x, "shape", ())) for x in example)
            if isinstance(example, list | tuple)
            else sizes_in(getattr(example, "shape", ()))
        )
        bound = self._bind(node, node.args, node.kwargs)
        weights = [n for k in found.weights for n in _flat(bound.get(k))]
        values = [self._values[n] for n in weights]
        return Operation(
            self._builder,
            self._modules.name_of(node),
            _name_of(node),
            shape,
            _keras_dtype(getattr(example, "dtype", None)),
            self._keys.get(node, ()),
            bool(values)
            and not any(isinstance(x, Value) for x in values)
            and all(
                self._uses.is_layers(x)
                for x in values
                if isinstance(x, Parameter)
            ),
        )

    def _bind(
        self, node: "Node", args: Sequence[Any], kwargs: Any
    ) -> dict[str, Any]:
        """Returns arguments by the names of PyTorch's schema."""
        schema = getattr(node.target, "_schema", None)
        if schema is None:
            return {str(i): x for i, x in enumerate(args)} | dict(kwargs)
        names = [argument.name for argument in schema.arguments]
        return dict(zip(names, args, strict=False)) | dict(kwargs)

    def _write_in_place(self, node: "Node", result: Any) -> None:
        """Has later readers of a tensor that was written see the new values."""
        if not _name_of(node).split(".")[1].endswith("_"):
            return
        written = node.args[0]
        if not isinstance(self._values[written], Value):
            return
        self._values[written] = result
        bases = self._sliced_bases(written)
        if bases:
            whole = self._values[bases[0]]
            dim, start = written.args[1], written.args[2] or 0
            part = self._builder.for_each_sample(result)
            whole = with_part(whole, part, dim, start)
            self._builder.name_new(whole.tensor, self._modules.name_of(node))
            self._values.update(dict.fromkeys(bases, whole))
        views = _views_of(written).difference(bases)
        if _reads_later(self._nodes, node, views):
            raise ValueError(
                f"{_name_of(node)} at '{self._modules.path_of(node)}' "
                "writes into a part of a tensor that is read later. "
                "Have the module compute a new tensor instead."
            )

    def _sliced_bases(self, written: "Node") -> list[Any]:
        """Returns the tensor of which one is a range along an axis.

        With it come the views of it that are the same, as `x[:]`. There is
        none if what is written is no such range.
        """
        if str(written.target) != "aten.slice.Tensor" or written.args[4:]:
            return []
        found = [written.all_input_nodes[0]]
        while _is_view(found[-1]):
            parent = found[-1].all_input_nodes[0]
            if (
                self._values[parent].tensor
                is not self._values[found[-1]].tensor
            ):
                return []
            found.append(parent)
        return found

    def _finish_modules(self, node: "Node") -> None:
        """Gives the output of each module that ends here the module's name."""
        for path, output in self._modules.ended_by(node):
            value = self._values.get(output)
            if isinstance(value, Value):
                name = self._builder.names.new(path)
                layer = keras.layers.Identity(name=name)
                value = value.with_tensor(layer(value.tensor))
                self._builder.name_new(value.tensor, path)
                self._values[output] = value


def _call(found: Rule, operation: Operation, arguments: dict[str, Any]) -> Any:
    if found.plain:
        return _call_users(found, operation, arguments)
    arguments = {k.replace("self", "input"): x for k, x in arguments.items()}
    return found.function(operation, **arguments)


def _call_users(
    found: Rule, operation: Operation, arguments: dict[str, Any]
) -> Any:
    def given(x: Any) -> Any:
        if isinstance(x, Value | Parameter):
            return in_plain_order(operation.value(x)).tensor
        return operation.array(x) if hasattr(x, "detach") else x

    result = found.function(
        *(keras.tree.map_structure(given, x) for x in arguments.values())
    )
    several = isinstance(result, list | tuple)
    shapes = operation.shape if several else [operation.shape]
    values = [
        Value(x, shape, plain(len(shape)))
        for x, shape in zip(
            result if several else [result], shapes, strict=True
        )
    ]
    return tuple(values) if several else values[0]


def _is_number(node: "Node") -> bool:
    """Returns whether a node gives a size, or nothing."""
    value = node.meta.get("val")
    if isinstance(value, list | tuple):
        return False
    return not hasattr(value, "shape")


def _is_node(x: Any) -> bool:
    from torch.fx import Node

    return isinstance(x, Node)


def _name_of(node: "Node") -> str:
    target = node.target
    if hasattr(target, "_schema"):
        return str(target)
    return f"python.{getattr(target, '__name__', target)}"


def _flat(argument: Any) -> list[Any]:
    return [x for x in _leaves(argument) if _is_node(x)]


def _leaves(arguments: Any) -> Iterator[Any]:
    if isinstance(arguments, dict):
        arguments = list(arguments.values())
    if isinstance(arguments, list | tuple):
        for x in arguments:
            yield from _leaves(x)
    else:
        yield arguments


def _keras_dtype(dtype: Any) -> str:
    name = str(dtype).removeprefix("torch.")
    return {
        "int64": "int32",
        "float64": "float32",
        "None": "float32",
    }.get(name, name)


_VIEWS = (
    "view",
    "select",
    "slice",
    "transpose",
    "permute",
    "unsqueeze",
    "squeeze",
    "expand",
    "unbind",
    "chunk",
    "split",
    "narrow",
    "flatten",
    "getitem",
)


def _is_view(node: "Node") -> bool:
    return node.op == "call_function" and any(
        _name_of(node).split(".")[1].startswith(kind) for kind in _VIEWS
    )


def _views_of(node: "Node") -> set[Any]:
    """Returns the tensors that share memory with one, itself left out."""
    base = node
    while _is_view(base):
        base = base.all_input_nodes[0]
    found, new = {base}, [base]
    while new:
        for user in new.pop().users:
            if _is_view(user) and user not in found:
                found.add(user)
                new.append(user)
    return found - {node}


def _reads_later(nodes: list[Any], node: "Node", views: set[Any]) -> bool:
    """Returns whether a view made before a node is read after it."""
    place = nodes.index(node)
    stale = views.intersection(nodes[:place])
    return any(
        stale.intersection(x.all_input_nodes) for x in nodes[place + 1 :]
    )
