"""Tests that shipped files are found, in a wheel and in a checkout."""

import fnmatch
import subprocess
import tomllib
from pathlib import Path

import pytest

from keras_cascade._package import resources
from keras_cascade._package.resources import checkout, folder
from tests.test_imports import ROOT

# No backend takes part in it.
pytestmark = pytest.mark.once


def pretend_package_at(monkeypatch, package: Path):
    monkeypatch.setattr(resources, "_PACKAGE", package)


def test_the_zoo_and_the_benchmarks_are_found():
    assert list(folder("saved_models").glob("*.keras"))
    assert list(folder("benchmarks").glob("bench_*.py"))


def test_a_checkout_has_them_where_they_are_written(tmp_path, monkeypatch):
    pretend_package_at(monkeypatch, tmp_path / "keras_cascade")
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / "tests" / "benchmarks").mkdir(parents=True)
    assert checkout() == tmp_path
    assert folder("benchmarks") == tmp_path / "tests" / "benchmarks"


def test_a_wheel_has_them_inside_the_package(tmp_path, monkeypatch):
    pretend_package_at(monkeypatch, tmp_path / "keras_cascade")
    carried = tmp_path / "keras_cascade" / "_data" / "benchmarks"
    carried.mkdir(parents=True)
    assert checkout() is None
    assert folder("benchmarks") == carried


def test_a_missing_folder_is_an_error_that_says_where(tmp_path, monkeypatch):
    pretend_package_at(monkeypatch, tmp_path)
    with pytest.raises(FileNotFoundError, match="'benchmarks' is missing at"):
        folder("benchmarks")


def test_an_unknown_folder_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match=r"'models'.*'saved_models', 'bench"):
        folder("models")


def in_wheel(path: str) -> str | None:
    """Returns where hatchling puts a file of the repository, by pyproject."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    included = any(path.startswith(f"{x}/") for x in wheel["only-include"])
    patterns = [x.removeprefix("/") for x in wheel["exclude"]]
    if not included or any(fnmatch.fnmatch(path, x) for x in patterns):
        return None
    for source, target in wheel["sources"].items():
        if path.startswith(f"{source}/"):
            return path.replace(source, target, 1)
    return path


def test_the_wheel_has_what_the_package_reads():
    """The wheel itself is installed and run by CI, in a step of its own."""
    done = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True
    )
    if done.returncode or not done.stdout:
        pytest.skip(f"not in a git checkout: {done.stderr.strip()}")
    found = {in_wheel(path) for path in done.stdout.splitlines()}
    data = "keras_cascade/_data"
    for name in ("glyph_encoder", "digits_expert"):
        assert f"{data}/saved_models/{name}.keras" in found
        assert f"{data}/saved_models/{name}.md" in found
    assert f"{data}/benchmarks/bench_step.py" in found
    assert "keras_cascade/py.typed" in found
    assert "keras_cascade/cli/entry.py" in found
    assert not any("train_zoo" in str(path) for path in found)
    for path in resources._IN_CHECKOUT.values():
        assert (ROOT / path).is_dir()
