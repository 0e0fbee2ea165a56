"""Merges adapted features into inner layers of the downstream.

A merge has two sides. The layers that work on the features belong to the block
of adapters, those that work on the layer's own tensor to the downstream. So a
frozen downstream stays frozen, while the features' side trains.

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

from collections.abc import Mapping, Sequence
from functools import partial

import keras

from keras_cascade.adapters.size_matching import (
    MatchSize,
    matched_shape,
    position_axes,
)
from keras_cascade.graph.block import Block
from keras_cascade.graph.insertion import Insertion, MergeStep
from keras_cascade.graph.tensors import input_like
from keras_cascade.injection.gate import Gate
from keras_cascade.injection.sites import Site

# The network in the block of adapters that has the features' sides. The name
# stands in saved files.
INJECTIONS = "injections"

Tensors = Mapping[str, keras.KerasTensor]


def prepare_features(site: Site, features: keras.KerasTensor) -> Tensors:
    """Applies the features' side of a merge.

    Args:
        site: The place where the features enter.
        features: The adapted features: of the site's positions, or a vector,
            which counts for all positions.

    Returns:
        The tensors that enter, by the names of the inputs that they need.

    Raises:
        ValueError: If the shapes do not go together.
    """
    _check_fits(site, features)
    side = _FEATURE_SIDES[site.injection.merge](site, features)
    return {name: _spread(site, name, tensor) for name, tensor in side.items()}


def prepare_all_features(sites: Sequence[Site], streams: Tensors) -> Tensors:
    """Applies the features' sides of all merges, as one network.

    Args:
        sites: The places.
        streams: The adapted features by the sites' labels.
    """
    inputs = {s.label: input_like(streams[s.label], s.label) for s in sites}
    outputs: dict[str, keras.KerasTensor] = {}
    for site in sites:
        outputs |= prepare_features(site, inputs[site.label])
    block = Block(list(inputs.values()), outputs, name=INJECTIONS)
    return block([streams[site.label] for site in sites])


def make_insertion(site: Site, tensors: Tensors) -> Insertion:
    """Returns the insertion at a site, of its tensors among others."""
    own = {name: tensors[name] for name in site.input_names}
    merge = partial(_merge_steps, site)
    return Insertion(site.address, own, merge, site.index)


def placeholders(site: Site) -> Tensors:
    """Returns tensors in place of those that will enter, to plan with."""
    return dict.fromkeys(site.input_names, site.tensor)


def _check_fits(site: Site, features: keras.KerasTensor) -> None:
    if not keras.backend.is_float_dtype(features.dtype):
        raise ValueError(
            f"inject['{site.source}'] brings {features.dtype} into "
            f"'{site.injection.path}'; features are floats. Give "
            f"'{site.source}' an adapter, such as keras.layers."
            "CategoryEncoding or keras.layers.Embedding, or a float dtype."
        )
    given, merge = tuple(features.shape[1:]), site.injection.merge
    if not _fits(site, given):
        raise ValueError(
            f"inject['{site.source}'] brings features of shape {given} into "
            f"'{site.injection.path}' {site.shape} by merge='{merge}', which "
            "do not go together. Leave its adapter to 'auto', or give one "
            f"that brings it to {site.shape}"
            + (" or to a vector." if merge != "replace" else ".")
        )


def _fits(site: Site, given: tuple[int | None, ...]) -> bool:
    """Whether features of a shape can be merged at a site."""
    wanted, replaces = site.shape, site.injection.merge == "replace"
    if len(given) == 1 and not replaces:
        return True
    if len(given) != len(wanted):
        return False
    channels = site.channel_axis % len(wanted)
    return all(
        (axis == channels and not replaces)
        or None in (given[axis], wanted[axis])
        or given[axis] == wanted[axis]
        for axis in range(len(wanted))
    )


# --- The features' sides ---------------------------------------------------


def _gate_side(site: Site, features: keras.KerasTensor, plus: float) -> Tensors:
    """Returns plus + gate · f; a projection if the widths differ."""
    axis = site.channel_axis if len(features.shape) > 2 else -1
    if features.shape[1:][axis] != site.width:
        return {site.label: _project(site, features, "projection", plus)}
    gate = Gate(
        # A gate counts axes with the batch.
        axis if axis == -1 else 1,
        "zeros" if site.injection.zero_init else "ones",
        dtype=site.dtype,
        name=f"{site.label}_gate",
    )
    return {site.label: _add_number(site, gate(features), plus, "gate")}


def _film_side(site: Site, features: keras.KerasTensor) -> Tensors:
    scale, shift = site.input_names
    return {
        scale: _project(site, features, "scaling", 1.0),
        shift: _project(site, features, "shifting"),
    }


_FEATURE_SIDES = {
    "add": partial(_gate_side, plus=0.0),
    "multiply": partial(_gate_side, plus=1.0),
    "film": _film_side,
    "concat": lambda site, x: {site.label: _project(site, x, "projection")},
    "replace": lambda site, x: {site.label: x},
}


def _project(
    site: Site, features: keras.KerasTensor, what: str, plus: float = 0.0
) -> keras.KerasTensor:
    """Returns plus + W f, at each position."""
    x = features
    for layer in _projection(site, f"{site.label}_{what}", len(x.shape)):
        x = layer(x)
    return _add_number(site, x, plus, what)


def _projection(site: Site, name: str, rank: int) -> list[keras.Layer]:
    """Returns layers that project each position to the site's width."""
    zero = site.injection.zero_init
    dense = keras.layers.Dense(
        site.width,
        use_bias=False,
        kernel_initializer="zeros" if zero else "glorot_uniform",
        dtype=site.dtype,
        name=name,
    )
    if site.channel_axis == -1 or rank == 2:
        return [dense]
    to_last, to_first = (*range(2, rank), 1), (rank - 1, *range(1, rank - 1))
    return [
        keras.layers.Permute(to_last, name=f"{name}_last"),
        dense,
        keras.layers.Permute(to_first, name=f"{name}_first"),
    ]


