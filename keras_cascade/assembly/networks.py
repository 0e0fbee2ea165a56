"""Runs the networks of a plan on symbolic tensors.

Tested by `tests/test_build.py` and `tests/behaviour/test_downstream_input.py`.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import keras

from keras_cascade.adapters.streams import Stream
from keras_cascade.assembly.fusion import check_width, fuse, needs_one_size
from keras_cascade.assembly.sizes import find_other_sizes, has_open_size
from keras_cascade.graph.copying import copy_graph
from keras_cascade.graph.insertion import inject
from keras_cascade.graph.replay import Replay
from keras_cascade.injection.merging import make_insertion, prepare_features
from keras_cascade.planning.plan import Plan

Tensors = Mapping[str, keras.KerasTensor]
# Network to its inputs' names to tensors.
Prepared = Mapping[str, Tensors]


def read_taps(
    plan: Plan, prepared: Prepared, replay: Replay
) -> dict[str, keras.KerasTensor]:
    """Returns the features of all upstreams by tap name.

    Args:
        plan: The plan.
        prepared: The tensors for each upstream's inputs.
        replay: The `Replay` that builds all networks of the cascade.
    """
    found: dict[str, keras.KerasTensor] = {}
    for name, roles in plan.spec.roles.items():
        if name == "downstream":
            continue
        taps = [tap for tap in plan.taps if tap.network in roles]
        wanted = {tap.name: tap.reference for tap in taps}
        block = copy_graph(plan.blocks[name], name, wanted, replay=replay)
        for role in roles:
            # A block takes its inputs in the structure of its network.
            given = [prepared[role][x.name] for x in block.inputs]
            results = block(keras.tree.pack_sequence_as(block.input, given))
            found |= {
                t.name: results[t.name] for t in taps if t.network == role
            }
    return {tap.name: found[tap.name] for tap in plan.taps}


def fuse_streams(
    plan: Plan,
    streams: Tensors,
    inputs: Sequence[keras.KerasTensor] = (),
) -> Any:
    """Merges the adapted streams.

    Args:
        plan: The plan.
        streams: The streams by their names.
        inputs: The inputs of the cascade that they were computed from.
            Defaults to `()`.

    Returns:
        The tensors that feed the downstream's inputs, by their names. Without
        a downstream one tensor, or the streams if nothing is merged.

    Raises:
        ValueError: If shapes do not fit together.
    """
    spec, wiring = plan.spec, plan.wiring
    by_name = {n: streams[s] for n, s in (wiring.fed or {}).items()}
    if not wiring.fused:
        return by_name
    taps = {n: streams[n] for n in spec.taps if n in wiring.fused}
    extras = {n: streams[n] for n in spec.extra_inputs if n in wiring.fused}
    then = partial(prepare_features, wiring.joint) if wiring.joint else None
    if spec.fusion is None and then is None:
        fused = _unfused(plan, {**taps, **extras})
    else:
        sizes = _resized(plan, {**taps, **extras}, inputs)
        fused = fuse(taps, extras, spec.fusion, then, *sizes)
    if then is not None:
        return fused
    if plan.downstream is None:
        return fused
    check_width(fused, taps, extras, spec.fusion, _first_fused(plan).target)
    return {plan.downstream_inputs[0]: fused}


def _resized(
    plan: Plan, streams: Tensors, inputs: Sequence[keras.KerasTensor]
) -> tuple[list[str], str | None]:
    """Returns the streams to resize when the model runs, and their format.

    A size that the user's own adapters fixed stays, so that one that does not
    fit is an error.
    """
    stream = _first_fused(plan)
    data_format = (
        stream.target.data_format
        or stream.data_format
        or keras.config.image_data_format()
    )
    rank = {len(x.shape) for x in streams.values()}
    if not needs_one_size(plan.spec.fusion) or len(rank) > 1:
        return [], data_format
    automatic = {s.name for s in plan.streams if s.choice == "auto"}
    first = next(iter(streams.values()))
    return [
        name
        for name in find_other_sizes(streams, inputs, data_format)
        if name in automatic
        or has_open_size(streams[name], data_format)
        or has_open_size(first, data_format)
    ], data_format


def _first_fused(plan: Plan) -> Stream:
    return next(s for s in plan.streams if s.source in plan.wiring.fused)


def run_downstream(
    plan: Plan, fused: Any, feeds: Tensors, prepared: Prepared, replay: Replay
) -> Any:
    """Returns the downstream's outputs; without one, the fused features.

    Args:
        plan: The plan.
        fused: The tensors that feed its inputs, by their names.
        feeds: The tensors that enter its inner layers, by the names of the
            inputs that are added for them.
        prepared: The tensors for its inputs that are the cascade's inputs.
        replay: The `Replay` that built the upstreams.
    """
    if plan.downstream is None:
        return fused
    wiring = plan.wiring
    given = {**prepared.get("downstream", {}), **feeds, **fused}
    sites = [*wiring.sites, *([wiring.joint] if wiring.joint else [])]
    # Layers before a replaced tensor lose their readers: they are pruned.
    graph = inject(plan.downstream, [make_insertion(s, given) for s in sites])
    replay = Replay() if plan.apart else replay
    block = copy_graph(graph, "downstream", pruned=bool(sites), replay=replay)
    flat = [given[x.name] for x in block.inputs]
    return block(keras.tree.pack_sequence_as(block.input, flat))


def _unfused(plan: Plan, streams: Tensors) -> Any:
    """Returns the one stream; all of them if they are the outputs."""
    if plan.downstream is None and plan.spec.head is None:
        return dict(streams)
    if len(streams) > 1:
        raise ValueError(
            f"fusion=None merges nothing, and there are {len(streams)} "
            f"streams ({', '.join(streams)}) for one input. Give a fusion, or "
            "leave out downstream and head to have the streams as outputs."
        )
    return next(iter(streams.values()))
