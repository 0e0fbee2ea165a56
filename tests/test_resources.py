"""Tests that shipped files are found, in a wheel and in a checkout."""

from pathlib import Path

import pytest

from keras_cascade import _resources
from keras_cascade._resources import checkout, folder


def pretend_package_at(monkeypatch, package: Path):
    monkeypatch.setattr(_resources, "_PACKAGE", package)


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
