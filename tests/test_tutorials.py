"""Tests that the tutorials run, and that their stored outputs are clean."""

import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

FOLDER = Path(__file__).parents[1] / "tutorials"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
EVERYWHERE = {"01_quickstart"}
BACKEND = keras.config.backend()

pytest.importorskip("nbmake")
pytest.importorskip("sklearn")
notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def outputs_of(path: Path) -> list[dict]:
    cells = json.loads(path.read_text())["cells"]
    return [out for cell in cells for out in cell.get("outputs", [])]


def test_there_are_tutorials():
    assert NOTEBOOKS


@notebooks
def test_a_tutorial_runs_and_writes_no_files(path):
    if path.stem not in EVERYWHERE and BACKEND != "tensorflow":
        pytest.skip("it does the same on every backend: run on TensorFlow")
    before = {p: p.stat().st_mtime_ns for p in FOLDER.rglob("*")}
    # In its own process: the tests' settings are for tests.
    result = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "--nbmake", "--no-header", "-q"),
            *("-p", "no:cacheprovider", "--nbmake-kernel=python3"),
            *("--nbmake-timeout=600", str(path)),
        ],
        capture_output=True,
        text=True,
        # The backend that conftest.py sets draws no pictures.
        env={k: v for k, v in os.environ.items() if k != "MPLBACKEND"},
    )
    assert result.returncode == 0, result.stdout + result.stderr
    assert {p: p.stat().st_mtime_ns for p in FOLDER.rglob("*")} == before


@notebooks
def test_a_tutorial_is_stored_with_all_its_outputs(path):
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    counts = [cell["execution_count"] for cell in code]
    assert counts == list(range(1, len(code) + 1))
    pictures = [o for o in outputs_of(path) if "image/png" in o.get("data", {})]
    assert len(pictures) >= 2


@notebooks
def test_a_tutorial_is_stored_without_logs_errors_and_paths(path):
    outputs = outputs_of(path)
    assert not [o for o in outputs if o.get("name") == "stderr"]
    assert "\\u001b" not in path.read_text()
    assert not [o for o in outputs if o["output_type"] == "error"]
    text = json.dumps(
        [o for o in outputs if "image/png" not in o.get("data", {})]
    )
    for part in ("/home/", "/root/", "/tmp/", "/usr/", "Warning"):
        assert part not in text
