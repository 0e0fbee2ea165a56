"""Runs the demo: the subcommand `demo`.

Tested by `tests/cli/test_entry.py` and `tests/cli/demo/test_run.py`.
"""

import argparse
from pathlib import Path

from keras_cascade._package.resources import checkout
from keras_cascade.cli.commands import Subcommands, add_command, import_package


def add_demo(commands: Subcommands) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands,
        "demo",
        _demo,
        "Cascade two small networks on real handwritten digits, compare with "
        "training from scratch, and export the result.",
    )
    parser.add_argument(
        "--output",
        type=Path,
        default=(checkout() or Path()) / "saved_models",
        metavar="DIR",
        help="where the exports go (default: %(default)s)",
    )
    parser.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of weights and of the labels drawn (default: %(default)s)",
    )


def _demo(arguments: argparse.Namespace) -> int:
    import_package()
    # Imported late: the demo needs more than the rest of the package.
    from keras_cascade.cli.demo import run

    run.main(
        output=arguments.output, seed=arguments.seed, as_json=arguments.json
    )
    return 0
