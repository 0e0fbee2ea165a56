"""Rewrites a module's graph in simpler operations, by PyTorch's own table.

The same pass turns writes into tensors into functions that return new ones.

Tested by `tests/networks/pytorch/test_decomposition.py`.
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch.export import ExportedProgram
    from torch.fx import Graph

# PyTorch drops these, or takes them apart, as it does so in evaluation mode:
# their layers would be lost. Others stand in for them meanwhile.
_KEPT = ("batch_norm", "dropout", "feature_dropout", "alpha_dropout")


def decompose(
    program: "ExportedProgram", operations: Collection[Any]
) -> "ExportedProgram":
    """Returns a program in which some operations are made of simpler ones.

    Args:
        program: What torch.export gives; it stays as it is.
        operations: Those operations, such as `torch.ops.aten.frac.default`.
            Those that PyTorch has nothing simpler for stay.
    """
    import torch

    known = torch.export.default_decompositions()
    table = {x: known[x] for x in operations if x in known}
    with _others_standing_in(program):
        simpler = program.run_decompositions(table)
    _, back = _stand_ins()
    _replace(simpler.graph, back)
    simpler.graph_module.recompile()
    return simpler


@contextmanager
def _others_standing_in(program: "ExportedProgram") -> "Iterator[None]":
    there, _ = _stand_ins()
    replaced = _replace(program.graph, there)
    program.graph_module.recompile()
    try:
        yield
    finally:
        for node, target in replaced.items():
            node.target = target
        program.graph_module.recompile()


def _replace(graph: "Graph", others: dict[Any, Any]) -> dict[Any, Any]:
    """Replaces operations by others; returns what each node had."""
    found = {x: x.target for x in graph.nodes if x.target in others}
    for node, target in found.items():
        node.target = others[target]
    return found


@cache
def _stand_ins() -> tuple[dict[Any, Any], dict[Any, Any]]:
    """Returns an operation of the same arguments for each kept, and back."""
    import torch

    library = torch.library.Library("keras_cascade", "FRAGMENT")
    there, back = {"library": library}, {}
    for name in _KEPT:
        aten = getattr(torch.ops.aten, name)
        library.define(str(aten.default._schema).removeprefix("aten::"))
        library.impl(name, _same, "CompositeExplicitAutograd")
        other = getattr(torch.ops.keras_cascade, name).default
        there[aten.default], back[other] = other, aten.default
        if hasattr(torch.ops.aten, f"{name}_"):
            there[getattr(torch.ops.aten, f"{name}_").default] = other
    return there, back


def _same(input: Any, *_: Any) -> Any:
    return input.clone()
