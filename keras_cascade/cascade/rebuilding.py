"""Builds a cascade again with changes, and carries over what it learned."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import keras

from keras_cascade._reporting.messages import listed
from keras_cascade.cascade.trainer import Trainer
from keras_cascade.graph import low_rank
from keras_cascade.graph.block import apply_flags, leaf_layers, read_flags
from keras_cascade.graph.copying import copy_graph
from keras_cascade.graph.graph import Graph, Reference, read_graph
from keras_cascade.graph.insertion import remove_injections
from keras_cascade.graph.layer_copying import (
    copy_state_outside_variables,
    to_numpy_copy,
)
from keras_cascade.graph.names import restore_paths
from keras_cascade.graph.quantization import quantize_like
from keras_cascade.graph.tap_places import path_of, select_places
from keras_cascade.injection.sites import find_sites, site_at_input
from keras_cascade.planning.arguments import Arguments, check_names
from keras_cascade.planning.spec import CascadeSpec
from keras_cascade.training.retention import EWC
from keras_cascade.training.retention.keeper import retained_path

# The class of a cascade, which stands above this module.
Built = TypeVar("Built", bound=Trainer)


def rebuild(
    cascade: Built,
    changes: Mapping[str, Any],
    build: Callable[[Arguments], Built],
) -> Built:
    """Builds a cascade again, with changes, and carries over what it learned.

    The cascade stays as it is. `build` makes a cascade of arguments.
    """
    check_names(changes, "rebuild")
    _check_originals_are_there(cascade, changes)
    new = build(replace(_arguments(cascade, changes), **changes))
    new.keep_network_info(cascade, _replaced(cascade, changes))
    _quantize_like(cascade, new, changes)
    new.remember_reinitialized(_carry_over(cascade, new, changes))
    if "trainable" not in changes:
        _carry_flags(cascade, new)
    if "loss" not in changes and cascade.compiled:
        _recompile(new, cascade.get_compile_config(), changes)
    return new


def _arguments(cascade: Trainer, changes: Mapping[str, Any]) -> Arguments:
    """Returns the arguments of a cascade, as they stand for a rebuild."""
    spec = cascade.spec
    return Arguments(
        **_networks(cascade, changes),
        adapters=_adapters_for(
            spec,
            changes.get("taps", spec.taps),
            changes.get("extra_inputs", spec.extra_inputs) or {},
        ),
        fusion=spec.fusion,
        inject=spec.inject or None,
        inputs=spec.inputs or None,
        extra_inputs={n: x.tensor for n, x in spec.extra_inputs.items()},
        downstream_input=spec.downstream_input,
        head=_head(spec),
        preprocess=_preprocess(cascade, changes),
        trainable=spec.trainable,
        learning_rates=spec.learning_rates,
        retention=_retention(cascade, changes),
        copy=not spec.shares,
        name=cascade.name,
    )


def _check_originals_are_there(
    cascade: Trainer, changes: Mapping[str, Any]
) -> None:
    """Raises a ValueError if retention needs networks that are gone."""
    retention = changes.get("retention")
    if not isinstance(retention, Mapping) or not retention:
        return
    blocks = {*cascade.spec.roles} - _replaced(cascade, changes)
    if gone := sorted(b for b in blocks if cascade.source(b) is None):
        raise ValueError(
            "rebuild(retention=...) needs the networks as they were, and those "
            f"of {listed(gone)} no longer exist. Pass them as upstream= and "
            "downstream=."
        )


def _replaced(cascade: Trainer, changes: Mapping[str, Any]) -> set[str]:
    """Returns the networks, and blocks, that become other networks."""
    names = {*cascade.upstreams, *cascade.spec.upstreams}
    upstreams = names if "upstream" in changes else set()
    return upstreams | {"downstream"} & set(changes)


def _retention(cascade: Trainer, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the methods, with the Fisher information that is known."""
    replaced = _replaced(cascade, changes)
    known = {
        path: fisher
        for path, fisher in cascade.known_fishers().items()
        if path.split("/")[0] not in replaced
    }
    return {
        pattern: method.with_known(known) if isinstance(method, EWC) else method
        for pattern, method in cascade.spec.retention.items()
    }


