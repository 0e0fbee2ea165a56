"""The command line: exit statuses, errors in one line, tables, JSON."""

import importlib
import json
import os
import subprocess
import sys
import types
from pathlib import Path

import keras
import pytest

import keras_cascade
from keras_cascade._package import public
from keras_cascade._package.resources import folder
from keras_cascade.cli import bench, main
from keras_cascade.cli import demo as cli_demo

ROW = {
    "name": "PCA of 20,000 x 1,280",
    "ours_s": 1.5,
    "reference_s": 12.0,
    "ratio": 0.125,
    "bound": "at most 0.167",
    "holds": True,
}


@pytest.fixture
def benchmarks(tmp_path, monkeypatch) -> Path:
    """A folder with two benchmarks of these tests."""
    monkeypatch.setattr(bench, "folder", lambda name: tmp_path)
    (tmp_path / "bench_good.py").write_text(
        f"def run():\n    print('progress')\n    return [{ROW!r}]\n"
    )
    (tmp_path / "bench_bad.py").write_text(
        "def run():\n    import no_such_package\n"
    )
    return tmp_path


@pytest.fixture
def demo(monkeypatch) -> dict:
    """Replaces the demo; contains the arguments of its call."""
    called = {}
    stand_in = types.SimpleNamespace(main=called.update)
    monkeypatch.setattr(cli_demo, "run", stand_in, raising=False)
    return called


def one_line(text: str) -> str:
    assert text.count("\n") == 1
    return text


def exit_status(argv: list[str]) -> int:
    """Returns the status with which the process would exit."""
    try:
        return main(argv)
    except SystemExit as done:
        return done.code


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["demo"],
        ["taps"],
        ["inspect"],
        ["export"],
        ["convert"],
        ["bench"],
        ["completion"],
    ],
)
def test_every_subcommand_has_help(argv, capsys):
    assert exit_status([*argv, "--help"]) == 0
    assert "usage: keras-cascade" in capsys.readouterr().out


# Each takes longer to import than the answer may take.
SLOW = {"keras", "tensorflow", "jax", "torch", "matplotlib", "rich", "h5py"}
# Runs the console as `python -m keras_cascade` does, and looks.
LOOK = (
    "import runpy, sys, time; sys.argv = ['keras-cascade', *{!r}]\n"
    "try: runpy.run_module('keras_cascade', run_name='__main__')\n"
    "finally: print(time.process_time(), *sys.modules, file=sys.stderr)"
)


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["--version"],
        ["export", "--help"],
        ["bench", "--help"],
        [],
        ["taps"],
        ["bench", "nonsense"],
        ["bench", "step", "--set", "nonsense=1"],
        ["export", "m.keras", "m.txt"],
        ["export", "m.keras", "m.onnx", "--quantize", "float16"],
    ],
    ids=" ".join,
)
def test_help_and_bad_usage_import_nothing_slow_and_take_no_time(argv):
    # What coverage does in a process of its own takes time as well.
    own = {k: x for k, x in os.environ.items() if not k.startswith("COVERAGE")}
    done = subprocess.run(
        [sys.executable, "-c", LOOK.format(argv)],
        env=own,
        capture_output=True,
        text=True,
    )
    asked = bool(argv) and argv[-1].startswith("--")
    assert done.returncode == (0 if asked else 2)
    seconds, *imported = done.stderr.splitlines()[-1].split()
    assert "keras_cascade" in imported
    assert not SLOW.intersection(imported)
    assert float(seconds) <= 0.3


@pytest.mark.parametrize(
    ("argv", "command", "found"),
    [
        (["/venv/bin/keras-cascade", "taps"], [], True),
        ([r"C:/venv/Scripts/keras-cascade.exe"], [], True),
        (["-m", "--help"], ["python", "-m", "keras_cascade", "--help"], True),
        (["-m"], ["python", "-m", "pytest"], False),
        (["train.py", "keras-cascade"], [], False),
        ([""], ["python"], False),
        ([], [], False),
    ],
)
def test_the_console_is_told_from_other_programs(
    argv, command, found, monkeypatch
):
    monkeypatch.setattr(sys, "argv", argv)
    monkeypatch.setattr(sys, "orig_argv", command)
    assert public.is_console() is found


