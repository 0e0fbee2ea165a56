"""Finds what else changes when a module writes into a tensor.

Views of a tensor share its memory: PyTorch's `x[:, 1:3].mul_(2)` changes `x`.

Tested by `tests/networks/pytorch/rules/test_rules.py`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from keras_cascade.networks.pytorch.nodes import name_of

if TYPE_CHECKING:
    from torch.fx import Node

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


def is_view(node: "Node") -> bool:
    """Returns whether a node gives a tensor, or part of it, as it is."""
    return node.op == "call_function" and any(
        name_of(node).split(".")[1].startswith(kind) for kind in _VIEWS
    )


def views_of(node: "Node") -> set[Any]:
    """Returns the tensors that share memory with one, itself left out."""
    base = node
    while is_view(base):
        base = base.all_input_nodes[0]
    found, new = {base}, [base]
    while new:
        for user in new.pop().users:
            if is_view(user) and user not in found:
                found.add(user)
                new.append(user)
    return found - {node}


def reads_later(nodes: Sequence[Any], node: "Node", views: set[Any]) -> bool:
    """Returns whether a view made before a node is read after it."""
    place = nodes.index(node)
    stale = views.intersection(nodes[:place])
    return any(
        stale.intersection(x.all_input_nodes) for x in nodes[place + 1 :]
    )


def sliced_bases(written: "Node", values: Mapping[Any, Any]) -> list[Any]:
    """Returns the tensor of which one is a range along an axis.

    With it come the views of it that are the same, as `x[:]`. There is none
    if what is written is no such range.

    Args:
        written: The node that is written into.
        values: What each node gave.
    """
    if name_of(written) != "aten.slice.Tensor" or written.args[4:]:
        return []
    found = [written.all_input_nodes[0]]
    while is_view(found[-1]):
        parent = found[-1].all_input_nodes[0]
        if values[parent].tensor is not values[found[-1]].tensor:
            return []
        found.append(parent)
    return found
