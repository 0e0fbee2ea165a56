"""PCAAdapter: a projection to principal components, fitted on data."""

from typing import TYPE_CHECKING, Any, Self

import keras
import numpy as np
from keras import ops

from keras_cascade._keras_compat.annotations import DType, Shape, Tensor
from keras_cascade._reporting import figures
from keras_cascade.adapters.learning import (
    LearningAdapter,
    check_finite,
    check_width,
    is_int,
)
from keras_cascade.adapters.moments import Moments, principal_components
from keras_cascade.adapters.plain import Layers, with_weights
from keras_cascade.adapters.pooling import PooledAdapter
from keras_cascade.data import to_numpy

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@keras.saving.register_keras_serializable(package="keras_cascade")
class PCAAdapter(LearningAdapter, PooledAdapter):
    """Pools a tap to a vector and keeps its principal components.

    The adapter for wide and redundant features, when labels are few: it learns
    from inputs alone, in one pass over the data, exactly, in memory that does
    not depend on the number of rows.

    `adapt` (or `Cascade.adapt`) fits it. After that,
    `explained_variance_ratio_` is the fraction of the variance along each
    component, and `n_components_` their number. Adapted again, it keeps its
    width.

    Args:
        n_components: int, how many components; or float between 0 and 1, the
            fraction of variance that they explain at least. A fraction has
            no width until it is fitted: fit the adapter first.
        whiten: bool, whether each component is scaled to unit variance.
            Defaults to `False`.
        pool: how the input becomes a vector, as in `DenseAdapter`; with None
            each position is a sample. Defaults to `"auto"`.
        trainable: bool, whether training moves mean and components. Defaults
            to `False`.

    The other arguments are as in `DenseAdapter`.

    Raises:
        ValueError: an argument is out of range; a fraction is used before it
            is fitted; the data has NaN or infinity, or fewer rows or features
            than components.

    Example:
    >>> import numpy as np
    >>> features = np.random.default_rng(0).normal(size=(200, 16))
    >>> adapter = PCAAdapter(4).adapt(features)
    >>> tuple(adapter(features).shape)
    (200, 4)
    >>> width = PCAAdapter(0.95).adapt(features).n_components_

    Source: `sklearn.decomposition.PCA(svd_solver="full")`, which gives the
    same results, signs included.
    """

    # All adapters take labels in `update_state`; this one leaves them unread.
    uses_labels = False

    def __init__(
        self,
        n_components: int | float,
        whiten: bool = False,
        pool: str | None = "auto",
        data_format: str | None = None,
        trainable: bool = False,
        dtype: DType = None,
        name: str | None = None,
    ):
        # Keras casts nothing here: the mean is to be subtracted in the
        # weights' precision, whatever the compute dtype.
        super().__init__(
            pool,
            data_format,
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
        self._sample_shape: Shape = ()

    @property
    def needs_data(self) -> bool:
        """Whether it learns from data: it does."""
        return True

    @property
    def explained_variance_ratio_(self) -> np.ndarray:
        """The fraction of the variance along each component, once fitted."""
        if not self.fitted:
            raise ValueError(
                f"Adapter '{self.name}' is not fitted: call "
                "`adapt(features)`, or `adapt(data)` of its cascade."
            )
        variance = to_numpy(self.explained_variance)
        return variance / to_numpy(self.total_variance)

    def plot(self) -> "Figure":
        """Draws the fraction of the variance that the components explain.

        Returns:
            A `matplotlib.figure.Figure`: a bar a component, and a line of
            their sum. `savefig(path)` writes it.

        Raises:
            ValueError: If it is not fitted.
            ImportError: If matplotlib is not installed.
        """
        ratios = self.explained_variance_ratio_
        figure, (axis,) = figures.figure(1, 1, "PCAAdapter.plot")
        numbers = np.arange(1, len(ratios) + 1)
        axis.bar(numbers, ratios, color=figures.FAINT, label="each")
        line = {**figures.style(0), "marker": ""}
        axis.plot(numbers, np.cumsum(ratios), label="together", **line)
        axis.set(
            title=self.name,
            xlabel="components",
            ylabel="fraction of the variance",
            ylim=(0, 1.02),
        )
        figures.add_legend(axis)
        return figure

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments, and the width once settled."""
        return {
            **super().get_config(),
            "n_components": self.n_components,
            "whiten": self.whiten,
            "n_components_": self.n_components_,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Returns an adapter with the width of the config; not its weights."""
        config = dict(config)
        settled = config.pop("n_components_", None)
        adapter = cls(**config)
        if settled is not None:
            adapter.n_components_ = settled
        return adapter

    def build(self, input_shape: Shape) -> None:
        """Adds the weights, zero until they are fitted."""
        count = self._settled_components()
        width = self.pooled_width(input_shape)
        if count > width:
            raise ValueError(
                f"Adapter '{self.name}' asks for {count} components of an "
                f"input of {width} features: at most {width} are possible."
            )
        super().build(input_shape)
        add = self._add_uncast_weight
        self.mean = add("mean", (width,))
        self.components = add("components", (count, width))
        self.explained_variance = add(
            "explained_variance", (count,), trainable=False
        )
        self.total_variance = add("total_variance", (), trainable=False)

    def call(self, inputs: Tensor, mask: Tensor | None = None) -> Any:
        """Pools, centres and projects."""
        x = self._pooled(ops.cast(inputs, self.variable_dtype), mask)
        # Folding the mean into the product would cost all precision where
        # the mean is large against the spread.
        x = ops.cast(x - self.mean, self.compute_dtype)
        return ops.matmul(x, ops.cast(self._kernel(), self.compute_dtype))

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        """Returns the pooled shape with a feature for each component."""
        shape = self.pooled_shape(input_shape)
        return (*shape[:-1], self._settled_components())

    def to_plain(self) -> Layers:
        """Returns a pooling layer, `Normalization` (the mean) and `Dense`."""
        shape = self._built_shape()
        pooled = self.pooled_shape(shape)
        return [
            *self._plain_pooling(shape, self.variable_dtype),
            self._plain_mean(pooled),
            self._plain_projection(pooled),
        ]

    def _settled_components(self) -> int:
        if self.n_components_ is None:
            call = f"PCAAdapter({self.n_components}).adapt(features)"
            raise ValueError(
                f"Adapter '{self.name}' keeps a fraction of the variance, "
                f"{self.n_components}, and has no width before it is fitted: "
                f"pass {call}, or an int."
            )
        return self.n_components_

    def _build_for(self, batch: object) -> None:
        if isinstance(batch, Tensor):
            self.pooled_shape(batch.shape)
            # A fraction of the variance has no width before data was seen.
            if self.n_components_ is not None:
                super()._build_for(batch)

    def _kernel(self) -> Any:
        """Returns the factors of the centred features."""
        kernel = ops.transpose(self.components)
        if not self.whiten:
            return kernel
        scale = ops.sqrt(self.explained_variance)
        return ops.divide(kernel, ops.maximum(scale, keras.config.epsilon()))

    def _gather(
        self, batch: Tensor, labels: Tensor | None, mask: Tensor | None
    ) -> Moments:
        rows = self._rows(to_numpy(batch), mask)
        moments: Moments | None = self._gathered
        known = self.mean.shape[0] if self.built else None
        check_width(
            rows.shape[1], moments.width if moments else known, "features"
        )
        check_finite(rows)
        if moments is None:
            moments = Moments(rows.shape[1])
            self._sample_shape = tuple(batch.shape[1:])
        moments.update(rows)
        return moments

    def _rows(self, batch: np.ndarray, mask: Tensor | None) -> np.ndarray:
        """Returns the samples of a batch as rows, pooled as in `call`."""
        if batch.ndim == 2:
            return batch
        if self.pool is None:
            kept = batch if mask is None else batch[to_numpy(mask) != 0]
            return kept.reshape(-1, batch.shape[-1])
        # By the backend, so that rounding is that of `call`.
        tensor = ops.cast(ops.convert_to_tensor(batch), self.variable_dtype)
        return to_numpy(self._pooled(tensor, mask))

    def _set_weights_from(self, gathered: Moments) -> None:
        found = principal_components(
            gathered, self.n_components_ or self.n_components
        )
        self.n_components_ = len(found.components)
        # A fraction of the variance is a number of components only now.
        if not self.built:
            self.build((None, *self._sample_shape))
        self.mean.assign(found.mean)
        self.components.assign(found.components)
        self.explained_variance.assign(found.explained_variance)
        self.total_variance.assign(found.total_variance)

    def _plain_mean(self, shape: Shape) -> keras.layers.Layer:
        layer = keras.layers.Normalization(
            dtype=self.variable_dtype, name=f"{self.name}_mean"
        )
        mean = to_numpy(self.mean)
        with_weights(layer, shape, [mean, np.ones_like(mean), np.array(0)])
        # Normalization computes with values derived from its weights.
        layer.finalize_state()
        return layer

    def _plain_projection(self, shape: Shape) -> keras.layers.Layer:
        layer = keras.layers.Dense(
            self.n_components_,
            use_bias=False,
            trainable=self.trainable,
            dtype=self.dtype_policy,
            name=self.name,
        )
        return with_weights(layer, shape, [self._kernel()])


def _checked_components(n_components: object, name: str) -> int | float:
    if is_int(n_components) and n_components >= 1:
        return int(n_components)
    is_fraction = isinstance(n_components, float | np.floating)
    if is_fraction and 0 < n_components < 1:
        return float(n_components)
    raise ValueError(
        f"Adapter '{name}': `n_components` is an int of at least 1, or a "
        "fraction of variance between 0 and 1 (exclusive), received "
        f"{n_components!r}."
    )
