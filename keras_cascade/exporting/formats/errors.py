"""Defines the error of converters that cannot write a model.

Tested by `tests/exporting/formats/test_convertible.py`.
"""

import re

# As TensorFlow's converter names operators, and the places of the model.
_OPERATOR = re.compile(r"'tf\.(\w+)' op\b|operation 'tf\.(\w+)'|Flex(\w+)")
_PLACE = re.compile(r'"([^"@]+/[^"@]+)@__inference')


class ConversionError(RuntimeError):
    """Says what a converter cannot write, and what to do."""


def litert_error(text: str) -> ConversionError:
    """Returns the error for what TensorFlow's converter printed.

    It names the operators and their places, without the converter's dump of
    its internal program.
    """
    found = [name for x in _OPERATOR.findall(text) for name in x if name]
    names = ", ".join(dict.fromkeys(found))
    places = ", ".join(f"'{x}'" for x in dict.fromkeys(_PLACE.findall(text)))
    what = f"LiteRT has no operator for {names}" if names else _first_line(text)
    return ConversionError(
        what
        + (f", which the model computes at {places}" if places else "")
        + ". Give inputs fixed sizes, leave that output out with `outputs`, or "
        "write a SavedModel or an ONNX file."
    )


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else "LiteRT's converter failed without a message"
