"""What a saved model is: its inputs, outputs, blocks, taps and adapters."""

from typing import Any

import keras

from keras_cascade import _tables
from keras_cascade.display.blocks import describe_blocks, parameters
from keras_cascade.display.cut import cut_text, describe_cut
from keras_cascade.display.summary import summary_text
from keras_cascade.networks.loading import as_network


def inspect_model(model: keras.Model) -> dict[str, Any]:
    """What a model is, in plain values.

    Args:
        model: A cascade; of another model, what it shares with one.

    Returns:
        Its name and class, inputs, outputs, parameters, and where its frozen
        part ends; of a cascade also its blocks.
    """
    network = as_network(model, "MODEL")
    return {
        "name": model.name,
        "class": type(model).__name__,
        "inputs": [_tensor(x.name, x) for x in network.inputs],
        "outputs": _outputs(network),
        "parameters": parameters(model.weights),
        "trainable_parameters": parameters(model.trainable_variables),
        "blocks": describe_blocks(model) if hasattr(model, "blocks") else [],
        "cut": describe_cut(network),
    }


def inspection_text(model: keras.Model) -> str:
    """The same as tables."""
    found = inspect_model(model)
    rows = [
        (kind, x["name"], _tables.shape(x["shape"]), x["dtype"])
        for kind in ("inputs", "outputs")
        for x in found[kind]
    ]
    title = f"{found['class']} '{found['name']}'"
    tensors = _tables.as_text(title, ("", "name", "shape", "dtype"), rows)
    what = summary_text(model) if found["blocks"] else _sums(found)
    return f"{tensors}\n{what}\n{cut_text(found['cut'])}"


def _sums(found: dict[str, Any]) -> str:
    return (
        f"{found['parameters']:,} parameters, "
        f"{found['trainable_parameters']:,} of them trainable"
    )


def _outputs(model: keras.Model) -> list[dict[str, Any]]:
    if isinstance(model.output, dict):
        return [_tensor(name, x) for name, x in model.output.items()]
    names = ["output"] if len(model.outputs) == 1 else model.output_names
    pairs = zip(names, model.outputs, strict=True)
    return [_tensor(name, tensor) for name, tensor in pairs]


def _tensor(name: str, tensor: keras.KerasTensor) -> dict[str, Any]:
    return {"name": name, "shape": list(tensor.shape), "dtype": tensor.dtype}
