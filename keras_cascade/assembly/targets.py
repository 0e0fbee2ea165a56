"""Assembles the network that computes the values for stitched taps.

Tested by `tests/behaviour/test_stitching.py`.
"""

from typing import Any

import keras

from keras_cascade.assembly.preprocessing import preparation
from keras_cascade.graph.copying import copy_graph
from keras_cascade.planning.inputs import make_inputs
from keras_cascade.planning.plan import Plan


def build_targets(plan: Plan) -> keras.Model | None:
    """Returns a model from inputs of the cascade to values by stream.

    It is no part of the cascade: `adapt` alone uses it. None if no tap is
    stitched.
    """
    if not plan.targets:
        return None
    inputs = make_inputs(plan.inputs)
    outputs: dict[str, Any] = {}
    graphs = {id(x.graph): x for x in plan.targets.values()}
    for values in graphs.values():
        wanted = {
            name: x.reference
            for name, x in plan.targets.items()
            if x.graph is values.graph
        }
        given: dict[str, Any] = {}
        for name in wanted:
            given |= _prepared(plan, name, inputs)
        block = copy_graph(
            values.graph, "targets", wanted, share=plan.spec.shares
        )
        flat = [given[x.name] for x in block.inputs]
        outputs |= block(keras.tree.pack_sequence_as(block.input, flat))
    fed = {one.name for x in plan.targets.values() for one, _ in x.feeds}
    return keras.Model({n: inputs[n] for n in inputs if n in fed}, outputs)


def _prepared(plan: Plan, name: str, inputs: dict) -> dict[str, Any]:
    """Returns the tensors for a network's inputs, resized and preprocessed."""
    values = plan.targets[name]
    chosen = None
    if values.is_downstream:
        chosen = plan.spec.preprocess.get("downstream")
    found = {}
    for given, fed in values.feeds:
        network = preparation(given, fed, chosen, fed.name)
        x = inputs[given.name]
        found[fed.name] = x if network is None else network(x)
    return found
