"""Shows the table of `Cascade.summary()`."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from keras_cascade._cascade_view import CascadeView
from keras_cascade._reporting import tables
from keras_cascade._reporting.messages import listed
from keras_cascade.display.blocks import Description, describe_blocks

COLUMNS = (
    "block",
    "contents",
    "taps",
    "output",
    "parameters",
    "trains",
    "learning rate",
)
# More rates than these, such as those of LayerwiseDecay, are shown as a range.
MAX_LISTED_RATES = 3


def show_summary(
    cascade: CascadeView,
    line_length: int | None,
    print_fn: Callable[[str], object] | None,
    layer_range: Sequence[str] | None,
) -> None:
    """Shows a row for each block and the totals, for `Cascade.summary`."""
    parts = summary_parts(cascade, chosen_blocks(cascade, layer_range))
    if print_fn is None:
        tables.Tables(*parts, width=line_length).show()
    else:
        print_fn(tables.as_text(parts, line_length))


def chosen_blocks(
    cascade: CascadeView, layer_range: Sequence[str] | None
) -> list[str]:
    """Returns the names of blocks from the first match to the last.

    Raises:
        ValueError: If `layer_range` is not two patterns of which each matches
            a block.
    """
    names = list(cascade.blocks)
    if layer_range is None:
        return names
    # As in Keras: regular expressions, matched from the beginning.
    found = [
        [i for i, name in enumerate(names) if re.match(pattern, name)]
        for pattern in layer_range
    ]
    if len(found) != 2 or not all(found):
        raise ValueError(
            "summary(layer_range=...) is the first and the last block to "
            f"show, each a name or a regular expression; received "
            f"{layer_range!r}. The blocks are: {listed(names)}."
        )
    return names[min(map(min, found)) : max(map(max, found)) + 1]


def summary_parts(
    cascade: CascadeView, shown: Sequence[str] | None = None
) -> list[tables.Part]:
    """Returns the table of the blocks, and notes.

    Args:
        cascade: The cascade.
        shown: The names of blocks to show; `None` is all. The totals are of
            all blocks. Defaults to `None`.
    """
    blocks = describe_blocks(cascade)
    total, trained = (
        f"{sum(block[key] for block in blocks):,}"
        for key in ("parameters", "trainable_parameters")
    )
    rows = [
        _row(cascade, block)
        for block in blocks
        if shown is None or block["name"] in shown
    ]
    table = tables.Table(
        f"Cascade '{cascade.name}'",
        COLUMNS,
        [*rows, ("total", "", "", "", total, trained, "")],
        right=("parameters", "trains"),
        total=True,
    )
    return [table, *_notes(cascade)]


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
    shape = tables.shape(output["shape"])
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


def _notes(cascade: CascadeView) -> list[tables.Part]:
    notes: list[tables.Part] = []
    if retention := cascade.spec.retention:
        methods = ", ".join(
            f"{pattern} by {type(method).__name__}({method.strength:g})"
            for pattern, method in retention.items()
        )
        notes.append(tables.Note(methods, "Retained"))
    if paths := cascade.spec.reinitialized:
        notes.append(tables.Note(", ".join(paths), "Reinitialized by rebuild"))
    return notes
