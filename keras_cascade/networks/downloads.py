"""Turns a failed download into one error that says what to do instead."""

from http.client import HTTPException
from types import TracebackType

# `keras.utils.get_file` raises a bare Exception for a URL that does not
# answer; a subclass of it may be a bug, so that exact class counts as well.
_FAILURES = (OSError, ValueError, HTTPException)
# Packages whose errors have no narrower class in common (KerasHub 0.32).
_DOWNLOADERS = (
    "huggingface_hub",
    "httpx",
    "kagglehub",
    "kagglesdk",
    "modelscope",
    "requests",
    "urllib3",
)


class Download:
    """A context in which errors of downloads become one `RuntimeError`.

    Args:
        what: The network that is loaded, for the error: "upstream='VGG16'".
        instead: A sentence that says what else is possible.
    """

    def __init__(self, what: str, instead: str):
        self.what = what
        self.instead = instead

    def __enter__(self) -> "Download":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is not None and _is_failure(kind):
            raise RuntimeError(
                f"{self.what} could not be loaded: {_first_line(error)} "
                f"{self.instead}"
            ) from error


def _is_failure(kind: type[BaseException]) -> bool:
    return (
        kind is Exception
        or issubclass(kind, _FAILURES)
        or kind.__module__.partition(".")[0] in _DOWNLOADERS
    )


def _first_line(error: BaseException | None) -> str:
    """Returns the first line of an error that may go on for pages."""
    text = str(error).strip().partition("\n")[0] or type(error).__name__
    return text if text.endswith((".", "!", "?")) else f"{text}."
