"""Gives rows as a table of pandas, which is imported when it is asked for.

Tested by `tests/ranking/test_ranking.py`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas


def frame(
    rows: Sequence[Mapping[str, object]], caller: str
) -> "pandas.DataFrame":
    """Returns a table of some rows.

    Args:
        rows: The values of each row by the names of the columns.
        caller: The method that was called, for the error.

    Raises:
        ImportError: If pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise ImportError(
            f"{caller} needs pandas, which is not installed: pip install pandas"
        ) from error
    return pandas.DataFrame(list(rows))
