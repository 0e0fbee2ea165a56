"""build_cascade(): the whole flow, a line a stage. Read this first."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras

from keras_cascade.adapters.choosing import Target, adapt_streams
from keras_cascade.cascade import Cascade
from keras_cascade.fusion import check_fusion, check_width, fuse
from keras_cascade.graph.copying import copy_network
from keras_cascade.graph.names import name_variables
from keras_cascade.graph.reading import read_graph
from keras_cascade.graph.taps import Tap, Taps, resolve_taps
from keras_cascade.head import attach_head
from keras_cascade.inputs import (
    input_names,
    main_inputs,
    packed,
    side_inputs,
    taken_names,
)
from keras_cascade.networks.loading import as_network, load_network
from keras_cascade.spec import (
    CascadeSpec,
    NetworkInfo,
    normalise_adapters,
    normalise_extra_inputs,
    normalise_head,
    normalise_rates,
    normalise_trainable,
)
from keras_cascade.training.routing import Routes
from keras_cascade.training.trainability import set_trainable

Network = keras.Model | str | Path
Tensors = dict[str, keras.KerasTensor]


def build_cascade(
    upstream: Network,
    downstream: Network | None = None,
    *,
    taps: Taps = None,
    adapters: Any = "auto",
    fusion: Any = "concat",
    extra_inputs: Mapping[str, Any] | None = None,
    head: Any = None,
    trainable: bool | Mapping[str, bool] | None = None,
    learning_rates: Mapping[str, Any] | None = None,
    optimizer: Any = "adam",
    loss: Any = None,
    metrics: Any = None,
    copy: bool = True,
    name: str = "cascade",
) -> Cascade:
    """Makes one Keras model of pretrained networks.

    Named intermediate outputs of the upstream, the taps, pass through
    adapters, are merged with side features, and become the input of the
    downstream. All taps come from one forward pass; what no tap needs is not
    in the cascade. The upstream is frozen unless `trainable` says otherwise,
    and frozen layers run in inference mode.

    Args:
        upstream: The network whose features are read: a `keras.Model` with a
            defined input shape, or the path of a `.keras` file.
        downstream: The network of one input that receives them; `None` ends
            the cascade behind the fusion, or with `head`. Defaults to `None`.
        taps: What is read: a path, a list of paths, `{tap name: path}`, or
            `None` for every output of the upstream. `list_taps` shows the
            paths; `keras_cascade.graph.paths` has their grammar. Defaults to
            `None`.
        adapters: What stands behind the taps: `"auto"`, `None`, a number of
            units, an adapter or Keras layer (a template, copied for each
            tap), a list in order, or `{tap or extra input: any of these}`,
            where taps left out get `"auto"`. Widths left open are settled by
            what the downstream expects. Defaults to `"auto"`.
        fusion: How taps are merged: `"concat"`, `"add"`, `"average"`,
            `"multiply"`, `"maximum"`, a merging layer, or `None`: not, for a
            single tap or as outputs by name. Defaults to `"concat"`.
        extra_inputs: Side features, `{name: shape without batch}` or
            `{name: keras.Input}`, concatenated behind the merged taps.
            Defaults to `None`.
        head: What follows at the end: a number of classes (Dense and softmax;
            1: sigmoid), a layer, a list of layers, or `{output name: any of
            these}`; under a tap's name it reads that tap. Defaults to `None`.
        trainable: What trains: `None` freezes the upstream; a bool holds for
            all; `{path pattern: bool}` applies on top of `None`, later
            entries over earlier ones. Defaults to `None`.
        learning_rates: `{path pattern: float or LearningRateSchedule}`; the
            rest has the optimizer's own. Defaults to `None`.
        optimizer: Name or object, which is copied. Defaults to `"adam"`.
        loss: As in `compile`. `None` leaves compiling to you. Defaults to
            `None`.
        metrics: As in `compile`. Defaults to `None`.
        copy: Whether to work on copies, so that what is passed in stays as it
            is. With `False` the networks' own layers are used, flags included,
            under the names that they have. Defaults to `True`.
        name: The name of the model. Defaults to `"cascade"`.

    Returns:
        The `Cascade`, compiled if there is a loss.

    Raises:
        ValueError: If something does not go together; the message says what,
            where, and what is possible.
        TypeError: If an argument is of a kind that is not understood.

    Example:
    >>> cascade = kc.build_cascade(
    ...     kc.zoo.load("glyph_encoder"),
    ...     kc.zoo.load("digits_expert"),
    ...     taps={"texture": "stage2_out", "shape": "-1"},
    ...     adapters={"texture": kc.adapters.PCAAdapter(32)},
    ...     extra_inputs={"metadata": (2,)},
    ... )
    """
    sources = _load(upstream, downstream)
    networks = {role: as_network(net, role) for role, net in sources.items()}
    graph = read_graph(networks["upstream"], keep_names=not copy)
    tapped = resolve_taps(graph, taps, "upstream")
    names = input_names(graph)
    extras = normalise_extra_inputs(extra_inputs, taken_names(tapped, names))
    spec = CascadeSpec(
        networks={k: NetworkInfo.of(v) for k, v in sources.items()},
        taps={tap.name: tap.path for tap in tapped},
        adapters=normalise_adapters(
            adapters, [t.name for t in tapped], list(extras)
        ),
        fusion=check_fusion(fusion),
        extra_inputs=extras,
        head=normalise_head(head),
        trainable=normalise_trainable(trainable),
        learning_rates=normalise_rates(learning_rates),
        shares=not copy,
    )
    target = _target(networks.get("downstream"), spec)
    inputs, features = _read_taps(networks["upstream"], tapped, names, spec)
    side = side_inputs(extras)
    streams = adapt_streams(
        {**features, **side}, list(side), spec.adapters, target
    )
    fused = _fuse(streams, spec, target)
    result = _run_downstream(fused, networks.get("downstream"), spec)
    outputs = _attach_head(result, features, spec)
    cascade = Cascade(packed({**inputs, **side}), outputs, spec=spec, name=name)
    _finish(cascade, sources)
    if loss is not None:
        cascade.compile(optimizer=optimizer, loss=loss, metrics=metrics)
    return cascade


def _load(
    upstream: Network, downstream: Network | None
) -> dict[str, keras.Model]:
    """The networks as the user has them, by the names of their blocks."""
    given = {"upstream": upstream, "downstream": downstream}
    return {
        role: load_network(network, role)
        for role, network in given.items()
        if network is not None or role == "upstream"
    }


def _check_one_input(downstream: keras.Model) -> None:
    if len(downstream.inputs) != 1:
        inputs = ", ".join(f"'{x.name}'" for x in downstream.inputs)
        raise ValueError(
            f"downstream '{downstream.name}' has {len(downstream.inputs)} "
            f"inputs ({inputs}); a downstream has one."
        )


def _target(downstream: keras.Model | None, spec: CascadeSpec) -> Target:
    """What the streams go into."""
    concatenated = spec.fusion == "concat"
    if downstream is None:
        return Target(concatenated=concatenated)
    _check_one_input(downstream)
    shape = tuple(downstream.inputs[0].shape[1:])
    return Target(downstream.name, shape, concatenated)


def _read_taps(
    upstream: keras.Model,
    tapped: Sequence[Tap],
    names: Mapping[str, str],
    spec: CascadeSpec,
) -> tuple[Tensors, Tensors]:
    """The cascade's inputs, and the upstream's features by tap name."""
    wanted = {tap.name: tap.reference for tap in tapped}
    block = copy_network(upstream, "upstream", wanted, share=spec.shares)
    inputs = main_inputs(block, names)
    flat = list(inputs.values())
    return inputs, block(keras.tree.pack_sequence_as(block.input, flat))


def _fuse(streams: Tensors, spec: CascadeSpec, target: Target) -> Any:
    """One tensor for what follows, or all streams where nothing is merged."""
    followed = target.shape is not None or spec.head is not None
    if spec.fusion is None:
        if followed and len(streams) > 1:
            raise ValueError(
                "fusion=None merges nothing, and there are "
                f"{len(streams)} streams ({', '.join(streams)}) for one input. "
                "Give a fusion, or leave out downstream and head to have the "
                "streams as outputs."
            )
        return next(iter(streams.values())) if followed else streams
    extras = {name: streams[name] for name in spec.extra_inputs}
    taps = {name: streams[name] for name in spec.taps}
    fused = fuse(taps, extras, spec.fusion)
    if target.shape is not None:
        check_width(fused, taps, extras, spec.fusion, target)
    return fused


def _run_downstream(
    fused: Any, downstream: keras.Model | None, spec: CascadeSpec
) -> Any:
    if downstream is None:
        return fused
    block = copy_network(downstream, "downstream", share=spec.shares)
    return block(keras.tree.pack_sequence_as(block.input, [fused]))


def _attach_head(result: Any, features: Tensors, spec: CascadeSpec) -> Any:
    if spec.head is None:
        return result
    if not isinstance(result, keras.KerasTensor):
        outputs = ", ".join(x.name for x in keras.tree.flatten(result))
        raise ValueError(
            f"A head stands behind one output; there are several: {outputs}."
        )
    return attach_head(spec.head, result, features)


def _finish(cascade: Cascade, sources: Mapping[str, keras.Model]) -> None:
    """Paths of variables, flags, and a check that each rate belongs."""
    for name, block in cascade.blocks.items():
        if name not in sources or not cascade.spec.shares:
            name_variables(block, name)
    routes = Routes(cascade)
    set_trainable(routes, cascade.spec.trainable)
    routes.owners(cascade.spec.learning_rates, "learning_rates")
    cascade.remember_sources(sources)
