"""Prepares every test: settings before Keras, a seed, a clean state."""

import gc
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

BACKENDS = ("tensorflow", "jax", "torch")


def _configure_frameworks() -> None:
    """Sets what frameworks read when imported, subprocesses included."""
    # Shared by workers and subprocesses: what both need is compiled once.
    cache = Path(__file__).parents[1] / ".pytest_cache" / "jax"
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if os.environ.get("KERAS_BACKEND") == "jax":
        os.environ.setdefault("XLA_FLAGS", " ".join(_unoptimized()))
    os.environ.setdefault("MPLBACKEND", "Agg")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "PYTEST_XDIST_WORKER" in os.environ:
        # Workers that each take every core spend their time waiting.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
        os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")


def _unoptimized() -> Iterator[str]:
    """Yields the flags under which XLA compiles fast.

    Tests run small programs once: compiling took most of the time on JAX.
    `tox -e large` compiles as users do. XLA ends the process at a flag that it
    does not know.
    """
    yield "--xla_backend_optimization_level=0"


_configure_frameworks()


@pytest.fixture(autouse=True)
def _reproducible():
    """Starts each test from one seed and from Keras's initial names."""
    import keras

    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="module", autouse=True)
def _frozen():
    """Has the garbage collector skip what outlives a module's tests.

    TensorFlow keeps the graph of each compiled training step: with those of
    all tests, one collection took ten seconds.
    """
    yield
    gc.collect()
    gc.freeze()


@pytest.fixture
def answers():
    """Returns a function that runs a program on arrays, and returns arrays."""

    import keras

    def answers(program, *arrays):
        found = program(*map(keras.ops.convert_to_tensor, arrays))
        return {k: keras.ops.convert_to_numpy(x) for k, x in found.items()}

    return answers


@pytest.fixture
def own_answers():
    """Returns a function that runs a model and returns its outputs, flat."""

    import keras

    def own_answers(model, inputs):
        given = keras.tree.map_structure(keras.ops.convert_to_tensor, inputs)
        found = keras.tree.flatten(model(given, training=False))
        return [keras.ops.convert_to_numpy(x) for x in found]

    return own_answers


def pytest_addoption(parser):
    parser.addoption(
        "--every-backend",
        action="store_true",
        help="run tests marked `once` on this backend too",
    )


def pytest_collection_modifyitems(config, items):
    _deselect_once(config, items)
    _skip_interop(items)


def _deselect_once(config, items):
    """Leaves tests marked `once` to torch where tox runs each backend."""
    only = os.environ.get("KERAS_CASCADE_ONLY_BACKEND", "torch")
    if only == "torch" or config.getoption("every_backend"):
        return
    once = [item for item in items if item.get_closest_marker("once")]
    items[:] = [x for x in items if not x.get_closest_marker("once")]
    config.hook.pytest_deselected(items=once)


def _skip_interop(items):
    """Skips the interop tests, with the reason, if a backend is missing."""
    missing = [b for b in BACKENDS if importlib.util.find_spec(b) is None]
    reason = f"interop: not installed here: {', '.join(missing)}"
    for item in items:
        if missing and item.get_closest_marker("interop"):
            item.add_marker(pytest.mark.skip(reason=reason))
