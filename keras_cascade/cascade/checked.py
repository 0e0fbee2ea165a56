"""Checks inputs and labels before Keras takes them.

Tested by `tests/behaviour/test_mistakes.py` and
`tests/behaviour/test_first_batches.py`.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from keras_cascade import _keras_compat as compat
from keras_cascade._keras_compat.first_batches import (
    look_at_first_batch,
    without_look,
)
from keras_cascade.adapters.fitting import check_fitted
from keras_cascade.cache.cached_names import are_cached
from keras_cascade.cache.datasets import Dataset
from keras_cascade.cascade.compiled import Compiled
from keras_cascade.cascade.input_checks import ExpectedInputs, is_symbolic
from keras_cascade.cascade.logits import doubts_about_logits
from keras_cascade.data import to_numpy
from keras_cascade.data.arrays import (
    count_rows,
    map_arrays,
    strings_as_tensors,
)
from keras_cascade.data.forms import are_arrays, check_fit_data, first_rows
from keras_cascade.data.inputs import input_paths, sort_inputs
from keras_cascade.data.sources import as_batch
from keras_cascade.graph.flattening import as_program
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
        # The losses that were compared with the activations before them.
        self._doubted: list[OutputLoss] = []
        # Waits for the first batch of the fit that is running.
        self._look: Callable[[Any], None] | None = None

    def __call__(self, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Returns the outputs for inputs that fit, or for features."""
        if not are_cached(inputs):
            if not is_symbolic(inputs):
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

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """Trains on one batch as Keras does, whose labels are checked before.

        Args:
            x: The inputs.
            y: Labels. Defaults to `None`.
            sample_weight: As Keras takes it. Defaults to `None`.
            class_weight: As Keras takes it. Defaults to `None`.
            return_dict: As Keras takes it. Defaults to `False`.

        Returns:
            The loss and metrics, as Keras returns them.

        Raises:
            ValueError: If inputs or labels do not fit the cascade and its
                loss.
        """
        self._check_data(x, y, "train_on_batch", values=True)
        self._warn_of_logits("train_on_batch")
        return super().train_on_batch(
            strings_as_tensors(x), y, sample_weight, class_weight, return_dict
        )

    def test_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        return_dict: bool = False,
    ) -> Any:
        """Evaluates one batch as Keras does, whose labels are checked before.

        Args:
            x: The inputs.
            y: Labels. Defaults to `None`.
            sample_weight: As Keras takes it. Defaults to `None`.
            return_dict: As Keras takes it. Defaults to `False`.

        Returns:
            The loss and metrics, as Keras returns them.

        Raises:
            ValueError: If inputs or labels do not fit the cascade and its
                loss.
        """
        self._check_data(x, y, "test_on_batch", values=True)
        given = strings_as_tensors(x)
        return super().test_on_batch(given, y, sample_weight, return_dict)

    def predict_on_batch(self, x: Any) -> Any:
        """Predicts one batch as Keras does, whose inputs are checked before.

        Args:
            x: The inputs.

        Returns:
            The outputs, as NumPy arrays.

        Raises:
            ValueError: If the inputs do not fit the cascade.
        """
        self._check_data(x, None, "predict_on_batch", values=False)
        return super().predict_on_batch(strings_as_tensors(x))

    def _check_data(self, x: Any, y: Any, call: str, values: bool) -> None:
        """Checks the form of data, and the labels if they are arrays."""
        check_fit_data(x, y, call, len(self.inputs))
        if not are_arrays(x):
            return
        count_rows(x)
        self._arranged(x)
        if not call.startswith("predict"):
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
        self._warn_of_logits("fit")
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

    def _warn_of_logits(self, call: str) -> None:
        """Warns once of a loss that takes its output for something else."""
        losses = self._known_losses().values()
        wanted = [loss for loss in losses if loss.from_logits is not None]
        if wanted and wanted != self._doubted:
            self._doubted = wanted
            for doubt in doubts_about_logits(wanted, as_program(self)):
                # The caller of `fit`.
                warnings.warn(f"{call}: {doubt}", stacklevel=5)

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
