"""The features that a cascade can use now, and the messages about them.

Tested by `tests/cache/test_refusing.py` and `tests/cache/test_full_disk.py`.
"""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from keras_cascade._cascade_view import CascadeView
from keras_cascade._reporting.console import say
from keras_cascade._reporting.messages import in_bytes
from keras_cascade.cache.datasets import Dataset
from keras_cascade.cache.feature_cache import FeatureCache
from keras_cascade.cache.features import Features
from keras_cascade.cache.frozen_part import (
    FrozenPart,
    NothingToCacheError,
    find_frozen_part,
)
from keras_cascade.cache.storage.columns import CacheFull
from keras_cascade.graph.program_model import ProgramModel


class Session:
    """Finds what can be cached, for the flags that a cascade has."""

    def __init__(
        self, cascade: CascadeView, cache: FeatureCache, verbose: bool
    ):
        self._cascade, self._cache, self._verbose = cascade, cache, verbose
        self._features: Features | None = None
        self._found_for: tuple[list[bool], str] | None = None
        self._warned: set[str] = set()
        self._no_store = ""
        try:
            self._store = cache.open()
        except CacheFull as error:
            self._no_store = str(error)

    def features(self, datasets: Sequence[Dataset]) -> Features | None:
        """Returns the features of the layers that are frozen now.

        Returns:
            None, after a warning, if nothing can be cached.
        """
        if self._no_store:
            return self._warn(
                f"{self._no_store} The frozen part is computed in every epoch."
            )
        if varies := _why_they_vary(datasets):
            return self._warn(
                f"the data gives other samples than before: {varies}. From "
                "here on all is computed in every epoch. Data that is random "
                "or changes between epochs is trained on without "
                "cache_features."
            )
        if taught := self._cascade.taught:
            return self._warn(
                f"LwF compares old answers of {taught} on the inputs "
                "themselves, so all is computed in every epoch. L2SP and EWC "
                "go with cached features."
            )
        # Flags and weights may change between segments, by stages or callbacks.
        known = None if self._features is None else self._features.part
        if known is not None and self._found_for == self._state():
            return self._if_room(known, datasets)
        try:
            part = find_frozen_part(
                self._cascade,
                datasets[0].first_inputs(),
                self._store,
                known,
                self._cache.key,
            )
        except NothingToCacheError as error:
            # A last stage in which everything trains was asked for.
            if error.blocked or known is None:
                self._warn(
                    f"nothing of '{self._cascade.name}' can be cached, it is "
                    f"computed in every epoch: {error}"
                )
            return None
        for name, reason in part.excluded.items():
            self._warn(
                f"'{name}' is frozen and {reason}: it and what follows on it "
                "are computed in every epoch."
            )
        if part.is_open:
            for data in datasets:
                data.look_at_shapes()
            if varies := _why_they_vary(datasets):
                return self._warn(
                    f"{varies}, so that they are not kept. All is computed "
                    "in every epoch. Pad them to one shape to cache them."
                )
        features = self._if_room(part, datasets)
        # After opening, since the state is that of the opened part.
        self._found_for = self._state()
        return features

    @property
    def in_memory(self) -> bool:
        """Whether features are arrays of this process."""
        return self._cache.is_in_memory

    @contextmanager
    def using(
        self, features: Features, datasets: Sequence[Dataset]
    ) -> Iterator[None]:
        """Has the cascade take features, and this process store new ones.

        Where all are there, other processes need not wait for this one.
        """
        trainable_part = ProgramModel(
            features.part.cut.trainable, self._cascade.output
        )
        is_complete = all(data.is_complete(features) for data in datasets)
        # Entered by hand: a full disk must not end the training.
        writing = ExitStack()
        if not is_complete:
            with features.while_there_is_room():
                writing.enter_context(self._store.writing())
        try:
            with self._cascade.taking_features(trainable_part):
                yield
        finally:
            with features.while_there_is_room():
                writing.close()

    def _state(self) -> tuple[list[bool], str] | None:
        """Returns the state of the cascade that the features depend on."""
        if self._features is None:
            return None
        return self._cascade.flags(), self._features.part.state_digest()

    def _if_room(
        self, part: FrozenPart, datasets: Sequence[Dataset]
    ) -> Features | None:
        """Returns the features, or None after a warning for lack of room."""
        features = self._open(part)
        needed = _bytes_needed(features, datasets)
        if needed > self._store.room():
            moved = self._cache.move_to_disk()
            if moved is not None:
                self._store = moved
                features = self._open(part)
                needed = _bytes_needed(features, datasets)
        if features.is_full:  # after a warning of its own
            return None
        if needed > self._store.room():
            return self._warn(
                f"{needed:,} bytes of features are needed, and there is room "
                f"for {self._store.room():,}. The frozen part is computed in "
                "every epoch. Raise max_bytes, use another directory, or "
                "dtype='float16'."
            )
        missing = [data.missing(features) for data in datasets]
        if self._verbose and any(count != 0 for count in missing):
            self._show(features, needed if None not in missing else None)
        features.reserve([count or 0 for count in missing])
        return features

    def _open(self, part: FrozenPart) -> Features:
        """Returns the features; columns that are open stay open."""
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

    def _show(self, features: Features, needed: int | None) -> None:
        stored = sum(len(column) for column in features.columns.values())
        size = "" if needed is None else f"{in_bytes(needed)} "
        place = "memory"
        if not self._cache.is_in_memory:
            place = f"'{self._cache.directory or 'a folder for this process'}'"
        say(
            f"cache_features: {features.describe()}; {size}to be kept in "
            f"{place}"
            + (f", {stored:,} rows are there" if stored else "")
            + "".join(f"; up to {x}" for x in features.part.cut.blocked)
            + "."
        )

    def _warn(self, text: str) -> None:
        """Warns once in a session, whatever the number of segments."""
        if text not in self._warned:
            self._warned.add(text)
            warnings.warn(f"cache_features: {text}", stacklevel=2)


def _why_they_vary(datasets: Sequence[Dataset]) -> str | None:
    reasons = (data.varies_because for data in datasets)
    return next((x for x in reasons if x is not None), None)


def _bytes_needed(features: Features, datasets: Sequence[Dataset]) -> int:
    missing = [data.missing(features) or 0 for data in datasets]
    return sum(missing) * features.row_bytes
