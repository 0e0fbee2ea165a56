"""PCAAdapter: a projection to principal components, fitted on data."""

from typing import Any

import keras
import numpy as np

from keras_cascade.adapters.moments import (
    Moments,
    PrincipalComponents,
    principal_components,
)
from keras_cascade.adapters.pooling import (
    PooledAdapter,
    Shape,
    pool_features,
    pooling_layers,
)
from keras_cascade.data import to_numpy


@keras.saving.register_keras_serializable(package="keras_cascade")
class PCAAdapter(PooledAdapter):
    """Pools a tap to a vector and keeps its principal components.

    The adapter for features that are wide and redundant, when there is data
    but labels are few: it learns from inputs alone, in one pass over the
    data, exactly, in memory that does not depend on the number of rows.

    `adapt` (or `Cascade.adapt`) fits it. `explained_variance_ratio_`, then,
    is the fraction of the variance along each component, and
    `n_components_` how many there are. Adapted again, it keeps its width.

    Args:
        n_components: int, how many components; or float between 0 and 1, the
            fraction of variance that they explain at least. A fraction has
            no width before it is fitted: fit it before a model is built.
        whiten: bool, whether each component is scaled to unit variance.
            Defaults to `False`.
        pool: how the input becomes a vector, as in `DenseAdapter`; with None
            each position is a sample. Defaults to `"auto"`.
        data_format: `"channels_last"` or `"channels_first"`, for maps and
            volumes. Defaults to `None`, `keras.config.image_data_format()`.
        trainable: bool, whether training moves mean and components. Defaults
            to `False`.
        dtype: dtype name or policy. Defaults to `None`, the global policy.
        name: str, name of the layer. Defaults to `None`.

    Raises:
        ValueError: an argument is out of range; a fraction is used before it
            is fitted; the data holds NaN or infinity, or fewer rows or
            features than components.

    Example:
    >>> import numpy as np
    >>> features = np.random.default_rng(0).normal(size=(200, 16))
    >>> adapter = PCAAdapter(4).adapt(features)
    >>> tuple(adapter(features).shape)
    (200, 4)
    >>> width = PCAAdapter(0.95).adapt(features).n_components_

    Source: `sklearn.decomposition.PCA(svd_solver="full")`, whose results
    these are, signs included.
    """

    def __init__(
        self,
        n_components: int | float,
        whiten: bool = False,
        pool: str | None = "auto",
        data_format: str | None = None,
        trainable: bool = False,
        dtype: Any = None,
        name: str | None = None,
    ):
        # Keras casts nothing here: the mean is to be subtracted in the
        # weights' precision, whatever the compute dtype.
        super().__init__(
            pool=pool,
            data_format=data_format,
            trainable=trainable,
            dtype=dtype,
            autocast=False,
            name=name,
        )
        self.n_components = _checked_components(n_components, self.name)
        self.whiten = whiten
        self.n_components_ = (
            self.n_components if isinstance(self.n_components, int) else None
        )
        self._moments: Moments | None = None
        self._batches_seen = 0
        self._sample_shape: tuple = ()

    @property
    def needs_data(self) -> bool:
        """Whether it learns from data: it does."""
        return True

    @property
    def explained_variance_ratio_(self) -> np.ndarray:
        """Fraction of the variance along each component, once fitted."""
        if not self.fitted:
            raise ValueError(
                f"Adapter '{self.name}' is not fitted: call "
                "`adapt(features)`, or `adapt(data)` of its cascade."
            )
        variance = to_numpy(self.explained_variance)
        return variance / to_numpy(self.total_variance)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, and the width once it is settled."""
        return {
            **super().get_config(),
            "n_components": self.n_components,
            "whiten": self.whiten,
            "n_components_": self.n_components_,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "PCAAdapter":
        """The adapter with the width that the config has; not its weights."""
        config = dict(config)
        settled = config.pop("n_components_", None)
        adapter = cls(**config)
        if settled is not None:
            adapter.n_components_ = settled
        return adapter

    def build(self, input_shape: Any) -> None:
        """Adds the weights, zero until they are fitted."""
        count = self._settled_components()
        width = self.pooled_width(input_shape)
        if count > width:
            raise ValueError(
                f"Adapter '{self.name}' asks for {count} components of an "
                f"input of {width} features: at most {width} are possible."
            )
        super().build(input_shape)
        self.mean = self._add("mean", (width,))
        self.components = self._add("components", (count, width))
        self.explained_variance = self._add(
            "explained_variance", (count,), trainable=False
        )
        self.total_variance = self._add("total_variance", (), trainable=False)

    def call(self, inputs: Any, mask: Any = None) -> Any:
        """Pools, centres and projects."""
        x = self._pool(inputs, mask)
        # Folding the mean into the product would cost all precision where
        # the mean is large against the spread.
        x = keras.ops.cast(x - self.mean, self.compute_dtype)
        kernel = keras.ops.cast(self._kernel(), self.compute_dtype)
        return keras.ops.matmul(x, kernel)

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """The pooled shape with a feature a component."""
        shape = self.pooled_shape(input_shape)
        return (*shape[:-1], self._settled_components())

    def reset_state(self) -> None:
        """Forgets the rows seen; the weights stay until a pass ends."""
        self._moments = None
        self._batches_seen = 0

    def update_state(self, batch: Any, mask: Any = None) -> None:
        """Adds the features of one batch to the moments.

        Args:
            batch: array or tensor of features.
            mask: boolean array `(batch, steps)` of a sequence's steps that
                count. Defaults to `None`: all.
        """
        rows = self._rows(batch, mask)
        self._check_rows(rows)
        if self._moments is None:
            self._moments = Moments(rows.shape[1])
            self._sample_shape = tuple(batch.shape[1:])
        self._moments.update(rows)
        self._batches_seen += 1

    def finalize_state(self) -> None:
        """Sets mean and components to those of the rows seen."""
        if self._moments is None:
            raise ValueError(
                f"Adapter '{self.name}' has seen no data to learn from."
            )
        try:
            found = principal_components(
                self._moments, self.n_components_ or self.n_components
            )
        except ValueError as error:
            raise ValueError(f"Adapter '{self.name}': {error}") from error
        self.n_components_ = len(found.components)
        if not self.built:
            self.build((None, *self._sample_shape))
        self._assign(found)
        self._moments = None
        super().finalize_state()

    def to_plain(self) -> list[keras.layers.Layer]:
        """A pooling layer, `Normalization` for the mean, and `Dense`."""
        shape = self._built_shape()
        pooling = pooling_layers(
            shape, self.pool, self.data_format, self.name, self.variable_dtype
        )
        pooled = self.pooled_shape(shape)
        return [*pooling, self._plain_mean(pooled), self._plain_dense(pooled)]

    def _add(self, name: str, shape: tuple, trainable: bool = True) -> Any:
        return self.add_weight(
            name=name,
            shape=shape,
            initializer="zeros",
            trainable=trainable,
            # The layer's own `autocast=False` does not reach its weights.
            autocast=False,
        )

    def _settled_components(self) -> int:
        if self.n_components_ is None:
            call = f"PCAAdapter({self.n_components}).adapt(features)"
            raise ValueError(
                f"Adapter '{self.name}' keeps a fraction of the variance, "
                f"{self.n_components}, and has no width before it is fitted: "
                f"pass {call}, or an int."
            )
        return self.n_components_

    def _build_on(self, batch: Any) -> None:
        if self.n_components_ is not None and hasattr(batch, "shape"):
            super()._build_on(batch)

    def _kernel(self) -> Any:
        """What the centred features are multiplied by."""
        kernel = keras.ops.transpose(self.components)
        if not self.whiten:
            return kernel
        scale = keras.ops.sqrt(self.explained_variance)
        scale = keras.ops.maximum(scale, keras.config.epsilon())
        return keras.ops.divide(kernel, scale)

    def _pool(self, inputs: Any, mask: Any) -> Any:
        x = keras.ops.cast(inputs, self.variable_dtype)
        return pool_features(x, self.pool, self.data_format, mask)

    def _rows(self, batch: Any, mask: Any) -> np.ndarray:
        """The batch's samples, pooled as in `call`, as rows."""
        if not hasattr(batch, "shape"):
            raise ValueError(
                f"Adapter '{self.name}' learns from one array of features, "
                f"received a {type(batch).__name__}: pass the features of "
                "one tap."
            )
        batch = to_numpy(batch)
        self.pooled_shape(batch.shape)
        if batch.ndim == 2:
            return batch
        if self.pool is None:
            kept = batch if mask is None else batch[to_numpy(mask) != 0]
            return kept.reshape(-1, batch.shape[-1])
        batch = keras.ops.convert_to_tensor(batch)
        return to_numpy(self._pool(batch, mask))

    def _check_rows(self, rows: np.ndarray) -> None:
        where = f"Adapter '{self.name}', batch {self._batches_seen}"
        expected = self._expected_width()
        if expected not in (None, rows.shape[1]):
            raise ValueError(
                f"{where}: {rows.shape[1]} features, but {expected} before. "
                "All batches have the same features."
            )
        bad = len(rows) - np.isfinite(rows).all(axis=1).sum()
        if bad:
            raise ValueError(
                f"{where}: {bad} of {len(rows)} rows hold NaN or infinity. "
                "Principal components need finite features: look at the "
                "data, or at what the network computes from it."
            )

    def _expected_width(self) -> int | None:
        if self._moments is not None:
            return self._moments.width
        return self.mean.shape[0] if self.built else None

    def _assign(self, found: PrincipalComponents) -> None:
        self.mean.assign(found.mean)
        self.components.assign(found.components)
        self.explained_variance.assign(found.explained_variance)
        self.total_variance.assign(found.total_variance)

    def _plain_mean(self, shape: tuple) -> keras.layers.Layer:
        layer = keras.layers.Normalization(
            dtype=self.variable_dtype, name=f"{self.name}_mean"
        )
        layer.build(shape)
        mean = to_numpy(self.mean)
        layer.set_weights([mean, np.ones_like(mean), np.array(0)])
        # Normalization computes with what this derives from its weights.
        layer.finalize_state()
        return layer

    def _plain_dense(self, shape: tuple) -> keras.layers.Layer:
        layer = keras.layers.Dense(
            self.n_components_,
            use_bias=False,
            trainable=self.trainable,
            dtype=self.dtype_policy,
            name=self.name,
        )
        layer.build(shape)
        layer.set_weights([to_numpy(self._kernel())])
        return layer


def _checked_components(n_components: Any, name: str) -> int | float:
    # A bool is an int, but True components are a mistake.
    if not isinstance(n_components, (bool, np.bool_)):
        if isinstance(n_components, (int, np.integer)) and n_components >= 1:
            return int(n_components)
        if isinstance(n_components, (float, np.floating)) and (
            0 < n_components < 1
        ):
            return float(n_components)
    raise ValueError(
        f"Adapter '{name}': `n_components` is an int of at least 1, or a "
        "fraction of variance between 0 and 1 (exclusive), received "
        f"{n_components!r}."
    )
