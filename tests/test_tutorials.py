"""Tests that the tutorials run, and that their stored outputs are clean."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import keras
import pytest

from tests.notebook_shell import make_shell, run

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "tutorials"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
# On every backend by default; the others on one, and on all in `large`.
EVERYWHERE = {"01_quickstart"}
ON_ALL_IN_LARGE = {"03_fine_tuning", "04_cached_features"}
# KerasHub's tokenizers import TensorFlow's, on every backend: only the
# environment with all backends has both.
NEED_HUB = {"06_text_and_image"}
# These read modules of PyTorch, which TensorFlow's tests do not install.
ON_TORCH = {"09_torch"}
BACKEND = keras.config.backend()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REPOSITORY = PROJECT["urls"]["Repository"]
INSTALL = f"""\
# On Colab, this installs the library. Elsewhere it does nothing.
import sys

if "google.colab" in sys.modules:
    source = "git+{REPOSITORY}"
    %pip install -q "keras_cascade[EXTRAS] @ {{source}}"
"""

pytest.importorskip("nbmake")
pytest.importorskip("sklearn")
notebooks = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)


def cells_of(path: Path) -> list[dict]:
    return json.loads(path.read_text())["cells"]


def outputs_of(path: Path) -> list[dict]:
    return [o for cell in cells_of(path) for o in cell.get("outputs", [])]


def is_picture(output: dict) -> bool:
    """Whether it is a plot, or a cascade drawn as SVG."""
    data = output.get("data", {})
    html = "".join(data.get("text/html", ""))
    return "image/png" in data or "data:image/svg+xml" in html


def first_cell_of(path: Path) -> str:
    """Returns the first cell of code."""
    code = [cell for cell in cells_of(path) if cell["cell_type"] == "code"]
    return "".join(code[0]["source"]) + "\n"


def test_there_are_tutorials():
    assert NOTEBOOKS


def marked(path: Path):
    marks = [pytest.mark.interop] if path.stem in NEED_HUB else []
    if path.stem in ON_ALL_IN_LARGE and BACKEND != "tensorflow":
        marks.append(pytest.mark.large)
    return pytest.param(path, marks=marks, id=path.stem)


@pytest.mark.parametrize("path", [marked(path) for path in NOTEBOOKS])
def test_a_tutorial_runs_and_writes_no_files(path):
    backend = "torch" if path.stem in ON_TORCH else "tensorflow"
    if path.stem not in EVERYWHERE | ON_ALL_IN_LARGE and backend != BACKEND:
        pytest.skip(f"it does the same on every backend: run on {backend}")
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
    code = [cell for cell in cells_of(path) if cell["cell_type"] == "code"]
    counts = [cell["execution_count"] for cell in code]
    assert counts == list(range(1, len(code) + 1))
    assert len([*filter(is_picture, outputs_of(path))]) >= 2


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


def test_the_readme_leads_to_every_tutorial_and_to_nothing_else():
    text = (FOLDER / "README.md").read_text()
    linked = re.findall(r"^\| \d+ \| .*\]\((.+)\) \|", text, re.MULTILINE)
    assert linked == [path.name for path in NOTEBOOKS]


@notebooks
def test_a_tutorial_opens_in_colab(path):
    title, badge, *_ = "".join(cells_of(path)[0]["source"]).split("\n\n")
    assert title.startswith("# ")
    colab = "https://colab.research.google.com"
    place = REPOSITORY.removeprefix("https://github.com/")
    assert badge == (
        f"[![Open in Colab]({colab}/assets/colab-badge.svg)]"
        f"({colab}/github/{place}/blob/main/tutorials/{path.name})"
    )


@notebooks
def test_the_first_cell_installs_extras_that_the_project_has(path):
    cell = first_cell_of(path)
    extras = re.search(r"\[([\w,]+)\]", cell)[1]
    assert cell == INSTALL.replace("EXTRAS", extras)
    known = {*PROJECT["optional-dependencies"]} - {"jax", "torch", "test"}
    assert {*extras.split(",")} <= known


@pytest.mark.parametrize("place", ["here", "on Colab"])
def test_the_first_cell_installs_on_colab_alone(place, monkeypatch):
    lines = []
    make_shell().register_magic_function(lines.append, magic_name="pip")
    if place == "on Colab":
        monkeypatch.setitem(sys.modules, "google.colab", sys)
    run(INSTALL.replace("EXTRAS", "analysis"))
    line = f'install -q "keras_cascade[analysis] @ git+{REPOSITORY}"'
    assert lines == [line] * (place == "on Colab")
