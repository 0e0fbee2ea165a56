"""Finds the writes that change more tensors than the one written into.

Views of a tensor share its memory: PyTorch's `x[:, 1:3].mul_(2)` changes `x`.

Tested by `tests/networks/pytorch/rules/test_rules.py`.
"""

from collections.abc import Sequence
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


def is_write(node: "Node") -> bool:
    """Returns whether a node writes into its first argument."""
    return name_of(node).split(".")[1].endswith("_") and bool(node.args)


def changes_others(nodes: Sequence[Any], node: "Node") -> bool:
    """Returns whether a node writes into memory that is read later elsewhere.

    Args:
        nodes: All nodes, in order.
        node: The node.
    """
    if not is_write(node):
        return False
    place = nodes.index(node)
    stale = _views_of(node.args[0]).intersection(nodes[:place])
    return any(
        stale.intersection(x.all_input_nodes) for x in nodes[place + 1 :]
    )


def _is_view(node: "Node") -> bool:
    return node.op == "call_function" and any(
        name_of(node).split(".")[1].startswith(kind) for kind in _VIEWS
    )


def _views_of(node: Any) -> set[Any]:
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
