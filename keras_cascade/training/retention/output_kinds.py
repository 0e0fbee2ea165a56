"""What a network's outputs are as answers: probabilities, logits, numbers."""

from typing import Any

import keras
from keras import ops

from keras_cascade.graph.graph import Graph, Node

# What the outputs of a network can be said to be.
Kind = str
KINDS = ("softmax", "sigmoid", "softmax_logits", "sigmoid_logits", "linear")

# Far below any probability that counts; its inverse root is finite.
TINY = 1e-30
# The next that float32 tells from 0 and 1 alike.
EDGE = 1e-7


def check_kind(outputs: object, method: str) -> Kind | None:
    """What the user says that outputs are, or an error.

    Args:
        outputs: One of `KINDS`, or None.
        method: Whose argument it is, for the message.
    """
    if outputs is None or outputs in KINDS:
        return outputs  # type: ignore[return-value]
    raise ValueError(
        f"{method}'s outputs is {outputs!r}. It must be None or one of: "
        f"{', '.join(map(repr, KINDS))}."
    )


def kinds_of(graph: Graph, said: Kind | None) -> list[Kind]:
    """What each output of a network is.

    Args:
        graph: The network's graph.
        said: What the user says; None goes by the last layers' activations,
            `"linear"` being everything but softmax and sigmoid.
    """
    if said is not None:
        return [said] * len(graph.outputs)
    return [_kind(graph, tensor) for tensor in graph.outputs]


def last_layer(graph: Graph, position: int) -> Node:
    """The call that gives an output, down to the innermost network."""
    node, index = graph.sources[id(graph.outputs[position])]
    return node if node.inner is None else last_layer(node.inner, index)


def statistic(output: Any, kind: Kind) -> Any:
    """What has the Fisher information as its plain sum of squared gradients.

    For a categorical distribution that is `2 sqrt(p)`, for a Bernoulli one
    `2 arcsin(sqrt(p))`, for a Gaussian of variance 1 its mean.

    Args:
        output: An output, batch first.
        kind: What it is.

    Returns:
        Of shape (batch, outputs), in float32.
    """
    output = ops.cast(output, "float32")
    p: Any
    if kind in ("softmax", "softmax_logits"):
        p = ops.softmax(output) if kind.endswith("logits") else output
        output = ops.multiply(2, ops.sqrt(ops.maximum(p, TINY)))
    elif kind in ("sigmoid", "sigmoid_logits"):
        p = ops.sigmoid(output) if kind.endswith("logits") else output
        inside = ops.clip(p, EDGE, 1 - EDGE)
        output = ops.multiply(2, ops.arcsin(ops.sqrt(inside)))
    rows: Any = ops.shape(output)
    return ops.reshape(output, (rows[0], -1))


def divergence(old: Any, new: Any, kind: Kind, temperature: float) -> Any:
    """KL(old || new) at a temperature, over the classes.

    Args:
        old: The old answers, of any shape with the classes last.
        new: The new ones.
        kind: What they are.
        temperature: Divides the logits.

    Returns:
        Of their shape without the classes.
    """
    a = _log_probabilities(old, kind, temperature)
    b = _log_probabilities(new, kind, temperature)
    terms = [ops.exp(p) * (p - q) for p, q in zip(a, b, strict=True)]
    return ops.sum(sum(terms), axis=-1)


def _kind(graph: Graph, tensor: keras.KerasTensor) -> Kind:
    operation = last_layer(
        graph, [id(x) for x in graph.outputs].index(id(tensor))
    ).operation
    if isinstance(operation, keras.layers.Softmax):
        return "softmax"
    activation = getattr(operation, "activation", None)
    name = getattr(activation, "__name__", "")
    return name if name in ("softmax", "sigmoid") else "linear"


def _log_probabilities(
    answers: Any, kind: Kind, temperature: float
) -> list[Any]:
    """Of the class; of a sigmoid's unit, that it is on and that it is off."""
    answers = ops.cast(answers, "float32")
    if kind == "softmax":
        answers = ops.log(ops.maximum(answers, TINY))
    elif kind == "sigmoid":
        p: Any = ops.clip(answers, EDGE, 1 - EDGE)
        answers = ops.subtract(ops.log(p), ops.log(1 - p))
    logits = answers / temperature
    if kind in ("softmax", "softmax_logits"):
        return [ops.log_softmax(logits)]
    return [ops.log_sigmoid(logits), ops.log_sigmoid(-logits)]
