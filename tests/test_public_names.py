import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import keras_cascade as kc
from keras_cascade import adapters, testing, zoo


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


@pytest.mark.parametrize(
    "module", ["exporting", "analysis", "testing", "zoo", "cli", "demo"]
)
def test_importing_the_package_leaves_out_what_few_sessions_need(module):
    code = "import sys, keras_cascade; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ},
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    assert f"keras_cascade.{module}" not in done.stdout.split()


def test_every_public_name_is_imported_for_type_checkers():
    source = Path(kc.__file__).read_text("utf-8")
    imported = set(re.findall(r"import \(?\s*(\w+) as \1", source))
    assert imported == set(kc.__all__)
