"""Puts things back after a block of code, however it ends.

Tested by `tests/_interrupts/test_cleanup.py`.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def finally_twice(action: Callable[[], object]) -> Iterator[None]:
    """Calls an action at the end, also if it is interrupted itself.

    A KeyboardInterrupt may come at any line, in a `finally` too. What is to be
    put back is changed in the block, not before it.

    Args:
        action: Puts something back. Called twice, it does so once.

    Example:
    >>> with finally_twice(lambda: print("back")):
    ...     print("changed")
    changed
    back
    back
    """
    try:
        try:
            yield
        finally:
            action()
    finally:
        action()


@contextmanager
def interrupts_put_off() -> Iterator[None]:
    """Has a KeyboardInterrupt of the user's wait for the end of the block.

    A second one does not wait. In other threads, and where the program handles
    the signal itself, nothing changes.
    """
    handler = signal.getsignal(signal.SIGINT)
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or handler is not signal.default_int_handler:
        yield
        return
    came: list[int] = []

    def keep(number: int, frame: object) -> None:
        came.append(number)
        if len(came) > 1:
            raise KeyboardInterrupt

    with finally_twice(lambda: signal.signal(signal.SIGINT, handler)):
        signal.signal(signal.SIGINT, keep)
        yield
    if came:
        raise KeyboardInterrupt


@contextmanager
def put_off_and_finally(action: Callable[[], object]) -> Iterator[None]:
    """Has an interrupt wait for the end of the block and of an action there.

    Args:
        action: As in `finally_twice`.
    """
    with interrupts_put_off(), finally_twice(action):
        yield
