"""Tests that a fit may be interrupted at any line, and training goes on.

By default at a few lines of the package; `large`: at every tenth. A line counts
once in each epoch, and once before and after all: most of a fit are loops that
come by again and again in the same state.
"""

import math
import sys
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
from keras import ops

import keras_cascade as kc
from keras_cascade._keras_compat import optimizers
from tests.small_training import LOSS, X, Y, small_head, small_network

PACKAGE = str(Path(kc.__file__).parent)
STAGES = {1: "upstream/high", 2: "upstream"}
TRAINING = [  # before the first stage, after it, after the second
    {"head/out"},
    {"head/out", "upstream/high"},
    {"head/out", "upstream/high", "upstream/norm", "upstream/low"},
]


@pytest.fixture(scope="module")
def network():
    return small_network()


def build(network):
    return kc.build_cascade(
        network,
        head=small_head(),
        optimizer=keras.optimizers.AdamW(0.02, use_ema=True, ema_momentum=0.9),
        loss=LOSS,
        learning_rates={"upstream": 1e-2},
    )


def fit(cascade, cache=False, callbacks=()):
    with warnings.catch_warnings():
        # That all of it trains at last, or that a stage changes nothing.
        warnings.simplefilter("ignore", UserWarning)
        history = cascade.fit(
            *(X, Y, 8, 3, 0),
            validation_data=(X[:8], Y[:8]),
            shuffle=False,
            unfreeze=STAGES,
            cache_features=cache,
            callbacks=list(callbacks),
        )
    return history.history


class Interrupt(keras.callbacks.Callback):
    """Raises a KeyboardInterrupt at one of the lines of a fit.

    Args:
        at: The number of the line. Defaults to `math.inf`: none.
        known: Lines that do not count. Defaults to none.
    """

    def __init__(self, at=math.inf, known=()):
        super().__init__()
        self.at, self.known, self.lines = at, known, []
        self.seen, self.part = set(), 0

    def on_epoch_begin(self, epoch, logs=None):
        self.part += 1

    def on_train_end(self, logs=None):
        self.part += 1

    def trace(self, frame, event, arg):
        ours = frame.f_code.co_filename.startswith(PACKAGE)
        return self.on_line if ours else None

    def on_line(self, frame, event, arg):
        line = (frame.f_code.co_filename, frame.f_lineno, self.part)
        if event == "line" and line not in self.seen:
            self.seen.add(line)
            if line not in self.known:
                self.lines.append(line)
                if len(self.lines) == self.at:
                    raise KeyboardInterrupt
        return self.on_line

    def run(self, function, *arguments):
        former = sys.gettrace()  # that of coverage, say
        sys.settrace(self.trace)
        try:
            function(*arguments)
        except KeyboardInterrupt:
            pass
        finally:
            sys.settrace(former)
        return self


def numbers(variables):
    return [np.array(ops.convert_to_numpy(v)) for v in variables]


def check(cascade, cache, folder):
    """Saves and loads, and trains both: on what is cached, and live."""
    training = {v.path.rpartition("/")[0] for v in cascade.trainable_variables}
    assert training in TRAINING
    answers = cascade.predict(X, verbose=0)
    assert np.isfinite(answers).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)  # of slots, say
        cascade.save(folder / "cascade.keras")
        loaded = keras.saving.load_model(folder / "cascade.keras")
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), answers)
    if cascade.optimizer.built:
        slots = (numbers(x.optimizer.variables) for x in (cascade, loaded))
        for one, other in zip(*slots, strict=True):
            np.testing.assert_array_equal(one, other)
    histories = fit(cascade, cache), fit(loaded)
    assert histories[0].keys() == histories[1].keys()
    for name, values in histories[0].items():
        np.testing.assert_allclose(values, histories[1][name], atol=1e-5)


def cache_of(kind, folder):
    if kind == "staged":
        return False
    return kc.FeatureCache(folder / "features" if kind == "folder" else None)


def interrupted(network, kind, folder, at, known=()):
    folder.mkdir()
    cascade, cache = build(network), cache_of(kind, folder)
    interrupt = Interrupt(at, known)
    interrupt.run(fit, cascade, cache, [interrupt])
    # It was interrupted there, and nothing else ended the fit before.
    assert len(interrupt.lines) >= at
    try:
        check(cascade, cache, folder)
    except Exception as error:
        file, line, part = interrupt.lines[at - 1]
        error.add_note(f"line {at}: {Path(file).name}:{line}, part {part}")
        raise


