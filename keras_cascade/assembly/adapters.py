"""The block of adapters: from taps and extra inputs to what goes further."""

from collections.abc import Sequence

import keras

from keras_cascade.adapters.streams import Stream, adapt_streams
from keras_cascade.graph.block import Block
from keras_cascade.graph.tensors import input_like
from keras_cascade.injection.merging import prepare_all_features
from keras_cascade.injection.sites import Site
from keras_cascade.planning.plan import Plan

Tensors = dict[str, keras.KerasTensor]


def run_adapters(plan: Plan, sources: Tensors) -> tuple[Tensors, Tensors]:
    """Sends taps and extra inputs through their adapters.

    Args:
        plan: What goes where.
        sources: The taps' and extra inputs' tensors by their names.

    Returns:
        The adapted streams by their names, and what is fed into inner layers
        by the names of the inputs that it is fed to.

    Raises:
        ValueError: If shapes do not go together.
    """
    streams = plan.streams
    inputs = _inputs(sources)
    adapted = adapt_streams(
        streams, {s.name: inputs[s.source] for s in streams}
    )
    feeds = _feeds(streams, plan.wiring.sites, adapted)
    worked_on = [
        s
        for s in streams
        if s.labels or adapted[s.name] is not inputs[s.source]
    ]
    changed = {s.name: adapted[s.name] for s in worked_on if not s.labels}
    used = [n for n in sources if n in {s.source for s in worked_on}]
    outputs = {}
    if used:
        block = Block(
            [inputs[name] for name in used],
            {**changed, **feeds},
            name="adapters",
        )
        outputs = block([sources[name] for name in used])
    given = {
        s.name: outputs.get(s.name, sources[s.source])
        for s in streams
        if not s.labels
    }
    return given, {name: outputs[name] for name in feeds}


def _inputs(sources: Tensors) -> Tensors:
    """Inputs whose names are none of an adapter's."""
    inputs = {}
    for name, tensor in sources.items():
        input_name = f"{name}_input"
        while input_name in sources:
            input_name += "_"
        inputs[name] = input_like(tensor, input_name)
    return inputs


def _feeds(
    streams: Sequence[Stream], sites: Sequence[Site], adapted: Tensors
) -> Tensors:
    """What is fed into inner layers of the downstream."""
    entering = {
        label: adapted[stream.name]
        for stream in streams
        for label in stream.labels
    }
    return prepare_all_features(sites, entering) if sites else {}
