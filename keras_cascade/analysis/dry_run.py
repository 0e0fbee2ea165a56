"""Builds the adapters and merges of a plan on symbolic inputs: a dry run.

The networks themselves are not built: small inputs stand for their tensors.

Tested by `tests/analysis/test_interface.py`.
"""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import keras

from keras_cascade.adapters.streams import Stream, adapt_streams
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
# None for a stream whose adapter failed.
Adapted = dict[str, keras.KerasTensor | None]
# Keras and the backends raise these if shapes do not fit.
SHAPE_ERRORS = (ValueError, TypeError, RuntimeError)


@dataclass(frozen=True, eq=False)
class AdaptedStream:
    """A stream with its adapter.

    Attributes:
        stream: The stream.
        source: A symbolic input like the tap.
        tensor: The adapter's output; None if the adapter failed.
    """

    stream: Stream
    source: keras.KerasTensor
    tensor: keras.KerasTensor | None

    @cached_property
    def network(self) -> keras.Model | None:
        """The adapter as a network; None if nothing is inserted."""
        if self.tensor is None or self.tensor is self.source:
            return None
        return keras.Model(self.source, self.tensor)

    def adapter_choice(self) -> AdapterChoice:
        """Returns the adapter for the report."""
        choice, network = self.stream.choice, self.network
        given = choice if isinstance(choice, keras.Layer) else None
        layer, settings = given, {}
        parameters, learns = None if self.tensor is None else 0, False
        if network is not None:
            layer = _inserted_layer(network, given)
            settings = {} if layer is None else _settings(layer)
            parameters = network.count_params()
            is_new = given is None or not given.built
            learns = is_new and bool(network.trainable_variables)
        return AdapterChoice(
            {"auto": "auto", None: "none"}.get(choice, "given"),
            self._user_name(given),
            None if layer is None else type(layer).__name__,
            settings,
            parameters,
            learns,
        )

    def _user_name(self, given: keras.Layer | None) -> str | None:
        """Returns a layer's name, unless Keras or the plan chose it."""
        if given is None or is_numbered_by_keras(given):
            return None
        planned = (self.stream.source, self.stream.name)
        return None if given.name in planned else given.name


@dataclass(frozen=True, eq=False)
class DryRun:
    """The result of building a plan's adapters and merges.

    Attributes:
        streams: The streams with their adapters, in order.
        merges: The parameters of each injection by its label: on the
            features' side, and inside the downstream.
        fusion_parameters: The parameters of the fusion, and of joining it
            with the input.
        findings: The errors.
    """

    streams: Sequence[AdaptedStream]
    merges: Mapping[str, tuple[int, int]]
    fusion_parameters: int
    findings: Sequence[Finding]


def dry_run(plan: Plan) -> DryRun:
    """Builds every adapter and merge, and goes on after one that fails."""
    findings: list[Finding] = []
    sources = _sources(plan)
    streams = _adapt(plan.streams, sources, findings)
    merges = _merges(plan, streams, findings)
    parameters = 0
    # Fusion and head need every stream.
    if not findings:
        parameters = _fuse_and_finish(plan, sources, streams, findings)
    return DryRun(streams, merges, parameters, findings)


def _settings(layer: keras.Layer) -> dict[str, Any]:
    """Returns the arguments of a layer that are not its class's defaults."""
    arguments = inspect.signature(type(layer).__init__).parameters
    config = layer.get_config()
    # A layer's config has these in place of the default None.
    resolved = {
        "activation": "linear",
        "data_format": keras.config.image_data_format(),
    }
    return {
        name: config[name]
        for name, argument in arguments.items()
        if name in config
        and name not in ("name", "trainable", "dtype")
        and config[name] not in (argument.default, resolved.get(name))
        and _is_plain(config[name])
    }


def _is_plain(value: object) -> bool:
    """Whether a value fits into a table cell, unlike an initializer."""
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _inserted_layer(
    network: keras.Model, given: keras.Layer | None
) -> keras.Layer | None:
    if isinstance(given, keras.Model):
        return given
    layer = network.layers[-1]
    return None if isinstance(layer, keras.layers.InputLayer) else layer


def _sources(plan: Plan) -> Tensors:
    """Returns inputs like the taps and extra inputs."""
    taps = {
        tap.name: keras.KerasTensor(tap.shape, dtype=tap.dtype)
        for tap in plan.taps
    }
    extras = {name: x.tensor for name, x in plan.spec.extra_inputs.items()}
    return {
        name: input_like(tensor, f"{name}_input")
        for name, tensor in {**taps, **extras}.items()
    }


def _adapt(
    streams: Sequence[Stream], sources: Tensors, findings: list[Finding]
) -> list[AdaptedStream]:
    inputs = {s.name: sources[s.source] for s in streams}
    adapted: Adapted = {}
    for target in dict.fromkeys(stream.target for stream in streams):
        group = [s for s in streams if s.target == target]
        try:
            adapted |= adapt_streams(group, inputs)
        except SHAPE_ERRORS:
            adapted |= _adapt_one_by_one(group, inputs, findings)
    return [AdaptedStream(s, inputs[s.name], adapted[s.name]) for s in streams]


