"""Reads the nodes of a module's graph.

Tested by `tests/networks/pytorch/test_conversion.py`.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.fx import Node


def bind(node: "Node", args: Sequence[Any], kwargs: Any) -> dict[str, Any]:
    """Returns arguments by the names of PyTorch's schema."""
    schema = getattr(node.target, "_schema", None)
    if schema is None:
        return {str(i): x for i, x in enumerate(args)} | dict(kwargs)
    names = [argument.name for argument in schema.arguments]
    return dict(zip(names, args, strict=False)) | dict(kwargs)


def is_number(node: "Node") -> bool:
    """Returns whether a node gives a size, or nothing."""
    value = node.meta.get("val")
    if isinstance(value, list | tuple):
        return False
    return not hasattr(value, "shape")


def is_node(x: Any) -> bool:
    """Returns whether an argument is the result of another node."""
    from torch.fx import Node

    return isinstance(x, Node)


def name_of(node: "Node") -> str:
    """Returns the name of a node's operation: `aten.add.Tensor`."""
    target = node.target
    if hasattr(target, "_schema"):
        return str(target)
    return f"python.{getattr(target, '__name__', target)}"


def nodes_in(argument: Any) -> list[Any]:
    """Returns the nodes in an argument, which may be a list."""
    return [x for x in leaves(argument) if is_node(x)]


def leaves(arguments: Any) -> Iterator[Any]:
    """Yields all that is in arguments, however they are nested."""
    if isinstance(arguments, dict):
        arguments = list(arguments.values())
    if isinstance(arguments, list | tuple):
        for x in arguments:
            yield from leaves(x)
    else:
        yield arguments


def keras_dtype(dtype: Any) -> str:
    """Returns the data type that Keras has for one of PyTorch's."""
    name = str(dtype).removeprefix("torch.")
    return {
        "int64": "int32",
        "float64": "float32",
        "None": "float32",
    }.get(name, name)
