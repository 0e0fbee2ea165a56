"""Has griffe read the `Example:` of a docstring as a section of examples.

Griffe knows `Examples:` with an indented body. The docstrings here say
`Example:`, as Keras's do, and some do not indent what follows.
"""

import re
import textwrap
from typing import Any

import griffe

# From the heading to the next one, or to the end.
_EXAMPLE = re.compile(r"^Example:\n(.*?)(?=^[A-Z]\w*:|\Z)", re.M | re.S)


class Examples(griffe.Extension):
    """Rewrites the docstrings of all objects that are collected."""

    def on_instance(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Changes one object's docstring, if it has one."""
        if obj.docstring is not None:
            text = obj.docstring.value
            obj.docstring.value = _EXAMPLE.sub(_as_section, text)


def _as_section(match: re.Match) -> str:
    body = textwrap.indent(textwrap.dedent(match[1]), "    ")
    return f"Examples:\n{body}"
