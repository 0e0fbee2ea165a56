"""Injections: adapted features merged into inner layers of the downstream.

A merge has two sides. What works on the features stands in the block of
adapters; what works on the layer's own tensor stands in the downstream. So a
frozen downstream stays frozen, and what is injected trains all the same.

==========  ==================  =====================  =====================
merge       on the features     in the downstream      silent at step 0, as
==========  ==================  =====================  =====================
`add`       g = gate · f        x + g                  the gate is 0
`multiply`  g = 1 + gate · f    x · g                  the gate is 0
`film`      s = 1 + W f, t = V f  x · s + t            W and V are 0
`concat`    g = W f             x + V x + g            V and W are 0
`replace`   f                   f                      it is not
==========  ==================  =====================  =====================

`film` is feature-wise linear modulation (Perez et al. 2018), `concat` a
projection of both back to the layer's width that starts as the identity on
the layer's own. The gate is a factor a channel (as in LayerScale, Touvron et
al. 2021) where the widths are equal, else a projection.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import keras

from keras_cascade.graph.block import Block
from keras_cascade.graph.insertion import Insertion, MergeStep
from keras_cascade.graph.tensors import input_like
from keras_cascade.injection.gate import Gate
from keras_cascade.injection.sites import Site

# The network inside the block of adapters that holds the features' sides.
FEEDS = "injections"


def feeds_for(
    site: Site, features: keras.KerasTensor
) -> dict[str, keras.KerasTensor]:
    """The features' side of a merge: what is fed into the network.

    Args:
        site: Where it is fed.
        features: The adapted features: of the site's positions, or a vector,
            which holds for all positions.

    Raises:
        ValueError: If their shapes do not go together.
    """
    _check_fits(site, features)
    return {
        name: _spread(site, name, tensor)
        for name, tensor in _SIDES[site.injection.merge](site, features).items()
    }


def feed_block(
    sites: Sequence[Site], streams: Mapping[str, keras.KerasTensor]
) -> dict[str, keras.KerasTensor]:
    """The features' sides of all merges, as one network of the adapters.

    Args:
        sites: The places, each with a stream under its label.
        streams: The adapted features by the sites' labels.

    Returns:
        What is fed, by the names of the inputs that it is fed to.
    """
    inputs = {s.label: input_like(streams[s.label], s.label) for s in sites}
    feeds: dict[str, keras.KerasTensor] = {}
    for site in sites:
        feeds |= feeds_for(site, inputs[site.label])
    block = Block(list(inputs.values()), feeds, name=FEEDS)
    return block([streams[site.label] for site in sites])


def entry_for(site: Site, feeds: Mapping[str, keras.KerasTensor]) -> Insertion:
    """What enters the graph at a site."""
    own = {name: feeds[name] for name in feed_names(site)}

    def merge(
        x: keras.KerasTensor, fed: list[keras.KerasTensor]
    ) -> list[MergeStep]:
        return _STEPS[site.injection.merge](site, x, fed)

    return Insertion(site.address, own, merge)


def feed_names(site: Site) -> list[str]:
    """The inputs that a merge adds to the network."""
    return site.feeds


def placeholders(site: Site) -> dict[str, keras.KerasTensor]:
    """Tensors that look like what will be fed, to plan with."""
    return dict.fromkeys(feed_names(site), site.tensor)


def _check_fits(site: Site, features: keras.KerasTensor) -> None:
    if not keras.backend.is_float_dtype(features.dtype):
        raise ValueError(
            f"inject['{site.source}'] brings {features.dtype} into "
            f"'{site.injection.path}'; features are floats. Give "
            f"'{site.source}' an adapter, such as keras.layers."
            "CategoryEncoding or keras.layers.Embedding, or a float dtype."
        )
    given, wanted = tuple(features.shape[1:]), site.shape
    merge = site.injection.merge
    fits = len(given) == 1 and merge != "replace"
    if len(given) == len(wanted):
        axis = site.channel_axis % len(wanted)
        pairs = zip(given, wanted, strict=True)
        fits = fits or all(
            (position == axis and merge != "replace")
            or None in pair
            or pair[0] == pair[1]
            for position, pair in enumerate(pairs)
        )
    if not fits:
        raise ValueError(
            f"inject['{site.source}'] brings features of shape {given} into "
            f"'{site.injection.path}' {wanted} by merge='{merge}', which "
            "do not go together. Leave its adapter to 'auto', or give one "
            f"that brings it to {wanted}"
            + (" or to a vector." if merge != "replace" else ".")
        )


def _features_of_gate(
    site: Site, features: keras.KerasTensor, plus: float
) -> keras.KerasTensor:
    """Plus + gate · f: a factor a channel, a projection to another width."""
    axis = site.channel_axis if len(features.shape) > 2 else -1
    if features.shape[1:][axis] != site.width:
        return _project(site, features, "projection", plus)
    gate = Gate(
        axis if axis == -1 else 1,
        "zeros" if site.injection.zero_init else "ones",
        dtype=site.dtype,
        name=f"{site.label}_gate",
    )
    return _plus(site, gate(features), plus, "gate")


def _project(
    site: Site,
    features: keras.KerasTensor,
    what: str,
    plus: float = 0.0,
) -> keras.KerasTensor:
    """Plus + W f, at each position."""
    last = site.channel_axis == -1 or len(features.shape) == 2
    rank = len(features.shape)
    name = f"{site.label}_{what}"
    x: Any = features
    if not last:
        to_last = (*range(2, rank), 1)
        x = keras.layers.Permute(to_last, name=f"{name}_last")(x)
    x = _zero_dense(site, name)(x)
    if not last:
        to_first = (rank - 1, *range(1, rank - 1))
        x = keras.layers.Permute(to_first, name=f"{name}_first")(x)
    return _plus(site, x, plus, what)


def _plus(site: Site, x: Any, number: float, what: str) -> Any:
    """Number + x, as a layer: what is no layer has no lasting name."""
    if not number:
        return x
    name = f"{site.label}_{what}_plus"
    return keras.layers.Rescaling(1.0, number, dtype=site.dtype, name=name)(x)


def _zero_dense(site: Site, name: str) -> keras.layers.Dense:
    return keras.layers.Dense(
        site.width,
        use_bias=False,
        kernel_initializer="zeros"
        if site.injection.zero_init
        else "glorot_uniform",
        dtype=site.dtype,
        name=name,
    )


def _spread(site: Site, name: str, tensor: Any) -> Any:
    """A vector as a map of one position, which Keras's merges broadcast."""
    rank = len(site.shape)
    if len(tensor.shape) - 1 == rank or rank == 1:
        return tensor
    shape = [1] * rank
    shape[site.channel_axis] = tensor.shape[-1]
    return keras.layers.Reshape(shape, name=f"{name}_spread")(tensor)


