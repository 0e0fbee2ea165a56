"""An action at the end of a block is carried out whatever comes between."""

import signal
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

from keras_cascade._interrupts import cleanup
from keras_cascade._interrupts.cleanup import finally_twice, interrupts_put_off

# No backend takes part in it.
pytestmark = pytest.mark.once


class Interrupts:
    """Raises a KeyboardInterrupt at a line of the module and of the test."""

    def __init__(self, at):
        self.at, self.seen = at, 0

    def __call__(self, frame, event, arg):
        code = frame.f_code
        ours = code.co_filename == cleanup.__file__ or code.co_name == "put"
        if event == "line" and ours:
            self.seen += 1
            if self.seen == self.at:
                raise KeyboardInterrupt
        return self if ours or event != "call" else None


@pytest.mark.parametrize("at", range(1, 20))
def test_an_interrupt_at_any_line_leaves_nothing_changed(at):
    changed = []

    def put():
        changed[:] = []
        changed[:] = []

    def change():
        with finally_twice(put):
            changed.append(True)

    former = sys.gettrace()  # that of coverage, say
    sys.settrace(tracer := Interrupts(at))
    try:
        change()
    except KeyboardInterrupt:
        pass
    finally:
        sys.settrace(former)
    assert changed == []
    assert tracer.seen < 19


@pytest.fixture(autouse=True)
def pythons_own_handler():
    """Processes of pytest-xdist ignore the signal."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def press(times):
    for _ in range(times):
        signal.raise_signal(signal.SIGINT)


def test_an_interrupt_waits_for_the_end_of_the_block():
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts_put_off():
        press(1)
        done.append(True)
    assert done
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_a_second_interrupt_does_not_wait():
    done = []
    with pytest.raises(KeyboardInterrupt), interrupts_put_off():
        press(2)
        done.append(True)
    assert not done


def test_a_program_that_handles_the_signal_goes_on_to():
    came, before = [], signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, lambda *_: came.append(True))
    try:
        with interrupts_put_off():
            press(1)
            assert came
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_have_no_signals():
    with ThreadPoolExecutor() as pool:
        assert pool.submit(in_a_block).result()


def in_a_block():
    with interrupts_put_off():
        return True
