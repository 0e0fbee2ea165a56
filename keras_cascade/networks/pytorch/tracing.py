"""Traces a module on an example with torch.export.

Tested by `tests/networks/pytorch/test_conversion.py`.
"""

import inspect
import warnings
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch
    from torch.export import ExportedProgram

# Where the example leaves a size open, the module is traced at this size.
_OPEN_SIZE = 128


@dataclass(frozen=True)
class Example:
    """The arguments that a module is called with.

    Attributes:
        args: The arguments by position.
        kwargs: The arguments by name.
        is_open: For each tensor, in order, which of its axes stay free; the
            first, the batch, always does.
    """

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    is_open: tuple[tuple[bool, ...], ...]

    def tensors(self) -> list["torch.Tensor"]:
        """Returns all tensors, in the order of the arguments."""
        return [*self.args, *self.kwargs.values()]

    def like(self, batch: int) -> "Example":
        """Returns another example of some number of samples, by repetition."""
        return self.map(lambda tensor: _with_batch(tensor, batch))

    def map(
        self, change: "Callable[[torch.Tensor], torch.Tensor]"
    ) -> "Example":
        """Returns an example with each tensor changed."""
        args = tuple(change(x) for x in self.args)
        kwargs = {k: change(x) for k, x in self.kwargs.items()}
        return Example(args, kwargs, self.is_open)


def read_example(example: object) -> Example:
    """Returns the arguments that an example stands for.

    Args:
        example: A tensor or array with a batch axis; a tuple of those, for
            several arguments; a mapping of those by the arguments' names; or
            in place of any of them its shape without the batch, as a tuple of
            ints, for floats, in which None leaves a size open.

    Raises:
        TypeError: If it is none of these.
        ValueError: If a tensor has no batch axis, or two tensors have batches
            of different sizes.
    """
    if isinstance(example, Mapping):
        items = {str(k): _tensor(x, k) for k, x in example.items()}
        args, kwargs = (), items
    elif isinstance(example, tuple | list) and not _is_shape(example):
        args, kwargs = tuple(_tensor(x, i) for i, x in enumerate(example)), {}
    else:
        args, kwargs = (_tensor(example, 0),), {}
    found = [*args, *kwargs.values()]
    if not found:
        raise ValueError(
            "example is empty: give what the module is called with, such as "
            "an array of images or the shape of one, (3, 224, 224)."
        )
    given: Any = example.values() if isinstance(example, Mapping) else example
    sizes = {
        len(tensor)
        for (tensor, _), source in zip(found, given, strict=False)
        if len(found) > 1 and not _is_shape(source)
    }
    if len(sizes) > 1:
        raise ValueError(
            "The tensors of example have batches of different sizes, "
            f"{sorted(sizes)}: the first axis of each is the batch."
        )
    return Example(
        tuple(tensor for tensor, _ in args),
        {k: tensor for k, (tensor, _) in kwargs.items()},
        tuple(is_open for _, is_open in found),
    )


def trace(module: "torch.nn.Module", example: Example) -> "ExportedProgram":
    """Returns the module's graph in evaluation mode; the module stays as it is.

    Args:
        module: The module.
        example: What it is called with.

    Raises:
        ValueError: If PyTorch cannot trace it, with PyTorch's reason.
    """
    import torch

    batch = torch.export.Dim.AUTO
    example = example.like(max(2, len(example.tensors()[0])))
    axes = [
        {axis: batch for axis, is_open in enumerate(open_) if is_open}
        for open_ in example.is_open
    ]
    positional = tuple(axes[: len(example.args)])
    by_name = dict(zip(example.kwargs, axes[len(example.args) :], strict=True))
    with in_evaluation_mode(module), torch.no_grad(), _without_warnings():
        try:
            return torch.export.export(
                module,
                example.args,
                example.kwargs,
                dynamic_shapes=_by_parameter(module, positional, by_name),
                strict=False,
            )
        except _REASONS as error:
            raise ValueError(
                f"PyTorch cannot trace {type(module).__name__} on this "
                f"example: {_first_lines(error)} The module must be one that "
                "torch.export takes: no branch may depend on values of "
                "tensors, and the example must be what it is called with."
            ) from error


# What torch.export raises, for which it has no class of its own.
_REASONS = (
    AssertionError,
    AttributeError,
    IndexError,
    KeyError,
    RuntimeError,
    TypeError,
    ValueError,
)


@contextmanager
def _without_warnings() -> "Iterator[None]":
    """Leaves out what PyTorch says of its own recurrent layers (2.13).

    They keep a second list of their weights, which torch.export takes for
    tensors that the module's author forgot to register.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"The tensor attributes? .*_flat_")
        yield


def _by_parameter(
    module: "torch.nn.Module",
    positional: tuple[Any, ...],
    by_name: dict[str, Any],
) -> Any:
    """Returns the free axes as torch.export wants them."""
    if not by_name:
        parameters = inspect.signature(module.forward).parameters.values()
        if any(p.kind is p.VAR_POSITIONAL for p in parameters):
            return (positional,)
        return positional
    return by_name


def _tensor(
    given: object, where: object
) -> tuple["torch.Tensor", tuple[bool, ...]]:
    import torch

    if _is_shape(given):
        sizes = [_OPEN_SIZE if size is None else size for size in given]  # type: ignore[union-attr]
        generator = torch.Generator().manual_seed(0)
        tensor = torch.randn((2, *sizes), generator=generator)
        return tensor, (True, *(size is None for size in given))  # type: ignore[union-attr]
    tensor: Any = given if isinstance(given, torch.Tensor) else None
    if tensor is None:
        array = np.asarray(given)
        if array.dtype.kind not in "fiub":
            raise TypeError(
                f"example[{where!r}] must be a tensor, an array, or a shape "
                f"without the batch; received {given!r}."
            )
        tensor = torch.from_numpy(array.copy())
    if not tensor.ndim or not tensor.shape[0]:
        raise ValueError(
            f"example[{where!r}] has shape {tuple(tensor.shape)}; its first "
            "axis must be the batch, of one sample at least."
        )
    if tensor.dtype == torch.float64:
        tensor = tensor.float()
    return tensor.detach().cpu(), (True, *([False] * (tensor.ndim - 1)))


def _is_shape(given: object) -> bool:
    return (
        isinstance(given, tuple | list)
        and bool(given)
        and all(
            size is None
            or (isinstance(size, int) and not isinstance(size, bool))
            for size in given
        )
    )


def _with_batch(tensor: "torch.Tensor", batch: int) -> "torch.Tensor":
    repeats = -(-batch // tensor.shape[0])
    return tensor.repeat(repeats, *[1] * (tensor.ndim - 1))[:batch]


def _first_lines(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = " ".join(lines[:4])
    return f"{text[:600]}{'' if text.endswith('.') else '.'}"


@contextmanager
def in_evaluation_mode(module: "torch.nn.Module") -> "Iterator[None]":
    """Has a module in evaluation mode for a while."""
    training = {part: part.training for part in module.modules()}
    module.eval()
    try:
        yield
    finally:
        for part, mode in training.items():
            part.training = mode