def test_the_version_is_the_packages(capsys):
    assert exit_status(["--version"]) == 0
    assert capsys.readouterr().out == f"{keras_cascade.__version__}\n"


def test_bench_help_has_a_line_for_each_benchmark(benchmarks, capsys):
    (benchmarks / "bench_good.py").write_text('"""Does it.\n\nAnd more."""')
    assert exit_status(["bench", "--help"]) == 0
    out = capsys.readouterr().out
    assert out.endswith("benchmarks:\n  bad   \n  good  Does it.\n")


def test_the_console_registers_what_files_contain():
    code = (
        "import sys; sys.argv = ['keras-cascade']; "
        "import keras_cascade as kc; print('keras' in sys.modules); "
        "kc._package.public.import_eager(); import keras; "
        "print(keras.saving.get_registered_object('keras_cascade>Cascade'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True
    )
    early, registered = done.stdout.splitlines()
    assert early == "False"
    assert registered == "<class 'keras_cascade.cascade.cascade.Cascade'>"


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["no-such-command"],
        ["bench"],
        ["taps"],
        ["inspect"],
        ["demo", "--seed", "three"],
        ["demo", "--no-such-option"],
    ],
)
def test_bad_usage_exits_with_2_and_one_line(argv, capsys):
    assert exit_status(argv) == 2
    assert "keras-cascade" in one_line(capsys.readouterr().err)


def test_an_unknown_benchmark_is_an_error_with_the_known_ones(
    benchmarks, capsys
):
    assert exit_status(["bench", "nonsense"]) == 2
    error = one_line(capsys.readouterr().err)
    assert "invalid choice: 'nonsense' (choose from" in error
    assert "bad" in error and "good" in error


