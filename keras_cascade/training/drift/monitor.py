"""Measures after each epoch how far pretrained blocks have moved."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np

from keras_cascade import data as user_data
from keras_cascade.training.drift.arguments import (
    check_numbers,
    check_reiterable,
    find_old_tasks,
    find_sources,
    pack_inputs,
)
from keras_cascade.training.drift.cka import LinearCKA
from keras_cascade.training.drift.old_tasks import OldTask
from keras_cascade.training.drift.plot import draw
from keras_cascade.training.drift.pretrained_copies import (
    Comparison,
    PretrainedCopy,
    copy_pretrained,
)
from keras_cascade.training.random_states import preserve_random_states

# Entries that are converted to float64 at once: large maps have many rows.
CHUNK = 2**21


class DriftMonitor(keras.callbacks.Callback):
    """A callback that measures how far pretrained blocks have moved.

    Pretrained networks forget by moving: their weights, and with them their
    representations. After each epoch the monitor adds to the logs, and so to
    `History`, the progress bar and all callbacks after it:

    - `drift/<block>`: `||w - w0|| / ||w0||` over all parameters of the block
      (kernels, biases, scales; no moments of a BatchNormalization), which is
      0 for frozen blocks;
    - `cka/<tap>`, and `cka/downstream` for the downstream's output: linear
      CKA (Kornblith 2019) of the block's present output and of its output
      with the pretrained weights **for the same input**, which is 1 as long
      as nothing moved. Adapters before a downstream may move: only the
      downstream's own change counts. Positions of maps and of sequences count
      as samples, masked ones are left out.
    - `old_task/<block>`: optionally the score of the original network on its
      old task, with the present weights of the block and its old head.

    The pretrained weights are those of the networks that the cascade was
    built from, as long as these exist, or that are passed as `pretrained`;
    else those of the block when the monitor is first given to `fit` (also
    with `copy=False`). They are read before `BackupAndRestore` restores
    anything. New blocks (adapters, fusion and head) have none and are left
    out. The memory is that of a copy of the pretrained blocks and, for each
    tap, of three matrices of `features × features` float64: it does not grow
    with the reference data.

    Args:
        reference_data: The inputs to compare representations on, as the
            cascade takes them, with or without labels, as `cascade.adapt`
            takes data. They are read after every epoch: some hundreds of rows
            are enough. With fewer rows than a tap has features, CKA is too
            close to 1.
        old_task: `(x, y)` of the old task of the only upstream, or batches
            of these, or `{block: any of these}`; `x` as the original network
            takes it. Defaults to `None`.
        metric: The score of the old task: a Keras metric or its name.
            Defaults to `"accuracy"`.
        every: Epochs from one measurement to the next; the first and the
            last epoch of a `fit` are always measured. Defaults to `1`.
        batch_size: The size of a batch where data are arrays. Defaults to
            `32`.
        pretrained: `{block: original network}`, where those that the cascade
            was built from no longer exist, as after loading it from a file.
            Defaults to `None`.
        max_features: The most features of a tap that are kept apart; a wider
            tap is sketched (see `LinearCKA`), which bounds its matrices to 32
            MiB each by default. Defaults to `2048`.

    Raises:
        ValueError: If the reference data is empty, can be read only once, or
            does not fit the cascade's inputs; or the original network of an
            old task no longer exists. It is raised before the first step.
        TypeError: If the model that is fitted is not a cascade, or the data is
            of a type that cannot be read.

    Example:
    >>> monitor = keras_cascade.DriftMonitor(images[:512])
    >>> history = cascade.fit(images, labels, callbacks=[monitor])
    >>> history.history["drift/upstream"], history.history["cka/shape"]
    >>> monitor.plot().savefig("drift.png")

    References:
        Kornblith, Norouzi, Lee, Hinton 2019, Similarity of Neural Network
        Representations Revisited.
    """

    def __init__(
        self,
        reference_data: object,
        *,
        old_task: object = None,
        metric: str | keras.metrics.Metric | Callable = "accuracy",
        every: int = 1,
        batch_size: int = 32,
        pretrained: Mapping[str, keras.Model] | None = None,
        max_features: int = 2048,
    ):
        super().__init__()
        check_numbers(
            every=every, batch_size=batch_size, max_features=max_features
        )
        check_reiterable("reference_data", reference_data)
        self.reference_data = reference_data
        self.old_task = old_task
        self.metric = metric
        self.every = every
        self.batch_size = batch_size
        self.pretrained = dict(pretrained or {})
        self.max_features = max_features
        self._watched: Any = None
        self._pretrained: dict[str, PretrainedCopy] = {}
        self._old_tasks: dict[str, OldTask] = {}
        self._comparison: Comparison | None = None
        self._flags: list[bool] = []
        self._first_epoch: int | None = None
        self._rows: list[dict[str, float]] = []

    def __repr__(self) -> str:
        epochs = "epoch" if self.every == 1 else f"{self.every} epochs"
        found = "nothing measured yet"
        if self._rows:
            last = dict(self._rows[-1])
            done = last.pop("epochs")
            values = ", ".join(f"{name} {x:.3g}" for name, x in last.items())
            found = f"after {done} epochs {values}"
        return f"<DriftMonitor every {epochs}: {found}>"

    def set_model(self, model: Any) -> None:
        """Copies the pretrained weights before anything moves."""
        # In `on_train_begin` BackupAndRestore may already have loaded others.
        super().set_model(model)
        if model is not self._watched:
            with preserve_random_states():
                self._watch(model)

    def on_train_begin(self, logs: dict | None = None) -> None:
        """Begins a new table, as Keras begins a new `History`."""
        self._rows, self._first_epoch = [], None
        # A traced function may contain the old state of adapters as constants.
        self._flags = []

    def on_epoch_begin(self, epoch: int, logs: dict | None = None) -> None:
        """Measures before the first step of a `fit`."""
        if self._first_epoch is None:
            self._first_epoch = epoch
            self._rows.append({"epochs": epoch, **self.measure()})

    def on_epoch_end(self, epoch: int, logs: dict | None = None) -> None:
        """Measures, and adds the values to the logs."""
        done = epoch - (self._first_epoch or 0)
        known = self.params or {}
        last = epoch + 1 == known.get("epochs")
        if done % self.every and not last:
            return
        values = self.measure()
        self._rows.append({"epochs": epoch + 1, **values})
        if logs is not None:
            logs.update(values)

    def measure(self) -> dict[str, float]:
        """Returns the present values, by their names in the logs.

        Raises:
            ValueError: If the monitor was not passed to `fit` yet.
        """
        if self._comparison is None:
            raise ValueError(
                "The DriftMonitor has no cascade yet. Pass it to "
                "fit(callbacks=[monitor]), or call monitor.set_model(cascade)."
            )
        distances = {
            f"drift/{name}": pretrained.distance()
            for name, pretrained in self._pretrained.items()
        }
        # A torch DataLoader draws from torch's random state in every pass.
        with preserve_random_states():
            similarities = self._similarities(self._comparison)
            scores = {
                f"old_task/{name}": task.score()
                for name, task in self._old_tasks.items()
            }
        return {**distances, **similarities, **scores}

    @property
    def history(self) -> dict[str, list[float]]:
        """The same table as `to_dict()`."""
        return self.to_dict()

    def to_dict(self) -> dict[str, list[float]]:
        """Returns the table of the last `fit`, column by column.

        The column `epochs` has the epochs done, beginning with those before
        the `fit`; the others have the values then, by their names in the logs.
        """
        names = list(self._rows[0]) if self._rows else []
        return {name: [row[name] for row in self._rows] for name in names}

    def plot(self) -> Any:
        """Draws the table, with a panel for each kind of value.

        Returns:
            A `matplotlib.figure.Figure`: `savefig(path)` writes it.

        Raises:
            ValueError: If nothing was measured yet.
            ImportError: If matplotlib is not installed.
        """
        if not self._rows:
            raise ValueError(
                "The DriftMonitor has measured nothing yet. Pass it to "
                "fit(callbacks=[monitor]) first."
            )
        return draw(self.to_dict())

    def _watch(self, model: Any) -> None:
        sources = find_sources(model, self.pretrained)
        old_tasks = find_old_tasks(model, self.old_task, sources)
        batch = next(user_data.batches(self.reference_data, self.batch_size))
        pack_inputs(model, batch)
        self._pretrained = copy_pretrained(model, sources)
        self._old_tasks = {
            block: OldTask(
                model, block, network, data, self.metric, self.batch_size
            )
            for block, (network, data) in old_tasks.items()
        }
        self._comparison = Comparison(model, self._pretrained)
        self._watched = model

    def _similarities(self, comparison: Comparison) -> dict[str, float]:
        """Returns the CKA of each tap, in one pass over the reference data."""
        copies = self._pretrained.values()
        for pretrained in copies:
            pretrained.update_added()
        self._trace_again(comparison)
        names = [name for pretrained in copies for name in pretrained.outputs]
        names.sort(key=[*self._watched.taps, *names].index)
        first = {x for pretrained in copies for x in pretrained.channels_first}
        streams = {n: LinearCKA(self.max_features) for n in names}
        for batch in user_data.batches(self.reference_data, self.batch_size):
            inputs = pack_inputs(self._watched, batch)
            now, then, masks = comparison.predict_on_batch(inputs)
            for name, stream in streams.items():
                mask, channels_first = masks.get(name), name in first
                x = _as_samples(now[name], mask, channels_first)
                y = _as_samples(then[name], mask, channels_first)
                _update(stream, x, y)
        return {f"cka/{n}": s.similarity() for n, s in streams.items()}

    def _trace_again(self, comparison: Comparison) -> None:
        """Traces the comparison again if flags have changed."""
        # On JAX a traced function gets the variables in the order of their
        # flags: trainable ones first.
        flags = [v.trainable for v in comparison.cascade.variables]
        if flags != self._flags:
            comparison.make_predict_function(force=True)
            self._flags = flags


def _update(stream: LinearCKA, x: np.ndarray, y: np.ndarray) -> None:
    rows = max(1, CHUNK // x.shape[1])
    for start in range(0, len(x), rows):
        stream.update(x[start : start + rows], y[start : start + rows])


def _as_samples(
    features: np.ndarray, mask: np.ndarray | None, channels_first: bool
) -> np.ndarray:
    """Returns features as `(samples, features)`: a position is a sample."""
    if features.ndim < 2:
        return features.reshape(-1, 1)
    if channels_first:
        features = np.moveaxis(features, 1, -1)
    rows = features.reshape(-1, features.shape[-1])
    if mask is not None and mask.shape == features.shape[:-1]:
        rows = rows[np.asarray(mask, dtype=bool).ravel()]
    return rows
