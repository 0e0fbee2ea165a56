"""Builds a plan's adapters and merges on symbolic inputs: what fits, what not.

The networks themselves are not built: small inputs stand for their tensors.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import keras

from keras_cascade.adapters.choosing import Stream, Target, adapt_streams
from keras_cascade.analysis.report import AdapterChoice, Finding
from keras_cascade.assembly.head import attach_head
from keras_cascade.assembly.networks import fuse_streams
from keras_cascade.assembly.preprocessing import prepare_inputs
from keras_cascade.graph.names import is_numbered_by_keras
from keras_cascade.graph.tensors import input_like
from keras_cascade.injection.merging import make_insertion, prepare_features
from keras_cascade.injection.sites import Site
from keras_cascade.planning.inputs import make_inputs
from keras_cascade.planning.plan import Plan

Tensors = dict[str, keras.KerasTensor]
# What Keras and the backends raise where shapes do not go together.
PROBLEMS = (ValueError, TypeError, RuntimeError)


@dataclass(frozen=True, eq=False)
class Settled:
    """A stream with its adapter.

    Attributes:
        stream: The stream.
        source: A symbolic input that looks like the tap.
        tensor: What leaves the adapter; None where there is no telling.
    """

    stream: Stream
    source: keras.KerasTensor
    tensor: keras.KerasTensor | None

    @cached_property
    def network(self) -> keras.Model | None:
        """The adapter as a network; None where nothing is inserted."""
        if self.tensor is None or self.tensor is self.source:
            return None
        return keras.Model(self.source, self.tensor)

    def choice(self) -> AdapterChoice:
        """What stands there, for the report."""
        choice, network = self.stream.choice, self.network
        given = choice if isinstance(choice, keras.Layer) else None
        layer = given if network is None else _adapter_in(network, given)
        parameters = None if self.tensor is None else 0
        learns = False
        if network is not None:
            parameters = network.count_params()
            has_learned = given is not None and given.built
            learns = bool(network.trainable_variables) and not has_learned
        return AdapterChoice(
            {"auto": "auto", None: "none"}.get(
                choice if given is None else "given", "given"
            ),
            self._name_of(given),
            None if layer is None else type(layer).__name__,
            settings_of(layer) if network and layer else {},
            parameters,
            learns,
        )

    def _name_of(self, given: keras.Layer | None) -> str | None:
        """The name that the user gave; neither Keras nor the builder."""
        if given is None or is_numbered_by_keras(given):
            return None
        own = (self.stream.source, self.stream.name)
        return None if given.name in own else given.name


@dataclass(frozen=True, eq=False)
class Settlement:
    """What all streams, the fusion and the merges come to.

    Attributes:
        streams: The streams, in order.
        merges: The parameters of each injection by its label: on the
            features' side, and inside the downstream.
        fusion_parameters: What the fusion has, and joining the input.
        findings: What does not go together.
    """

    streams: Sequence[Settled]
    merges: Mapping[str, tuple[int, int]]
    fusion_parameters: int
    findings: Sequence[Finding]


def settle(plan: Plan) -> Settlement:
    """Decides every adapter, as building would, and goes on where one fails.

    Args:
        plan: The plan.
    """
    findings: list[Finding] = []
    sources = _sources(plan)
    streams = _settled_streams(plan.streams, sources, findings)
    merges = _merges(plan, streams, findings)
    parameters = 0
    if not findings:
        parameters = _check_the_rest(plan, sources, streams, findings)
    return Settlement(streams, merges, parameters, findings)


def settings_of(layer: keras.Layer) -> dict[str, Any]:
    """The arguments of a layer that are not the defaults of its class."""
    arguments = inspect.signature(type(layer).__init__).parameters
    config = layer.get_config()
    # What Keras settles where nothing was said.
    settled = {
        "activation": "linear",
        "data_format": keras.config.image_data_format(),
    }
    return {
        name: config[name]
        for name, argument in arguments.items()
        if name in config
        and name not in ("name", "trainable", "dtype")
        and config[name] not in (argument.default, settled.get(name))
        and _is_plain(config[name])
    }


def _is_plain(value: Any) -> bool:
    """Initializers and their kin would fill the table."""
    if isinstance(value, list | tuple):
        return all(_is_plain(one) for one in value)
    return value is None or isinstance(value, bool | int | float | str)


def _adapter_in(
    network: keras.Model, given: keras.Layer | None
) -> keras.Layer | None:
    """The one layer that was inserted; a network is named as it was given."""
    if isinstance(given, keras.Model):
        return given
    layers = [
        layer
        for layer in network.layers
        if not isinstance(layer, keras.layers.InputLayer)
    ]
    return layers[-1] if layers else None


def _sources(plan: Plan) -> Tensors:
    """Inputs that look like the taps and extra inputs."""
    tensors = {
        tap.name: keras.KerasTensor(tap.shape, dtype=tap.dtype)
        for tap in plan.taps
    }
    extras = {name: x.tensor for name, x in plan.spec.extra_inputs.items()}
    return {
        name: input_like(tensor, f"{name}_input")
        for name, tensor in {**tensors, **extras}.items()
    }


def _settled_streams(
    streams: Sequence[Stream], sources: Tensors, findings: list[Finding]
) -> list[Settled]:
    inputs = {s.name: sources[s.source] for s in streams}
    adapted: dict[str, keras.KerasTensor | None] = {}
    for target in dict.fromkeys(stream.target for stream in streams):
        group = [s for s in streams if s.target == target]
        try:
            adapted |= adapt_streams(group, inputs)
        except PROBLEMS:
            adapted |= _one_by_one(group, inputs, findings)
    return [Settled(s, inputs[s.name], adapted[s.name]) for s in streams]


def _one_by_one(
    group: Sequence[Stream], inputs: Tensors, findings: list[Finding]
) -> dict[str, keras.KerasTensor | None]:
    """Which of some streams that share a width are the ones that fail."""
    adapted: dict[str, keras.KerasTensor | None] = {}
    for stream in group:
        if not stream.is_open:
            adapted[stream.name] = _adapted(stream, [stream], inputs, findings)
    fixed_fail = any(tensor is None for tensor in adapted.values())
    for stream in group:
        if not stream.is_open:
            continue
        adapted[stream.name] = None
        # What is left for it is not known where a fixed one fails.
        if not fixed_fail:
            members, given = _with_stand_ins(stream, group, inputs)
            adapted[stream.name] = _adapted(stream, members, given, findings)
    return adapted


def _adapted(
    stream: Stream,
    members: Sequence[Stream],
    inputs: Tensors,
    findings: list[Finding],
) -> keras.KerasTensor | None:
    try:
        return adapt_streams(members, inputs)[stream.name]
    except PROBLEMS as error:
        findings.append(Finding("error", (stream.source,), str(error)))
        return None


def _with_stand_ins(
    stream: Stream, group: Sequence[Stream], inputs: Tensors
) -> tuple[list[Stream], Tensors]:
    """The group with features in the others' places that always fit."""
    given = dict(inputs)
    members = []
    for other in group:
        if other is not stream and other.is_open:
            given[other.name] = _stand_in(stream.target)
            data_format = stream.target.data_format
            other = replace(other, choice="auto", data_format=data_format)
        members.append(other)
    return members, given


