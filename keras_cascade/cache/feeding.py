"""From what `fit`, `evaluate` and `predict` are given to feeds of features."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from keras_cascade._cascade_view import CascadeView
from keras_cascade.cache.array_feed import ArrayFeed
from keras_cascade.cache.feature_cache import FeatureCache
from keras_cascade.cache.session import Session
from keras_cascade.cache.stream_feed import StreamFeed
from keras_cascade.data.sources import Arrays, Batches, open_data

Feed = ArrayFeed | StreamFeed

# Keras's.
_BATCH_SIZE = 32


@dataclass(frozen=True)
class Data:
    """Data as Keras takes it.

    Attributes:
        x: Inputs, or batches.
        y: Labels, or None.
        sample_weight: Likewise.
        batch_size: Rows at a time, where it is arrays; None: 32.
        shuffle: Whether each epoch has another order.
    """

    x: Any
    y: Any
    sample_weight: Any
    batch_size: int | None
    shuffle: bool

    def as_arguments(self) -> dict[str, Any]:
        """The arguments of `evaluate`."""
        return {
            "x": self.x,
            "y": self.y,
            "sample_weight": self.sample_weight,
            "batch_size": self.batch_size,
        }


@dataclass(frozen=True)
class Validation:
    """What a training is validated on.

    Attributes:
        data: As Keras takes `validation_data`.
        share: Of the training data, if there is none.
        batch_size: Rows at a time, where it is arrays; None: as in training.
    """

    data: Any
    share: float
    batch_size: int | None


def check_no_steps(**steps: int | None) -> None:
    """A cache knows whole passes over the data.

    Args:
        **steps: The arguments that would end one early.

    Raises:
        ValueError: If one is given.
    """
    for name, value in steps.items():
        if value is not None:
            raise ValueError(
                f"{name}={value} with cache_features: the cache is of whole "
                "passes over the data. Pass the part of it that is meant, "
                "such as dataset.take(100), or leave out cache_features."
            )


def open_feeds(
    cascade: CascadeView,
    cache: FeatureCache,
    data: Data,
    validation: Validation,
) -> tuple[Feed, Feed | None]:
    """The data of a training, as feeds.

    Args:
        cascade: The cascade.
        cache: Where features are kept.
        data: To train on.
        validation: To validate on.

    Raises:
        ValueError: If it may give other samples each time and has no key, or
            the inputs are not those of the cascade.
        TypeError: If it is of another kind.
    """
    samples = _open(data)
    held: Arrays | Batches | None = None
    original = validation.data
    if original is not None:
        held = open_data(original)
        original = original[0] if isinstance(original, tuple) else original
    elif validation.share:
        if not isinstance(samples, Arrays):
            raise ValueError(
                f"validation_split={validation.share} splits arrays; received "
                f"a {samples.kind}. Pass validation_data."
            )
        samples, held = samples.to_numpy().split(validation.share)
    training = _feed(cascade, cache, samples, data, "training")
    if held is None:
        return training, None
    size = validation.batch_size or data.batch_size
    given = Data(original, None, None, size, shuffle=False)
    return training, _feed(cascade, cache, held, given, "evaluation")


@contextmanager
def on_features(
    cascade: CascadeView, cache: FeatureCache, data: Data, tells: bool
) -> Iterator[Mapping[str, Any]]:
    """What `evaluate` is given in the place of some data.

    Args:
        cascade: The cascade.
        cache: Where features are kept.
        data: The data.
        tells: Whether to print what is cached.
    """
    samples = _open(data)
    feed = _feed(cascade, cache, samples, data, "evaluation")
    session = Session(cascade, cache, tells)
    features = session.features([feed])
    if features is None:
        yield _without_order(feed.live())
        return
    with session.using(features, [feed]):
        yield _without_order(session.arguments(feed, features))


def _open(data: Data) -> Arrays | Batches:
    return open_data((data.x, data.y, data.sample_weight))


def _feed(
    cascade: CascadeView,
    cache: FeatureCache,
    samples: Arrays | Batches,
    data: Data,
    role: str,
) -> Feed:
    if isinstance(samples, Arrays):
        size = data.batch_size or _BATCH_SIZE
        return ArrayFeed(samples, cascade, size, data.shuffle)
    if samples.not_repeatable_because is not None and cache.key is None:
        raise ValueError(_no_key(samples, role))
    return StreamFeed(samples, data.x, cascade, cache.key, role, data.shuffle)


def _no_key(samples: Batches, role: str) -> str:
    return (
        f"cache_features: the {role} data is a {samples.kind}, of which it "
        "cannot be seen that it gives the same samples in each epoch: "
        f"{samples.not_repeatable_because}. If it does, say so by a name for "
        "it: cache_features=FeatureCache(key='my-data-1'). If it does not "
        "(random augmentation), put what is random into the cascade, after "
        "what is frozen, or train without cache_features."
    )


def _without_order(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in arguments.items() if k != "shuffle"}
