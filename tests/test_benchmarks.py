"""Every benchmark runs, at a tiny size, and gives the rows it promises."""

import importlib.util
import inspect
import os
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parent / "benchmarks"
FILES = sorted(FOLDER.glob("bench_*.py"))
KEYS = {"name", "ours_s", "reference_s", "ratio", "bound", "holds"}
# Arguments of `run`, or constants of the module, by name.
TINY = {
    "bench_build": {
        "taps": {"MobileNetV3Small": ("expanded_conv_2_add", "-1")},
        "pairs": 1,
        "size": 32,
    },
    "bench_pca": {"WIDTH": 32, "COMPONENTS": 4, "PAIRS": 1},
    "bench_rates": {
        "only": {"a rate a block": ({"upstream": 1e-4}, {})},
        "pairs": 1,
        "steps": 1,
        "batch_size": 2,
        "size": 32,
    },
    "bench_unfreeze": {
        "stages": {"all of it joined": ["upstream"]},
        "pairs": 1,
        "steps": 1,
        "batch_size": 2,
        "size": 32,
    },
    "bench_step": {
        "variants": {"frozen upstream": (False, None)},
        "pairs": 1,
        "steps": 1,
        "batch_size": 2,
        "size": 32,
    },
}


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_benchmark_needs_no_arguments(path):
    parameters = inspect.signature(load(path).run).parameters.values()

    assert all(p.default is not p.empty for p in parameters)


def slow_where_it_compiles(path: Path):
    """The networks of all but `pca` are small on TensorFlow only."""
    slow = os.environ.get("KERAS_BACKEND") != "tensorflow"
    marks = [pytest.mark.large] if slow and path.stem != "bench_pca" else []
    return pytest.param(path, id=path.stem, marks=marks)


@pytest.mark.parametrize("path", [slow_where_it_compiles(p) for p in FILES])
def test_a_tiny_benchmark_gives_the_documented_rows(path, monkeypatch):
    module, arguments = load(path), {}
    for name, value in TINY[path.stem].items():
        if name.isupper():
            monkeypatch.setattr(module, name, value)
        else:
            arguments[name] = value

    rows = module.run(**arguments)

    assert rows
    for row in rows:
        assert set(row) == KEYS
        assert isinstance(row["name"], str)
        assert isinstance(row["bound"], str)
        assert isinstance(row["holds"], bool)
        assert min(row[k] for k in ("ours_s", "reference_s", "ratio")) > 0
