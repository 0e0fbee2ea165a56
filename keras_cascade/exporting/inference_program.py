"""Turns a model into the program that files are written from.

The program has stock layers, those that inference needs, and linear layers
are folded.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import keras
import numpy as np

from keras_cascade._cascade_view import is_cascade
from keras_cascade._keras_compat.graphs_and_layers import sublayers
from keras_cascade.adapters import PCAAdapter
from keras_cascade.data import to_numpy
from keras_cascade.exporting.folding import affine
from keras_cascade.exporting.folding.rules import Folded, Means, fold
from keras_cascade.graph.block import leaf_layers
from keras_cascade.graph.copying import copy_network
from keras_cascade.graph.flattening import as_program
from keras_cascade.graph.program import Program

_HALF = ("float16", "bfloat16")


def to_inference_program(
    model: keras.Model, outputs: Sequence[str] = (), folding: bool = True
) -> Folded:
    """Returns the program of a model, and the rules that folded it.

    Args:
        model: A cascade, or any Functional model. It is not changed.
        outputs: The names of the outputs that are written; all if empty.
        folding: Whether linear layers are folded. Defaults to `True`.
    """
    program = as_program(to_stock_layers(model))
    program = program.pruned(outputs or list(program.outputs))
    if not folding:
        return Folded(program)
    return fold(program, _known_means(model, program))


def with_batch_size(program: Program, size: int | None) -> Program:
    """Returns the program for batches of a size; None leaves it open."""
    if size is None:
        return program

    def sized(shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return (size, *shape[1:]) if shape[:1] == (None,) else shape

    return replace(
        program,
        inputs=tuple(replace(x, shape=sized(x.shape)) for x in program.inputs),
        shapes={ref: sized(shape) for ref, shape in program.shapes.items()},
    )


def weight_bytes(program: Program) -> int:
    """Returns the bytes of all weights of a program in float32."""
    return 4 * sum(
        math.prod(x.shape) for layer in program.layers for x in layer.variables
    )


def to_stock_layers(model: keras.Model) -> keras.Model:
    """Returns a copy in Keras's own layers, or the model if it has no other.

    Half precision is for fast training, and becomes float32: `quantize` says
    what a device stores in 16 bits.
    """
    try:
        copy = model.to_plain() if is_cascade(model) else None
    except NotImplementedError:
        # The user's adapters may have no stock layers: they run as they are.
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
    """Returns the means that are known, in deviations, by the step's name."""
    means = {
        step.name: _shift(step.operation)
        for step in program.steps
        if type(step.operation) is keras.layers.Normalization
        # The Normalization of a PCA only subtracts: its variance is one.
        and (affine.to_float64(step.operation.variance) != 1).any()
    }
    for path, layer in leaf_layers(model):
        if isinstance(layer, PCAAdapter) and layer.fitted:
            name = "/".join((*path[:-1], f"{layer.name}_mean"))
            means[name] = mean_in_deviations(layer)
    return means


def mean_in_deviations(adapter: PCAAdapter) -> float:
    """Returns how many deviations of the features a PCA's mean is from zero."""
    mean = to_numpy(adapter.mean)
    variance = float(to_numpy(adapter.total_variance)) / mean.size
    if adapter.whiten:
        # Whitening makes the faintest component count as much as the others.
        faintest = float(to_numpy(adapter.explained_variance).min())
        variance = min(variance, max(faintest, 0.0))
    return _rms(mean) / max(np.sqrt(variance), np.finfo("float32").tiny)


def _shift(layer: keras.layers.Normalization) -> float:
    """Returns how far a Normalization moves its scaled features."""
    deviation = np.sqrt(affine.to_float64(layer.variance))
    # As in Keras's layer, for a feature that never varies.
    least = keras.config.epsilon()
    return _rms(affine.to_float64(layer.mean) / np.maximum(deviation, least))


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(values, dtype="float64"))))
