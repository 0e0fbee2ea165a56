"""Lists the taps of a network: the subcommand `taps`.

Tested by `tests/cli/test_entry.py`.
"""

import argparse
from dataclasses import asdict

from keras_cascade.cli.commands import (
    Subcommands,
    add_command,
    add_import_option,
    import_package,
    show,
)


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
    add_import_option(parser)


def _taps(arguments: argparse.Namespace) -> int:
    import_package(arguments.modules)
    # Imported late, as they import Keras, which --help does not need.
    from keras_cascade import zoo
    from keras_cascade.graph.tap_listing import list_taps

    name = arguments.network
    network = zoo.load(name) if name in zoo.names() else name
    taps = list_taps(network, arguments.pattern)
    show([asdict(x) for x in taps] if arguments.json else taps, arguments.json)
    return 0
