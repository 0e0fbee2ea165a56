"""Child processes are watched and killed, and their errors reported."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from keras_cascade.exporting.processes import run_child


@pytest.fixture
def run(tmp_path):
    """Function: runs a child's code."""

    def run(code, timeout=60.0, **options):
        run_child(
            code,
            what="Writing 'x.onnx'",
            log=tmp_path / "child.log",
            timeout=timeout,
            **options,
        )

    return run


def no_child_is_left():
    """Whether this process has no child that is dead and not waited for."""
    try:
        done, _ = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return True
    return done == 0


STAGE = "print('keras_cascade stage: {}', flush=True); "


def test_stages_and_nothing_else_are_reported_in_order(run):
    stages = []
    code = STAGE.format("loading") + "print('noise', flush=True); import time; "
    code += "time.sleep(0.4); " + STAGE.format("writing") + "time.sleep(0.4)"
    run(code, report=stages.append)
    assert stages == ["loading", "writing"]


def test_stages_of_a_quick_child_are_reported(run):
    stages = []
    run(STAGE.format("a") + STAGE.format("b"), report=stages.append)
    assert stages == ["a", "b"]


def test_a_stage_is_reported_while_the_child_runs(run):
    times = []
    code = STAGE.format("early") + "import time; time.sleep(1.5)"
    start = time.monotonic()
    run(code, report=lambda stage: times.append(time.monotonic() - start))
    assert times[0] < time.monotonic() - start - 0.7


def test_a_line_that_is_written_in_parts_is_one_stage(run):
    stages = []
    code = "import sys, time; w = sys.stdout.write; f = sys.stdout.flush; "
    code += "w('keras_cascade st'); f(); time.sleep(0.3); w('age: wri'); f(); "
    code += "time.sleep(0.3); w('ting\\n')"
    run(code, report=stages.append)
    assert stages == ["writing"]


def test_the_log_has_all_output_of_the_child(run, tmp_path):
    run("import sys; print('out'); print('err', file=sys.stderr)")
    assert sorted((tmp_path / "child.log").read_text().split()) == [
        "err",
        "out",
    ]


def test_variables_are_set_on_top_of_this_processs_own(run, monkeypatch):
    monkeypatch.setenv("OWN", "1")
    code = "import os; assert os.environ['OWN'] + os.environ['GIVEN'] == '12'"
    run(code, environment={"GIVEN": "2"})


def test_a_timeout_is_an_error_and_kills_the_child(run, tmp_path):
    code = "import os, time; print(os.getpid(), flush=True); time.sleep(60)"
    start = time.monotonic()
    with pytest.raises(TimeoutError, match=r"'x.onnx' took longer than 1 sec"):
        run(code, timeout=1.0)
    assert time.monotonic() - start < 20
    number = int((tmp_path / "child.log").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


def test_an_errors_last_line_comes_first(run):
    code = "print('loading');\ndef f():\n    raise ValueError('too wide')\nf()"
    with pytest.raises(RuntimeError) as error:
        run(code)
    first, *rest = str(error.value).splitlines()
    assert first == "Writing 'x.onnx' failed: ValueError: too wide"
    assert rest[0] == "Its last output:"
    assert "  loading" in rest


def test_an_error_of_several_lines_begins_with_its_first(run):
    code = "raise RuntimeError('No way.\\nOn jax: this.\\n\\nOn torch: that.')"
    with pytest.raises(RuntimeError) as error:
        run(code)
    lines = str(error.value).splitlines()
    assert lines[0] == "Writing 'x.onnx' failed: RuntimeError: No way."
    assert lines[1:3] == ["On jax: this.", "On torch: that."]


def test_the_last_of_chained_errors_is_reported(run):
    code = "try:\n    1 / 0\nexcept ArithmeticError as e:\n"
    code += "    raise KeyError('lost') from e"
    with pytest.raises(RuntimeError, match="failed: KeyError: 'lost'"):
        run(code)


def test_an_error_without_a_message_is_reported(run):
    with pytest.raises(RuntimeError, match=r"failed: AssertionError\n"):
        run("raise AssertionError")


def test_a_child_that_exits_with_a_message(run):
    with pytest.raises(RuntimeError, match="failed: torch is too old"):
        run("import sys; sys.exit('torch is too old')")


def test_a_child_that_exits_without_output(run):
    with pytest.raises(RuntimeError, match="it exited with status 3"):
        run("import os; os._exit(3)")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no signals")
@pytest.mark.parametrize(
    ("name", "advice"), [("SIGKILL", True), ("SIGABRT", False)]
)
def test_a_child_that_is_killed(run, name, advice):
    number = int(getattr(signal, name))
    code = "import os; print('at work', flush=True); "
    code += f"os.kill(os.getpid(), {number})"
    with pytest.raises(RuntimeError, match=rf"signal {number} \({name}\)") as e:
        run(code)
    assert ("memory ran out" in str(e.value)) == advice
    assert str(e.value).endswith("Its last output:\n  at work")
    assert no_child_is_left()


def test_an_error_in_this_process_kills_the_child(run, tmp_path):
    def report(stage):
        raise KeyboardInterrupt

    code = "import os; print(os.getpid(), flush=True); "
    code += STAGE.format("loading") + "import time; time.sleep(60)"
    with pytest.raises(KeyboardInterrupt):
        run(code, report=report)
    number = int((tmp_path / "child.log").read_text().split()[0])
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)
    assert no_child_is_left()


def test_a_successful_child_leaves_no_zombie(run):
    run("pass")
    assert no_child_is_left()


def test_binary_output_is_no_error(run):
    code = "import sys; sys.stdout.buffer.write(b'\\xff\\xfe\\n'); sys.exit(2)"
    with pytest.raises(RuntimeError, match="failed"):
        run(code)


def test_a_module_beside_a_script_hides_no_other(run, tmp_path, monkeypatch):
    (tmp_path / "json.py").write_text("raise RuntimeError('not this one')")
    monkeypatch.chdir(tmp_path)
    run("import json")


def test_the_standard_input_of_a_child_is_empty(run):
    run("import sys; assert sys.stdin.read() == ''")


def test_temporary_files_of_a_child_are_beside_its_log(run, tmp_path):
    run("import tempfile; open(tempfile.mkstemp()[1], 'w')")
    assert len(list(tmp_path.iterdir())) == 2


# A converter can hold Python's lock for minutes, as `PyDLL` does.
PARENT = """
import sys, threading
from pathlib import Path
from keras_cascade.exporting.processes import run_child
work = {"idle": "time.sleep(60)", "busy": "ctypes.PyDLL(None).sleep(60)"}
for name, code in work.items():
    code = f"import os, ctypes, time; print(os.getpid(), flush=True); {code}"
    options = dict(what=name, log=Path(name), timeout=60.0)
    threading.Thread(target=run_child, args=(code,), kwargs=options).start()
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="uses Linux's C library"
)
def test_children_end_when_their_parent_is_killed(tmp_path):
    logs = [tmp_path / "idle", tmp_path / "busy"]
    with subprocess.Popen([sys.executable, "-c", PARENT], cwd=tmp_path) as own:
        wait_until(lambda: all(x.exists() and x.read_text() for x in logs))
        children = [psutil.Process(int(x.read_text())) for x in logs]
        own.kill()
    gone, _ = psutil.wait_procs(children, timeout=20)
    assert len(gone) == 2


def wait_until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