def _add_side(site: Site, f: Any) -> dict[str, Any]:
    return {site.label: _features_of_gate(site, f, 0.0)}


def _multiply_side(site: Site, f: Any) -> dict[str, Any]:
    return {site.label: _features_of_gate(site, f, 1.0)}


def _film_side(site: Site, f: Any) -> dict[str, Any]:
    scale, shift = feed_names(site)
    return {
        scale: _project(site, f, "scaling", 1.0),
        shift: _project(site, f, "shifting"),
    }


def _concat_side(site: Site, f: Any) -> dict[str, Any]:
    return {site.label: _project(site, f, "projection")}


def _replace_side(site: Site, f: Any) -> dict[str, Any]:
    return {site.label: f}


_SIDES = {
    "add": _add_side,
    "multiply": _multiply_side,
    "film": _film_side,
    "concat": _concat_side,
    "replace": _replace_side,
}


def _step(
    site: Site,
    what: str,
    layer: type[keras.layers.Layer],
    x: keras.KerasTensor,
    given: Iterable[keras.KerasTensor],
) -> MergeStep:
    """A merging layer of Keras, whose output looks like the site's."""
    name = f"{site.label}_{what}"
    operation = layer(name=name, dtype=site.dtype)
    output = keras.KerasTensor(x.shape, x.dtype)
    return MergeStep(name, operation, ([x, *given],), output)


def _add_steps(site: Site, x: Any, fed: list) -> list[MergeStep]:
    return [_step(site, "add", keras.layers.Add, x, fed)]


def _multiply_steps(site: Site, x: Any, fed: list) -> list[MergeStep]:
    return [_step(site, "multiply", keras.layers.Multiply, x, fed)]


def _film_steps(site: Site, x: Any, fed: list) -> list[MergeStep]:
    scaled = _step(site, "scaled", keras.layers.Multiply, x, fed[:1])
    shifted = _step(site, "shifted", keras.layers.Add, scaled.output, fed[1:])
    return [scaled, shifted]


def _concat_steps(site: Site, x: Any, fed: list) -> list[MergeStep]:
    *before, projected = _project_steps(site, x)
    joined = _step(site, "join", keras.layers.Add, x, [projected.output, *fed])
    return [*before, projected, joined]


def _replace_steps(site: Site, x: Any, fed: list) -> list[MergeStep]:
    return []


def _project_steps(site: Site, x: Any) -> list[MergeStep]:
    """The layer's own side of `concat`: V x, at each position."""
    name, rank = f"{site.label}_own", len(x.shape)
    dense = _zero_dense(site, name)
    if site.channel_axis == -1:
        output = keras.KerasTensor(x.shape, x.dtype)
        return [MergeStep(name, dense, (x,), output)]
    to_last, to_first = (*range(2, rank), 1), (rank - 1, *range(1, rank - 1))
    shape = (x.shape[0], *x.shape[2:], x.shape[1])
    first = keras.layers.Permute(to_last, name=f"{name}_last")
    last = keras.layers.Permute(to_first, name=f"{name}_first")
    moved = keras.KerasTensor(shape, x.dtype)
    projected = keras.KerasTensor(shape, x.dtype)
    back = keras.KerasTensor(x.shape, x.dtype)
    return [
        MergeStep(f"{name}_last", first, (x,), moved),
        MergeStep(name, dense, (moved,), projected),
        MergeStep(f"{name}_first", last, (projected,), back),
    ]


_STEPS = {
    "add": _add_steps,
    "multiply": _multiply_steps,
    "film": _film_steps,
    "concat": _concat_steps,
    "replace": _replace_steps,
}
