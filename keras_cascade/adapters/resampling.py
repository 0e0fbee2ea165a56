"""Resampling along an axis, as a product with a matrix of weights.

Keras's `ops.image.resize` gives the same numbers, but antialiased it is an
operation on TensorFlow that neither XLA nor LiteRT know (`ScaleAndTranslate`).
A product is exact, has gradients, and can be exported, on every backend.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_cascade._keras_compat.annotations import DType, Shape, Tensor
from keras_cascade.adapters.plain import with_weights

INTERPOLATIONS = ("bilinear", "nearest")


@dataclass(frozen=True)
class Resampling:
    """Brings an axis to another size.

    Positions are the centres of equal cells, as in `ops.image.resize`. With
    `"bilinear"`, a result's weights are a triangle around its centre; where
    the axis gets shorter and `antialias` is set, the triangle is widened by
    the ratio of the sizes, so that every position counts. Weights add up to
    one, at the ends too.

    Args:
        axis: The axis, batch included.
        size: Its new size; None keeps the size.
        interpolation: `"bilinear"` or `"nearest"`. Defaults to `"bilinear"`.
        antialias: Whether the triangle widens. Defaults to `True`.

    Example:
    >>> Resampling(1, 2).kernel(4).T
    array([[0.42857143, 0.42857143, 0.14285714, 0.        ],
           [0.        , 0.14285714, 0.42857143, 0.42857143]])
    """

    axis: int
    size: int | None
    interpolation: str = "bilinear"
    antialias: bool = True

    def __call__(self, x: Tensor) -> Any:
        """Returns the resampled tensor."""
        count = x.shape[self.axis]
        if self.size in (None, count):
            return x
        if count is None:
            # Known when it runs: the same weights, in the backend's numbers.
            shape: Any = ops.shape(x)
            places: Any = ops.arange(shape[self.axis], dtype="float32")
            count = ops.cast(shape[self.axis], "float32")
            kernel = ops.transpose(self._weights(ops, places, count))
        else:
            kernel = ops.convert_to_tensor(self.kernel(count), dtype="float32")
        kernel = ops.cast(kernel, x.dtype)
        return ops.einsum(self._equation(len(x.shape)), x, kernel)

    def kernel(self, count: int) -> np.ndarray:
        """Returns the weights `(count, size)` for `count` positions."""
        return self._weights(np, np.arange(count), count).T

    def of_array(self, x: np.ndarray) -> np.ndarray:
        """Returns the resampled NumPy array."""
        moved = np.moveaxis(x, self.axis, -1)
        weighted = moved @ self.kernel(x.shape[self.axis]).astype(x.dtype)
        return np.moveaxis(weighted, -1, self.axis)

    def masked(self, x: Tensor, mask: Tensor) -> Any:
        """Returns the resampled sequence, made of the steps that count.

        Masked steps weigh nothing, and the weights of the others are scaled
        to add up to one; a step that is made of masked ones only is zero.
        """
        if self.size in (None, x.shape[self.axis]):
            return x
        weights = self._masked_weights(mask)
        total: Any = ops.sum(weights, axis=-1, keepdims=True)
        weights = weights / ops.where(total > 0, total, ops.ones_like(total))
        return ops.matmul(ops.cast(weights, x.dtype), without_masked(x, mask))

    def mask(self, mask: Tensor) -> Any:
        """Returns the mask of the result: steps made of any that count."""
        if self.size in (None, mask.shape[1]):
            return mask
        return ops.any(ops.greater(self._masked_weights(mask), 0.0), axis=-1)

    def sized(self, shape: Shape) -> Shape:
        """Returns the shape of the result, for an input of `shape`."""
        size = shape[self.axis] if self.size is None else self.size
        return (*shape[: self.axis], size, *shape[self.axis + 1 :])

    def layer(
        self, shape: Shape, name: str, dtype: DType
    ) -> keras.layers.Layer:
        """Returns a frozen stock layer that does the same, on a known size."""
        layer = keras.layers.EinsumDense(
            self._equation(len(shape)),
            self.sized(shape)[1:],
            trainable=False,
            name=name,
            dtype=dtype,
        )
        return with_weights(layer, shape, [self.kernel(shape[self.axis] or 0)])

    def _equation(self, rank: int) -> str:
        given = "abcde"[:rank]
        summed = given[self.axis]
        return f"{given},{summed}z->{given.replace(summed, 'z')}"

    def _masked_weights(self, mask: Tensor) -> Any:
        """Returns weights `(batch, size, steps)`, zero for masked steps."""
        counts = ops.expand_dims(ops.cast(mask, "float32"), 1)
        # Counted rather than read off the shape, which may not be known.
        ones = ops.ones_like(counts)
        places: Any = ops.subtract(ops.cumsum(ones, axis=-1), 1.0)
        count: Any = ops.sum(ones, axis=-1, keepdims=True)
        return ops.multiply(self._weights(ops, places, count), counts)

    def _weights(
        self, lib: ModuleType, places: Tensor, count: int | Tensor
    ) -> Any:
        """Returns weights `(..., size, count)`; `lib` is NumPy or `ops`."""
        if self.size is None:
            raise ValueError("There is no size to resample to.")
        kind = "float64" if lib is np else "float32"
        cells = np.arange(self.size, dtype=kind)[:, None]
        raw = triangles(lib, places, cells, lib.divide(count, self.size), self)
        return lib.divide(raw, lib.sum(raw, axis=-1, keepdims=True))


def triangles(
    lib: ModuleType,
    places: Tensor,
    cells: Tensor,
    ratio: Tensor,
    rule: Resampling,
) -> Any:
    """Returns the weight of each place for each cell, not yet scaled.

    One formula for NumPy, tensors and symbolic tensors.

    Args:
        lib: NumPy or `ops`.
        places: The numbers of the positions that there are.
        cells: Those of the positions that are wanted, as a column.
        ratio: How many of the first there are for each of the second.
        rule: The interpolation, and whether it is antialiased.
    """
    centres = lib.multiply(lib.add(cells, 0.5), ratio)
    if rule.interpolation == "nearest":
        distance = lib.abs(lib.subtract(places, lib.floor(centres)))
    else:
        distance = lib.abs(lib.subtract(places, lib.subtract(centres, 0.5)))
        if rule.antialias:
            distance = lib.divide(distance, lib.maximum(ratio, 1.0))
    return lib.maximum(lib.subtract(1.0, distance), 0.0)


def resampled_shape(shape: Shape, steps: Iterable[Resampling]) -> Shape:
    """Returns the shape after several resamplings of an input of `shape`."""
    for step in steps:
        shape = step.sized(shape)
    return shape


def without_masked(x: Tensor, mask: Tensor) -> Any:
    """Returns a sequence `(batch, steps, features)`, zero where masked."""
    kept = ops.expand_dims(ops.cast(mask, "bool"), -1)
    # Not a product with the mask: masked steps may be NaN.
    return ops.where(kept, x, ops.zeros_like(x))


def resizing_model(
    shape: Shape, resamplings: list[Resampling], data_format: str, name: str
) -> keras.Model:
    """Returns a stock model that resamples axes of unknown sizes."""
    resized = resampled_shape(shape, resamplings)
    size = tuple(resized[step.axis] for step in resamplings)
    if None in size:
        raise NotImplementedError(
            f"'{name}' would resize positions of shape {shape} to {size}: "
            "stock layers need to know both sizes. Give the network's input "
            "a fixed size, or the adapter a full one."
        )
    is_sequence = len(shape) == 3
    inputs: Any = keras.Input(shape[1:])
    result: Any = ops.image.resize(
        ops.expand_dims(inputs, 2) if is_sequence else inputs,
        (*size, 1) if is_sequence else size,
        interpolation=resamplings[0].interpolation,
        antialias=resamplings[0].antialias,
        data_format="channels_last" if is_sequence else data_format,
    )
    if is_sequence:
        result = ops.squeeze(result, 2)
    return keras.Model(inputs, result, name=name)
