"""A cascade as it answers: stock layers, without what only training needs."""

from typing import Any

import keras
import numpy as np

from keras_cascade._keras_compat.graphs_and_layers import sublayers
from keras_cascade.adapters import PCAAdapter
from keras_cascade.data import to_numpy
from keras_cascade.exporting.folding import affine
from keras_cascade.exporting.folding.rules import Folded, Means, fold
from keras_cascade.graph.block import leaf_layers
from keras_cascade.graph.copying import copy_network
from keras_cascade.graph.program import Program, as_program

_HALF = ("float16", "bfloat16")


def freeze(
    model: Any, outputs: list[str] | None = None, folding: bool = True
) -> Folded:
    """What is written of a model.

    Args:
        model: A cascade, or any Functional model; it stays as it is.
        outputs: The names of the outputs that are written; None is all of
            them. Defaults to `None`.
        folding: Whether linear layers are folded. Defaults to `True`.

    Returns:
        The program, and what was folded.
    """
    program = as_program(stock(model))
    program = program.pruned(outputs or list(program.outputs))
    if not folding:
        return Folded(program)
    return fold(program, _known_means(model, program))


def stock(model: Any) -> keras.Model:
    """The model in stock layers, as far as its adapters can be written so.

    Layers that compute in half precision compute in float32 there: it is for
    fast training, and what devices store in 16 bits is said by `quantize`.
    """
    try:
        copy = model.to_plain() if hasattr(model, "to_plain") else None
    except NotImplementedError:
        # An adapter of the user's that runs as it is.
        return model
    if not computes_in_half(model):
        return copy or model
    return _in_float32(copy or copy_network(model, model.name))


def computes_in_half(model: keras.Model) -> bool:
    """Whether any layer computes in float16 or bfloat16."""
    return any(x.compute_dtype in _HALF for x in sublayers(model))


def _in_float32(copy: keras.Model) -> keras.Model:
    for layer in sublayers(copy):
        if layer.compute_dtype in _HALF:
            layer.dtype_policy = "float32"
    return copy


def _known_means(model: keras.Model, program: Program) -> Means:
    """How many deviations from zero the means lie, where it is known."""
    means = {
        step.name: _shift(step.operation)
        for step in program.steps
        if type(step.operation) is keras.layers.Normalization
        and (affine.array(step.operation.variance) != 1).any()
    }
    for path, layer in leaf_layers(model):
        if isinstance(layer, PCAAdapter) and layer.fitted:
            name = "/".join((*path[:-1], f"{layer.name}_mean"))
            means[name] = mean_in_deviations(layer)
    return means


def mean_in_deviations(adapter: PCAAdapter) -> float:
    """How far a PCA's mean lies from zero, in deviations of the features.

    Whitened, its faintest component counts as much as the others: then it is
    in deviations of that one.
    """
    mean = to_numpy(adapter.mean)
    variance = float(to_numpy(adapter.total_variance)) / mean.size
    if adapter.whiten:
        faintest = float(to_numpy(adapter.explained_variance).min())
        variance = min(variance, max(faintest, 0.0))
    return _rms(mean) / max(np.sqrt(variance), np.finfo("float32").tiny)


def _shift(layer: Any) -> float:
    """How far a Normalization moves its features, once they are scaled."""
    deviation = np.sqrt(affine.array(layer.variance))
    least = keras.config.epsilon()
    return _rms(affine.array(layer.mean) / np.maximum(deviation, least))


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype="float64"))))
