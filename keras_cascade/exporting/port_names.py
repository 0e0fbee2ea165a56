"""Names the inputs and outputs of a file as its format allows.

A file has the model's names wherever its format can hold them. Where it cannot,
the name is changed as little as possible, and stays unique.
"""

import keyword
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from keras_cascade.graph.names import numbered_name
from keras_cascade.graph.program import Program


class PortNames(NamedTuple):
    """The names in a file, by the model's names.

    Attributes:
        inputs: The names of the inputs.
        outputs: The names of the outputs.
    """

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]

    @property
    def changed(self) -> dict[str, dict[str, str]]:
        """The names that are not the model's, for `inputs` and `outputs`."""
        found = {
            kind: {name: own for name, own in names.items() if name != own}
            for kind, names in self._asdict().items()
        }
        return {kind: names for kind, names in found.items() if names}


def port_names(program: Program, format: str) -> PortNames:
    """Returns the names in a file of a format."""
    inputs = [port.name for port in program.inputs]
    identifiers, illegal = as_identifiers(inputs), _illegal(inputs, format)
    outputs = {name: name for name in program.outputs}
    if format == "onnx":
        # Its inputs and outputs are tensors, whose names are unique.
        taken = {*inputs, *outputs}
        for name in sorted(outputs.keys() & set(inputs)):
            outputs[name] = numbered_name(name, taken)
            taken.add(outputs[name])
    own = {x: identifiers[x] if x in illegal else x for x in inputs}
    return PortNames(own, outputs)


def renamed(program: Program, names: PortNames) -> Program:
    """Returns a program whose inputs and outputs have other names."""
    return replace(
        program,
        inputs=tuple(
            replace(port, name=names.inputs[port.name])
            for port in program.inputs
        ),
        outputs={names.outputs[k]: x for k, x in program.outputs.items()},
    )


def as_identifiers(names: Iterable[str]) -> dict[str, str]:
    """Returns each name, or a similar one if it cannot name an argument."""
    names = list(names)
    found = {name: name for name in names if _is_identifier(name)}
    for name in names:
        if name not in found:
            found[name] = numbered_name(_identifier(name), found.values())
    return {name: found[name] for name in names}


def _illegal(inputs: Sequence[str], format: str) -> set[str]:
    """Returns the names of inputs that a file of a format cannot have."""
    if format == "torch":
        # They become the arguments of a Python function.
        return set(inputs)
    # The methods that call a file from Python have this argument.
    illegal = {"self"} if format in ("tflite", "saved_model") else set()
    if format == "saved_model":
        # TensorFlow calls a signature only if the names that it makes of these
        # are all different.
        names = Counter(re.sub(r"\W", "_", name) for name in inputs)
        illegal |= {x for x in inputs if names[re.sub(r"\W", "_", x)] > 1}
    return illegal


def _identifier(name: str) -> str:
    base = re.sub(r"\W", "_", name, flags=re.ASCII).strip("_")
    return base if _is_identifier(base) else f"input_{base}"


def _is_identifier(name: str) -> bool:
    # TensorFlow takes no underscore at the beginning, and ASCII alone.
    legal = name.isidentifier() and name.isascii() and name[0] != "_"
    return legal and name != "self" and not keyword.iskeyword(name)
