"""Shows rates and drift in a line of their own, after Keras's progress bar.

Each block adds values to the logs of an epoch, and Keras's bar would show them
all: with five blocks a line of 300 columns.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import keras

from keras_cascade._reporting import console


class _Kind(NamedTuple):
    """Says how the values of one kind are shown.

    Attributes:
        heading: The word before them.
        digits: The significant digits of a value.
        bound: The words for a bound of all values, where there is no room for
            each; empty for their range.
        choose: The function that finds the bound among the blocks.
    """

    heading: str
    digits: int
    bound: str = ""
    choose: Callable[..., str] = max


# By the beginning of a value's name in the logs.
_KINDS = {
    "learning_rate": _Kind("rates", 2),
    "drift": _Kind("drift", 2, "at most", max),
    "cka": _Kind("cka", 3, "at least", min),
    "old_task": _Kind("old task", 3, "at least", min),
}
# These give up their place first: the user chose the rates.
_SHORTENED = ("learning_rate", "cka", "old_task", "drift")
_WIDTH = 100
_INDENT = "    "


class ProgressBar(keras.callbacks.ProgbarLogger):
    """Keras's progress bar, followed by a line for the blocks.

    `History` and other callbacks get the logs as they are.
    """

    # As Keras's own, it hands nothing to the logs.
    async_safe = True

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Ends Keras's bar, then shows the values of the blocks."""
        logs = logs or {}
        of_blocks = {name: x for name, x in logs.items() if _kind(name)}
        rest = {name: x for name, x in logs.items() if name not in of_blocks}
        super().on_epoch_end(epoch, rest)
        if self.verbose and of_blocks:
            console.say(epoch_line(of_blocks))


def epoch_line(values: Mapping[str, float]) -> str:
    """Returns the values of the blocks as a line of at most 100 columns.

    Args:
        values: The values by their names in the logs, `drift/upstream`.
    """
    room = min(console.width() or _WIDTH, _WIDTH) - len(_INDENT)
    by_kind = {
        kind: {
            name.partition("/")[2]: value
            for name, value in values.items()
            if _kind(name) == kind
        }
        for kind in _KINDS
    }
    texts = {kind: _whole(kind, x) for kind, x in by_kind.items() if x}
    for with_names in (True, False):
        for kind in filter(texts.__contains__, _SHORTENED):
            if len(" · ".join(texts.values())) > room:
                short = _short(kind, by_kind[kind], with_names)
                texts[kind] = min(texts[kind], short, key=len)
    line = " · ".join(texts.values())
    return _INDENT + (line if len(line) <= room else f"{line[: room - 1]}…")


def _kind(name: str) -> str | None:
    kind, slash, _ = name.partition("/")
    return kind if slash and kind in _KINDS else None


def _whole(kind: str, values: Mapping[str, float]) -> str:
    """Returns all values, the names of equal ones together."""
    names: dict[str, list[str]] = {}
    for name, value in values.items():
        names.setdefault(_number(kind, value), []).append(name)
    parts = (f"{'+'.join(some)} {text}" for text, some in names.items())
    return f"{_KINDS[kind].heading} {', '.join(parts)}"


def _short(kind: str, values: Mapping[str, float], with_name: bool) -> str:
    """Returns the bound of the values, and whose it is, or their range."""
    heading, _, bound, choose = _KINDS[kind]
    if bound:
        name = choose(values, key=lambda name: values[name])
        of = f" ({name})" * with_name
        return f"{heading} {bound} {_number(kind, values[name])}{of}"
    ends = (min(values.values()), max(values.values()))
    texts = dict.fromkeys(_number(kind, x) for x in ends)
    return f"{heading} {' to '.join(texts)}"


def _number(kind: str, value: float) -> str:
    return f"{float(value):.{_KINDS[kind].digits}g}"


def with_progress_bar(
    callbacks: Sequence[keras.callbacks.Callback], verbose: object
) -> list[keras.callbacks.Callback]:
    """Returns callbacks with a progress bar, if a fit is to show one.

    A bar of the user's stays as it is.
    """
    rest = [x for x in callbacks if not isinstance(x, ProgressBar)]
    has_own = any(isinstance(x, keras.callbacks.ProgbarLogger) for x in rest)
    # Keras's `fit` takes 0 and False alike.
    return rest if has_own or verbose == 0 else [*rest, ProgressBar()]
