"""Holds the package to its rules on docstrings, tests, files and classes.

As in `test_imports.py`, the rules are read off the syntax trees of the
installed package's files, and each is shown a fabricated module that breaks it.
"""

import ast
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

import keras_cascade
from tests.test_imports import ROOT, package_trees

pytestmark = pytest.mark.once
LINES = 500
DOCUMENTED = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
# In the docstring of a module without a test file of its own.
TESTED_BY = re.compile(r"Tested by ((?:`tests/[\w/]+\.py`(?:,| and)?\s*)+)\.")


def of_some(found: dict[str, list[str]]) -> dict[str, list[str]]:
    """Returns the modules that break a rule, and where they do."""
    assert found
    return {path: broken for path, broken in found.items() if broken}


def docstrings(tree: ast.AST) -> Iterator[tuple[DOCUMENTED, str]]:
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and (text := ast.get_docstring(node)):
            yield node, text


def vague_docstrings(tree: ast.AST) -> list[str]:
    """Returns the docstrings that begin with "What" or "Where"."""
    return [
        text.splitlines()[0]
        for _, text in docstrings(tree)
        if re.match(r"\W*(what|where)(ever)?\b", text, re.IGNORECASE)
    ]


def whether_of_no_bool(tree: ast.AST) -> list[str]:
    """Returns the docstrings that begin with "Whether" and are of no bool."""
    return [
        text.splitlines()[0]
        for node, text in docstrings(tree)
        if re.match(r"\W*whether\b", text, re.IGNORECASE)
        and not returns_bool(node)
    ]


def returns_bool(node: ast.AST) -> bool:
    returns = getattr(node, "returns", None)
    text = "" if returns is None else ast.unparse(returns)
    return text == "bool" or text.startswith(("TypeGuard[", "TypeIs["))


def missing_tests(path: Path, tree: ast.Module, root: Path = ROOT) -> list[str]:
    """Returns the tests that are missing: those named, or the module's own."""
    if path.stem in ("__init__", "__main__"):
        return []
    if named := TESTED_BY.search(ast.get_docstring(tree) or ""):
        files = re.findall(r"tests/[\w/]+\.py", named[1])
    else:
        own = f"test_{path.stem.lstrip('_')}.py"
        files = [Path("tests", *path.parts[1:-1], own).as_posix()]
    return [file for file in files if not (root / file).is_file()]


def repeated_classes(trees: Mapping[Path, ast.AST]) -> list[str]:
    """Returns the classes whose name another class of the folder has."""
    places = Counter(
        f"{path.parent.as_posix()}: {node.name}"
        for path, tree in trees.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    )
    return [place for place, number in places.items() if number > 1]


def test_a_docstring_says_what_is_returned_or_done():
    found = {
        str(path): vague_docstrings(tree) + whether_of_no_bool(tree)
        for path, tree in package_trees().items()
    }
    assert of_some(found) == {}


@pytest.mark.parametrize(
    "source",
    [
        '"""What a network is."""',
        '"""\n`What` a network is."""',
        'class A:\n    """Where features go."""',
        'def f():\n    """Whatever is given."""',
        'class A:\n    async def _f(self):\n        """where: a path"""',
        'def f():\n    def g():\n        """What is done."""',
    ],
)
def test_a_docstring_that_begins_with_what_or_where_is_caught(source: str):
    assert len(vague_docstrings(ast.parse(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        '"""Whether it works."""',
        'class A:\n    """Whether it works."""',
        'def f():\n    """Whether it works."""',
        'def f() -> list[bool]:\n    """Whether each works."""',
        'def f() -> bool | None:\n    """Whether it works, if known."""',
    ],
)
def test_whether_of_something_that_is_no_bool_is_caught(source: str):
    assert len(whether_of_no_bool(ast.parse(source))) == 1


@pytest.mark.parametrize(
    "source",
    [
        '"""Whatsoever begins so is another word."""',
        'def f():\n    """Returns what is there, and where."""',
        'def f() -> bool:\n    """Whether it works."""',
        'def f(x) -> TypeIs[int]:\n    """Whether it is a number."""',
        "def f():\n    pass",
    ],
)
def test_other_docstrings_pass(source: str):
    tree = ast.parse(source)
    assert vague_docstrings(tree) + whether_of_no_bool(tree) == []


def test_a_module_has_a_test_or_names_one():
    found = {
        str(path): missing_tests(path, tree)
        for path, tree in package_trees().items()
    }
    assert of_some(found) == {}


@pytest.mark.parametrize(
    ("docstring", "missing"),
    [
        ("A module.", "tests/graph/test_made_up.py"),
        ("Tested by `tests/graph/test_none.py`.", "tests/graph/test_none.py"),
        (
            "Tested by `tests/test_rules.py` and\n`tests/test_none.py`.",
            "tests/test_none.py",
        ),
    ],
)
def test_a_module_without_a_test_is_caught(docstring: str, missing: str):
    tree = ast.parse(f'"""{docstring}"""')
    path = Path("keras_cascade", "graph", "made_up.py")
    assert missing_tests(path, tree) == [missing]


@pytest.mark.parametrize(
    ("path", "docstring"),
    [
        ("keras_cascade/graph/paths.py", "A module."),
        ("keras_cascade/_package/resources.py", "A module."),
        ("keras_cascade/graph/__init__.py", "A folder."),
        ("keras_cascade/made_up.py", "Tested by `tests/test_rules.py`."),
    ],
)
def test_a_module_with_a_test_passes(path: str, docstring: str):
    assert missing_tests(Path(path), ast.parse(f'"""{docstring}"""')) == []


def test_a_file_is_short_enough_to_be_read():
    package = Path(keras_cascade.__path__[0])
    lines = {
        str(path): len((package.parent / path).read_text("utf-8").splitlines())
        for path in package_trees()
    }
    assert {path: n for path, n in lines.items() if n > LINES} == {}


def test_no_two_classes_of_a_folder_have_one_name():
    assert repeated_classes(package_trees()) == []


def test_two_classes_of_one_name_are_caught():
    sources = {
        "graph/a.py": "class Part:\n    pass",
        "graph/b.py": "def f():\n    class Part:\n        pass",
        "graph/inner/c.py": "class Part:\n    pass",
    }
    trees = {Path(k): ast.parse(source) for k, source in sources.items()}
    assert repeated_classes(trees) == ["graph: Part"]
