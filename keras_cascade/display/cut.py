"""Describes what `fit(cache_features=True)` would store and save.

Tested by `tests/display/test_inspection.py`.
"""

from dataclasses import asdict
from typing import Any

import keras

from keras_cascade._reporting import tables
from keras_cascade._reporting.messages import listed
from keras_cascade.graph.cutting import find_cut
from keras_cascade.graph.flattening import as_program


def describe_cut(network: keras.Model) -> dict[str, Any]:
    """Returns in plain values what caching a model's frozen part would do.

    Returns:
        The tensors that are stored of each sample and the `bytes` of all of
        them (without masks), the inputs that are passed on, the FLOPs that
        each epoch after the first saves for a sample, those that it repeats,
        and the layers whose outputs cannot be cached. Numbers that depend on
        open sizes are None. `nothing` is the reason why nothing is stored,
        else None.
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


def cut_parts(found: dict[str, Any]) -> list[tables.Part]:
    """Returns the result of `describe_cut` as a table with notes."""
    if found["nothing"]:
        why = f"cache_features has nothing to store: {found['nothing']}."
        return [tables.Note(why)]
    count = tables.count
    rows = [
        (x["name"], tables.shape(x["shape"]), x["dtype"], count(x["bytes"]))
        for x in found["features"]
    ]
    table = tables.Table(
        "Stored for each sample by cache_features",
        ("tensor", "shape", "dtype", "bytes"),
        [*rows, ("total", "", "", count(found["bytes"]))],
        right=("bytes",),
        total=True,
    )
    return [table, *map(tables.Note, _notes(found))]


def _notes(found: dict[str, Any]) -> list[str]:
    saved, again = found["flops_saved"], found["flops_repeated"]
    notes = [
        f"Each epoch after the first saves {tables.count(saved)} FLOPs for "
        "each sample."
    ]
    if again != 0:
        notes.append(
            f"It repeats {tables.count(again)} FLOPs of frozen layers, whose "
            "outputs would cost more to store."
        )
    if found["inputs"]:
        notes.append(f"Trained layers also read: {listed(found['inputs'])}.")
    return notes + [
        f"Nothing is stored after {x['kind']} '{x['name']}', which "
        f"{x['reason']}."
        for x in found["blocked"]
    ]
