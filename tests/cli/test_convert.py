"""The subcommand `convert`."""

import json

import keras
import numpy as np
import pytest

from keras_cascade.cli import main

torch = pytest.importorskip("torch", reason="modules are PyTorch's")

CODE = """
import torch


def small():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.ReLU())


class Words(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.table = torch.nn.Embedding(5, 4)

    def forward(self, ids, scale):
        return self.table(ids) * scale
"""


@pytest.fixture(autouse=True)
def own_code(tmp_path, monkeypatch):
    (tmp_path / "my_networks.py").write_text(CODE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)


def test_a_module_becomes_a_file(tmp_path, capsys):
    argv = ["convert", "my_networks:small", "out.keras"]
    assert main([*argv, "--example", "1,3,8,8", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == 112
    import my_networks

    pixels = np.random.default_rng(0).normal(size=(2, 8, 8, 3))
    network = keras.models.load_model("out.keras")
    with torch.no_grad():
        wanted = my_networks.small()(
            torch.tensor(np.moveaxis(pixels, -1, 1)).float()
        )
    found = network.predict(pixels.astype("float32"), verbose=0)
    np.testing.assert_allclose(
        np.moveaxis(found, -1, 1), wanted.numpy(), atol=1e-5
    )


def test_arguments_by_name(capsys):
    argv = ["convert", "my_networks:Words", "words.keras"]
    examples = ["--example", "ids=1,6:int", "--example", "scale=1,6,1"]
    assert main([*argv, *examples]) == 0
    assert "20 parameters" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["m:f", "out.h5", "--example", "1,3"], "must end in .keras"),
        (["m:f", "no/out.keras", "--example", "1,3"], "there is no folder"),
        (["m:f", "out.keras", "--example", "1,x"], "expected a shape"),
        (["m:f", "out.keras"], "--example"),
        (["m", "out.keras", "--example", "1,3"], "package.module:factory"),
    ],
)
def test_bad_usage(argv, message, capsys):
    with pytest.raises(SystemExit) as exit_status:
        main(["convert", *argv])
    assert exit_status.value.code == 2
    assert message in capsys.readouterr().err


def test_a_factory_that_is_not_there(tmp_path, capsys):
    argv = ["convert", "my_networks:large", "out.keras", "--example", "1,3"]
    assert main(argv) == 1
    assert "'my_networks' has no 'large'" in capsys.readouterr().err
    assert not (tmp_path / "out.keras").exists()
