"""Writes a torch program (`.pt2`), on the torch backend.

Tested by `tests/exporting/test_every_format.py`.
"""

import inspect
import io
from pathlib import Path
from typing import TYPE_CHECKING

from keras_cascade.graph.program import Port, Program

if TYPE_CHECKING:
    import torch

# The size of open axes in an example, if a network does not need it larger.
_SIZE = 64


def write(program: Program, path: Path) -> None:
    """Writes a file that `torch.export.load` reads, with an open batch."""
    import torch

    # torch's own writer ends the process where a disk is full.
    stream = io.BytesIO()
    torch.export.save(exported(program), stream)
    path.write_bytes(stream.getbuffer())


def exported(program: Program) -> "torch.export.ExportedProgram":
    """Returns the program as torch's, with its inputs and outputs by name."""
    import torch

    module = as_module(program)
    kwargs = {port.name: _example(port) for port in program.inputs}
    open_axes = {port.name: _open_axes(port) for port in program.inputs}
    with torch.no_grad():
        return torch.export.export(
            module, (), kwargs, dynamic_shapes=open_axes, strict=False
        )


def as_module(program: Program) -> "torch.nn.Module":
    """Returns the program as a torch module in evaluation mode."""
    import torch

    class Module(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # torch exports only the parameters of submodules.
            self.layers = torch.nn.ModuleList(program.layers)

        def forward(self, **inputs: torch.Tensor) -> dict[str, torch.Tensor]:
            return program(*(inputs[port.name] for port in program.inputs))

    # torch.export reads the names of keyword inputs from the signature.
    kind = inspect.Parameter.KEYWORD_ONLY
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
    Module.forward.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [own, *(inspect.Parameter(x.name, kind) for x in program.inputs)]
    )
    return Module().eval()


def _example(port: Port) -> "torch.Tensor":
    import torch

    # torch.export takes a size of one for fixed, also that of an inner tensor
    # to which strides and pooling have reduced a small one.
    shape = [
        size or (_SIZE + place if place else 2)
        for place, size in enumerate(port.shape)
    ]
    return torch.zeros(shape, dtype=getattr(torch, port.dtype))


def _open_axes(port: Port) -> dict[int, object]:
    import torch

    return {
        axis: torch.export.Dim.DYNAMIC if axis else torch.export.Dim("batch")
        for axis, size in enumerate(port.shape)
        if size is None
    }
