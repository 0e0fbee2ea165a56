from http.client import IncompleteRead
from urllib.error import URLError

import pytest

from keras_cascade.networks.downloads import Download


class HubError(Exception):
    """Stands for an error of a library that downloads."""


HubError.__module__ = "kagglehub.exceptions"


@pytest.mark.parametrize(
    "error",
    [
        Exception("URL fetch failure"),
        URLError("no route"),
        ValueError("Incomplete or corrupted file detected."),
        IncompleteRead(b""),
        HubError("403"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_of_downloads_become_one_error(error):
    with (
        pytest.raises(
            RuntimeError, match=r"^'x' could not be loaded: "
        ) as found,
        Download("'x'", "Do that."),
    ):
        raise error
    assert str(found.value).endswith(". Do that.")
    assert found.value.__cause__ is error


def test_only_the_first_line_of_a_long_error_is_in_the_message():
    with (
        pytest.raises(RuntimeError, match=r"loaded: first\. Do that\.$"),
        Download("'x'", "Do that."),
    ):
        raise OSError("first\nsecond")


@pytest.mark.parametrize("kind", [KeyError, TypeError, KeyboardInterrupt])
def test_other_errors_pass(kind):
    with pytest.raises(kind), Download("'x'", "Do that."):
        raise kind


def test_nothing_happens_where_nothing_fails():
    with Download("'x'", "Do that."):
        pass
