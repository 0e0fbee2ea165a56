"""The features that a cascade works on now, and what is said of them."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from rich import print as show

from keras_cascade._cascade_view import CascadeView
from keras_cascade.cache.feature_cache import FeatureCache
from keras_cascade.cache.features import Features
from keras_cascade.cache.part import (
    FrozenPart,
    NothingToCacheError,
    frozen_part,
)
from keras_cascade.cache.storage.columns import CacheFull
from keras_cascade.graph.program_model import ProgramModel


class Session:
    """Finds, for the flags that a cascade has, what can be cached.

    Args:
        cascade: The cascade.
        cache: Where features are kept.
        tells: Whether to print what is cached.
    """

    def __init__(self, cascade: CascadeView, cache: FeatureCache, tells: bool):
        self._cascade, self._cache, self._tells = cascade, cache, tells
        self._store: Any = None
        self._no_store = ""
        try:
            self._store = cache.open()
        except CacheFull as error:
            self._no_store = str(error)
        self._features: Features | None = None
        self._found_for: Any = None
        self._said: set[str] = set()

    def features(self, feeds: Sequence[Any]) -> Features | None:
        """The features of the layers that are frozen now.

        Args:
            feeds: The data.

        Returns:
            None, with a warning, if nothing can be cached.
        """
        if self._no_store:
            self._warn(
                f"cache_features: {self._no_store} The frozen part is computed "
                "in every epoch."
            )
            return None
        if taught := self._cascade.taught:
            self._warn(
                f"cache_features: LwF compares old answers of {taught} on the "
                "inputs themselves, so all is computed in every epoch. L2SP "
                "and EWC go with cached features."
            )
            return None
        if self._features is not None and self._found_for == self._now():
            return self._that_fit(self._features.part, feeds)
        try:
            part = frozen_part(
                self._cascade, feeds[0].first(), self._store, self._known
            )
        except NothingToCacheError as error:
            # A last stage in which all trains is what was asked for.
            if error.blocked or self._features is None:
                self._warn(
                    f"cache_features: nothing of '{self._cascade.name}' can "
                    f"be cached, it is computed in every epoch: {error}"
                )
            return None
        self._warn_of(part)
        features = self._that_fit(part, feeds)
        self._found_for = self._now()
        return features

    def arguments(self, feed: Any, features: Features) -> dict[str, Any]:
        """What Keras gets of some data."""
        return feed.arguments(features, self._cache.is_in_memory)

    @contextmanager
    def using(self, features: Features, feeds: Sequence[Any]) -> Iterator[None]:
        """Has the cascade take features, and this process keep new ones.

        Where all are there, nothing is written: others need not wait.

        Args:
            features: The features.
            feeds: The data.
        """
        tail = ProgramModel(features.part.cut.trainable, self._cascade.output)
        is_complete = all(feed.is_complete(features) for feed in feeds)
        writing = ExitStack()
        if not is_complete:
            with features.while_there_is_room():
                writing.enter_context(self._store.writing())
        try:
            with self._cascade.taking_features(tail):
                yield
        finally:
            with features.while_there_is_room():
                writing.close()

    def _now(self) -> Any:
        """What the features depend on, as far as it may change in a fit."""
        if self._features is None:
            return None
        return self._cascade.flags(), self._features.part.weights()

    @property
    def _known(self) -> FrozenPart | None:
        return None if self._features is None else self._features.part

    def _that_fit(
        self, part: FrozenPart, feeds: Sequence[Any]
    ) -> Features | None:
        """The features, where there is room for them."""
        features = self._opened(part)
        needed = self._needed(features, feeds)
        if needed > self._store.room():
            moved = self._cache.move_to_disk()
            if moved is not None:
                self._store = moved
                features = self._opened(part)
                needed = self._needed(features, feeds)
        if features.is_full:  # which was said when it was found
            return None
        if needed > self._store.room():
            self._warn(
                f"cache_features: {needed:,} bytes of features are needed, "
                f"and there is room for {self._store.room():,}. The frozen "
                "part is computed in every epoch. Raise max_bytes, use another "
                "directory, or dtype='float16'."
            )
            return None
        missing = [feed.missing(features) for feed in feeds]
        if self._tells and any(count != 0 for count in missing):
            self._tell(features, needed if None not in missing else None)
        features.reserve([count or 0 for count in missing])
        return features

    def _opened(self, part: FrozenPart) -> Features:
        """Features that have been open stay so, with what they know."""
        old = self._features
        if (
            old is None
            or old.part.keys != part.keys
            or old.store is not self._store
        ):
            self._features = Features(part, self._store, self._cache.dtype)
            return self._features
        old.part = part
        return old

    def _needed(self, features: Features, feeds: Sequence[Any]) -> int:
        missing = [feed.missing(features) or 0 for feed in feeds]
        return sum(missing) * features.row_bytes

    def _tell(self, features: Features, needed: int | None) -> None:
        kept = sum(len(column) for column in features.columns.values())
        size = "" if needed is None else f"{in_bytes(needed)} "
        show(
            f"cache_features: {features.describe()}; {size}to be kept in "
            f"{self._place()}"
            + (f", {kept:,} rows are there" if kept else "")
            + "".join(f"; up to {x}" for x in features.part.cut.blocked)
            + "."
        )

    def _place(self) -> str:
        if self._cache.is_in_memory:
            return "memory"
        return f"'{self._cache.directory or 'a folder for this process'}'"

    def _warn_of(self, part: FrozenPart) -> None:
        for name, reason in part.barred.items():
            self._warn(
                f"cache_features: '{name}' is frozen and {reason}: it and what "
                "lies behind it are computed in every epoch."
            )

    def _warn(self, text: str) -> None:
        """Once for each session, whatever the number of segments."""
        if text not in self._said:
            self._said.add(text)
            warnings.warn(text, stacklevel=2)


def in_bytes(count: float) -> str:
    """A number of bytes to read."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB"
