"""Scores networks on their old tasks, with their old heads.

Tested by `tests/training/drift/test_monitor.py`.
"""

from typing import Any

import keras
import numpy as np

from keras_cascade import data as user_data
from keras_cascade._cascade_view import CascadeView
from keras_cascade.graph.copying import copy_graph
from keras_cascade.graph.graph import read_graph
from keras_cascade.training.drift.pretrained_copies import (
    Pair,
    copy_values,
    match_variables,
    read_source,
)
from keras_cascade.training.layer_lookup import operations_by_path


class OldTask:
    """Scores an original network with the weights that its block has now.

    All layers of the block count, moments included; the layers that the block
    lacks, the old head, have their old weights. The other arguments are those
    of `DriftMonitor`.
    """

    def __init__(
        self,
        cascade: CascadeView,
        block: str,
        network: keras.Model,
        data: object,
        metric: object,
        batch_size: int,
    ):
        graph = read_source(cascade, block, network)
        self._network = copy_graph(graph, f"old_{block}")
        self._shared = _match(cascade.blocks[block], self._network)
        self._data, self._batch_size = data, batch_size
        _, labels = next(user_data.labelled_batches(data, batch_size))
        self._metric = resolve_metric(metric, self._network, labels, block)

    def score(self) -> float:
        """Returns the metric over all of the data with the present weights."""
        copy_values(self._shared)
        metric: Any = self._metric
        metric.reset_state()
        for x, y in user_data.labelled_batches(self._data, self._batch_size):
            metric.update_state(y, self._network.predict_on_batch(x))
        return float(metric.result())


def resolve_metric(
    metric: object, network: keras.Model, labels: object, block: str
) -> keras.metrics.Metric:
    """Returns a new metric for the output of a network.

    As in `compile`, `"accuracy"` is binary, sparse or categorical by the
    shapes of outputs and labels.
    """
    if not isinstance(labels, np.ndarray) or len(network.outputs) > 1:
        raise ValueError(
            f"old_task of '{block}' needs one array of labels for the one "
            f"output of '{network.name}'; received "
            f"{type(labels).__name__} for {len(network.outputs)} outputs. "
            "Pass (x, y), or batches of them."
        )
    if metric in ("accuracy", "acc"):
        return _accuracy(network.outputs[0].shape, labels.shape)
    found = keras.metrics.get(metric)
    if isinstance(found, keras.metrics.Metric):
        return type(found).from_config(found.get_config())
    if callable(found):
        return keras.metrics.MeanMetricWrapper(found)
    raise ValueError(f"metric={metric!r} is no metric of Keras.")


def _accuracy(output: tuple, labels: tuple) -> keras.metrics.Metric:
    if output[-1] == 1:
        return keras.metrics.BinaryAccuracy()
    if len(output) == len(labels) and labels[-1] == output[-1]:
        return keras.metrics.CategoricalAccuracy()
    return keras.metrics.SparseCategoricalAccuracy()


def _match(block: keras.Layer, network: keras.Model) -> list[Pair]:
    """Returns pairs of variables of the block and the network, by path."""
    now, old = (
        operations_by_path(read_graph(one, keep_names=True))
        for one in (block, network)
    )
    return [
        pair
        for path, layer in old.items()
        for pair in match_variables(now.get(path), layer)
    ]
