"""Writes a store in a process of its own, in which there is no Keras.

The package's own __init__ imports Keras; here a bare package of its name,
with its path, stands in for it, so that a process starts in no time.
"""

import os
import signal
import sys
import types
from pathlib import Path

# What a process asks the system for when it makes, moves and removes files.
STEPS = {"open", "os.mkdir", "os.remove", "os.rename"}


def serve():
    """For each `folder step` forks a process that fills a store there.

    A step above 0 is the one before which the process kills itself. Its number
    is told, then, when a line asks for it, how it ended.
    """
    from samples import SHARD_BYTES, fill

    from keras_cascade.cache.storage.disk import DiskStore

    for line in sys.stdin:
        folder, step = line.rsplit(maxsplit=1)
        child = os.fork()
        if child == 0:
            if int(step):
                die_at(int(step))
            fill(DiskStore(folder, shard_bytes=SHARD_BYTES), *sizes())
            os._exit(0)
        tell(child)
        sys.stdin.readline()
        tell(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))


def hold(folder):
    """Writes half, waits for a line, writes the rest."""
    from samples import COUNT, SHARD_BYTES, fill

    from keras_cascade.cache.storage.disk import DiskStore

    store = DiskStore(folder, shard_bytes=SHARD_BYTES)
    with store.writing():
        fill(store, COUNT // 2)
        tell("half")
        sys.stdin.readline()
        fill(store)


def measure(folder, megabytes):
    """Tells the most anonymous memory that writing and reading took, in MiB."""
    import numpy as np
    from samples import digests

    from keras_cascade.cache.storage.disk import DiskStore

    shape, batch = (64, 1024), 8
    ids = digests(int(megabytes) * 2**20 // (64 * 1024 * 4))
    rows = np.ones((batch, *shape), np.float32)
    before = most = anonymous()
    store = DiskStore(folder)
    column = store.column("c3", shape, "float32", {})
    with store.writing():
        for start in range(0, len(ids), batch):
            column.append(ids[start : start + batch], rows)
            most = max(most, anonymous())
    del store, column
    column = DiskStore(folder).column("c3", shape, "float32", {})
    positions = np.random.default_rng(0).permutation(column.positions(ids))
    for start in range(0, len(ids), batch):
        read = column.read(positions[start : start + batch])
        most = max(most, anonymous())
        if (read != 1).any():
            raise ValueError("What was read is not what was written.")
    tell((most - before) / 2**20)


def overflow(folder, lie):
    """Fills a small disk; `lie`: which says that it has room without end."""
    import shutil

    from samples import check, fill

    from keras_cascade.cache.storage.columns import CacheFull
    from keras_cascade.cache.storage.disk import DiskStore

    if lie == "lie":
        usage = shutil.disk_usage(folder)._replace(free=2**60)
        shutil.disk_usage = lambda path: usage
    columns = {"a1": ((64, 64), "float32")}
    store = DiskStore(folder, shard_bytes=2**18)
    try:
        fill(store, 200, columns)
    except CacheFull as error:
        tell(error)
    column = DiskStore(folder).column("a1", *columns["a1"], {})
    check(DiskStore(folder), len(column), columns)
    tell(len(column))


def anonymous():
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise ValueError("This system does not tell anonymous memory.")


def sizes():
    return [int(x) for x in sys.argv[2:]]


def die_at(step):
    left = step

    def hook(event, arguments):
        nonlocal left
        if event in STEPS:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def tell(what):
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    package = types.ModuleType("keras_cascade")
    package.__path__ = [os.environ["KERAS_CASCADE_PATH"]]
    sys.modules["keras_cascade"] = package
    sys.path.insert(0, str(Path(__file__).parent))
    {"serve": serve, "hold": hold, "measure": measure, "overflow": overflow}[
        sys.argv[1]
    ](*([] if sys.argv[1] == "serve" else sys.argv[2:]))
    if "keras" in sys.modules:
        raise ImportError("The storage has imported Keras.")
