"""Prints the table of `Cascade.summary()`."""

from collections.abc import Callable
from typing import Any

from keras_cascade import _tables
from keras_cascade._cascade_view import CascadeView
from keras_cascade._messages import listed
from keras_cascade.display.blocks import Description, describe_blocks

COLUMNS = (
    "block",
    "contents",
    "taps",
    "output",
    "parameters",
    "trainable",
    "learning rate",
)
# More rates than these, such as those of LayerwiseDecay, are shown as a range.
MAX_LISTED_RATES = 3


def print_summary(
    cascade: CascadeView,
    line_length: int | None,
    print_fn: Callable[[str], object] | None,
) -> None:
    """Prints a row for each block and the totals, for `Cascade.summary`."""
    (print_fn or print)(summary_text(cascade, line_length))


def summary_text(cascade: CascadeView, line_length: int | None = None) -> str:
    """Returns the table as text."""
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


def _row(cascade: CascadeView, block: Description) -> tuple[str, ...]:
    taps = [f"{tap}: {path}" for tap, path in block["taps"].items()]
    entering = [
        f"{entry['source']} → {entry['path']} ({entry['merge']})"
        for entry in block["injections"]
    ]
    ranks = [f"LoRA {rank}" for rank in block["lora_ranks"]]
    return (
        block["name"],
        _contents(block),
        "\n".join(taps + entering),
        "\n".join(map(_output, block["outputs"])),
        f"{block['parameters']:,}",
        "\n".join([f"{block['trainable_parameters']:,}", *ranks]),
        _rates(cascade, block),
    )


def _contents(block: Description) -> str:
    if block["network"] is None:
        return "\n".join(map(_part, block["parts"]))
    names = block["upstreams"]
    lines = (
        f"{block['network']} ({block['class']})",
        f"one network for {listed(names)}" if names else None,
        "shares layers with a block above" if block["shared"] else None,
        block["preprocessing"],
    )
    return "\n".join(filter(None, lines))


def _part(part: dict[str, Any]) -> str:
    layers = ", ".join(part["layers"]) or part["class"]
    return f"{part['name']}: {layers}" + " (not fitted)" * (not part["fitted"])


def _output(output: dict[str, Any]) -> str:
    shape = _tables.shape(output["shape"])
    return f"{output['name']}: {shape}" if output["name"] else shape


def _rates(cascade: CascadeView, block: Description) -> str:
    if not block["trainable_parameters"]:
        return "frozen" if block["parameters"] else ""
    if not cascade.compiled:
        return "not compiled"
    rates = block["learning_rates"]
    if len(rates) > MAX_LISTED_RATES:
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
    if paths := cascade.spec.reinitialized:
        lines.append(f"Reinitialized by rebuild: {', '.join(paths)}")
    return "\n".join(lines) or None
