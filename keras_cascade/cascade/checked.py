"""Checks inputs and labels before Keras takes them.

Tested by `tests/behaviour/test_mistakes.py` and
`tests/behaviour/test_first_batches.py`.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import keras

from keras_cascade import _keras_compat as compat
from keras_cascade._keras_compat.first_batches import (
    look_at_first_batch,
    without_look,
)
from keras_cascade.adapters.fitting import check_fitted
from keras_cascade.cache.cached_names import are_cached
from keras_cascade.cache.datasets import Dataset
from keras_cascade.cascade.compiled import Compiled
from keras_cascade.cascade.input_checks import ExpectedInputs
from keras_cascade.data import to_numpy
from keras_cascade.data.arrays import count_rows, map_arrays
from keras_cascade.data.forms import are_arrays, check_fit_data, first_rows
from keras_cascade.data.inputs import input_paths, sort_inputs
from keras_cascade.data.sources import as_batch
from keras_cascade.training.labels import (
    OutputLoss,
    check_has_labels,
    check_label_values,
    check_labels,
    output_losses,
)
from keras_cascade.values.first_batch import FirstBatches


class Checked(Compiled):
    """Explains data that do not fit the cascade, and warns of odd values."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        # An adapter that is fitted stays so: no need to look again.
        self._all_fitted = False
        self._expected: ExpectedInputs | None = None
        self._first_batches = FirstBatches()
        # Waits for the first batch of the fit that is running.
        self._look: Callable[[Any], None] | None = None

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns the outputs for inputs that fit, or for features."""
        if not are_cached(inputs):
            if not _is_symbolic(inputs):
                self._check_fitted("calling the cascade")
            inputs = self._arranged(inputs)
        return super().__call__(inputs, *args, **kwargs)

    def call(
        self, inputs: Any, training: bool | None = None, mask: Any = None
    ) -> Any:
        """Implements Keras's hook, which JAX calls without `__call__`."""
        if not are_cached(inputs):
            inputs = self._arranged(inputs)
        return super().call(inputs, training=training, mask=mask)

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Returns Keras's loss, plus the penalties of retention.

        Args:
            x: The inputs, which `LwF` needs. Defaults to `None`.
            y: As Keras takes it. Defaults to `None`.
            y_pred: As Keras takes it. Defaults to `None`.
            sample_weight: As Keras takes it. Defaults to `None`.
            training: As Keras takes it. Defaults to `True`.

        Raises:
            ValueError: If the labels have a shape that the loss cannot take.
        """
        self._check_label_shapes(y, y_pred, "The data")
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def _check_data(self, x: Any, y: Any, call: str, values: bool) -> None:
        """Checks the form of data, and the labels if they are arrays."""
        check_fit_data(x, y, call, len(self.inputs))
        if not are_arrays(x):
            return
        count_rows(x)
        self._arranged(x)
        if call != "predict":
            self._check_label_shapes(y, self.output, f"The data of {call}")
            if values:
                self._check_label_values(y)

    def _check_validation(
        self, data: Any, batch_size: int, values: bool
    ) -> None:
        if not isinstance(data, list | tuple):
            data = (data,) if are_arrays(data) else (None,)
        x, y = (*data, None)[:2]
        if x is None:
            return
        self._check_data(x, y, "validation_data", values)
        if values and are_arrays(x):
            rows = first_rows(x, batch_size)
            self._look_at((rows, None, None), "validation_data")

    @contextmanager
    def _looking(self, x: Any, batch_size: int) -> Iterator[None]:
        """Looks at the values of the first batch, before it is trained on."""
        if are_arrays(x):
            # The labels of all rows were looked at.
            first = first_rows(x, batch_size)
            self._look_at((first, None, None), "fit")
            yield
            return
        with without_look(self, "train_function"):
            self._look = lambda batch: self._look_at(batch, "fit")
            try:
                yield
            finally:
                self._look = None

    def _await_first_batch(self) -> None:
        """Has the next training step show its batch, if that is awaited."""
        look = self._look
        if look is not None:

            def once(batch: Any) -> None:
                self._look = None
                look(batch)

            look_at_first_batch(self, "train_function", once)

    def _check_dataset(self, data: Dataset) -> None:
        """Checks the first batch that a cached training has read."""
        look, self._look = self._look, None
        batch = data.first_batch()
        self._arranged(batch[0])
        if look is not None:
            look(batch)

    def _arranged(self, inputs: Any) -> Any:
        if self._expected is None:
            self._expected = ExpectedInputs(self)
        return self._expected.arranged(inputs)

    def _look_at_inputs(self, given: Mapping[str, Any]) -> None:
        # Adapters tell values that are not finite, by the tap.
        self._first_batches.look(self, given, "adapt", finite=False)

    def _look_at(self, batch: Any, call: str) -> None:
        if are_cached(batch[0]):
            return
        x, y, _ = as_batch(tuple(batch))
        paths = input_paths(self.input)
        given = sort_inputs(x, paths, f"The data of {call}")
        self._first_batches.look(self, given, call)
        self._check_label_values(y)

    def _check_label_shapes(self, y: Any, y_pred: Any, what: str) -> None:
        if losses := self._known_losses():
            check_has_labels(losses, y, what)
            check_labels(losses, y, y_pred)

    def _check_label_values(self, y: Any) -> None:
        if y is not None and (losses := self._known_losses()):
            arrays = map_arrays(to_numpy, y)
            check_label_values(losses, arrays, self.output)

    def _known_losses(self) -> dict[str, OutputLoss]:
        """Returns the losses that it was compiled with, by output."""
        if not self.compiled:
            return {}
        loss = compat.compile_arguments(self).get("loss")
        several = isinstance(self.output, Mapping)
        return output_losses(loss, list(self.output) if several else [""])

    def _check_fitted(self, before: str) -> None:
        if not self._all_fitted:
            check_fitted(self, before)
            self._all_fitted = True


def _is_symbolic(inputs: Any) -> bool:
    leaves = keras.tree.flatten(inputs)
    return any(isinstance(x, keras.KerasTensor) for x in leaves)
