"""Converts a PyTorch module to a Keras file: the subcommand `convert`.

Tested by `tests/cli/test_convert.py`.
"""

import argparse
import importlib
import sys
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_cascade.cli.commands import (
    Subcommands,
    add_command,
    import_package,
    show,
)

if TYPE_CHECKING:
    import numpy as np

# A name or None, the shape with the batch, and whether it has integers.
_Example = tuple[str | None, tuple[int, ...], bool]


def add_convert(commands: Subcommands) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands,
        "convert",
        _convert,
        "Convert a PyTorch module to a Keras network, compare the two, and "
        "save it. The module comes from code of your own, which is run.",
    )
    parser.add_argument(
        "module",
        type=_place,
        metavar="MODULE:FACTORY",
        help="where the module is made: package.module:factory, a function or "
        "class that is called without arguments, or a module itself",
    )
    parser.add_argument("path", type=Path, metavar="OUT.keras")
    parser.add_argument(
        "--example",
        type=_example,
        action="append",
        required=True,
        metavar="[NAME=]SHAPE[:int]",
        help="the shape of an argument with its batch, such as 1,3,224,224, "
        "or input_ids=1,64:int; may be repeated",
    )


def _convert(arguments: argparse.Namespace) -> int:
    if arguments.path.suffix != ".keras":
        arguments.usage_error(f"'{arguments.path}' must end in .keras")
    if not arguments.path.parent.is_dir():
        arguments.usage_error(f"there is no folder '{arguments.path.parent}'")
    import_package()
    # Imported late, as it imports Keras, which --help does not need.
    from keras_cascade.networks.pytorch import from_torch

    network = from_torch(_module(*arguments.module), _given(arguments.example))
    network.save(arguments.path)
    result = {
        "path": str(arguments.path),
        "inputs": {x.name: list(x.shape) for x in network.inputs},
        "layers": len(network.layers),
        "parameters": network.count_params(),
    }
    text = (
        f"{arguments.path}: {result['layers']} layers, "
        f"{result['parameters']:,} parameters, as PyTorch's"
    )
    show(result if arguments.json else text, arguments.json)
    return 0


def _place(text: str) -> tuple[str, str]:
    """Reads `package.module:factory`, as argparse's `type`."""
    package, _, name = text.partition(":")
    if not package or not name:
        raise argparse.ArgumentTypeError(
            f"expected package.module:factory, not {text!r}"
        )
    return package, name


def _module(package: str, name: str) -> Any:
    """Returns the module that a factory makes."""
    sys.path.insert(0, str(Path.cwd()))
    found = getattr(importlib.import_module(package), name, None)
    if found is None:
        raise ValueError(f"'{package}' has no '{name}'.")
    is_maker = isinstance(found, type) or not hasattr(found, "state_dict")
    return found() if is_maker else found


def _given(examples: list[_Example]) -> Any:
    """Returns the example for `from_torch`."""
    arrays = [_array(shape, is_int) for _, shape, is_int in examples]
    names = [name for name, _, _ in examples if name is not None]
    if not names:
        return tuple(arrays)
    if len(names) != len(examples):
        raise ValueError("--example: give names to all arguments, or to none.")
    return dict(zip(names, arrays, strict=True))


def _array(shape: tuple[int, ...], is_int: bool) -> "np.ndarray":
    import numpy as np

    if is_int:
        return (np.arange(prod(shape)) % 2).reshape(shape)
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def _example(text: str) -> _Example:
    """Reads `pixels=1,3,224,224`, as argparse's `type`."""
    name, _, rest = text.rpartition("=")
    shape, _, kind = rest.partition(":")
    sizes = shape.split(",")
    if not all(size.isdecimal() for size in sizes) or kind not in ("", "int"):
        raise argparse.ArgumentTypeError(
            f"expected a shape, 1,3,224,224 or ids=1,64:int, not {text!r}"
        )
    return name or None, tuple(map(int, sizes)), kind == "int"
