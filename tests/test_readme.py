"""The README's example runs as it stands."""

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

HAS_TENSORFLOW = importlib.util.find_spec("tensorflow") is not None
README = Path(__file__).parents[1] / "README.md"


def _blocks(language):
    pattern = rf"^```{language}\n(.*?)^```"
    return re.findall(pattern, README.read_text(), re.MULTILINE | re.DOTALL)


def test_the_example_runs_and_reads_handwriting(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in _blocks("python"):
        code = compile(block, "README.md", "exec")
        if ".tflite" in block and not HAS_TENSORFLOW:
            with pytest.raises(ModuleNotFoundError, match=r"\[tensorflow\]"):
                exec(code, names)
        else:
            exec(code, names)
            _check_export(names.get("report"))
    assert "digits_expert" in capsys.readouterr().out
    again, test = names["again"], names["test"]
    x = {"inputs": test.images, "metadata": test.side}
    _, accuracy = again.evaluate(x, test.labels, verbose=0)
    assert accuracy > 0.9
    assert np.array_equal(*names["answers"])


def _check_export(report):
    if report is not None:
        accuracy = report.metrics["accuracy"]
        assert abs(accuracy["file"] - accuracy["model"]) < 0.02
        assert report.builtin_only


def test_the_two_commands_stand_on_their_own():
    assert [block.strip() for block in _blocks("console")] == [
        'pip install -e ".[tensorflow,demo]" && keras-cascade demo',
        "pip install tox && tox",
    ]


@pytest.mark.parametrize(
    "path", re.findall(r"\]\(([^)]+)\)", README.read_text())
)
def test_links_lead_somewhere(path):
    assert (README.parent / path).exists()