def _stand_in(target: Target) -> keras.KerasTensor:
    shape = target.shape or (1,)
    return input_like(keras.KerasTensor((None, *shape)), "stand_in")


def _merges(
    plan: Plan, streams: Sequence[Settled], findings: list[Finding]
) -> dict[str, tuple[int, int]]:
    """The parameters of each injection by its label."""
    found = {}
    for site in plan.wiring.sites:
        (one,) = [s for s in streams if site.label in s.stream.labels]
        if one.tensor is None:
            continue
        try:
            found[site.label] = _merge_parameters(site, one.tensor)
        except PROBLEMS as error:
            findings.append(Finding("error", (site.source,), str(error)))
    return found


def _merge_parameters(site: Site, tensor: keras.KerasTensor) -> tuple[int, int]:
    features = input_like(tensor, f"{site.label}_features")
    feeds = prepare_features(site, features)
    outside = keras.Model(features, feeds).count_params()
    return outside, _inner_parameters(site, feeds)


def _inner_parameters(site: Site, feeds: Mapping[str, Any]) -> int:
    """What a merge has inside the downstream."""
    own = input_like(site.tensor, f"{site.label}_own")
    fed = [feeds[name] for name in site.input_names]
    total = 0
    for step in make_insertion(site, feeds).merge(own, fed):
        layer: Any = step.operation
        shapes = keras.tree.map_structure(lambda x: x.shape, step.args[0])
        layer.build(shapes)
        total += layer.count_params()
    return total


def _check_the_rest(
    plan: Plan,
    sources: Tensors,
    streams: Sequence[Settled],
    findings: list[Finding],
) -> int:
    """Fusion, head and preprocessing; gives the fusion's parameters."""
    taps = {tap.name: sources[tap.name] for tap in plan.taps}
    where, parameters = "preprocess", 0
    try:
        prepare_inputs(plan, make_inputs(plan.inputs))
        where = "fusion"
        given = _given(streams)
        fused = fuse_streams(plan, given)
        parameters = _fusion_parameters(plan, given, fused)
        where = "head"
        keep = plan.downstream is not None
        result = _downstream_outputs(plan) if keep else fused
        attach_head(plan.spec.head, result, taps, keep=keep)
    except PROBLEMS as error:
        names = [s.stream.source for s in streams if not s.stream.labels]
        about = tuple(names) if where == "fusion" else (where,)
        findings.append(Finding("error", about, str(error)))
    return parameters


def _given(streams: Sequence[Settled]) -> Tensors:
    """Inputs that look like what is fused, by the streams' names."""
    return {
        s.stream.name: input_like(s.tensor, f"{s.stream.name}_adapted")
        for s in streams
        if s.tensor is not None and not s.stream.labels
    }


def _fusion_parameters(plan: Plan, given: Tensors, fused: Any) -> int:
    """What the fusion's own layers have, and those that join the input."""
    inputs = list(given.values())
    flat = [
        x
        for x in keras.tree.flatten(fused)
        if all(x is not one for one in inputs)
    ]
    total = keras.Model(inputs, flat).count_params() if flat else 0
    if plan.wiring.joint is not None:
        total += _inner_parameters(plan.wiring.joint, fused)
    return total


def _downstream_outputs(plan: Plan) -> Any:
    graph = plan.graphs["downstream"]
    return keras.tree.map_structure(
        lambda x: input_like(x, f"{x.name}_output"), graph.output_structure
    )
