"""Names layers and operations after the modules that they come from.

Keras on PyTorch refuses a "." in the name of a layer with weights, so
PyTorch's `layer1.0.conv1` is `layer1-0-conv1` here. No module's name has a
"-", so that nothing is ambiguous, and path patterns accept either form.

Tested by `tests/networks/pytorch/test_conversion.py`.
"""

import re
from collections import Counter

SEPARATOR = "-"
_ILLEGAL = re.compile(r"[^A-Za-z0-9_\-]+")


class Names:
    """Gives out names, each once."""

    def __init__(self) -> None:
        self._given: Counter[str] = Counter()

    def new(self, path: str) -> str:
        """Returns a name for what has a path, with a number from the second on.

        Args:
            path: A path as PyTorch writes it: `layer1.0.add`.
        """
        name = keras_name(path)
        while True:
            count = self._given[name]
            self._given[name] += 1
            if not count:
                return name
            numbered = f"{name}_{count}"
            if not self._given[numbered]:
                self._given[numbered] += 1
                return numbered


def keras_name(path: str) -> str:
    """Returns the name of what has a path in PyTorch."""
    name = _ILLEGAL.sub("_", path.replace(".", SEPARATOR))
    return name if re.match(r"[A-Za-z0-9]", name) else f"x{name}"


def module_of(parameter: str) -> str:
    """Returns the module's path in the name of one of its parameters.

    `layer1.0.conv1.weight` is of `layer1.0.conv1`; a packed one,
    `attn.in_proj_weight`, of `attn.in_proj`, as there is one weight to each
    layer in Keras.
    """
    path, _, kind = parameter.rpartition(".")
    if kind in ("weight", "bias"):
        return path or kind
    stem = re.sub(r"_(weight|bias)$", "", kind)
    return f"{path}.{stem}" if path else stem
