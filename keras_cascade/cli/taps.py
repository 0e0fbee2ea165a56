"""Lists the taps of a network: the subcommand `taps`.

Tested by `tests/cli/test_entry.py`.
"""

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from keras_cascade.cli.commands import (
    Subcommands,
    add_command,
    add_import_option,
    import_package,
    show,
)

if TYPE_CHECKING:
    import keras


def add_taps(commands: Subcommands) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands,
        "taps",
        _taps,
        "List what can be tapped in a network: paths, shapes, parameters and "
        "floating-point operations up to there.",
    )
    parser.add_argument(
        "network",
        metavar="NETWORK",
        help="a name of keras.applications, of kc.zoo, or 'hub:preset', or "
        "the path of a .keras file",
    )
    parser.add_argument(
        "--pattern",
        default="**",
        help="only paths that this pattern matches (default: %(default)s)",
    )
    parser.add_argument(
        "--input-shape",
        type=_shape,
        metavar="SHAPE",
        help="the shape of an image, such as 96,96,3, in place of the default "
        "one of an application",
    )
    add_import_option(parser)


def _taps(arguments: argparse.Namespace) -> int:
    import_package(arguments.modules)
    # Imported late, as it imports Keras, which --help does not need.
    from keras_cascade.graph.tap_listing import list_taps

    network = _network(arguments.network, arguments.input_shape)
    taps = list_taps(network, arguments.pattern)
    show([asdict(x) for x in taps] if arguments.json else taps, arguments.json)
    return 0


def _network(name: str, shape: tuple[int, ...] | None) -> "keras.Model | str":
    """Returns the network that has a name, or a name for `list_taps`."""
    from keras_cascade import zoo
    from keras_cascade.networks.applications import (
        APPLICATIONS,
        load_application,
    )

    if shape is not None and name not in APPLICATIONS:
        raise ValueError(
            f"--input-shape is for a network of keras.applications; '{name}' "
            "has its own shape."
        )
    if shape is not None:
        return load_application(name, "network", False, shape)
    return zoo.load(name) if name in zoo.names() else name


def _shape(text: str) -> tuple[int, ...]:
    """Reads `96,96,3`, as argparse's `type`."""
    sizes = text.split(",")
    if len(sizes) != 3 or not all(size.isdecimal() for size in sizes):
        raise argparse.ArgumentTypeError(
            f"expected three sizes such as 96,96,3, not {text!r}"
        )
    return tuple(map(int, sizes))
