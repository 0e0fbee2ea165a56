"""Killed at any moment, a writer leaves a store that the next can continue."""

import os
import re
import signal
import time

import numpy as np
import pytest

from keras_cascade.cache.storage.disk import DiskStore
from tests.cache.storage.samples import COUNT, SHARD_BYTES, check, fill

# No backend takes part in it.
pytestmark = pytest.mark.once

needs_fork = pytest.mark.skipif(
    not hasattr(os, "fork"), reason="processes are forked and killed"
)


class Kills:
    """Stores in fresh folders, whose writers are killed."""

    def __init__(self, server, folder, snapshot, count):
        self._server, self._folder = server, folder
        self._snapshot, self._count = snapshot, count
        self._made = 0

    def at(self, seconds):
        """Kills after some time; gives the folder, and how the writer ended."""
        path = self._path()
        child = int(self._server.ask(f"{path} 0"))
        time.sleep(seconds)
        os.kill(child, signal.SIGKILL)
        return path, int(self._server.ask("how?"))

    def before(self, step):
        """Kills before a step; gives the folder, and how the writer ended."""
        path = self._path()
        self._server.ask(f"{path} {step}")
        return path, int(self._server.ask("how?"))

    def seconds(self):
        """How long an undisturbed writer takes."""
        began = time.perf_counter()
        path, ended = self.before(0)
        taken = time.perf_counter() - began
        assert ended == 0
        check(DiskStore(path), self._count)
        return taken

    def hold_next_one_to_it(self, path):
        """The next writer finishes, and what was finished is as it was."""
        before = self._snapshot(path) if path.exists() else {}
        fill(DiskStore(path, shard_bytes=SHARD_BYTES), self._count)
        after = self._snapshot(path)
        # Values are saved again each time; what was computed is not.
        kept = (f for f in before if not f.startswith("values/"))
        finished = [f for f in kept if is_finished(f, before)]
        assert [f for f in finished if after[f] != before[f]] == []
        assert [f for f in after if not is_finished(f, after)] == []
        reopened = DiskStore(path)
        check(reopened, self._count)
        assert reopened.load_json("cuts/whole") == {"rows": self._count}

    def _path(self):
        self._made += 1
        return self._folder / str(self._made)


def is_finished(name, files):
    """A file of a shard that has its record, or a file that stands alone."""
    if name == "writing.lock":
        return True
    shard = re.fullmatch(r"(\w+/\d{6})(\.json|\.npy|\.ids\.npy)", name)
    return f"{shard[1]}.json" in files if shard else name.endswith(".json")


@pytest.fixture
def kills(writer, tmp_path, snapshot):
    def kills(count):
        server = writer("serve", count)
        return Kills(server, tmp_path, snapshot, count)

    return kills


def kill_at_random(kills, moments):
    whole = min(kills.seconds() for _ in range(3))
    random = np.random.default_rng(0)
    ends = []
    # One that has ended before it could be killed does not count.
    while ends.count(-signal.SIGKILL) < moments:
        assert len(ends) < 10 * moments
        path, ended = kills.at(random.random() * whole)
        ends.append(ended)
        kills.hold_next_one_to_it(path)
    assert set(ends) <= {0, -signal.SIGKILL}


@needs_fork
def test_killed_at_20_random_moments_the_next_writer_finishes(kills):
    kill_at_random(kills(COUNT), 20)


@needs_fork
@pytest.mark.large
def test_killed_at_300_random_moments_the_next_writer_finishes(kills):
    kill_at_random(kills(COUNT), 300)


@needs_fork
def test_killed_before_each_step_the_next_writer_finishes(kills):
    kills = kills(25)
    step, ended = 0, -signal.SIGKILL
    while ended == -signal.SIGKILL:
        step += 1
        path, ended = kills.before(step)
        kills.hold_next_one_to_it(path)
    assert ended == 0
    # Six shards of three files, each opened, moved and cleared away.
    assert step > 6 * 3 * 2


@needs_fork
def test_killed_again_and_again_in_one_folder(kills, tmp_path):
    kills = kills(COUNT)
    kills._path = lambda: tmp_path / "one"
    for step in range(1, 200, 10):
        path, _ = kills.before(step)
    kills.hold_next_one_to_it(path)
