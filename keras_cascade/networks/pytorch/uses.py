"""Finds which parameters are the weights of one layer.

Tested by `tests/networks/pytorch/test_conversion.py`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from keras_cascade.networks.pytorch.nodes import bind, name_of, nodes_in
from keras_cascade.networks.pytorch.parameters import Parameter
from keras_cascade.networks.pytorch.registry import find_rule
from keras_cascade.networks.pytorch.values import Value

if TYPE_CHECKING:
    from torch.fx import Node

# An operation, its settings, and the names of its parameters: the calls of one
# layer have the same.
Key = tuple[Any, ...]


class Uses:
    """Says how the calls of a module use its parameters."""

    def __init__(self) -> None:
        self._keys: dict[Any, Key] = {}
        # For each parameter the keys of its calls, None for one that is no
        # layer's.
        self._of: dict[str, set[Key | None]] = {}

    def note(self, nodes: "Iterable[Node]", values: Mapping[Any, Any]) -> None:
        """Notes which calls use each parameter, and how.

        Args:
            nodes: The calls.
            values: The module's inputs and parameters, by their nodes.
        """
        for node in nodes:
            weights, others = _sorted(node)
            self._keys[node] = _key(node, weights, others, values)
            # A weight that is computed makes no layer.
            given = all(n in values for n in weights)
            for used in node.all_input_nodes:
                parameter = values.get(used)
                if isinstance(parameter, Parameter):
                    is_weight = used in weights and used not in nodes_in(others)
                    key = self._keys[node] if given and is_weight else None
                    self._of.setdefault(parameter.name, set()).add(key)

    def key_of(self, node: "Node") -> Key:
        """Returns the key of a call."""
        return self._keys.get(node, ())

    def make_a_layer(self, weights: Sequence[Any]) -> bool:
        """Returns whether the weights of a call are one layer's alone.

        Args:
            weights: The parameters, values, or constants that a call has for
                weights.
        """
        parameters = [x for x in weights if isinstance(x, Parameter)]
        computed = any(isinstance(x, Value) for x in weights)
        return (
            bool(weights)
            and not computed
            and all(
                len(self._of[x.name]) == 1 and None not in self._of[x.name]
                for x in parameters
            )
        )


def _sorted(node: "Node") -> tuple[list[Any], dict[str, Any]]:
    """Returns the nodes of a call's weights, and its other arguments."""
    found = find_rule(name_of(node))
    slots = found.weights if found else ()
    bound = bind(node, node.args, node.kwargs)
    weights = [n for slot in slots for n in nodes_in(bound.get(slot))]
    return weights, {k: x for k, x in bound.items() if k not in slots}


def _key(
    node: "Node",
    weights: Sequence[Any],
    others: Mapping[str, Any],
    values: Mapping[Any, Any],
) -> Key:
    settings = {k: _setting(x, values) for k, x in others.items()}
    given = (values.get(n) for n in weights)
    names = (x.name for x in given if isinstance(x, Parameter))
    return name_of(node), str(settings), tuple(names)


def _setting(argument: Any, values: Mapping[Any, Any]) -> Any:
    """Returns an argument without what differs from call to call."""
    if isinstance(argument, list | tuple):
        return [_setting(x, values) for x in argument]
    if not nodes_in(argument):
        return str(argument)
    value = values.get(argument)
    return value.name if isinstance(value, Parameter) else "tensor"
