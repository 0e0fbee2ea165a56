"""`demo`, `taps` and `inspect`: what show a network, or all of them at work."""

import argparse
from dataclasses import asdict
from pathlib import Path
from typing import Any

from keras_cascade._resources import checkout
from keras_cascade.cli.commands import add_command, print_json

# demo


def add_demo(commands: Any) -> None:
    """Adds the subcommand `demo`."""
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
    # Lazily: the demo needs more than the rest of the package.
    from keras_cascade import demo

    demo.main(
        output=arguments.output, seed=arguments.seed, as_json=arguments.json
    )
    return 0


# taps


def add_taps(commands: Any) -> None:
    """Adds the subcommand `taps`."""
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


def _taps(arguments: argparse.Namespace) -> int:
    # Lazily: Keras takes seconds to import, and --help needs none of it.
    from keras_cascade import zoo
    from keras_cascade.graph.tap_listing import list_taps

    known = arguments.network in zoo.names()
    network: Any = arguments.network
    network = zoo.load(network) if known else network
    found = list_taps(network, arguments.pattern)
    if arguments.json:
        print_json([asdict(tap) for tap in found])
    else:
        print(found)  # noqa: T201
    return 0


# inspect


def add_inspect(commands: Any) -> None:
    """Adds the subcommand `inspect`."""
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


def _inspect(arguments: argparse.Namespace) -> int:
    # Lazily, as above.
    import keras

    from keras_cascade.display.inspection import inspect_model, inspection_text

    if not arguments.model.is_file():
        raise ValueError(f"There is no file '{arguments.model}'.")
    model: Any = keras.saving.load_model(arguments.model)
    if arguments.json:
        print_json(inspect_model(model))
    else:
        print(inspection_text(model))  # noqa: T201
    return 0
