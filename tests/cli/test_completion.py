"""A shell completes subcommands, options and names."""

import os
import subprocess
import sys

import pytest

from keras_cascade.cli import main

RUN = (
    "import sys; sys.argv[0] = 'keras-cascade'; "
    "from keras_cascade.cli import main; main()"
)


def completions(typed: str, tmp_path) -> list[str]:
    """Returns what the process answers to a shell's script."""
    answer = tmp_path / "answer"
    asked = {
        "_ARGCOMPLETE": "1",
        "_ARGCOMPLETE_IFS": "\n",
        "_ARGCOMPLETE_STDOUT_FILENAME": str(answer),
        "COMP_LINE": typed,
        "COMP_POINT": str(len(typed)),
    }
    subprocess.run(
        [sys.executable, "-c", RUN], env={**os.environ, **asked}, check=True
    )
    return [x.strip() for x in answer.read_text().splitlines()]


@pytest.mark.parametrize(
    ("typed", "some", "others"),
    [
        ("keras-cascade ", {"demo", "taps", "completion"}, {"pca"}),
        ("keras-cascade b", {"bench"}, {"taps"}),
        ("keras-cascade bench ", {"pca", "step"}, {"demo"}),
        ("keras-cascade export --quan", {"--quantize"}, {"--check"}),
        ("keras-cascade export --quantize ", {"int8", "float16"}, {"onnx"}),
    ],
)
def test_subcommands_options_and_names_are_completed(
    typed, some, others, tmp_path
):
    found = set(completions(typed, tmp_path))
    assert some <= found
    assert not others & found


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_each_shell_has_a_script(shell, capsys):
    assert main(["completion", shell]) == 0
    out = capsys.readouterr().out
    assert "keras-cascade" in out
    assert "_ARGCOMPLETE" in out
