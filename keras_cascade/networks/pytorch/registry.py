"""The table of rules: an ATen operation to what does the same in Keras.

Tested by `tests/networks/pytorch/test_conversion.py`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

_Function = TypeVar("_Function", bound=Callable[..., Any])


@dataclass(frozen=True)
class Rule:
    """A function that does in Keras what an operation does in PyTorch.

    Attributes:
        function: Called with the operation and its arguments by the names
            that PyTorch's schema has for them.
        weights: The arguments that are weights of one layer in Keras, where
            they are parameters that nothing else uses otherwise.
        plain: Whether it is a user's, which takes and returns tensors.
    """

    function: Callable[..., Any]
    weights: tuple[str, ...] = ()
    plain: bool = False


_RULES: dict[str, Rule] = {}


def rule(
    *names: str, weights: tuple[str, ...] = ()
) -> Callable[[_Function], _Function]:
    """Returns a decorator that makes a function the rule of operations.

    Args:
        *names: Names of operations without `aten.`: `relu`, or `add.Tensor`
            for one overload. The form that writes in place, `relu_`, has the
            same rule.
        weights: As in `Rule`.
    """

    def add(function: _Function) -> _Function:
        for name in names:
            full = name if name.startswith("python.") else f"aten.{name}"
            _RULES[full] = Rule(function, weights)
        return function

    return add


def find_rule(name: str) -> Rule | None:
    """Returns the rule of an operation such as `aten.add_.Tensor`, or None."""
    namespace, base, *overload = name.split(".")
    written = base.removesuffix("_") if not base.startswith("__") else base
    for candidate in (base, written):
        for end in ([*overload], []):
            found = _RULES.get(".".join([namespace, candidate, *end]))
            if found is not None:
                return found
    return None


def register_torch_op(name: str) -> Callable[[_Function], _Function]:
    """Returns a decorator that adds a rule for an operation of PyTorch's.

    `from_torch` raises an error that names the operations without a rule.
    The function gets the operation's arguments as PyTorch's schema has them,
    tensors as Keras tensors with the axes in PyTorch's order, and constants as
    NumPy arrays. It returns a Keras tensor, or a tuple of several, in that
    order of axes too.

    Args:
        name: `"aten.softshrink"` for all its overloads, or one of them:
            `"aten.softshrink.default"`. An operation that has a rule gets the
            new one. Operations of other libraries: `"mylib.myop"`.

    Returns:
        The decorator, which returns the function as it is.

    Raises:
        ValueError: If the name has no namespace.

    Example:
        >>> @kc.register_torch_op("aten.softshrink")
        ... def softshrink(x, lambd=0.5):
        ...     return keras.ops.soft_shrink(x, lambd)
    """
    if not isinstance(name, str) or "." not in name.strip("."):
        raise ValueError(
            f"name must be that of an operation with its namespace, "
            f"'aten.softshrink'; received {name!r}."
        )

    def add(function: _Function) -> _Function:
        _RULES[name] = Rule(function, plain=True)
        return function

    return add
