"""Names a module's outputs as the module does.

Tested by `tests/networks/pytorch/test_conversion.py`.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from keras_cascade.networks.pytorch.values import Value

if TYPE_CHECKING:
    from torch.export import ExportedProgram


def named_results(
    program: "ExportedProgram", results: list[Any]
) -> tuple[dict[str, Value], bool]:
    """Returns a module's outputs by name, and whether it names them itself.

    Args:
        program: The exported module.
        results: Its outputs in a row. Those that are no tensors, or do not
            depend on the input, are left out.

    Raises:
        ValueError: If nothing is left.
    """
    from torch.utils import _pytree

    spec = program.call_spec.out_spec
    given = _pytree.tree_unflatten(list(range(len(results))), spec)
    named = {
        name: results[place]
        for name, place in named_leaves(given).items()
        if place is not None and isinstance(results[place], Value)
    }
    if not named:
        raise ValueError(
            "No output of the module is a tensor that depends on its input."
        )
    return named, isinstance(given, Mapping)


def named_leaves(given: Any) -> dict[str, Any]:
    """Returns what a module returned, by names: `hidden_states_0`.

    The only output is `output`, those of a tuple are `0`, `1` and so on.
    """
    return {name or "output": x for name, x in _leaves(given, "")}


def _leaves(given: Any, name: str) -> Iterator[tuple[str, Any]]:
    if isinstance(given, Mapping):
        entries = [(str(k), x) for k, x in given.items()]
    elif isinstance(given, list | tuple):
        entries = [(str(i), x) for i, x in enumerate(given)]
    else:
        yield name, given
        return
    for key, x in entries:
        yield from _leaves(x, f"{name}_{key}" if name else key)
