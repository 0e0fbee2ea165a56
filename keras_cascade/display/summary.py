"""The table that `Cascade.summary()` prints."""

from collections.abc import Callable
from typing import Any

from keras_cascade import _tables
from keras_cascade._cascade_view import CascadeView
from keras_cascade.display.blocks import describe_blocks

COLUMNS = (
    "block",
    "what it is",
    "taps",
    "output",
    "parameters",
    "trainable",
    "learning rate",
)
# More rates than these, as LayerwiseDecay gives, are shown as a range.
MANY = 3


def print_summary(
    cascade: CascadeView, line_length: int | None, print_fn: Callable | None
) -> None:
    """Prints a row a block, and the sums.

    Args:
        cascade: A `Cascade`.
        line_length: Width in characters; `None` is as wide as needed.
        print_fn: What the text is handed to; `None` prints.
    """
    (print_fn or print)(summary_text(cascade, line_length))


def summary_text(cascade: CascadeView, line_length: int | None = None) -> str:
    """The table as text."""
    blocks = describe_blocks(cascade)
    total, trained = (
        f"{sum(block[key] for block in blocks):,}"
        for key in ("parameters", "trainable_parameters")
    )
    rows = [_row(cascade, block) for block in blocks]
    return _tables.as_text(
        f"Cascade '{cascade.name}'",
        COLUMNS,
        [*rows, ("total", "", "", "", total, trained, "")],
        right=("parameters", "trainable"),
        caption=_caption(cascade),
        width=line_length,
    )


def _row(cascade: CascadeView, block: dict[str, Any]) -> tuple:
    return (
        block["name"],
        _what(block),
        "\n".join(_taps(block)),
        "\n".join(map(_output, block["outputs"])),
        f"{block['parameters']:,}",
        "\n".join(_trainable(block)),
        _rates(cascade, block),
    )


def _what(block: dict[str, Any]) -> str:
    if block["network"] is None:
        return "\n".join(map(_part, block["parts"]))
    lines = (f"{block['network']} ({block['class']})", block["preprocessing"])
    return "\n".join(filter(None, lines))


def _part(part: dict[str, Any]) -> str:
    what = ", ".join(part["layers"]) or part["class"]
    return f"{part['name']}: {what}" + " (not fitted)" * (not part["fitted"])


def _taps(block: dict[str, Any]) -> list[str]:
    """What is read of a network, or enters it."""
    return [f"{tap}: {path}" for tap, path in block["taps"].items()] + [
        f"{entry['source']} → {entry['path']} ({entry['merge']})"
        for entry in block["injections"]
    ]


def _output(output: dict[str, Any]) -> str:
    shape = _tables.shape(output["shape"])
    return f"{output['name']}: {shape}" if output["name"] else shape


def _trainable(block: dict[str, Any]) -> list[str]:
    """How many parameters train, and that it is by low-rank updates."""
    ranks = [f"LoRA {rank}" for rank in block["lora_ranks"]]
    return [f"{block['trainable_parameters']:,}", *ranks]


def _rates(cascade: CascadeView, block: dict[str, Any]) -> str:
    if not block["trainable_parameters"]:
        return "frozen" if block["parameters"] else ""
    if not cascade.compiled:
        return "not compiled"
    rates = block["learning_rates"]
    if len(rates) > MANY:
        return f"{max(rates):g}\nto {min(rates):.3g}"
    return "\n".join(f"{rate:g}" for rate in rates)


def _caption(cascade: CascadeView) -> str | None:
    lines = []
    if retention := cascade.spec.retention:
        methods = ", ".join(
            f"{pattern} by {type(method).__name__}({method.strength:g})"
            for pattern, method in retention.items()
        )
        lines.append(f"Retained: {methods}")
    if cascade.spec.started_anew:
        paths = ", ".join(cascade.spec.started_anew)
        lines.append(f"Started anew by rebuild: {paths}")
    return "\n".join(lines) or None
