"""A missing backend is said in two lines, by the package and the console.

Each case is a process of its own, in which modules are made to be missing.
"""

import json
import os
import re
import subprocess
import sys
import tomllib

import keras
import pytest

from keras_cascade._package.backend import OLDEST_KERAS
from tests.test_imports import ROOT

HERE = keras.config.backend()
OTHER = "jax" if HERE == "torch" else "torch"
# In front of what a process runs: modules that are not there.
HIDE = "import sys; sys.modules.update(dict.fromkeys({!r}.split())); "
OLD_KERAS = (
    "import types; old = types.ModuleType('keras'); "
    "old.__version__ = '3.9.2'; sys.modules['keras'] = old; "
)
PACKAGE = "import keras_cascade"
CONSOLE = (
    "sys.argv[0] = 'keras-cascade'; from keras_cascade.cli import main; "
    "sys.exit(main(['taps', 'glyph_encoder']))"
)


def run(code, backend=HERE, hidden="", **environment):
    environment = {**os.environ, "KERAS_BACKEND": backend, **environment}
    return subprocess.run(
        [sys.executable, "-c", HIDE.format(hidden) + code],
        env=environment,
        capture_output=True,
        text=True,
    )


@pytest.fixture
def keras_home(tmp_path):
    """A home of Keras whose settings name a backend that is missing."""
    settings = {"backend": OTHER, "floatx": "float32"}
    (tmp_path / "keras.json").write_text(json.dumps(settings))
    return {"KERAS_HOME": str(tmp_path)}


CASES = {
    "missing": (
        {"backend": OTHER, "hidden": OTHER},
        rf"backend is '{OTHER}' \(set by KERAS_BACKEND\), which is not.* is\.",
        rf"KERAS_BACKEND to '\w+', or run: .*\"keras_cascade\[{OTHER}\]\"$",
    ),
    "all missing": (
        {"backend": "jax", "hidden": "tensorflow jax torch"},
        r"backend is 'jax'.* not installed, and no other one is\.$",
        r"KERAS_BACKEND to the one you want, and run: .*keras_cascade\[torch\]",
    ),
    "unknown": (
        {"backend": "pytroch"},
        r"is 'pytroch' \(set by KERAS_BACKEND\); .*tensorflow, jax, torch\.$",
        r"KERAS_BACKEND to one that is installed; .*keras_cascade\[torch\]",
    ),
    "no Keras": (
        {"hidden": "keras"},
        r"needs Keras, which is not installed\.$",
        r"with a backend: pip install \"keras_cascade\[torch\]\"",
    ),
}


@pytest.mark.parametrize("code", [PACKAGE, CONSOLE], ids=["package", "console"])
@pytest.mark.parametrize("case", CASES)
def test_a_missing_backend_ends_in_two_lines(case, code):
    how, first, second = CASES[case]
    done = run(code, **how)
    *above, problem, advice = done.stderr.splitlines()
    assert re.search(first, problem), done.stderr
    assert re.search(second, advice)
    assert done.returncode == 1
    # The package's own frames, and none of Keras's.
    assert not any("site-packages/keras/" in line for line in above)
    assert code is PACKAGE or not above


def test_settings_of_keras_are_named_by_their_file(keras_home):
    done = run(PACKAGE, backend="", hidden=OTHER, **keras_home)
    *_, problem, _ = done.stderr.splitlines()
    assert f"backend is '{OTHER}' (set in {keras_home['KERAS_HOME']}" in problem


def test_an_older_keras_is_named_with_the_version_that_is_needed():
    done = run(OLD_KERAS + PACKAGE)
    *_, problem, advice = done.stderr.splitlines()
    assert f"needs Keras {OLDEST_KERAS} or later" in problem
    assert problem.endswith("installed is 3.9.2.")
    assert f'pip install --upgrade "keras>={OLDEST_KERAS}"' in advice
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert f"keras>={OLDEST_KERAS}" in project["project"]["dependencies"]


def test_a_backend_that_is_broken_keeps_its_own_error():
    # Installed, but something that it needs is not.
    done = run(PACKAGE, hidden="numpy")
    assert "numpy" in done.stderr.splitlines()[-1]


def test_a_notebook_goes_on_once_the_backend_is_right():
    retry = (
        "import os, sys\n"
        f"try: {PACKAGE}\n"
        "except ImportError as error: print(error)\n"
        f"sys.modules.pop({OTHER!r}); os.environ['KERAS_BACKEND'] = {HERE!r}\n"
        f"import keras_cascade as kc; print(kc.zoo.names())"
    )
    done = run(retry, backend=OTHER, hidden=OTHER)
    assert f"is '{OTHER}'" in done.stdout
    assert done.stdout.endswith("['digits_expert', 'glyph_encoder']\n")
