"""Writes a torch program (`.pt2`), on the torch backend."""

import inspect
from pathlib import Path
from typing import Any

from keras_cascade.graph.program import Port, Program


def write(program: Program, path: Path) -> None:
    """Writes what `torch.export.load` reads, with an open batch.

    Args:
        program: What is written, on torch's variables.
        path: The file.
    """
    import torch

    torch.export.save(exported(program), path)


def exported(program: Program) -> Any:
    """The program as an `ExportedProgram`, its inputs and outputs by name."""
    import torch

    module = as_module(program)
    kwargs = {port.name: _example(port) for port in program.inputs}
    open_axes = {port.name: _open(port) for port in program.inputs}
    with torch.no_grad():
        return torch.export.export(
            module, (), kwargs, dynamic_shapes=open_axes, strict=False
        )


def as_module(program: Program) -> Any:
    """The program as a torch module in evaluation mode."""
    import torch

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = torch.nn.ModuleList(program.layers)

        def forward(self, **inputs: Any) -> dict[str, Any]:
            return program(*(inputs[port.name] for port in program.inputs))

    # torch.export reads the names of the inputs from here.
    kind = inspect.Parameter.KEYWORD_ONLY
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    Module.forward.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [own, *(inspect.Parameter(x.name, kind) for x in program.inputs)]
    )
    return Module().eval()


def _example(port: Port) -> Any:
    import torch

    # Sizes of one are taken for fixed.
    shape = [size or 2 + place for place, size in enumerate(port.shape)]
    return torch.zeros(shape, dtype=getattr(torch, port.dtype))


def _open(port: Port) -> dict[int, Any]:
    import torch

    return {
        axis: torch.export.Dim.DYNAMIC if axis else torch.export.Dim("batch")
        for axis, size in enumerate(port.shape)
        if size is None
    }
