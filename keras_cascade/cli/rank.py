"""Ranks the taps of a network on data: the subcommand `rank`.

Tested by `tests/cli/test_rank.py`.
"""

import argparse
from pathlib import Path
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


def add_rank(commands: Subcommands) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands,
        "rank",
        _rank,
        "Rank the taps of a network by how well they serve a task, from some "
        "hundred labelled samples and one forward pass.",
    )
    parser.add_argument(
        "network",
        metavar="NETWORK",
        help="a name of keras.applications (with ImageNet weights), of "
        "kc.zoo, or 'hub:preset', or the path of a .keras file",
    )
    parser.add_argument(
        "--data",
        required=True,
        metavar="FOLDER",
        help="images in a folder for each class, or arrays: .npz files, or a "
        ".npy file for each input and for 'labels'",
    )
    parser.add_argument(
        "--taps",
        default="**",
        metavar="PATTERN",
        help="only paths that this pattern matches (default: %(default)s)",
    )
    parser.add_argument(
        "--plot",
        type=Path,
        metavar="FILE",
        help="also draw scores against costs, as .png, .svg or .pdf",
    )
    parser.add_argument(
        "--class-token",
        action="store_true",
        help="rank sequences by their first token instead of their mean",
    )
    add_import_option(parser)


def _rank(arguments: argparse.Namespace) -> int:
    import_package(arguments.modules)
    # Imported late, as they import Keras, which --help does not need.
    from keras_cascade.cli.data.directories import open_directory
    from keras_cascade.ranking import rank_taps

    name = arguments.network
    network = _network(name)
    ranking = rank_taps(
        network,
        open_directory(arguments.data, network),
        arguments.taps,
        class_token=arguments.class_token,
        preprocess=_preprocess(name),
    )
    if arguments.plot is not None:
        ranking.plot().savefig(arguments.plot)
    show(ranking.to_dict() if arguments.json else ranking, arguments.json)
    return 0


def _network(name: str) -> "keras.Model":
    from keras_cascade import zoo
    from keras_cascade.networks.loading import load_network

    if name in zoo.names():
        return zoo.load(name)
    return load_network(name, "network")


def _preprocess(name: str) -> str | None:
    """Returns the module that prepares the images of an application."""
    from keras_cascade.networks.applications import APPLICATIONS

    return APPLICATIONS[name][0] if name in APPLICATIONS else None
