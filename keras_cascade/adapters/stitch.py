"""StitchAdapter: an affine map to what the downstream itself computes."""

from collections.abc import Sequence
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from keras_cascade._keras_compat.annotations import DType, Shape, Tensor
from keras_cascade.adapters.affine import METHODS, Scatter, fit_affine
from keras_cascade.adapters.learning import (
    LearningAdapter,
    check_finite,
    is_finite,
)
from keras_cascade.adapters.moments import Moments
from keras_cascade.adapters.plain import Layers
from keras_cascade.adapters.pooling import (
    channel_axis,
    pool_features,
    pooling_layers,
)
from keras_cascade.adapters.resampling import Resampling
from keras_cascade.adapters.resizing import ResizingAdapter
from keras_cascade.data import to_numpy


class _Held:
    """A network that is no part of the adapter: Keras would track it."""

    def __init__(self, network: keras.Model | None):
        self.network = network


@keras.saving.register_keras_serializable(package="keras_cascade")
class StitchAdapter(LearningAdapter, ResizingAdapter):
    """Maps a tap to what the downstream itself computes where it is entered.

    The adapter for entering a network mid-way,
    `Injection(path, merge="replace")`. `adapt` runs the original downstream up
    to that place, on the same inputs, and finds the affine map from the tap to
    the values there: in closed form, in one pass over inputs without labels,
    in memory that does not depend on their number. The cascade then works
    before any training, as far as the two networks have learned the same.

    Maps are resized to the positions of the values, sequences resampled, and
    the same map serves each position; for a vector, maps and sequences are
    averaged. After `adapt`, `r2_` is the part of the variance of the values
    that the map explains, on the data that it was fitted on. Training moves
    the map like the weights of a Dense layer, and as a Dense layer it is
    exported.

    Alone, it is fitted on features and values: `adapt((features, values))`.

    Args:
        target: `keras.Model` that computes the values from the inputs of the
            cascade, where the downstream cannot be fed them, such as one that
            takes features: the network that made those. Defaults to `None`:
            the downstream up to the place where the adapter's output enters.
        target_shape: shape of the values of a sample. Defaults to `None`:
            that of the target, or of the values in `adapt`.
        method: `"ridge"`, a linear regression whose squared weights are
            penalised; or `"procrustes"`, a rotation and a shift, which cannot
            make up for what the tap lacks. Defaults to `"ridge"`.
        penalty: float, the penalty of `"ridge"`, in units of the mean
            variance of a feature. More of it for few samples. Defaults to
            `1e-3`.
        interpolation: `"bilinear"` or `"nearest"`. Defaults to `"bilinear"`.
        antialias: bool, whether every position counts if the map gets
            smaller. Defaults to `True`.

    The other arguments are as in `DenseAdapter`.

    Raises:
        ValueError: an argument is out of range; the input cannot be brought
            to the shape of the values; in `adapt`, values are missing, or
            numbers are not finite.

    Example:
    >>> import numpy as np
    >>> features = np.random.default_rng(0).normal(size=(100, 4))
    >>> values = 2 * features[:, :3] + 1
    >>> adapter = StitchAdapter().adapt((features, values))
    >>> tuple(adapter(features).shape), round(adapter.r2_, 3)
    ((100, 3), 1.0)

    Source: Lenc, Vedaldi, "Understanding Image Representations by Measuring
    Their Equivariance and Equivalence", CVPR 2015; Bansal, Nakkiran, Barak,
    "Revisiting Model Stitching to Compare Neural Representations", 2021.
    """

    needs_labels = True

    def __init__(
        self,
        target: keras.Model | None = None,
        target_shape: Sequence[int | None] | None = None,
        method: str = "ridge",
        penalty: float = 1e-3,
        interpolation: str = "bilinear",
        antialias: bool = True,
        data_format: str | None = None,
        trainable: bool = True,
        dtype: DType = None,
        name: str | None = None,
    ):
        rest = {"channels": "auto", "activation": None, "use_bias": True}
        zeros = dict.fromkeys(
            ("kernel_initializer", "bias_initializer"), "zeros"
        )
        super().__init__({**locals(), **rest, **zeros})
        self.method = self._one_of("method", method, METHODS)
        self.penalty = self._checked_penalty(penalty)
        self._held = _Held(self._checked_target(target))
        if target is not None and target_shape is None:
            target_shape = tuple(target.outputs[0].shape[1:])
        self.target_shape: Shape | None = None
        self.r_squared: Any = None
        if target_shape is not None:
            self._settle(tuple(target_shape))

    @property
    def needs_data(self) -> bool:
        """Whether it learns from data: it does."""
        return True

    @property
    def target(self) -> keras.Model | None:
        """The network that computes the values, as it was given."""
        return self._held.network

    @property
    def open_width(self) -> bool:
        """Whether the shape of the values is not known yet."""
        return self.target_shape is None

    @property
    def r2_(self) -> float:
        """The part of the values' variance that the fitted map explains."""
        if not self.fitted:
            raise ValueError(
                f"Adapter '{self.name}' is not fitted: call `adapt((features, "
                "values))`, or `adapt(data)` of its cascade."
            )
        return float(to_numpy(self.r_squared))

    def with_units(self, width: int) -> Self:
        """Returns a copy for values that are vectors of `width`."""
        return self.for_values((width,))

    def for_values(self, shape: Shape, data_format: str | None = None) -> Self:
        """Returns a copy for values of a shape, without the batch."""
        config = {**self.get_config(), "target_shape": shape}
        if data_format is not None:
            config["data_format"] = data_format
        return type(self).from_config(config)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, without the target network."""
        config = super().get_config()
        for name in ("channels", "activation", "use_bias"):
            del config[name]
        for name in ("kernel_initializer", "bias_initializer"):
            del config[name]
        return {
            **config,
            "target": None,
            "target_shape": self.target_shape,
            "method": self.method,
            "penalty": self.penalty,
        }

    def build(self, input_shape: Shape) -> None:
        """Adds kernel and bias, zero until they are fitted."""
        aligned = self._pooled_shape(tuple(input_shape))
        super().build(input_shape)
        self._build_stages(aligned, self._steps())
        self.r_squared = self._add_uncast_weight(
            "r_squared", (), trainable=False
        )

    def call(self, inputs: Tensor, mask: Tensor | None = None) -> Any:
        """Pools or resizes, and applies the map."""
        given: Any = ops.cast(inputs, self.compute_dtype)
        x, mask = self._pooled(given, mask)
        return self._run_stages(x, self._steps(), mask)

    def compute_mask(
        self, inputs: Tensor, previous_mask: Tensor | None = None
    ) -> Any:
        """Returns the mask of the resampled sequence."""
        if previous_mask is None or len(self._settled_shape()) != 2:
            return None
        return self._steps()[0].mask(previous_mask)

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the shape of the values; open sizes are the input's."""
        pooled = self._pooled_shape(tuple(input_shape))
        return self._staged_shape(pooled, self._steps())

    def to_plain(self) -> Layers:
        """Returns layers that pool or resize, and a `Dense`."""
        shape = self._built_shape()
        pooled = self._pooled_shape(shape)
        pooling: Layers = []
        if len(pooled) != len(shape):
            pooling = pooling_layers(
                shape, "auto", self.data_format, self.name, self.dtype_policy
            )
        return [*pooling, *self._plain_stages(pooled, self._steps())]

    # --- Shapes ------------------------------------------------------------

    def _settle(self, shape: Shape) -> None:
        """Fixes the shape of the values."""
        rank = len(shape) + 1
        if rank not in (2, 3, 4):
            raise ValueError(
                f"Adapter '{self.name}': values of shape {shape} are no "
                "vectors, sequences or maps of samples."
            )
        width = shape[channel_axis(rank, self.data_format) - 1]
        kind = "a shape with a known number of channels"
        self.channels = self._positive("target_shape", width, kind)
        self.target_shape = shape

    def _settled_shape(self) -> Shape:
        if self.target_shape is None:
            raise ValueError(
                f"Adapter '{self.name}' does not know the shape of the values "
                "to map to. A cascade derives it from where the output "
                "enters; elsewhere fit it first, adapt((features, values)), "
                "or give `target_shape`."
            )
        return self.target_shape

    def _steps(self) -> list[Resampling]:
        """Returns the resamplings to the positions of the values."""
        *sizes, _ = shape = self._settled_shape()
        if len(shape) == 3:
            if self.data_format == "channels_first":
                sizes = list(shape[1:])
            return self._map_steps((sizes[0], sizes[1]))
        return [self._resampling(1, size) for size in sizes]

    def _pooled_shape(self, shape: Shape) -> Shape:
        """Returns the shape that is resampled; an error if there is none."""
        wanted = self._settled_shape()
        axis = channel_axis(len(shape), self.data_format)
        if len(shape) < 2 or shape[axis] is None:
            raise self._refuse(shape, "it needs a known number of features")
        if len(wanted) == 1 and len(shape) in (2, 3, 4, 5):
            return (shape[0], shape[axis])
        if len(shape) != len(wanted) + 1:
            raise self._refuse(
                shape,
                f"the values have shape {wanted}. Maps are mapped to maps, "
                "sequences to sequences, and anything to vectors. Tap or enter "
                "where both are of one kind",
            )
        return shape

    def _pooled(self, x: Tensor, mask: Tensor | None) -> tuple[Any, Any]:
        """Returns a vector where the values are one, and the mask."""
        if len(self._settled_shape()) == 1:
            return pool_features(x, "auto", self.data_format, mask), None
        return x, mask if len(x.shape) == 3 else None

    # --- Learning ----------------------------------------------------------

    def _build_for(self, batch: object) -> None:
        # Alone, the shape of the values comes with the first of them.
        if self.target_shape is not None:
            super()._build_for(batch)

    def _gather(
        self, batch: Tensor, labels: Tensor | None, mask: Tensor | None
    ) -> Moments:
        values = self._checked_values(labels, batch.shape[0])
        if not self.built:
            super()._build_for(batch)
        rows = np.hstack(self._rows(batch, values, mask))
        check_finite(rows)
        moments: Moments | None = self._gathered
        if moments is None:
            # The joint moments are wide: as many rows at once as are needed.
            moments = Moments(rows.shape[1], block=max(rows.shape[1], 1024))
        moments.update(rows)
        return moments

    def _checked_values(self, labels: Tensor | None, count: int) -> np.ndarray:
        if labels is None:
            raise ValueError(
                "it learns from features and the values to map them to, and "
                "there are no values: adapt((features, values))."
            )
        values = to_numpy(labels)
        if self.target_shape is None:
            self._settle(values.shape[1:])
        wanted = self._settled_shape()
        fits = len(values.shape) == len(wanted) + 1 and all(
            size in (None, n)
            for size, n in zip(wanted, values.shape[1:], strict=True)
        )
        if not fits or len(values) != count:
            raise ValueError(
                f"{count} rows of features, and values of shape "
                f"{values.shape}; values have shape {wanted} for each row."
            )
        return values

    def _rows(
        self, batch: Tensor, values: np.ndarray, mask: Tensor | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Returns features and values, a row for each position."""
        # By the backend, so that rounding is that of `call`.
        tensor: Any = ops.cast(
            ops.convert_to_tensor(batch), self.variable_dtype
        )
        x, mask = self._pooled(tensor, mask)
        for step in self._steps():
            x = step(x) if mask is None else step.masked(x, mask)
        if mask is not None:
            mask = self._steps()[0].mask(mask)
        found = to_numpy(x)
        values = self._at_positions_of(found, values)
        pairs = [self._flat(found, mask), self._flat(values, mask)]
        return pairs[0], pairs[1]

    def _at_positions_of(
        self, found: np.ndarray, values: np.ndarray
    ) -> np.ndarray:
        """Returns the values at the features' positions.

        They differ where the size of the values is open.
        """
        for step in self._steps():
            wanted = found.shape[step.axis]
            if values.shape[step.axis] != wanted:
                resampling = self._resampling(step.axis, wanted)
                values = resampling.of_array(values)
        return values

    def _flat(self, x: np.ndarray, mask: Tensor | None) -> np.ndarray:
        kept = x if mask is None else x[to_numpy(mask) != 0]
        axis = channel_axis(x.ndim, self.data_format)
        last = kept if mask is not None else np.moveaxis(kept, axis, -1)
        return last.reshape(-1, last.shape[-1])

    def _set_weights_from(self, gathered: Moments) -> None:
        inputs = self.kernel.shape[0]
        scatter = Scatter.of(gathered, slice(inputs), slice(inputs, None))
        found = fit_affine(scatter, self.method, self.penalty)
        self.kernel.assign(found.kernel)
        self.bias.assign(found.bias)
        self.r_squared.assign(found.r2(scatter))

    # --- Arguments ---------------------------------------------------------

    def _checked_penalty(self, penalty: object) -> float:
        # True is a number, but a mistake.
        if is_finite(penalty) and penalty is not True and penalty >= 0:
            return float(penalty)
        raise ValueError(
            f"Adapter '{self.name}': `penalty` is a number of at least 0, "
            f"received {penalty!r}."
        )

    def _checked_target(self, target: object) -> keras.Model | None:
        if target is None:
            return None
        if not isinstance(target, keras.Model):
            raise TypeError(
                f"Adapter '{self.name}': `target` is a keras.Model that "
                "computes the values from the cascade's inputs, or None; "
                f"received {target!r}."
            )
        outputs = getattr(target, "outputs", None) or []
        if len(outputs) == 1:
            return target
        raise ValueError(
            f"Adapter '{self.name}': `target` is a built model with one "
            f"output; '{target.name}' has {len(outputs)}. "
            "keras_cascade.truncate(network, path) ends a network at a layer."
        )