def test_an_optimizer_may_be_interrupted_amid_its_variables(
    network, tmp_path, monkeypatch
):
    """Its variables are those of a new stage, and its averages are not."""
    cascade, original, raised = build(network), optimizers.set_untracked, []

    def interrupt_once(owner, name, value):
        if name.endswith("moving_average") and len(value) > 2 and not raised:
            raised.append(name)
            raise KeyboardInterrupt
        original(owner, name, value)

    with monkeypatch.context() as patch:
        patch.setattr(optimizers, "set_untracked", interrupt_once)
        with pytest.raises(KeyboardInterrupt):
            fit(cascade)
    check(cascade, False, tmp_path)


def test_a_training_may_be_interrupted_when_averages_become_the_weights(
    network, tmp_path, monkeypatch
):
    """On JAX both are one array then, which the next step would delete."""
    cascade, original, raised = build(network), optimizers.separate_averages, []

    def interrupt_once(optimizer):
        if not raised:
            raised.append(optimizer)
            raise KeyboardInterrupt
        original(optimizer)

    with monkeypatch.context() as patch:
        patch.setattr(optimizers, "separate_averages", interrupt_once)
        with pytest.raises(KeyboardInterrupt):
            fit(cascade)
    check(cascade, False, tmp_path)


@pytest.fixture(scope="module")
def after_a_first_fit(network, tmp_path_factory):
    """What a process does once is done: a cached fit does it all."""
    folder = tmp_path_factory.mktemp("first")
    fit(build(network), cache_of("folder", folder))


def lines_of(network, kind, folder):
    """Returns the lines that a fit comes by, in their order."""
    cache, count = cache_of(kind, folder / f"counted {kind}"), Interrupt()
    return count.run(fit, build(network), cache, [count]).lines


KINDS = ["staged", "memory", "folder"]


@pytest.mark.usefixtures("after_a_first_fit")
@pytest.mark.parametrize("kind", KINDS)
def test_training_goes_on_after_an_interrupt(network, kind, tmp_path):
    lines = len(lines_of(network, kind, tmp_path))
    # Each kind at places of its own: much of a fit is the same in all.
    # TensorFlow traces the four fits of a place anew.
    number = 3 if keras.backend.backend() == "tensorflow" else 6
    places = np.linspace(50, lines - 50, number, dtype=int)
    places = places[KINDS.index(kind) :: 3]
    for at in places:
        interrupted(network, kind, tmp_path / str(at), at)


# A cache in a folder has all lines of one in memory, and some more.
@pytest.mark.large
@pytest.mark.usefixtures("after_a_first_fit")
@pytest.mark.parametrize("first", range(1, 100, 10))
@pytest.mark.parametrize(
    ("kind", "like"), [("staged", None), ("memory", None), ("folder", "memory")]
)
def test_training_goes_on_after_an_interrupt_at_every_tenth_line(
    network, kind, like, first, tmp_path
):
    known = set(lines_of(network, like, tmp_path)) if like else ()
    lines = [x for x in lines_of(network, kind, tmp_path) if x not in known]
    for at in range(first, len(lines) + 1, 100):
        interrupted(network, kind, tmp_path / str(at), at, known)


def test_an_interrupted_evaluation_leaves_the_weights(network):
    cascade = build(network)
    fit(cascade)
    lines = len(Interrupt().run(cascade.evaluate, X, Y, 8, 0).lines)
    cascade.test_function = cascade.predict_function = None
    before = numbers(cascade.variables)
    for at in range(1, lines, max(1, lines // 5)):
        Interrupt(at).run(cascade.evaluate, X, Y, 8, 0)
        Interrupt(at).run(cascade.predict, X, 8, 0)
        cascade.test_function = cascade.predict_function = None
        after = numbers(cascade.variables)
        for one, other in zip(before, after, strict=True):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("call", ["evaluate", "predict"])
def test_an_interrupt_beside_a_step_leaves_the_weights(network, call):
    cascade = build(network)
    fit(cascade)
    function = getattr(cascade, call)
    arguments = (X, Y, 8, 0) if call == "evaluate" else (X, 8, 0)
    lines = Interrupt().run(function, *arguments).lines
    lines += Interrupt().run(function, *arguments).lines
    beside = ("fitting_and_saving.py", "cleanup.py")
    known = {line for line in lines if not line[0].endswith(beside)}
    before = numbers(cascade.variables)
    for at in range(1, len(set(lines) - known) + 1):
        Interrupt(at, known).run(function, *arguments)
        for one, other in zip(before, numbers(cascade.variables), strict=True):
            np.testing.assert_array_equal(one, other)