def _preprocess(cascade: Trainer, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the preprocessing of the networks that stay."""
    replaced = _replaced(cascade, changes)
    chosen = cascade.spec.preprocess
    return {name: chosen[name] for name in chosen if name not in replaced}


def _networks(cascade: Trainer, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the original networks if they live, else the blocks."""
    arguments: dict[str, Any] = {"taps": cascade.taps}
    if "upstream" in changes:
        arguments["upstream"] = changes["upstream"]
    else:
        found = {
            name: cascade.source(block) or cascade.blocks[block]
            for name, block in _blocks_of_upstreams(cascade).items()
        }
        alone = list(found) == ["upstream"]
        arguments["upstream"] = found["upstream"] if alone else found
        arguments["taps"] = _taps_of_blocks(cascade)
    if "downstream" in cascade.blocks and "downstream" not in changes:
        arguments["downstream"] = cascade.source(
            "downstream"
        ) or _without_injections(cascade)
    return arguments


def _blocks_of_upstreams(cascade: Trainer) -> dict[str, str]:
    """Returns the block of each upstream; several may be one."""
    # The spec of a clone names no networks.
    names = cascade.spec.upstreams or cascade.upstreams
    return {name: cascade.spec.one_block.get(name, name) for name in names}


def _taps_of_blocks(cascade: Trainer) -> dict[str, str]:
    """Returns the taps; where networks are gone, their paths in the blocks."""
    paths = dict(cascade.taps)
    blocks = _blocks_of_upstreams(cascade)
    for name, block in blocks.items():
        if cascade.source(block) is not None:
            continue
        graph = read_graph(cascade.blocks[block])
        prefix = "" if list(blocks) == ["upstream"] else f"{name}/"
        for tap, tensor in graph.output_structure.items():
            known = cascade.taps.get(tap, "")
            if block == name or known.startswith(prefix):
                inside = known.removeprefix(prefix)
                paths[tap] = prefix + _path_in(graph, tensor, inside)
    return {tap: paths[tap] for tap in cascade.taps}


def _path_in(graph: Graph, tensor: keras.KerasTensor, known: str) -> str:
    """Returns a tensor's path in a block: the known one, if it still fits."""
    innermost = _innermost(graph, graph.reference(tensor))
    for place in select_places(graph, known) if known else ():
        if place.is_tensor and _innermost(graph, place.reference) == innermost:
            return known
    node, _ = graph.sources[id(tensor)]
    alone = len(node.outputs) == 1
    return path_of(graph, graph.reference(tensor) if alone else innermost)


def _innermost(graph: Graph, reference: Reference) -> Reference:
    """Returns the innermost call that computes a tensor."""
    node = graph.by_key[str(reference[0])]
    if node.inner is None:
        return reference
    inside = reference[1:]
    if len(inside) == 1:
        output = node.inner.outputs[int(inside[0])]
        inside = node.inner.reference(output)
    return (node.key, *_innermost(node.inner, inside))


def _without_injections(cascade: Trainer) -> keras.Model:
    """Returns the downstream as it was before features entered it."""
    block = cascade.blocks["downstream"]
    graph, entered = read_graph(block), _outputs(cascade, "adapters")
    sites = find_sites(graph, _merged(cascade), "downstream", entered)
    # A fusion that gives several tensors feeds a place where they join.
    if joining := _outputs(cascade, "fusion"):
        sites.append(site_at_input(graph, 0, entered=joining))
    if not sites:
        return block
    feeds = [name for site in sites for name in site.input_names]
    labels = [f"{site.label}_" for site in sites]
    return copy_graph(
        remove_injections(graph, labels, feeds), block.name, pruned=True
    )


def _outputs(cascade: Trainer, name: str) -> list[str]:
    """Returns the names of a block's outputs, if they have names."""
    block: Any = cascade.blocks.get(name)
    outputs = None if block is None else block.output
    return list(outputs) if isinstance(outputs, Mapping) else []


def _merged(cascade: Trainer) -> dict[str, Any]:
    """Returns the injections, if all of them can be undone."""
    for name, several in cascade.spec.inject.items():
        for injection in several:
            if injection.merge == "replace":
                raise ValueError(
                    f"inject['{name}'] took the place of '{injection.path}', "
                    "and what came before it is not in the cascade. Pass the "
                    "original network: rebuild(downstream=network, ...)."
                )
    return dict(cascade.spec.inject)


def _adapters_for(
    spec: CascadeSpec, taps: Any, extras: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns the adapters of taps that remain; new ones get "auto"."""
    kept = set(taps if isinstance(taps, Mapping) else ()) | set(extras)
    return {n: choice for n, choice in spec.adapters.items() if n in kept}


def _head(spec: CascadeSpec) -> Any:
    if spec.head is None or list(spec.head) != [""]:
        return spec.head
    return spec.head[""]


def _carry_over(
    old: Trainer, new: Trainer, changes: Mapping[str, Any]
) -> tuple[str, ...]:
    """Copies weights of equal path and shape; returns the other paths.

    Networks and adapters that came with a changed argument keep their own
    weights.
    """
    brought = _brought(new, changes)
    known = _known(old, new)
    if "retention" in changes:
        # It has seen the original networks, and data of its own.
        known = {p: v for p, v in known.items() if retained_path(p) == p}
    anew = []
    for variable in new.variables:
        subject = retained_path(variable.path)
        if any(subject.startswith(f"{path}/") for path in brought):
            continue
        match = known.get(variable.path)
        if match is not None and _is_like(match, variable):
            variable.assign(to_numpy_copy(match))
        elif subject == variable.path:
            anew.append(variable.path)
    _carry_state_outside_variables(old, new, brought)
    return tuple(anew)


def _is_like(value: Any, variable: keras.Variable) -> bool:
    """Whether a value fits a variable: packed int4 is no float kernel."""
    integers = ["int" in str(x.dtype) for x in (value, variable)]
    return value.shape == variable.shape and integers[0] == integers[1]


def _carry_state_outside_variables(
    old: Trainer, new: Trainer, brought: Collection[str]
) -> None:
    """Copies vocabularies and the like, but not of layers brought anew."""
    for _, known, layer in _staying(old, new, brought):
        copy_state_outside_variables(known, layer)


def _staying(
    old: Trainer, new: Trainer, brought: Collection[str]
) -> Iterator[tuple[str, keras.Layer, keras.Layer]]:
    """Yields the paths of layers that both have, and that were not brought."""
    known = dict(leaf_layers(old))
    for path, layer in leaf_layers(new):
        above = {"/".join(path[:depth]) for depth in range(1, len(path) + 1)}
        if path in known and not above & set(brought):
            yield "/".join(path), known[path], layer


def _brought(new: Trainer, changes: Mapping[str, Any]) -> set[str]:
    """Returns the paths of networks and adapters with weights of their own."""
    brought = set(new.upstreams) if "upstream" in changes else set()
    if "downstream" in changes:
        brought.add("downstream")
    if "adapters" in changes:
        brought |= {
            f"adapters/{name}"
            for name, layer in new.spec.adapters.items()
            if getattr(layer, "built", False)
        }
    return brought


def _quantize_like(
    old: Trainer, new: Trainer, changes: Mapping[str, Any]
) -> None:
    """Quantizes the layers that are quantized in the old cascade."""
    for path, known, layer in _staying(old, new, _brought(new, changes)):
        quantize_like(known, layer, path)
    restore_paths(new)


def _carry_flags(old: Trainer, new: Trainer) -> None:
    """Copies the flags that were changed after the old one was built."""
    known = dict(leaf_layers(old))
    for path, layer in leaf_layers(new):
        same = known.get(path)
        if same is not None and len(read_flags(same)) == len(read_flags(layer)):
            apply_flags(layer, read_flags(same))


def _known(old: Trainer, new: Trainer) -> dict[str, Any]:
    """Returns the values of the old cascade's variables, by their paths.

    Low-rank updates that the new one lacks, or has of another rank or alpha,
    are merged into their kernels.
    """
    known: dict[str, Any] = {v.path: v for v in old.variables}
    known |= _by_other_paths(old)
    after = _low_rank_layers(new)
    for path, layer in _low_rank_layers(old).items():
        if not low_rank.same_ranks(layer, after.get(path)):
            known[path] = low_rank.merged(layer)
            for factor in low_rank.factors(layer):
                del known[factor.path]
    return known


def _by_other_paths(cascade: Trainer) -> dict[str, keras.Variable]:
    """Returns the variables of shared layers by their later paths."""
    found: dict[str, keras.Variable] = {}
    first: dict[int, str] = {}
    for names, layer in leaf_layers(cascade):
        path = "/".join(names)
        named = first.setdefault(id(layer), path)
        if named != path:
            for variable in layer.variables:
                inside = variable.path.removeprefix(f"{named}/")
                found[f"{path}/{inside}"] = variable
    return found


def _low_rank_layers(cascade: Trainer) -> dict[str, keras.Layer]:
    """Returns layers with low-rank updates, by the paths of their kernels."""
    found = low_rank.low_rank_layers(cascade)
    return {low_rank.base(layer).path: layer for layer in found}


def _recompile(
    new: Trainer, config: dict[str, Any] | None, changes: Mapping[str, Any]
) -> None:
    arguments = keras.saving.deserialize_keras_object(config or {})
    arguments.pop("slots", None)
    for name in ("optimizer", "metrics", "learning_rates"):
        if name in changes:
            arguments[name] = changes[name]
    new.compile(**arguments)