def _add_number(
    site: Site, x: keras.KerasTensor, number: float, what: str
) -> keras.KerasTensor:
    if not number:
        return x
    # As a layer: Keras numbers other operations by the process.
    name = f"{site.label}_{what}_plus"
    return keras.layers.Rescaling(1.0, number, dtype=site.dtype, name=name)(x)


def _spread(
    site: Site, name: str, tensor: keras.KerasTensor
) -> keras.KerasTensor:
    """Reshapes a vector to one position, which Keras's merges broadcast."""
    rank = len(site.shape)
    if len(tensor.shape) - 1 == rank or rank == 1:
        return tensor
    shape: list[int | None] = [1] * rank
    shape[site.channel_axis] = tensor.shape[-1]
    return keras.layers.Reshape(shape, name=f"{name}_spread")(tensor)


# --- The downstream's sides ------------------------------------------------


def _merge_steps(
    site: Site, x: keras.KerasTensor, entering: Sequence[keras.KerasTensor]
) -> list[MergeStep]:
    """Returns the steps of a merge, after those that bring sizes together."""
    merge, steps = site.injection.merge, []
    fitting = list(entering)
    for i, (name, tensor) in enumerate(
        zip(site.input_names, entering, strict=True)
    ):
        if merge != "replace" and not _has_positions_of(site, x, tensor):
            steps.append(_matching_step(site, name, tensor, x))
            fitting[i] = steps[-1].output
    return [*steps, *_MERGE_STEPS[merge](site, x, fitting)]


def _has_positions_of(
    site: Site, x: keras.KerasTensor, tensor: keras.KerasTensor
) -> bool:
    """Whether sizes are known to be equal, or to be one for all positions."""
    axes = position_axes(len(x.shape), site.data_format)
    given = [tensor.shape[axis] for axis in axes]
    wanted = [x.shape[axis] for axis in axes]
    if all(size == 1 for size in given):
        return True
    return None not in given and given == wanted


def _matching_step(
    site: Site, name: str, tensor: keras.KerasTensor, x: keras.KerasTensor
) -> MergeStep:
    """Returns the step that resizes features to a layer, when it runs."""
    layer = MatchSize(site.data_format, dtype=site.dtype, name=f"{name}_size")
    shape = matched_shape(tensor.shape, x.shape, site.data_format)
    output = keras.KerasTensor(shape, tensor.dtype)
    return MergeStep(layer.name, layer, ([tensor, x],), output)


def _elementwise_steps(
    site: Site,
    x: keras.KerasTensor,
    entering: Sequence[keras.KerasTensor],
    layer: type[keras.Layer],
) -> list[MergeStep]:
    return [_step(site, site.injection.merge, layer, [x, *entering])]


def _film_steps(
    site: Site, x: keras.KerasTensor, entering: Sequence[keras.KerasTensor]
) -> list[MergeStep]:
    scale, shift = entering
    scaled = _step(site, "scaled", keras.layers.Multiply, [x, scale])
    return [
        scaled,
        _step(site, "shifted", keras.layers.Add, [scaled.output, shift]),
    ]


def _concat_steps(
    site: Site, x: keras.KerasTensor, entering: Sequence[keras.KerasTensor]
) -> list[MergeStep]:
    layers = _projection(site, f"{site.label}_own", len(x.shape))
    moved = (x.shape[0], *x.shape[2:], x.shape[1])
    shapes = [x.shape] if len(layers) == 1 else [moved, moved, x.shape]
    steps: list[MergeStep] = []
    tensor = x
    for layer, shape in zip(layers, shapes, strict=True):
        # The layers are called for the first time in the copy: a call made
        # here would leave a node on the layer that gave its argument.
        output = keras.KerasTensor(shape, x.dtype)
        steps.append(MergeStep(layer.name, layer, (tensor,), output))
        tensor = output
    join = _step(site, "join", keras.layers.Add, [x, tensor, *entering])
    return [*steps, join]


_MERGE_STEPS = {
    "add": partial(_elementwise_steps, layer=keras.layers.Add),
    "multiply": partial(_elementwise_steps, layer=keras.layers.Multiply),
    "film": _film_steps,
    "concat": _concat_steps,
    "replace": lambda site, x, entering: [],
}


def _step(
    site: Site,
    what: str,
    layer: type[keras.Layer],
    tensors: Sequence[keras.KerasTensor],
) -> MergeStep:
    """Returns a merging layer of Keras, whose output is like the first."""
    name = f"{site.label}_{what}"
    output = keras.KerasTensor(tensors[0].shape, tensors[0].dtype)
    operation = layer(name=name, dtype=site.dtype)
    return MergeStep(name, operation, (list(tensors),), output)
