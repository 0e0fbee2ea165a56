"""Describes a saved model: its inputs, outputs, blocks, taps and adapters."""

from typing import Any

import keras

from keras_cascade._reporting import tables
from keras_cascade.display.blocks import count_parameters, describe_blocks
from keras_cascade.display.cut import cut_parts, describe_cut
from keras_cascade.display.summary import summary_parts
from keras_cascade.networks.loading import as_network


def inspect_model(model: keras.Model) -> dict[str, Any]:
    """Returns the description of a cascade or another model in plain values.

    Returns:
        Its name and class, inputs, outputs, numbers of parameters, and what
        caching its frozen part would do (`describe_cut`); for a cascade also
        its blocks (`describe_blocks`).
    """
    network = as_network(model, "MODEL")
    return {
        "name": model.name,
        "class": type(model).__name__,
        "inputs": [_tensor(x.name, x) for x in network.inputs],
        "outputs": _outputs(network),
        "parameters": count_parameters(model.weights),
        "trainable_parameters": count_parameters(model.trainable_variables),
        "blocks": describe_blocks(model) if hasattr(model, "blocks") else [],
        "cut": describe_cut(network),
    }


def inspection_tables(model: keras.Model) -> tables.Tables:
    """Returns the description of a model as tables."""
    found = inspect_model(model)
    rows = [
        (kind, x["name"], tables.shape(x["shape"]), x["dtype"])
        for kind in ("inputs", "outputs")
        for x in found[kind]
    ]
    title = f"{found['class']} '{found['name']}'"
    tensors = tables.Table(title, ("", "name", "shape", "dtype"), rows)
    contents = summary_parts(model) if found["blocks"] else [_count_note(found)]
    return tables.Tables(tensors, *contents, *cut_parts(found["cut"]))


def _count_note(found: dict[str, Any]) -> tables.Part:
    trained = f"{found['trainable_parameters']:,} of them trainable"
    return tables.Note(f"{found['parameters']:,} parameters, {trained}")


def _outputs(model: keras.Model) -> list[dict[str, Any]]:
    if isinstance(model.output, dict):
        return [_tensor(name, x) for name, x in model.output.items()]
    names = ["output"] if len(model.outputs) == 1 else model.output_names
    return list(map(_tensor, names, model.outputs))


def _tensor(name: str, tensor: keras.KerasTensor) -> dict[str, Any]:
    return {"name": name, "shape": list(tensor.shape), "dtype": tensor.dtype}
