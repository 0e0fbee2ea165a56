"""Opens the data of `fit`, `evaluate` and `predict` as datasets of a cascade.

Tested by `tests/cache/test_refusing.py`.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from keras_cascade._cascade_view import CascadeView
from keras_cascade.cache.array_dataset import ArrayDataset
from keras_cascade.cache.datasets import Dataset
from keras_cascade.cache.feature_cache import FeatureCache
from keras_cascade.cache.session import Session
from keras_cascade.cache.stream_dataset import StreamDataset
from keras_cascade.data.arrays import strings_as_tensors
from keras_cascade.data.sources import Arrays, Batches, open_data
from keras_cascade.training.random_states import preserve_random_states

# Keras's default.
_BATCH_SIZE = 32


@dataclass(frozen=True)
class FitData:
    """The data of `fit`, as Keras takes it."""

    x: Any
    y: Any
    sample_weight: Any
    batch_size: int | None
    shuffle: bool

    def as_arguments(self) -> dict[str, Any]:
        """Returns the arguments of Keras's `evaluate`."""
        given = {**vars(self), "x": strings_as_tensors(self.x)}
        return _without_order(given)


@dataclass(frozen=True)
class Validation:
    """The data that a training is validated on.

    Attributes:
        data: The data as Keras takes `validation_data`, or None.
        share: The share of the training data to use, if there is none.
        batch_size: The rows of a batch, where the data is arrays; None: as in
            training.
    """

    data: Any
    share: float
    batch_size: int | None


def check_no_steps(**steps: int | None) -> None:
    """Raises a ValueError for arguments that would end a pass early."""
    for name, value in steps.items():
        if value is not None:
            raise ValueError(
                f"{name}={value} with cache_features: the cache is of whole "
                "passes over the data. Pass the part of it that is meant, "
                "such as dataset.take(100), or leave out cache_features."
            )


def open_datasets(
    cascade: CascadeView,
    cache: FeatureCache,
    data: FitData,
    validation: Validation,
) -> tuple[Dataset, Dataset | None]:
    """Returns the datasets of a training and of its validation.

    Raises:
        ValueError: The data may give other samples each time and has no key,
            or its inputs are not those of the cascade.
        TypeError: The data is of another kind.
    """
    source, held_out = _open(data), None
    original = validation.data
    if original is not None:
        held_out = open_data(original)
        original = original[0] if isinstance(original, tuple) else original
    elif validation.share:
        if not isinstance(source, Arrays):
            raise ValueError(
                f"validation_split={validation.share} splits arrays; received "
                f"a {source.kind}. Pass validation_data."
            )
        source, held_out = source.to_numpy().split(validation.share)
    training = _dataset(cascade, cache, source, data, "training")
    if held_out is None:
        return training, None
    size = validation.batch_size or data.batch_size
    given = FitData(original, None, None, size, shuffle=False)
    return training, _dataset(cascade, cache, held_out, given, "evaluation")


@contextmanager
def evaluation_arguments(
    cascade: CascadeView, cache: FeatureCache, data: FitData, verbose: bool
) -> Iterator[Mapping[str, Any]]:
    """Yields the arguments of Keras's `evaluate`, on features if possible.

    Meanwhile the cascade takes features.
    """
    dataset = _dataset(cascade, cache, _open(data), data, "evaluation")
    session = Session(cascade, cache, verbose)
    features = session.features([dataset])
    if features is None:
        yield _without_order(dataset.live_arguments())
        return
    with session.using(features, [dataset]):
        yield _without_order(dataset.arguments(features, session.in_memory))


def _open(data: FitData) -> Arrays | Batches:
    return open_data((data.x, data.y, data.sample_weight))


def _dataset(
    cascade: CascadeView,
    cache: FeatureCache,
    source: Arrays | Batches,
    data: FitData,
    role: str,
) -> Dataset:
    if isinstance(source, Arrays):
        size = data.batch_size or _BATCH_SIZE
        return ArrayDataset(cascade, source, size, data.shuffle)
    if cache.key is None and (reason := _why_not_repeatable(source)):
        raise ValueError(
            f"cache_features: the {role} data is a {source.kind}, which may "
            f"give other samples in each epoch: {reason}. If they are the "
            "same, say so by a name for the data: "
            "cache_features=FeatureCache(key='my-data-1'). If they are not "
            "(random augmentation), put what is random into the cascade, "
            "after what is frozen, or train without cache_features."
        )
    return StreamDataset(cascade, source, data.x, cache.key, role, data.shuffle)


def _why_not_repeatable(source: Batches) -> str | None:
    # What reading draws at random must not change a live training.
    with preserve_random_states():
        return source.not_repeatable_because


def _without_order(arguments: Mapping[str, Any]) -> dict[str, Any]:
    # Keras's `evaluate` has no such argument.
    return {k: v for k, v in arguments.items() if k != "shuffle"}
