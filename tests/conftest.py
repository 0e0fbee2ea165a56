"""Prepares every test: settings before Keras, a seed, a clean state."""

import importlib.util
import os
from pathlib import Path

import pytest

BACKENDS = ("tensorflow", "jax", "torch")


def _configure_frameworks() -> None:
    """Sets what frameworks read when imported, subprocesses included."""
    # Not shared by workers: JAX writes entries in place, without a lock.
    worker = os.environ.get("PYTEST_XDIST_WORKER", "main")
    cache = Path(__file__).parents[1] / ".pytest_cache" / "jax" / worker
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(cache))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if os.environ.get("KERAS_BACKEND") == "jax":
        # Tests run small programs: optimizing them took a quarter of the time
        # of all tests, for the same results.
        unoptimized = "--xla_backend_optimization_level=0"
        os.environ.setdefault("XLA_FLAGS", unoptimized)
    os.environ.setdefault("MPLBACKEND", "Agg")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if worker != "main":
        # Workers that each take every core spend their time waiting.
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
        os.environ.setdefault("TF_NUM_INTEROP_THREADS", "1")


_configure_frameworks()


@pytest.fixture(autouse=True)
def _reproducible():
    """Starts each test from one seed and from Keras's initial names."""
    import keras

    keras.utils.clear_session(free_memory=False)
    keras.utils.set_random_seed(0)


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


def pytest_collection_modifyitems(items):
    """Skips the interop tests, with the reason, if a backend is missing."""
    missing = [b for b in BACKENDS if importlib.util.find_spec(b) is None]
    reason = f"interop: not installed here: {', '.join(missing)}"
    for item in items:
        if missing and item.get_closest_marker("interop"):
            item.add_marker(pytest.mark.skip(reason=reason))
