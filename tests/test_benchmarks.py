"""Tests that every benchmark runs, at a tiny size, with documented rows."""

import importlib.util
import inspect
import mmap
import os
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

FOLDER = Path(__file__).parent / "benchmarks"
FILES = sorted(FOLDER.glob("bench_*.py"))
TIMES = {"ours_s", "reference_s", "ratio"}
FIGURES = {"letters", "letters_std", "kept", "digits", "digits_std", "lost"}
STITCHED = {"r2", "accuracy", "kept", "untrained_r2", "untrained"}
MEMORY = {"peak_gb", "features_gb"}
REGRETS = {"regret", "worst", "tau", "tuned_regret", "tuned_tau"}
# Arguments of `run`, or constants of the module, by name.
TINY = {
    "bench_build": {
        "taps": {"MobileNetV3Small": ("expanded_conv_2_add", "-1")},
        "pairs": 1,
        "size": 32,
    },
    "bench_cache": {
        "samples": 8,
        "epochs": 2,
        "size": 32,
        "batch_size": 4,
        "repetitions": 1,
    },
    "bench_cache_maps": {
        "samples": 8,
        "batch_size": 4,
        "repetitions": 1,
        "epochs": 1,
    },
    "bench_cache_memory": {"gigabytes": 0.01, "batch_size": 2},
    "bench_checks": {"samples": 4, "pairs": 1, "batch_size": 2, "size": 32},
    "bench_export": {"networks": ("glyph_encoder",), "pairs": 1, "runs": 2},
    "bench_forgetting": {
        "seeds": (0,),
        "strengths": {"LwF": 1.0},
        "LETTERS": 512,
        "LABELS": 2,
        "EPOCHS": 1,
    },
    "bench_pca": {"WIDTH": 32, "COMPONENTS": 4, "PAIRS": 1},
    "bench_rank_cost": {
        "samples": 32,
        "size": 32,
        "streamed": 32,
        "SINGLE": 1,
    },
    "bench_ranking": {
        "samples": 60,
        "trained": 60,
        "networks": ("untrained",),
        "tasks": ("digits",),
        "EPOCHS": 1,
        "TUNED": ("stage1_out",),
        "TUNED_SAMPLES": 32,
        "TUNED_EPOCHS": 1,
        "TEST": 64,
    },
    "bench_rates": {
        "only": {"a rate a block": ({"upstream": 1e-4}, {})},
        "pairs": 1,
        "steps": 1,
        "batch_size": 2,
        "size": 32,
    },
    "bench_taps": {"bounds": {"chain of 20": 2.0}},
    "bench_torch": {
        "pairs": 1,
        "steps": 1,
        "batch_size": 2,
        "size": 32,
        "conversions": 1,
        "runs": 1,
        "pixels": 32,
    },
    "bench_stitching": {"epochs": 1, "WIDTH": 4},
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


# Quick everywhere, and quick where compiling is quick.
QUICK = ("bench_cache_maps", "bench_cache_memory", "bench_pca")
QUICK_ON_TENSORFLOW = (
    "bench_build",
    "bench_checks",
    "bench_export",
    "bench_forgetting",
    "bench_step",
)
# These read how much memory a process has.
ONLY_ON_LINUX = ("bench_cache_memory",)
ON_LINUX = sys.platform == "linux"
# These convert modules.
NEED_TORCH = ("bench_torch",)
HAS_TORCH = importlib.util.find_spec("torch") is not None
# These compare with something that Keras does on one backend only.
ONLY_ON_TENSORFLOW = ("bench_export",)
ON_TENSORFLOW = os.environ.get("KERAS_BACKEND") == "tensorflow"


def slow_where_it_compiles(path: Path):
    quick = QUICK
    if ON_TENSORFLOW:
        quick += QUICK_ON_TENSORFLOW
    marks = [] if path.stem in quick else [pytest.mark.large]
    if path.stem in ONLY_ON_TENSORFLOW:
        reason = "compares with what Keras writes on TensorFlow"
        marks.append(pytest.mark.skipif(not ON_TENSORFLOW, reason=reason))
    if path.stem in ONLY_ON_LINUX:
        reason = "reads anonymous memory where Linux tells of it"
        marks.append(pytest.mark.skipif(not ON_LINUX, reason=reason))
    if path.stem in NEED_TORCH:
        reason = "modules are PyTorch's, not installed here"
        marks.append(pytest.mark.skipif(not HAS_TORCH, reason=reason))
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
        own = FIGURES if "letters" in row else TIMES
        own = MEMORY if "peak_gb" in row else own
        own = STITCHED if "untrained" in row else own
        own = REGRETS if "regret" in row else own
        own = own | {key for key in row if key.endswith("_least_s")}
        assert set(row) == own | {"name", "bound", "holds"}
        assert isinstance(row["name"], str)
        assert isinstance(row["bound"], str)
        assert isinstance(row["holds"], bool)
        if own >= TIMES:
            assert min(row[key] for key in TIMES) > 0
        for template in getattr(module, "COLUMNS", {}).values():
            assert template.format(**row)


@pytest.mark.skipif(not ON_LINUX, reason="it tells of no such memory")
def test_the_benchmark_of_memory_checks_free_space_before_it_begins(tmp_path):
    run = load(FOLDER / "bench_cache_memory.py").run
    with pytest.raises(OSError, match=r"1e\+09 GB of features .* GB free"):
        run(gigabytes=1e9, directory=str(tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not ON_LINUX, reason="it tells of no such memory")
def test_the_benchmark_of_memory_sees_released_memory():
    module, size = load(FOLDER / "bench_cache_memory.py"), 200_000_000
    before = module._anonymous()
    with module._peak() as peak:
        # Not `np.ones`: after many tests it may get memory that the process
        # has already.
        taken = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE)
        for page in range(0, size, mmap.PAGESIZE):
            taken[page] = 1
        # On a busy machine the sampling thread may have to wait its turn.
        until = time.monotonic() + 30
        while peak[0] - before < size / 2 and time.monotonic() < until:
            time.sleep(10 * module.INTERVAL_S)
        taken.close()
    assert peak[0] - before == pytest.approx(size, rel=0.1)
    assert module._anonymous() - before < size / 2


@pytest.mark.skipif(ON_TENSORFLOW, reason="it runs on this backend")
@pytest.mark.parametrize("name", ONLY_ON_TENSORFLOW)
def test_a_benchmark_of_one_backend_says_so_on_the_others(name):
    with pytest.raises(RuntimeError, match="set KERAS_BACKEND=tensorflow"):
        load(FOLDER / f"{name}.py").run()


@pytest.mark.skipif(not ON_TENSORFLOW, reason="of a benchmark on TensorFlow")
def test_the_benchmark_of_exports_refuses_different_predictions():
    check = load(FOLDER / "bench_export.py")._check_same_answers
    inputs = {"inputs": np.linspace(0, 1, 64).reshape(64, 1)}

    def ours(x):
        return x["inputs"]

    check("same", ours, lambda x: x["inputs"] + 1e-5, inputs)
    with pytest.raises(RuntimeError, match="other: the answers are"):
        check("other", ours, lambda x: x["inputs"] + 1e-2, inputs)


def test_the_bound_on_forgetting_covers_old_and_new_accuracy():
    row = load(FOLDER / "bench_forgetting.py").row
    old = SimpleNamespace(accuracy=80.0)

    kept = row("both", old, [(78.0, 91.0), (76.0, 89.0)], plain=91.0)
    forgot = row("letters", old, [(75.0, 95.0)], plain=91.0)
    lost = row("digits", old, [(80.0, 89.5)], plain=91.0)

    assert (kept["letters"], kept["letters_std"]) == (77.0, 2**0.5)
    assert (kept["kept"], kept["lost"]) == (96.25, 1.0)
    assert [r["holds"] for r in (kept, forgot, lost)] == [True, False, False]


def test_the_regret_of_a_ranking_is_by_its_best_tap():
    module = load(FOLDER / "bench_ranking.py")
    truth = {"a": 90.0, "b": 80.0, "c": 70.0}

    right = module.Pair({"probe": {"a": 3, "b": 2, "c": 1}}, truth, truth)
    wrong = module.Pair({"probe": {"a": 1, "b": 2, "c": 3}}, truth, truth)
    found = module._figures("probe", [right, wrong])

    assert (found["regret"], found["worst"]) == (10.0, 20.0)
    assert found["tau"] == pytest.approx(0.0, abs=1e-9)
