"""Assembles the block of adapters, for taps and extra inputs."""

import keras

from keras_cascade.adapters.streams import adapt_streams
from keras_cascade.graph.block import Block
from keras_cascade.graph.tensors import input_like
from keras_cascade.injection.merging import prepare_all_features
from keras_cascade.planning.plan import Plan

Tensors = dict[str, keras.KerasTensor]


def run_adapters(plan: Plan, sources: Tensors) -> tuple[Tensors, Tensors]:
    """Sends taps and extra inputs through their adapters.

    Args:
        plan: The plan.
        sources: The tensors of taps and extra inputs by their names.

    Returns:
        The adapted streams that are not injected, by their names; and the
        tensors that enter inner layers, by the names of the inputs that they
        feed there.

    Raises:
        ValueError: If shapes do not fit together.
    """
    inputs = _inputs(sources)
    given = {s.name: inputs[s.source] for s in plan.streams}
    adapted = adapt_streams(plan.streams, given)
    injected = [s for s in plan.streams if s.labels]
    direct = {s.name: s.source for s in plan.streams if not s.labels}
    changed = {n for n in direct if adapted[n] is not given[n]}
    entering = {x: adapted[s.name] for s in injected for x in s.labels}
    sites = plan.wiring.sites
    feeds = dict(prepare_all_features(sites, entering)) if sites else {}
    # The block has the inputs that something in it reads; the other streams
    # bypass it.
    read = {direct[n] for n in changed} | {s.source for s in injected}
    used = [name for name in sources if name in read]
    outputs: Tensors = {}
    if used:
        results = {n: adapted[n] for n in direct if n in changed} | feeds
        block = Block([inputs[n] for n in used], results, name="adapters")
        outputs = block([sources[name] for name in used])
    streams = {n: outputs.get(n, sources[x]) for n, x in direct.items()}
    return streams, {name: outputs[name] for name in feeds}


def _inputs(sources: Tensors) -> Tensors:
    """Returns the block's inputs, whose names are none of an adapter's."""
    inputs = {}
    for name, tensor in sources.items():
        input_name = f"{name}_input"
        while input_name in sources:
            input_name += "_"
        inputs[name] = input_like(tensor, input_name)
    return inputs
