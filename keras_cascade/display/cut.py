"""Where a model's frozen part ends, for the eye: what caching it would do."""

from dataclasses import asdict
from typing import Any

import keras

from keras_cascade import _tables
from keras_cascade.graph.cutting import find_cut
from keras_cascade.graph.program import as_program


def describe_cut(network: keras.Model) -> dict[str, Any]:
    """What `fit(cache_features=True)` keeps and saves, in plain values.

    Args:
        network: A functional model, with the flags that count.

    Returns:
        The tensors that are stored of each sample, `bytes` of all of them
        (without masks), the inputs that are taken as they are, the operations
        for one sample that every epoch after the first saves, those that it
        repeats, and the layers that keep what lies behind them from being
        cached. What depends on open sizes is None. `nothing` says why nothing
        is stored, else it is None.
    """
    cut = find_cut(as_program(network))
    sizes = [border.bytes for border in cut.stored]
    return {
        "features": [
            {
                "name": border.name,
                "shape": list(border.shape),
                "dtype": border.dtype,
                "bytes": border.bytes,
            }
            for border in cut.stored
        ],
        "bytes": None if None in sizes else sum(filter(None, sizes)),
        "inputs": [border.name for border in cut.borders if border.is_input],
        "flops_saved": cut.frozen_flops,
        "flops_repeated": cut.recomputed_flops,
        "blocked": [asdict(blocked) for blocked in cut.blocked],
        "nothing": None if cut.frozen.steps else cut.why_nothing(),
    }


def cut_text(found: dict[str, Any]) -> str:
    """The same as a table.

    Args:
        found: What `describe_cut` gave.
    """
    if found["nothing"]:
        return f"cache_features has nothing to keep: {found['nothing']}."
    rows = [
        (
            x["name"],
            _tables.shape(x["shape"]),
            x["dtype"],
            _tables.count(x["bytes"]),
        )
        for x in found["features"]
    ]
    table = _tables.as_text(
        "What cache_features keeps of each sample",
        ("tensor", "shape", "dtype", "bytes"),
        [*rows, ("total", "", "", _tables.count(found["bytes"]))],
        right=("bytes",),
    )
    return "\n".join([table, *_notes(found)])


def _notes(found: dict[str, Any]) -> list[str]:
    saved, again = found["flops_saved"], found["flops_repeated"]
    notes = [
        f"Every epoch after the first saves {_tables.count(saved)} FLOPs a "
        "sample."
    ]
    if again != 0:
        notes.append(
            f"It repeats {_tables.count(again)} of frozen layers: to keep what "
            "they give would cost more."
        )
    if found["inputs"]:
        names = ", ".join(f"'{name}'" for name in found["inputs"])
        notes.append(f"What trains takes inputs as well: {names}.")
    return notes + [
        f"Nothing is kept behind {x['kind']} '{x['name']}', which "
        f"{x['reason']}."
        for x in found["blocked"]
    ]
