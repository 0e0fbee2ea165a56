"""The cache of features that a user passes as `cache_features`."""

import errno
import os
import shutil
import stat
import tempfile
import weakref
from pathlib import Path

from keras_cascade._reporting.console import say
from keras_cascade._reporting.messages import in_bytes
from keras_cascade.cache.storage.disk import DiskStore
from keras_cascade.cache.storage.stores import MemoryStore, Store

DTYPES = ("float32", "float16", "bfloat16")
# Features take at most one part in so many of the free memory.
_PARTS_OF_MEMORY = 4


class FeatureCache:
    """Stores the features that the frozen part of a cascade computed.

    Features are found again by content hashes: of the sample, and of
    everything that computed them. So one cache serves training, validation
    and tests, several cascades, and other processes; whatever differs is
    computed again.

    Args:
        directory: A folder for features that outlast the process. It is made
            where it is missing. Without a folder, features are kept in memory
            as long as the object lives, or, if they would take more than a
            quarter of the free memory, in a temporary folder that is removed
            with the object. Defaults to `None`.
        dtype: The dtype that floats are stored in: `"float32"`, `"float16"`
            or `"bfloat16"`. The latter two take half of the bytes, and round
            the features. Defaults to `"float32"`.
        max_bytes: The most bytes that all features may take. Where they take
            more, the training goes on without the cache. Defaults to `None`:
            as much as there is.
        key: A name for data that may give other samples in each epoch, as far
            as can be seen (`tf.data`, generators). By naming it you say that
            it gives the same ones. Under the same key, features and labels
            are read from the cache and not from the data: change the key
            whenever the data changes. It also says that compiled code of
            yours, which cannot be read, stays as it is. Defaults to `None`.

    Raises:
        ValueError: The dtype is none of these, or a number is not positive.
        TypeError: An argument is of another type.

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
        self._store: Store | None = None

    def __repr__(self) -> str:
        where = "memory" if self.directory is None else f"'{self.directory}'"
        rows, taken = (0, 0) if self._store is None else self._store.contents()
        facts = [f"{rows:,} rows read or written", in_bytes(taken)]
        if self.max_bytes is not None:
            facts.append(f"at most {in_bytes(self.max_bytes)}")
        facts += [f"key {self.key!r}"] * (self.key is not None)
        return f"<FeatureCache in {where}, {self.dtype}: {', '.join(facts)}>"

    def open(self) -> Store:
        """Returns the store of the features, always the same one."""
        if self._store is None:
            self._store = (
                MemoryStore(
                    self.max_bytes or _free_memory() // _PARTS_OF_MEMORY
                )
                if self.directory is None
                else DiskStore(
                    self.directory,
                    max_bytes=self.max_bytes,
                    notify=lambda text: say(f"cache_features: {text}"),
                )
            )
        return self._store

    def move_to_disk(self) -> Store | None:
        """Returns a store in a temporary folder, where memory has no room.

        Returns:
            None if the user said where features go, or how much they may take.
        """
        if self.directory is not None or self.max_bytes is not None:
            return None
        if not isinstance(self._store, MemoryStore):
            return None
        # Removed with this object, or when the process ends.
        folder = tempfile.mkdtemp(prefix="keras_cascade_features_")
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self._store = DiskStore(folder)
        return self._store

    @property
    def is_in_memory(self) -> bool:
        """Whether features are arrays of this process."""
        return isinstance(self._store, MemoryStore)


def as_cache(cache_features: object) -> FeatureCache | None:
    """Returns the cache that `cache_features=` asks for, or None.

    Args:
        cache_features: False, True, a folder, or a `FeatureCache`.

    Raises:
        TypeError: It is something else.
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


def _check(
    directory: object, dtype: object, max_bytes: object, key: object
) -> None:
    if directory is not None and not isinstance(directory, (str, os.PathLike)):
        raise TypeError(
            "FeatureCache(directory=...) is the path of a folder or None; "
            f"received {directory!r}."
        )
    if directory is not None:
        _check_folder(directory)
    if not isinstance(dtype, str) or dtype not in DTYPES:
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


def _check_folder(directory: str | os.PathLike) -> None:
    """Raises a ValueError for a path that no folder can have."""
    problem = None
    try:
        mode = Path(directory).stat().st_mode
        problem = None if stat.S_ISDIR(mode) else "it is a file"
    except ValueError as error:  # a null character
        problem = str(error)
    except OSError as error:
        # A folder that is missing is made.
        if error.errno in (errno.ENAMETOOLONG, errno.ENOTDIR):
            problem = error.strerror
    if problem is not None:
        raise ValueError(
            f"FeatureCache(directory={directory!r}) cannot be a folder: "
            f"{problem}. Choose a folder, or a place for one."
        )


def _is_count(x: object) -> bool:
    return isinstance(x, int) and not isinstance(x, bool) and x > 0


def _free_memory() -> int:
    """Returns the bytes of memory that are available without swapping."""
    # Imported here, so that importing the package stays fast.
    import psutil

    return psutil.virtual_memory().available
