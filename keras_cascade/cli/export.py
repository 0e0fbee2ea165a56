"""`export`: writes a saved model for where it runs, and proves the file."""

import argparse
import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_cascade.cli.commands import add_command, print_json
from keras_cascade.exporting.request import (
    DTYPES,
    ENDINGS,
    FORMATS,
    INTEGER,
    QUANTIZATIONS,
    make_request,
)

_DATA = (
    "A DIR holds images, or a folder of images for each class; or .npz files "
    "with an array for each of the model's inputs, by its name, and 'labels'; "
    "or a .npy file for each. It may also be one .npz file. Images are brought "
    "to the input's size and channels, as raw pixels in [0, 255]. The labels "
    "of several outputs are 'labels.NAME'."
)


def add_export(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands,
        "export",
        _export,
        "Write a saved cascade, or any Functional Keras model, for where it is "
        "to run, and compare the file's answers with the model's.",
    )
    parser.epilog = _DATA
    parser.set_defaults(usage_error=parser.error)
    _add_paths(parser)
    _add_data(parser)
    _add_choices(parser)


def _add_paths(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "model",
        type=Path,
        metavar="MODEL.keras",
        help="a file that cascade.save() wrote, or of any Functional model",
    )
    endings = ", ".join(ending for ending in ENDINGS if ending)
    parser.add_argument(
        "path",
        type=Path,
        metavar="OUT",
        help=f"what is written: {endings}, or without an ending a SavedModel",
    )
    parser.add_argument(
        "--format", choices=FORMATS, help="whatever the ending of OUT"
    )


def _add_data(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="DIR",
        help="inputs that int8 and mixed are calibrated on; the first 512",
    )
    parser.add_argument(
        "--check",
        type=Path,
        metavar="DIR",
        help="inputs on which the file is compared with the model; with "
        "labels also the metrics that it was compiled with",
    )
    parser.add_argument(
        "--no-metrics",
        action="store_true",
        help="compare answers only: no labels are needed",
    )
    parser.add_argument(
        "--tolerance",
        type=float,
        metavar="X",
        help="how far the answers may be apart, in deviations of the model's",
    )


def _add_choices(parser: argparse.ArgumentParser) -> None:
    kinds = dict.fromkeys(x for own in QUANTIZATIONS.values() for x in own)
    parser.add_argument(
        "--quantize", choices=tuple(kinds), help="default: float32"
    )
    for what in ("input", "output"):
        parser.add_argument(
            f"--{what}-dtype",
            choices=DTYPES,
            help=f"of the {what}s of a LiteRT file in int8",
        )
    parser.add_argument(
        "--labels",
        type=Path,
        metavar="FILE",
        help="names of the classes for the file to keep, a line each; with "
        "several outputs: output, tab, name",
    )
    parser.add_argument(
        "--output-name",
        dest="outputs",
        action="append",
        metavar="NAME",
        help="an output to write, once for each; what only the others need is "
        "left out (default: all)",
    )
    parser.add_argument(
        "--no-fold", action="store_true", help="fold no layers into others"
    )
    parser.add_argument(
        "--timeout",
        type=float,
        default=3600.0,
        metavar="SECONDS",
        help="for each process that writes or runs the file (default: "
        "%(default)g)",
    )


def _export(arguments: argparse.Namespace) -> int:
    from keras_cascade.exporting import ParityError

    _check_usage(arguments)
    try:
        # Standard output belongs to the report.
        with contextlib.redirect_stdout(sys.stderr):
            report = _written(arguments)
    except ParityError as error:
        _show(error.report, arguments.json)
        raise
    _show(report, arguments.json)
    return 0


def _check_usage(arguments: argparse.Namespace) -> None:
    """What can be told to be wrong before anything is loaded."""
    if arguments.quantize in INTEGER and arguments.calibration is None:
        arguments.usage_error(
            f"--quantize {arguments.quantize} needs --calibration DIR"
        )
    try:
        make_request(
            arguments.path,
            arguments.format,
            arguments.quantize,
            arguments.tolerance,
            arguments.input_dtype,
            arguments.output_dtype,
            not arguments.no_fold,
            arguments.timeout,
        )
    except ValueError as error:
        arguments.usage_error(str(error).rstrip("."))


def _written(arguments: argparse.Namespace) -> Any:
    import keras

    from keras_cascade.cli.data.directories import check_labels
    from keras_cascade.exporting import export

    labels = _labels(arguments.labels)
    if not arguments.model.is_file():
        raise ValueError(f"There is no file '{arguments.model}'.")
    model: Any = keras.saving.load_model(
        arguments.model, compile=not arguments.no_metrics
    )
    calibration = _data(arguments.calibration, model)
    check = _data(arguments.check, model)
    if check is not None:
        check_labels(check, model)
    return export(
        model,
        arguments.path,
        format=arguments.format,
        quantize=arguments.quantize,
        calibration_data=calibration,
        check_data=check,
        tolerance=arguments.tolerance,
        input_dtype=arguments.input_dtype,
        output_dtype=arguments.output_dtype,
        labels=labels,
        outputs=arguments.outputs,
        fold=not arguments.no_fold,
        timeout=arguments.timeout,
    )


def _data(path: Path | None, model: Any) -> Any:
    from keras_cascade.cli.data.directories import open_directory

    return None if path is None else open_directory(path, model)


def _labels(
    path: Path | None,
) -> Sequence[str] | Mapping[str, Sequence[str]] | None:
    """The names in a file, as a file that was exported keeps them."""
    if path is None:
        return None
    # Editors of Windows begin a file with a mark.
    lines = path.read_text("utf-8-sig").rstrip().splitlines()
    if not lines or not all("\t" in line for line in lines):
        return [line.strip() for line in lines]
    found: dict[str, list[str]] = {}
    for line in lines:
        output, _, name = line.partition("\t")
        found.setdefault(output.strip(), []).append(name.strip())
    return found


def _show(report: Any, as_json: bool) -> None:
    if as_json:
        print_json(report.to_dict())
    else:
        print(report)  # noqa: T201
