"""Holds the package to its import order and to what its code leaves out.

The rules are read off the syntax trees of the installed package's files; each
rule is also shown a fabricated module that breaks it.
"""

import ast
import functools
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import keras
import networkx as nx
import pytest

import keras_cascade

ROOT = Path(__file__).parents[1]
BACKENDS = {"tensorflow", "jax", "torch"}
ONLY_BACKEND = os.environ.get("KERAS_CASCADE_ONLY_BACKEND")
# What the package itself imports only where it is asked to use it.
LAZY = BACKENDS | {
    "IPython",
    "PIL",
    "ai_edge_litert",
    "google",  # protobuf, on which onnx depends
    "grain",
    "keras_hub",
    "matplotlib",
    "flatbuffers",
    "jax2onnx",
    "onnx",
    "onnx_ir",
    "onnxruntime",
    "onnxscript",
    "pandas",
    "scipy",
    "sklearn",
    "tf2onnx",
    "threadpoolctl",
    "timm",
    "transformers",
}
CORE = {
    "argcomplete",
    "filelock",
    "h5py",
    "keras",
    "ml_dtypes",
    "networkx",
    "numpy",
    "psutil",
    "rich",
}

# Lowest first: a module imports from its own entry and from those above it in
# this list. An entry is a module or a folder of the package.
LAYERS = {
    "_keras_compat": "what has no public Keras API; knows only Keras",
    "_interrupts": "complete files, and things put back; knows no Keras",
    "_reporting": "messages, tables, progress, figures; knows only Keras",
    "_package": "the public names, the extras, shipped files; only Keras",
    "_cascade_view": "a cascade as lower folders see it; knows only Keras",
    "data": "the user's data as batches; knows no network",
    "networks": "what the user calls a network, as a Keras model",
    "graph": "reads and rewrites networks; knows no cascade",
    "adapters": "layers on tensors, and how they are fitted",
    "values": "values that layers give, and that networks expect",
    "injection": "features merged into inner layers",
    "training": "flags, rates and optimizers on blocks",
    "cache": "features kept to be read again; stores know no network",
    "planning": "arguments to a checked plan; nothing is built",
    "assembly": "a plan to the blocks of a functional model",
    "display": "what a spec and its blocks are, for the eye",
    "exporting": "files for where a cascade runs, and their proof",
    "cascade": "the model: what it is made of, and how it trains",
    "build": "build_cascade: its arguments, and the order of the stages",
    "analysis": "looks at networks and features before building",
    "ranking": "scores taps before anything is trained",
    "searching": "trains combinations of taps, adapters and entries",
    "zoo": "networks that ship",
    "testing": "checks users run on their adapters and cascades",
    "__init__": "re-exports: the public list",
    "cli": "the command line over all of it, and the demo",
    "__main__": "runs cli",
}
# What a reader has to keep in mind: entries, and the longest chain of them in
# which each imports the next.
MOST_ENTRIES = 28
MOST_LEVELS = 11


def package_files() -> list[Path]:
    package = Path(keras_cascade.__path__[0])
    return [
        path.relative_to(package.parent)
        for path in sorted(package.rglob("*.py"))
        if "_data" not in path.parts
    ]


def entry_of(path: Path) -> str:
    """`keras_cascade/graph/paths.py` is of the entry `graph`."""
    return Path(path.parts[1]).stem


def imported_modules(path: Path, nodes: Iterable[ast.AST]) -> Iterator[str]:
    """Full names, `from a import b` being `a.b`."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parents = path.parts[: -node.level] if node.level else ()
            base = ".".join([*parents, *filter(None, [node.module])])
            yield from (f"{base}.{alias.name}" for alias in node.names)


def run_on_import(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those in functions and for type checkers."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(
            node.test
        ):
            continue
        yield node
        yield from run_on_import(node)


def entry_imported(module: str) -> str | None:
    """The entry of this package that a module's full name lies in."""
    first, *rest = module.split(".")
    if first != "keras_cascade":
        return None
    # A name that is no entry is one of the public list.
    return rest[0] if rest and rest[0] in LAYERS else "__init__"


