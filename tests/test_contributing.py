"""CONTRIBUTING.md is true: its examples work, its tables are complete."""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import keras
import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text("utf-8")


class Example(NamedTuple):
    """A block of a worked example: a new file, or changes to others."""

    language: str
    path: str
    code: str


def worked_examples(text: str) -> list[Example]:
    pattern = r'^```(python|diff)(?: title="([^"]+)")?\n(.*?)^```$'
    return [
        Example(*found)
        for found in re.findall(pattern, text, re.MULTILINE | re.DOTALL)
    ]


def apply(example: Example, folder: Path) -> None:
    """Does to a copy of the repository what a block says."""
    if example.language == "python":
        path = folder / example.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(example.code, "utf-8")
        return
    done = subprocess.run(
        ["git", "apply", "--recount"],
        cwd=folder,
        # Not of a repository that may lie around the folder.
        env={**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)},
        input=example.code,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{done.stderr}\n{example.code}"


@pytest.fixture(scope="module")
def changed(tmp_path_factory):
    """A copy of the repository with all examples carried out."""
    folder = tmp_path_factory.mktemp("repository")
    unwanted = shutil.ignore_patterns("__pycache__")
    for name in ("keras_cascade", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=unwanted)
    for name in ("pyproject.toml", "tests/conftest.py"):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    for example in worked_examples(TEXT):
        apply(example, folder)
    return folder


@pytest.mark.skipif(
    keras.backend.backend() != "jax",
    reason="once is enough, and one of the examples needs JAX",
)
def test_the_tests_of_the_worked_examples_pass(changed):
    paths = [x.path for x in worked_examples(TEXT)]
    tests = [path for path in paths if path.startswith("tests/")]
    assert len(tests) == 3
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            *tests,
        ],
        cwd=changed,
        env={**os.environ, "PYTHONPATH": str(changed)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_reference_has_every_name_after_the_examples(changed):
    spec = importlib.util.spec_from_file_location(
        "hooks", changed / "docs" / "hooks.py"
    )
    hooks = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hooks)
    public = hooks.public_names()
    assert "keras_cascade.adapters.MaxAbsAdapter" in public
    pages = hooks.reference_pages()
    assert list(hooks.reference_problems(public, pages)) == []


def test_a_change_that_does_not_fit_is_found(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    diff = "--- a/a.py\n+++ b/a.py\n@@ -1 +1 @@\n-x = 2\n+x = 3\n"
    with pytest.raises(AssertionError, match="patch does not apply"):
        apply(Example("diff", "", diff), tmp_path)


def test_the_table_has_every_layer_in_its_order():
    rows = re.findall(r"^\| `([\w/.]+)` \|", TEXT, re.MULTILINE)
    layers = [name.removesuffix("/").removesuffix(".py") for name in rows]
    assert layers == list(layers_of_the_imports_test())


def layers_of_the_imports_test() -> dict[str, str]:
    tree = ast.parse((ROOT / "tests" / "test_imports.py").read_text("utf-8"))
    [value] = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and ast.unparse(node.targets[0]) == "LAYERS"
    ]
    return ast.literal_eval(value)


def test_the_paths_of_commands_exist():
    paths = re.findall(r"\btests(?:/\w+)+(?:\.\w+)?", TEXT)
    new = {example.path for example in worked_examples(TEXT)}
    named = set(paths) - new
    assert len(named) > 5
    assert [path for path in named if not (ROOT / path).exists()] == []