def test_bench_prints_the_rows_of_each_benchmark_as_json(benchmarks, capsys):
    assert exit_status(["bench", "good", "--json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    assert rows == [{"benchmark": "good", **ROW}]


def test_bench_prints_one_table(benchmarks, monkeypatch, capsys):
    monkeypatch.setattr(
        bench, "_run_benchmark", lambda path, settings: bench.Report([ROW])
    )
    monkeypatch.setenv("COLUMNS", "120")
    assert exit_status(["bench", "good", "bad"]) == 0
    out = capsys.readouterr().out
    assert out.count("PCA of 20,000 x 1,280") == 2
    assert out.count("at most 0.167") == 2


def test_a_benchmark_may_have_a_table_of_its_own(
    benchmarks, monkeypatch, capsys
):
    # In this process, which is quicker.
    monkeypatch.setattr(bench, "_run_benchmark", bench._run_file)
    (benchmarks / "bench_own.py").write_text(
        "TITLE = 'Accuracies'\n"
        "COLUMNS = {'letters': '{letters:.1f} %'}\n"
        "def run():\n"
        "    return [{'name': 'plain', 'letters': 61.234, 'holds': False}]\n"
    )
    monkeypatch.setenv("COLUMNS", "120")
    assert exit_status(["bench", "own", "good"]) == 0
    own, timed = capsys.readouterr().out.split("Times in seconds")
    assert "Accuracies" in own
    assert "letters" in own
    assert "61.2 %" in own
    assert "PCA of 20,000 x 1,280" in timed
    assert "61.2 %" not in timed


def test_bench_sets_sizes_of_the_benchmarks_that_have_them(
    benchmarks, monkeypatch, capsys
):
    # In this process, which is quicker.
    monkeypatch.setattr(bench, "_run_benchmark", bench._run_file)
    (benchmarks / "bench_sized.py").write_text(
        "def run(samples=4, share=0.5, where='here'):\n"
        "    return [{'name': repr((samples, share, where)), 'holds': True}]\n"
    )
    argv = ["bench", "sized", "good", "--set", "samples=2", "--json"]
    assert exit_status([*argv, "--set", "share=2"]) == 0
    sized, good = json.loads(capsys.readouterr().out)
    assert sized["name"] == "(2, 2.0, 'here')"
    assert good == {"benchmark": "good", **ROW}


@pytest.mark.parametrize(
    ("setting", "says"),
    [
        ("samples", "expected NAME=VALUE, not 'samples'"),
        ("steps=2", "no setting 'steps' in sized, good; there are: samples"),
        ("samples=two", "samples='two' is no int"),
    ],
)
def test_a_setting_that_no_benchmark_takes_is_bad_usage(
    benchmarks, capsys, setting, says
):
    (benchmarks / "bench_sized.py").write_text("def run(samples=4):\n  pass\n")
    argv = ["bench", "sized", "good", "--set", setting]
    assert exit_status(argv) == 2
    assert says in one_line(capsys.readouterr().err)


def test_a_benchmark_that_lacks_a_package_says_what_to_install(
    benchmarks, capfd
):
    assert exit_status(["bench", "bad"]) == 1
    # Above it, a framework may log what it found when it was imported.
    *above, error = capfd.readouterr().err.splitlines()
    assert not any("Traceback" in line for line in above)
    assert "No module named 'no_such_package'" in error
    assert error.endswith(". Run: pip install no_such_package")


def test_demo_passes_its_options_on(demo, tmp_path):
    argv = ["demo", "--output", str(tmp_path), "--seed", "3", "--json"]
    assert exit_status(argv) == 0
    assert demo == {"output": tmp_path, "seed": 3, "as_json": True}


def test_outside_a_checkout_demo_writes_below_the_current_folder(
    demo, monkeypatch
):
    monkeypatch.setattr(cli_demo.command, "checkout", lambda: None)
    assert exit_status(["demo"]) == 0
    assert demo["output"] == Path("saved_models")


def failing_demo(monkeypatch, error: Exception):
    def run(**arguments):
        raise error

    stand_in = types.SimpleNamespace(main=run)
    monkeypatch.setattr(cli_demo, "run", stand_in, raising=False)


def test_a_failure_exits_with_1_and_one_line(monkeypatch, capsys):
    failing_demo(monkeypatch, ValueError("No tap at 'x'.\nClosest: 'y'."))
    assert exit_status(["demo"]) == 1
    error = one_line(capsys.readouterr().err)
    assert error == "keras-cascade: No tap at 'x'. Closest: 'y'.\n"


def test_the_debug_variable_shows_the_traceback(monkeypatch):
    failing_demo(monkeypatch, ValueError("No tap at 'x'."))
    monkeypatch.setenv("KERAS_CASCADE_DEBUG", "1")
    with pytest.raises(ValueError, match="No tap at 'x'"):
        main(["demo"])


def test_taps_lists_the_paths_of_a_network_as_a_table(capsys):
    assert main(["taps", "glyph_encoder", "--pattern", "stage2_*"]) == 0
    text = capsys.readouterr().out
    assert "stage2_out" in text
    assert "stage1_out" not in text


def test_taps_as_json_are_those_of_list_taps(capsys):
    assert main(["taps", "digits_expert", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    listed = keras_cascade.list_taps(keras_cascade.zoo.load("digits_expert"))
    assert [tap["path"] for tap in found] == [tap.path for tap in listed]
    assert [tap["parameters"] for tap in found] == [
        tap.parameters for tap in listed
    ]


def test_taps_of_an_application_need_no_download(monkeypatch, capsys):
    def no_download(*args, **kwargs):
        raise AssertionError("weights were asked for")

    monkeypatch.setattr(keras.utils, "get_file", no_download)
    assert main(["taps", "MobileNet", "--pattern", "conv_pw_1", "--json"]) == 0
    (tap,) = json.loads(capsys.readouterr().out)
    assert tap["shape"] == [None, 112, 112, 64]


def test_taps_of_an_application_have_the_shape_that_is_asked_for(capsys):
    argv = ["taps", "MobileNet", "--pattern", "conv_pw_1", "--json"]
    assert main([*argv, "--input-shape", "64,96,3"]) == 0
    (tap,) = json.loads(capsys.readouterr().out)
    assert tap["shape"] == [None, 32, 48, 64]


@pytest.mark.parametrize(
    ("network", "shape", "status", "says"),
    [
        ("MobileNet", "96x96x3", 2, "three sizes such as 96,96,3, not '96x9"),
        ("MobileNet", "96,96", 2, "not '96,96'"),
        ("glyph_encoder", "96,96,3", 1, "'glyph_encoder' has its own shape"),
    ],
)
def test_a_shape_that_is_none_is_an_error(network, shape, status, says, capsys):
    assert exit_status(["taps", network, "--input-shape", shape]) == status
    assert says in one_line(capsys.readouterr().err)


def test_inspect_shows_a_saved_cascade(tmp_path, capsys):
    path = tmp_path / "cascade.keras"
    network = keras_cascade.zoo.load("digits_expert")
    keras_cascade.build_cascade(network, head=3).save(path)
    assert main(["inspect", str(path)]) == 0
    assert "upstream" in capsys.readouterr().out
    assert main(["inspect", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [block["name"] for block in found["blocks"]] == ["upstream", "head"]
    assert found["outputs"][0]["shape"] == [None, 3]


@pytest.mark.parametrize(
    "argv", [["inspect", "no_file.keras"], ["taps", "no_network"]]
)
def test_a_missing_file_fails_in_one_line(argv, capsys):
    assert exit_status(argv) == 1
    assert argv[1] in one_line(capsys.readouterr().err)


def damaged(path, offset, size=None):
    """Flips a byte of a file of the zoo, or keeps its beginning alone."""
    network = folder("saved_models") / "digits_expert.keras"
    data = bytearray(network.read_bytes()[:size])
    data[offset] ^= 0xFF
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "how",
    [
        {"offset": 0},
        {"offset": -1, "size": 20_000},
        {"offset": 30_000},  # a weight, which would be read as another one
    ],
)
def test_a_damaged_file_is_called_damaged(how, tmp_path, capsys):
    path = damaged(tmp_path / "model.keras", **how)
    assert exit_status(["inspect", str(path)]) == 1
    error = one_line(capsys.readouterr().err)
    assert f"'{path}' cannot be loaded: it is damaged" in error


OWN = """
import keras

@keras.saving.register_keras_serializable("test_entry")
class Twice(keras.layers.Layer):
    def call(self, inputs):
        return 2 * inputs

def network():
    inputs = keras.Input((3,), name="side")
    return keras.Model(inputs, Twice(name="twice")(inputs))
"""


@pytest.fixture
def own_layers(tmp_path, monkeypatch):
    """A file with a layer that is in a module of the current folder."""
    (tmp_path / "own_layers.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    importlib.import_module("own_layers").network().save("own.keras")
    forget_own_layers()
    monkeypatch.setattr(sys, "path", sys.path[1:])
    yield tmp_path / "own.keras"
    forget_own_layers()


def forget_own_layers():
    sys.modules.pop("own_layers", None)
    keras.saving.get_custom_objects().pop("test_entry>Twice", None)


def test_layers_of_ones_own_are_imported_as_a_module_or_file(
    own_layers, capsys
):
    assert exit_status(["inspect", "own.keras"]) == 1
    assert "--import MODULE" in one_line(capsys.readouterr().err)
    argv = ["taps", "own.keras", "--json", "--import"]
    assert exit_status([*argv, "own_layers"]) == 0
    paths = [tap["path"] for tap in json.loads(capsys.readouterr().out)]
    assert paths == ["side", "twice"]
    forget_own_layers()
    assert exit_status([*argv, str(own_layers.with_name("own_layers.py"))]) == 0


@pytest.mark.parametrize(
    ("module", "says"),
    [
        ("no_module_here", "No module named 'no_module_here'"),
        ("no/file.py", "--import: there is no file 'no/file.py'"),
    ],
)
def test_a_module_that_is_not_there_is_an_error(module, says, capsys):
    argv = ["taps", "glyph_encoder", "--import", module]
    assert exit_status(argv) == 1
    assert says in one_line(capsys.readouterr().err)
