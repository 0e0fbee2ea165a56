import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import keras
import pytest

import keras_cascade as kc
from keras_cascade import adapters, testing, zoo
from tests.test_imports import ROOT

# The methods and attributes that a cascade adds to a `keras.Model`.
OF_CASCADES = [
    "adapt",
    "adapters",
    "block_of",
    "blocks",
    "freeze",
    "learning_rates",
    "plot",
    "rebuild",
    "taps",
    "to_plain",
    "unfreeze",
    "upstreams",
]
# Those of Keras that have more arguments in a cascade.
OF_KERAS = ["compile", "evaluate", "export", "fit", "get_layer", "predict"]
OF_KERAS += ["save", "save_weights", "summary"]


@pytest.mark.parametrize("module", [kc, adapters, testing, zoo])
def test_completion_shows_the_public_names_and_nothing_else(module):
    assert dir(module) == sorted(module.__all__)
    for name in module.__all__:
        assert getattr(module, name) is not None


@pytest.mark.parametrize("name", [n for n in kc.__all__ if n[0] != "_"])
def test_every_public_name_has_a_docstring(name):
    assert getattr(kc, name).__doc__


def test_a_name_that_is_not_there_raises_as_in_any_module():
    with pytest.raises(AttributeError, match="no attribute 'build_cascad'"):
        _ = kc.build_cascad


def test_a_star_import_gives_the_public_names():
    names = {}
    exec("from keras_cascade import *", names)
    assert set(kc.__all__) <= set(names)


def test_importing_the_package_leaves_out_what_few_sessions_need():
    code = "import sys, keras_cascade; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    parts = ("exporting", "analysis", "testing", "zoo", "cli")
    left_out = {f"keras_cascade.{part}" for part in parts}
    assert all(map(importlib.util.find_spec, left_out))
    assert not left_out & {*done.stdout.split()}


def test_every_public_name_is_imported_for_type_checkers():
    source = Path(kc.__file__).read_text("utf-8")
    imported = set(re.findall(r"import \(?\s*(\w+) as \1", source))
    assert imported == set(kc.__all__)


def test_completion_of_a_cascade_adds_the_public_names_to_keras_own():
    cascade = kc.build_cascade(zoo.load("digits_expert"), head=3, loss="mse")
    plain = keras.Model(cascade.inputs, cascade.outputs)
    plain.compile(loss="mse")
    added = sorted(set(dir(cascade)) - set(dir(plain)))
    assert [name for name in added if name[0] != "_"] == OF_CASCADES
    assert set(dir(plain)) <= set(dir(cascade))


def test_completion_shows_each_method_that_is_documented_by_an_example():
    plain = dir(keras.Model)
    documented = {
        name
        for base in kc.Cascade.__mro__
        if base.__module__.startswith("keras_cascade.")
        for name, value in vars(base).items()
        if "Example" in (getattr(value, "__doc__", None) or "")
        and not name.startswith("_")
        and name not in plain
    }
    assert documented >= {"adapt", "rebuild"}
    assert documented <= {*OF_CASCADES}


def test_the_users_code_that_is_type_checked_uses_every_public_name():
    tree = ast.parse((ROOT / "tests" / "user_code.py").read_text("utf-8"))
    used = {
        ast.unparse(node)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
    }
    modules = {"kc": kc, "kc.adapters": adapters, "kc.testing": testing}
    modules["kc.zoo"] = zoo
    names = {
        f"{k}.{x}" for k, module in modules.items() for x in module.__all__
    }
    assert names - used == set()
    methods = {text.rpartition(".")[2] for text in used}
    assert {*OF_CASCADES, *OF_KERAS} - methods == set()
