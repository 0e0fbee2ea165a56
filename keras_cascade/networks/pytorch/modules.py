"""The modules of a graph: where each begins and ends.

Tested by `tests/networks/pytorch/test_conversion.py`.
"""

from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch.fx import Node

# The key of a call of a module, which tells two calls of one, and its path.
_Call = tuple[str, str]


class Modules:
    """Says of each node in which modules it stands.

    Args:
        nodes: The nodes of a graph, in order.
    """

    def __init__(self, nodes: "list[Node]") -> None:
        calls = [node for node in nodes if node.op == "call_function"]
        self._stacks = {node: _stack(node) for node in calls}
        self._ends = self._find_ends(calls)
        self._sizes = Counter(
            stack[-1]
            for node, stack in self._stacks.items()
            if stack and _is_tensor(node)
        )
        self._inner = {
            call for stack in self._stacks.values() for call in stack[:-1]
        }

    def path_of(self, node: "Node") -> str:
        """Returns the path of the innermost module of a node."""
        stack = self._stacks[node]
        return stack[-1][1] if stack else ""

    def name_of(self, node: "Node") -> str:
        """Returns the path of an operation, `layer1.0.add`.

        What is all that a module does has the module's own.
        """
        stack = self._stacks[node]
        path = self.path_of(node)
        if stack and self._is_whole(stack[-1]):
            return path
        kind = _kind(node)
        return f"{path}.{kind}" if path else kind

    def ended_by(self, node: "Node") -> "list[tuple[str, Node]]":
        """Returns the paths and outputs of modules of which a node is the last.

        The innermost comes first. Those that are one operation, which has
        their name, are left out.
        """
        return self._ends.get(node, [])

    def ends(self) -> dict[str, str]:
        """Returns the path of each module's last operation, by the module's."""
        return {
            path: self.name_of(output)
            for ended in self._ends.values()
            for path, output in ended
        }

    def _is_whole(self, call: _Call) -> bool:
        return self._sizes[call] == 1 and call not in self._inner

    def _find_ends(
        self, calls: "list[Node]"
    ) -> "dict[Node, list[tuple[str, Node]]]":
        inside: dict[_Call, list[Node]] = {}
        for node in calls:
            for call in self._stacks[node]:
                inside.setdefault(call, []).append(node)
        found: dict[Node, list[tuple[str, Node]]] = {}
        by_depth = sorted(inside, key=lambda call: -call[1].count("."))
        for call in by_depth:
            nodes = inside[call]
            tensors = [node for node in nodes if _is_tensor(node)]
            if len(tensors) > 1:
                output = _output(tensors, set(nodes))
                found.setdefault(nodes[-1], []).append((call[1], output))
        return found


def _output(tensors: "list[Node]", inside: "set[Node]") -> "Node":
    """Returns the last tensor of a module that something outside it reads."""
    for node in reversed(tensors):
        if not inside.issuperset(node.users):
            return node
    return tensors[-1]


def _stack(node: "Node") -> list[_Call]:
    """Returns the calls of modules around a node, but that of the whole."""
    stack = node.meta.get("nn_module_stack") or {}
    return [
        (key, path.split("@")[0])
        for key, (path, _) in stack.items()
        if path and not path.startswith("_empty")
    ]


def _is_tensor(node: "Node") -> bool:
    return hasattr(node.meta.get("val"), "shape")


def _kind(node: "Node") -> str:
    target = str(getattr(node.target, "__name__", node.target))
    return target.removeprefix("aten.").split(".")[0].strip("_")
