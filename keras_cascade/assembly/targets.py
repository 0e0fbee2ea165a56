"""Assembles the network that computes the values for stitched taps.

Tested by `tests/behaviour/test_stitching.py`.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import keras

from keras_cascade.assembly.preprocessing import preparation
from keras_cascade.graph.copying import copy_graph
from keras_cascade.networks.preprocessing import Preprocess
from keras_cascade.planning.inputs import CascadeInput, make_inputs
from keras_cascade.planning.plan import Plan
from keras_cascade.planning.targets import Values


def build_targets(plan: Plan) -> keras.Model | None:
    """Returns a model from inputs of the cascade to values by stream.

    It is no part of the cascade: `adapt` alone uses it. None if no tap is
    stitched.
    """
    if not plan.targets:
        return None
    chosen = plan.spec.preprocess.get("downstream")
    return values_network(plan.targets, plan.inputs, chosen, plan.spec.shares)


def values_network(
    targets: Mapping[str, Values],
    given: Sequence[CascadeInput],
    preprocess: Preprocess | None,
    share: bool = False,
) -> keras.Model:
    """Returns a model that computes some values, by their names.

    Args:
        targets: The values.
        given: The inputs of the cascade.
        preprocess: The preprocessing of the downstream.
        share: Whether the networks' own layers are used. Defaults to `False`.
    """
    inputs = make_inputs(given)
    outputs: dict[str, Any] = {}
    for graph in {id(x.graph): x.graph for x in targets.values()}.values():
        own = {n: x for n, x in targets.items() if x.graph is graph}
        fed: dict[str, Any] = {}
        for values in own.values():
            fed |= _prepared(values, inputs, preprocess)
        wanted = {name: x.reference for name, x in own.items()}
        block = copy_graph(graph, "targets", wanted, share)
        flat = [fed[x.name] for x in block.inputs]
        outputs |= block(keras.tree.pack_sequence_as(block.input, flat))
    read = {one.name for x in targets.values() for one, _ in x.feeds}
    return keras.Model({n: inputs[n] for n in inputs if n in read}, outputs)


def _prepared(
    values: Values, inputs: dict[str, Any], preprocess: Preprocess | None
) -> dict[str, Any]:
    """Returns the tensors for a network's inputs, resized and preprocessed."""
    chosen = preprocess if values.is_downstream else None
    found = {}
    for given, fed in values.feeds:
        network = preparation(given, fed, chosen, fed.name)
        x = inputs[given.name]
        found[fed.name] = x if network is None else network(x)
    return found