def upward_imports(path: Path, tree: ast.AST) -> list[str]:
    order = list(LAYERS)
    own = order.index(entry_of(path))
    entries = {
        entry
        for module in imported_modules(path, ast.walk(tree))
        if (entry := entry_imported(module)) is not None
    }
    return [e for e in entries if order.index(e) > own]


def eager_frameworks(path: Path, tree: ast.AST) -> list[str]:
    """Also those that Keras has imported already, as it may stop doing so."""
    modules = imported_modules(path, run_on_import(tree))
    return [m for m in modules if m.split(".")[0] in LAZY]


def undeclared(path: Path, tree: ast.AST) -> list[str]:
    """What neither the dependencies nor the extras would install."""
    known = {*sys.stdlib_module_names, *CORE, *LAZY, "keras_cascade"}
    modules = imported_modules(path, ast.walk(tree))
    return [m for m in modules if m.split(".")[0] not in known]


def private_keras(path: Path, tree: ast.AST) -> list[str]:
    if entry_of(path) == "_keras_compat":
        return []
    used = [ast.unparse(n) for n in ast.walk(tree) if type(n) is ast.Attribute]
    names = [*imported_modules(path, ast.walk(tree)), *used]
    return [n for n in names if n.split(".")[:2] == ["keras", "src"]]


def asserts(path: Path, tree: ast.AST) -> list[str]:
    return [ast.unparse(n) for n in ast.walk(tree) if isinstance(n, ast.Assert)]


def pickles(path: Path, tree: ast.AST) -> list[str]:
    picklers = {"cloudpickle", "dill", "pickle", "shelve"}
    modules = imported_modules(path, ast.walk(tree))
    return [m for m in modules if m.split(".")[0] in picklers]


def broad_excepts(path: Path, tree: ast.AST) -> list[str]:
    handlers = [n for n in ast.walk(tree) if isinstance(n, ast.ExceptHandler)]
    kinds = [ast.unparse(h.type) if h.type else "all" for h in handlers]
    return [
        k for k in kinds if {"all", "Exception", "BaseException"} & words(k)
    ]


def words(text: str) -> set[str]:
    return set(text.strip("()").replace(",", " ").split())


Rule = Callable[[Path, ast.AST], list[str]]
RULES: dict[Rule, list[str]] = {
    upward_imports: [
        "from keras_cascade.build import build_cascade",
        "from keras_cascade import build",
        "from keras_cascade import build_cascade",
        "import keras_cascade",
        "import keras_cascade.training.rates.blockwise_optimizer",
        "from ..cascade import Cascade",
        "from .. import cascade",
        "def f():\n    from keras_cascade.planning.spec import Spec",
    ],
    eager_frameworks: [
        "import tensorflow as tf",
        "from matplotlib import pyplot",
        "class A:\n    import torch",
    ],
    undeclared: ["import polars", "def f():\n    import tensorflw"],
    private_keras: [
        "import keras.src",
        "from keras.src.models import functional",
        "from keras import src",
        "import keras\nx = keras.src.models",
    ],
    asserts: ["def f(x):\n    assert x"],
    pickles: ["import pickle", "from cloudpickle import dumps"],
    broad_excepts: [
        "try:\n    pass\nexcept:\n    pass",
        "try:\n    pass\nexcept Exception:\n    pass",
        "try:\n    pass\nexcept (OSError, Exception) as e:\n    pass",
    ],
}


@functools.cache
def package_trees() -> dict[Path, ast.Module]:
    """Returns the syntax tree of each module of the package."""
    folder = Path(keras_cascade.__path__[0]).parent
    return {
        path: ast.parse((folder / path).read_text("utf-8"))
        for path in package_files()
    }


@pytest.mark.once
@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_every_module_keeps_the_rule(rule: Rule):
    found = {str(path): rule(path, x) for path, x in package_trees().items()}
    assert found
    assert {path: broken for path, broken in found.items() if broken} == {}


@pytest.mark.once
@pytest.mark.parametrize(
    ("rule", "source"),
    [(rule, source) for rule, sources in RULES.items() for source in sources],
)
def test_a_module_that_breaks_a_rule_is_caught(rule: Rule, source: str):
    path = Path("keras_cascade", "graph", "fabricated.py")
    assert len(rule(path, ast.parse(source))) >= 1


