"""Shows what a saved model contains: the subcommand `inspect`.

Tested by `tests/cli/test_entry.py`.
"""

import argparse
from pathlib import Path

from keras_cascade.cli.commands import (
    Subcommands,
    add_command,
    add_import_option,
    import_package,
    load_model,
    show,
)


def add_inspect(commands: Subcommands) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands,
        "inspect",
        _inspect,
        "Show what a saved cascade is: inputs, outputs, blocks, taps, "
        "injections, adapters, what trains and how fast, and where its frozen "
        "part ends.",
    )
    parser.add_argument(
        "model",
        type=Path,
        metavar="MODEL.keras",
        help="a file that cascade.save() wrote, or of any Keras model",
    )
    add_import_option(parser)


def _inspect(arguments: argparse.Namespace) -> int:
    import_package(arguments.modules)
    # Imported late, as it imports Keras, which --help does not need.
    from keras_cascade.display.inspection import (
        inspect_model,
        inspection_tables,
    )

    describe = inspect_model if arguments.json else inspection_tables
    show(describe(load_model(arguments.model)), arguments.json)
    return 0
