"""Assembles the blocks of a planned cascade, a line a stage.

Tested by `tests/test_build.py`.
"""

from typing import Any

from keras_cascade.assembly.adapters import run_adapters
from keras_cascade.assembly.head import attach_head
from keras_cascade.assembly.networks import (
    fuse_streams,
    read_taps,
    run_downstream,
)
from keras_cascade.assembly.preprocessing import prepare_inputs
from keras_cascade.graph.replay import Replay, called_in_several_places
from keras_cascade.planning.inputs import make_inputs, packed, side_inputs
from keras_cascade.planning.plan import Plan


def assemble(plan: Plan) -> tuple[Any, Any]:
    """Returns the symbolic inputs and outputs of a planned cascade.

    Raises:
        ValueError: If shapes do not fit.
    """
    main, side = make_inputs(plan.inputs), side_inputs(plan.spec.extra_inputs)
    prepared = prepare_inputs(plan, main)
    # One for all networks: a layer that they share is one layer.
    several = called_in_several_places(plan.blocks.values())
    replay = Replay(share=plan.spec.shares, several=several)
    features = read_taps(plan, prepared, replay)
    streams, feeds = run_adapters(plan, {**features, **side})
    inputs = [*main.values(), *side.values()]
    fused = fuse_streams(plan, streams, inputs)
    result = run_downstream(plan, fused, feeds, prepared, replay)
    outputs = attach_head(
        plan.spec.head, result, features, keep=plan.downstream is not None
    )
    return packed({**main, **side}), outputs