def _adapt_one_by_one(
    group: Sequence[Stream], inputs: Tensors, findings: list[Finding]
) -> Adapted:
    """Finds out which streams fail, of some that share a width."""
    fixed = {
        stream.name: _adapt_one(stream, [stream], inputs, findings)
        for stream in group
        if not stream.is_open
    }
    # The width that is left for open ones is unknown if a fixed one fails.
    if None in fixed.values():
        return {stream.name: fixed.get(stream.name) for stream in group}
    return fixed | {
        stream.name: _adapt_one(
            stream, *_with_stand_ins(stream, group, inputs), findings
        )
        for stream in group
        if stream.is_open
    }


def _adapt_one(
    stream: Stream,
    members: Sequence[Stream],
    inputs: Tensors,
    findings: list[Finding],
) -> keras.KerasTensor | None:
    try:
        return adapt_streams(members, inputs)[stream.name]
    except SHAPE_ERRORS as error:
        findings.append(Finding("error", (stream.source,), str(error)))
        return None


def _with_stand_ins(
    stream: Stream, group: Sequence[Stream], inputs: Tensors
) -> tuple[list[Stream], Tensors]:
    """Replaces the other open streams by features that fit in any case."""
    target = stream.target
    stand_in = keras.KerasTensor((None, *(target.shape or (1,))))
    others = [s for s in group if s is not stream and s.is_open]
    fitting = {
        s.name: replace(s, choice="auto", data_format=target.data_format)
        for s in others
    }
    features = {name: input_like(stand_in, "stand_in") for name in fitting}
    return [fitting.get(s.name, s) for s in group], {**inputs, **features}


def _merges(
    plan: Plan, streams: Sequence[AdaptedStream], findings: list[Finding]
) -> dict[str, tuple[int, int]]:
    """Returns the parameters of each injection by its label."""
    found = {}
    for site in plan.wiring.sites:
        (one,) = [s for s in streams if site.label in s.stream.labels]
        if one.tensor is None:
            continue
        try:
            found[site.label] = _merge_parameters(site, one.tensor)
        except SHAPE_ERRORS as error:
            findings.append(Finding("error", (site.source,), str(error)))
    return found


def _merge_parameters(site: Site, tensor: keras.KerasTensor) -> tuple[int, int]:
    features = input_like(tensor, f"{site.label}_features")
    feeds = prepare_features(site, features)
    outside = keras.Model(features, feeds).count_params()
    return outside, _inner_parameters(site, feeds)


def _inner_parameters(
    site: Site, feeds: Mapping[str, keras.KerasTensor]
) -> int:
    """Returns the parameters that a merge has inside the downstream."""
    own = input_like(site.tensor, f"{site.label}_own")
    fed = [feeds[name] for name in site.input_names]
    total = 0
    for step in make_insertion(site, feeds).merge(own, fed):
        layer: Any = step.operation
        # Only a built layer has variables to count.
        shapes = keras.tree.map_structure(lambda x: x.shape, step.args[0])
        layer.build(shapes)
        total += layer.count_params()
    return total


def _fuse_and_finish(
    plan: Plan,
    sources: Tensors,
    streams: Sequence[AdaptedStream],
    findings: list[Finding],
) -> int:
    """Tries preprocessing, fusion and head; returns the fusion's parameters."""
    taps = {tap.name: sources[tap.name] for tap in plan.taps}
    # Injected streams do not join the fusion.
    joining = [s for s in streams if not s.stream.labels]
    where: tuple[str, ...] = ("preprocess",)
    parameters = 0
    try:
        prepare_inputs(plan, make_inputs(plan.inputs))
        where = tuple(s.stream.source for s in joining)
        given = {
            s.stream.name: input_like(s.tensor, f"{s.stream.name}_adapted")
            for s in joining
            if s.tensor is not None
        }
        fused = fuse_streams(plan, given)
        parameters = _fusion_parameters(plan, given, fused)
        where = ("head",)
        result = fused
        if plan.downstream is not None:
            result = keras.tree.map_structure(
                lambda x: input_like(x, f"{x.name}_output"),
                plan.downstream.output_structure,
            )
        keep = plan.downstream is not None
        attach_head(plan.spec.head, result, taps, keep=keep)
    except SHAPE_ERRORS as error:
        findings.append(Finding("error", where, str(error)))
    return parameters


def _fusion_parameters(plan: Plan, given: Tensors, fused: Any) -> int:
    inputs = list(given.values())
    # A single stream is its own fusion.
    outputs = [
        x
        for x in keras.tree.flatten(fused)
        if all(x is not one for one in inputs)
    ]
    total = keras.Model(inputs, outputs).count_params() if outputs else 0
    if plan.wiring.joint is not None:
        total += _inner_parameters(plan.wiring.joint, fused)
    return total
