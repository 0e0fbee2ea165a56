"""Digests and features for the tests of stores; knows no Keras.

Features follow from the digest, so that every row tells whose it is.
"""

import math

import numpy as np

from keras_cascade.cache.storage.identifiers import IDS

# Two tensors of a cut, in shards of ten rows or so.
COLUMNS = {"a1": ((4, 3), "float32"), "b2": ((6,), "bfloat16")}
SHARD_BYTES = 700
COUNT = 400
BATCH = 16


def digests(count, seed=0):
    return np.frombuffer(np.random.default_rng(seed).bytes(16 * count), IDS)


def features(ids, shape=(4, 3), dtype="float32"):
    values = np.frombuffer(ids.tobytes(), np.uint8).reshape(len(ids), 16)
    size = math.prod(shape)
    rows = np.tile(values, -(-size // 16))[:, :size].reshape(-1, *shape)
    return (rows % 2 if np.dtype(dtype) == bool else rows).astype(dtype)


def fill(store, count=COUNT, columns=None):
    """Appends missing rows batch by batch, as a first epoch does."""
    ids = digests(count)
    with store.writing():
        for start in range(0, count, BATCH):
            batch = ids[start : start + BATCH]
            for key, (shape, dtype) in (columns or COLUMNS).items():
                column = store.column(key, shape, dtype, {"tensor": key})
                missing = batch[column.positions(batch) < 0]
                column.append(missing, features(missing, shape, dtype))
        store.save_json("cuts/whole", {"rows": count})


def check(store, count=COUNT, columns=None):
    """Every row is there once, and is its sample's."""
    ids = digests(count)[np.random.default_rng(1).permutation(count)]
    for key, (shape, dtype) in (columns or COLUMNS).items():
        column = store.column(key, shape, dtype, {})
        assert len(column) == count
        assert column.damaged == 0
        found = column.read(column.positions(ids))
        wanted = features(ids, shape, dtype)
        assert found.dtype == wanted.dtype
        np.testing.assert_array_equal(
            found.view(np.uint8), wanted.view(np.uint8)
        )
