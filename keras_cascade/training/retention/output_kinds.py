"""Treats network outputs as probabilities, logits or plain numbers.

Tested by `tests/training/retention/test_fisher.py` and
`tests/training/retention/test_lwf.py`.
"""

from typing import Any

import keras
from keras import ops

from keras_cascade._reporting.messages import listed
from keras_cascade.graph.graph import Graph, Node

# One of KINDS.
Kind = str
KINDS = ("softmax", "sigmoid", "softmax_logits", "sigmoid_logits", "linear")

# Far below any probability that counts; its inverse root is finite.
TINY = 1e-30
# The smallest distance from 0 and from 1 that float32 can represent at both.
EDGE = 1e-7


def check_kind(outputs: object, method: str) -> Kind | None:
    """Returns the argument `outputs` of a method, or raises a ValueError."""
    if outputs is None:
        return None
    if isinstance(outputs, str) and outputs in KINDS:
        return outputs
    raise ValueError(
        f"{method}'s outputs is {outputs!r}. It must be None or one of: "
        f"{listed(KINDS)}."
    )


def find_kinds(graph: Graph, given: Kind | None) -> list[Kind]:
    """Returns the kind of each output, as given or else by its activation.

    All but softmax and sigmoid is linear.
    """
    positions = range(len(graph.outputs))
    return [given or _kind(find_last_call(graph, i)) for i in positions]


def find_last_call(graph: Graph, position: int) -> Node:
    """Returns the call that computes an output, in the innermost network."""
    node, index = graph.sources[id(graph.outputs[position])]
    return node if node.inner is None else find_last_call(node.inner, index)


def fisher_statistic(output: object, kind: Kind) -> Any:
    """Returns a statistic whose squared gradients add up to the Fisher matrix.

    For a categorical distribution it is `2 sqrt(p)`, for a Bernoulli one
    `2 arcsin(sqrt(p))`, for a Gaussian of variance 1 its mean. The result is
    a float32 tensor of shape (batch, outputs).
    """
    output = ops.cast(output, "float32")
    if kind in ("softmax", "softmax_logits"):
        p = ops.softmax(output) if kind.endswith("logits") else output
        output = ops.multiply(2, ops.sqrt(ops.maximum(p, TINY)))
    elif kind in ("sigmoid", "sigmoid_logits"):
        p = ops.sigmoid(output) if kind.endswith("logits") else output
        inside = ops.clip(p, EDGE, 1 - EDGE)
        output = ops.multiply(2, ops.arcsin(ops.sqrt(inside)))
    rows: Any = ops.shape(output)
    return ops.reshape(output, (rows[0], -1))


def divergence(old: object, new: object, kind: Kind, temperature: float) -> Any:
    """Returns KL(old || new) over the classes, which are the last axis."""
    a = _log_probabilities(old, kind, temperature)
    b = _log_probabilities(new, kind, temperature)
    terms = [ops.exp(p) * (p - q) for p, q in zip(a, b, strict=True)]
    return ops.sum(sum(terms), axis=-1)


def _kind(call: Node) -> Kind:
    if isinstance(call.operation, keras.layers.Softmax):
        return "softmax"
    activation = getattr(call.operation, "activation", None)
    name = getattr(activation, "__name__", "")
    return name if name in ("softmax", "sigmoid") else "linear"


def _log_probabilities(
    outputs: object, kind: Kind, temperature: float
) -> list[Any]:
    """Returns those of the class, or of a sigmoid's unit being on and off."""
    outputs = ops.cast(outputs, "float32")
    if kind == "softmax":
        outputs = ops.log(ops.maximum(outputs, TINY))
    elif kind == "sigmoid":
        p: Any = ops.clip(outputs, EDGE, 1 - EDGE)
        outputs = ops.subtract(ops.log(p), ops.log(1 - p))
    logits: Any = ops.divide(outputs, temperature)
    if kind in ("softmax", "softmax_logits"):
        return [ops.log_softmax(logits)]
    return [ops.log_sigmoid(logits), ops.log_sigmoid(-logits)]