@pytest.mark.parametrize(
    "source",
    [
        "from keras_cascade.data import batches",
        "from keras_cascade.graph.paths import find",
        "from .paths import find",
        "from . import paths",
        "import keras\nkeras.Model",
        "def f():\n    import torch",
    ],
)
def test_imports_from_lower_layers_and_the_own_folder_pass(source: str):
    path = Path("keras_cascade", "graph", "fabricated.py")
    tree = ast.parse(source)
    assert [rule(path, tree) for rule in RULES] == [[]] * len(RULES)


def test_every_module_has_its_place_in_the_layers():
    assert {entry_of(path) for path in package_files()} <= set(LAYERS)


def imports_between_entries() -> nx.DiGraph:
    """Returns an edge from each entry to those it imports, also lazily."""
    graph = nx.DiGraph()
    graph.add_nodes_from(map(entry_of, package_trees()))
    for path, tree in package_trees().items():
        modules = imported_modules(path, ast.walk(tree))
        used = {entry_imported(module) for module in modules}
        own = entry_of(path)
        graph.add_edges_from((own, entry) for entry in used - {None, own})
    return graph


def levels(graph: nx.DiGraph) -> list[str]:
    """Returns the longest chain; an error is raised where there is a cycle."""
    return nx.dag_longest_path(graph)


def test_the_package_has_few_entries_on_few_levels():
    graph = imports_between_entries()
    assert len(graph) <= MOST_ENTRIES, sorted(graph)
    assert len(levels(graph)) <= MOST_LEVELS, levels(graph)


def test_levels_count_the_longest_chain_and_cycles_are_refused():
    graph = nx.DiGraph([("a", "b"), ("b", "c"), ("a", "c")])
    assert levels(graph) == ["a", "b", "c"]
    with pytest.raises(nx.NetworkXUnfeasible):
        levels(nx.DiGraph([("a", "b"), ("b", "a")]))


def roots_added(backend: str, module: str) -> set[str]:
    """Of `LAZY`, what importing `module` adds to what Keras itself imports."""
    code = f"import sys, keras; print(*sys.modules); import {module}; "
    done = subprocess.run(
        [sys.executable, "-c", code + "print(*sys.modules)"],
        env={**os.environ, "KERAS_BACKEND": backend},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    before, after = map(str.split, done.stdout.splitlines())
    return LAZY & (set(after) - set(before))


def test_importing_the_package_imports_no_framework_but_the_backend():
    assert roots_added(keras.backend.backend(), "keras_cascade") == set()


@pytest.mark.interop
@pytest.mark.parametrize("backend", sorted(BACKENDS))
def test_beside_others_only_the_backend_in_use_is_imported(backend: str):
    assert roots_added(backend, "keras_cascade") == set()


@pytest.mark.interop
def test_the_check_of_imports_sees_a_framework():
    assert "torch" in roots_added("jax", "torch")


@pytest.mark.skipif(
    ONLY_BACKEND is None,
    reason="KERAS_CASCADE_ONLY_BACKEND is set by tox, where one is installed",
)
def test_the_environment_of_a_backend_holds_no_other():
    installed = {name for name in BACKENDS if importlib.util.find_spec(name)}
    assert installed == {ONLY_BACKEND}


def test_the_top_level_is_what_the_layout_says():
    git = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(git, cwd=ROOT, capture_output=True, text=True)
    if done.returncode or not done.stdout:
        pytest.skip(f"not in a git checkout: {done.stderr.strip()}")
    top = {Path(line).parts[0] for line in done.stdout.splitlines()}
    assert {name for name in top if not name.startswith(".")} == {
        "CHANGELOG.md",
        "CITATION.cff",
        "CONTRIBUTING.md",
        "LICENSE",
        "README.md",
        "SECURITY.md",
        "docs",
        "keras_cascade",
        "mkdocs.yml",
        "pyproject.toml",
        "saved_models",
        "tests",
        "tutorials",
    }


def test_ci_runs_the_command_of_the_readme():
    command = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()[-1]
    assert command == "pip install tox && tox"
    assert command in (ROOT / "README.md").read_text("utf-8").splitlines()
