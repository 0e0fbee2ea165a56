"""Where cached features are kept: what the user says of it."""

import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

from rich import print as show

from keras_cascade.cache.storage.disk import DiskStore
from keras_cascade.cache.storage.stores import MemoryStore

DTYPES = ("float32", "float16", "bfloat16")
# Of the memory that is free, the share that features may take.
_SHARE = 4


class FeatureCache:
    """Where `cache_features` keeps what the frozen part computed.

    Features are found again by content: of the sample, and of everything that
    computed them. So one cache serves training, validation and tests, several
    cascades, and other processes; what is not the same is computed anew.

    Args:
        directory: A folder for features that outlast the process. It is made
            where it is missing. Without one they are kept in memory as long
            as the object lives, or, if they would take more than a quarter of
            what is free, in a folder that goes with it. Defaults to `None`.
        dtype: What floats are kept in: `"float32"`, `"float16"` or
            `"bfloat16"`. Half of the bytes, and features that are rounded.
            Defaults to `"float32"`.
        max_bytes: What all features in it may take, in bytes. Where they take
            more, the training goes on without them. Defaults to `None`: as
            much as there is.
        key: For data of which it cannot be seen that it gives the same
            samples in each epoch (`tf.data`, generators): a name for it, by
            which you say that it does. Under the same key, features and
            labels are read from the cache and not from the data: change it
            whenever the data changes. Defaults to `None`.

    Raises:
        ValueError: If a dtype is none of these, or a number is not positive.
        TypeError: If an argument is of another kind.

    Example:
    >>> cache = keras_cascade.FeatureCache(dtype="float16")
    >>> history = cascade.fit(images, labels, cache_features=cache, verbose=0)
    >>> scores = cascade.evaluate(
    ...     images, labels, cache_features=cache, verbose=0
    ... )
    """

    def __init__(
        self,
        directory: str | os.PathLike | None = None,
        dtype: str = "float32",
        max_bytes: int | None = None,
        key: str | None = None,
    ):
        _check(directory, dtype, max_bytes, key)
        self.directory = None if directory is None else Path(directory)
        self.dtype, self.max_bytes, self.key = dtype, max_bytes, key
        self._store: Any = None

    def __repr__(self) -> str:
        where = "memory" if self.directory is None else str(self.directory)
        return f"FeatureCache({where!r}, dtype={self.dtype!r})"

    def open(self) -> Any:
        """The store that features go to; always the same one."""
        if self._store is None:
            self._store = (
                MemoryStore(self.max_bytes or _free_memory() // _SHARE)
                if self.directory is None
                else DiskStore(
                    self.directory, max_bytes=self.max_bytes, notify=_tell
                )
            )
        return self._store

    def move_to_disk(self) -> Any:
        """The store from now on, where memory does not suffice.

        Returns:
            None if the user said where features go, or how much they may take.
        """
        if self.directory is not None or self.max_bytes is not None:
            return None
        if not isinstance(self._store, MemoryStore):
            return None
        folder = tempfile.mkdtemp(prefix="keras_cascade_features_")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._store = DiskStore(folder)
        return self._store

    @property
    def is_in_memory(self) -> bool:
        """Whether features are arrays of this process."""
        return isinstance(self._store, MemoryStore)


def as_cache(cache_features: Any) -> FeatureCache | None:
    """What `cache_features=` means; None for no cache.

    Args:
        cache_features: False, True, a folder, or a `FeatureCache`.

    Raises:
        TypeError: If it is something else.
    """
    if isinstance(cache_features, FeatureCache):
        return cache_features
    if cache_features is None or cache_features is False:
        return None
    if cache_features is True:
        return FeatureCache()
    if isinstance(cache_features, (str, os.PathLike)):
        return FeatureCache(cache_features)
    raise TypeError(
        "cache_features is False, True (in memory), a folder, or a "
        f"FeatureCache; received {cache_features!r}."
    )


def _tell(text: str) -> None:
    show(f"cache_features: {text}")


def _check(directory: Any, dtype: Any, max_bytes: Any, key: Any) -> None:
    if directory is not None and not isinstance(directory, (str, os.PathLike)):
        raise TypeError(
            "FeatureCache(directory=...) is the path of a folder or None; "
            f"received {directory!r}."
        )
    if dtype not in DTYPES:
        raise ValueError(
            f"FeatureCache(dtype=...) is one of {', '.join(DTYPES)}; received "
            f"{dtype!r}."
        )
    if max_bytes is not None and not _is_count(max_bytes):
        raise ValueError(
            "FeatureCache(max_bytes=...) is a positive whole number of bytes "
            f"or None; received {max_bytes!r}."
        )
    if key is not None and (not isinstance(key, str) or not key):
        raise TypeError(
            "FeatureCache(key=...) is a name for the data, a str that is not "
            f"empty, or None; received {key!r}."
        )


def _is_count(x: Any) -> bool:
    return isinstance(x, int) and not isinstance(x, bool) and x > 0


def _free_memory() -> int:
    """Returns the bytes of memory that are available without swapping."""
    import psutil

    return psutil.virtual_memory().available
