"""Exports a saved model: the subcommand `export`."""

import argparse
import contextlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_cascade.cli.commands import (
    Subcommands,
    add_command,
    add_import_option,
    import_package,
    load_model,
    show,
)
from keras_cascade.exporting.options import (
    DTYPES,
    ENDINGS,
    FORMATS,
    NEED_CALIBRATION,
    QUANTIZATIONS,
    make_options,
)

if TYPE_CHECKING:
    from keras_cascade.exporting import ExportReport

_DATA = (
    "A DIR holds images, or a folder of images for each class; or .npz files "
    "with an array for each of the model's inputs, by its name, and 'labels'; "
    "or a .npy file for each. It may also be one .npz file. Images are brought "
    "to the input's size and channels, as raw pixels in [0, 255]. The labels "
    "of several outputs are 'labels.NAME'."
)


def add_export(commands: Subcommands) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands,
        "export",
        _export,
        "Write a saved cascade, or any Functional Keras model, for where it is "
        "to run, and compare the file's answers with the model's.",
    )
    # Below the options: it is about several of them.
    parser.epilog = _DATA
    _add_paths(parser)
    _add_data(parser)
    _add_choices(parser)
    add_import_option(parser)


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
            action="append",
            metavar="[NAME=]DTYPE",
            help=f"{', '.join(DTYPES)}: of the floating {what}s of a LiteRT "
            "file in int8, or of one by its name, once for each",
        )
    parser.add_argument(
        "--batch-size",
        type=int,
        metavar="N",
        help="the size of all batches that the file takes (default: any)",
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
    parser.add_argument("--quiet", action="store_true", help="show no progress")
    parser.add_argument(
        "--timeout",
        type=float,
        default=3600.0,
        metavar="SECONDS",
        help="for each process that writes or runs the file (default: "
        "%(default)g)",
    )


def _export(arguments: argparse.Namespace) -> int:
    _check_usage(arguments)
    import_package(arguments.modules)
    # Imported late, as it imports Keras, which --help does not need.
    from keras_cascade.exporting import ParityError

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
    """Exits on mistakes that are seen before anything is loaded."""
    if arguments.quantize in NEED_CALIBRATION and arguments.calibration is None:
        arguments.usage_error(
            f"--quantize {arguments.quantize} needs --calibration DIR"
        )
    try:
        make_options(arguments.path, **_options(arguments))
    except ValueError as error:
        arguments.usage_error(str(error).rstrip("."))


def _options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns the arguments that `export` checks without a model."""
    names = ("format", "quantize", "tolerance", "timeout", "batch_size")
    given = {name: getattr(arguments, name) for name in names}
    for name in ("input_dtype", "output_dtype"):
        given[name] = _dtype(name, getattr(arguments, name))
    return {**given, "fold": not arguments.no_fold}


def _dtype(name: str, given: list[str] | None) -> str | dict[str, str] | None:
    """Returns the dtype of all inputs or outputs, or of each by its name."""
    if not given:
        return None
    if len(given) == 1 and "=" not in given[0]:
        return given[0]
    found: dict[str, str] = {}
    for text in given:
        # A name may contain the sign itself.
        key, sign, dtype = text.rpartition("=")
        if not sign or key in found:
            raise ValueError(
                f"{name}: pass one dtype for all, or NAME=DTYPE once for each "
                f"name; received {' '.join(given)}."
            )
        found[key] = dtype
    return found


def _written(arguments: argparse.Namespace) -> "ExportReport":
    from keras_cascade.cli.data.directories import check_labels, open_directory
    from keras_cascade.exporting import export

    labels = _labels(arguments.labels)
    model = load_model(arguments.model, compile=not arguments.no_metrics)
    calibration, check = (
        path and open_directory(path, model)
        for path in (arguments.calibration, arguments.check)
    )
    if check is not None:
        check_labels(check, model)
    return export(
        model,
        arguments.path,
        calibration_data=calibration,
        check_data=check,
        labels=labels,
        outputs=arguments.outputs,
        verbose=not arguments.quiet,
        **_options(arguments),
    )


def _labels(
    path: Path | None,
) -> Sequence[str] | Mapping[str, Sequence[str]] | None:
    """Reads class names as an exported file keeps them."""
    if path is None:
        return None
    # Editors of Windows begin a file with a byte order mark.
    lines = path.read_text("utf-8-sig").rstrip().splitlines()
    if not lines or not all("\t" in line for line in lines):
        return [line.strip() for line in lines]
    found: dict[str, list[str]] = {}
    for line in lines:
        output, _, name = line.partition("\t")
        found.setdefault(output.strip(), []).append(name.strip())
    return found


def _show(report: "ExportReport", as_json: bool) -> None:
    show(report.to_dict() if as_json else report, as_json)
