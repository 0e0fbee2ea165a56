"""Finds the inputs of a downstream that injected features feed.

Tested by `tests/display/picture/test_reading.py`.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from keras_cascade._cascade_view import CascadeView
from keras_cascade.display.picture.text import shortened
from keras_cascade.graph.graph import Graph
from keras_cascade.graph.names import make_identifiers


@dataclass(frozen=True)
class Merge:
    """An injection: the label of its layers and inputs, and its text."""

    label: str
    text: str


def find_merges(cascade: CascadeView, graph: Graph) -> dict[str, Merge]:
    """Returns the injections by the names of the inputs that they feed.

    Args:
        cascade: The cascade.
        graph: The graph of its downstream.
    """
    names = {tensor.name for tensor in graph.inputs}
    found: dict[str, Merge] = {}
    for base, text in (*_injected(cascade), *_joined(cascade)):
        numbers = range(1, len(names) + 1)
        for label in (base, *(f"{base}_{number}" for number in numbers)):
            fed = names & {label, f"{label}_scale", f"{label}_shift"}
            if fed and not fed & set(found):
                found |= dict.fromkeys(fed, Merge(label, text))
                break
    return found


def _injected(cascade: CascadeView) -> Iterator[tuple[str, str]]:
    """Yields the label of each injection, before it is numbered, and words."""
    for source, several in cascade.spec.inject.items():
        for one in several:
            layer = one.path.rpartition("/")[2].replace(":", "_")
            (label,) = make_identifiers([f"{source}_into_{layer}"])
            yield label, f"{one.merge} at {shortened(one.path)}"


def _joined(cascade: CascadeView) -> Iterator[tuple[str, str]]:
    """Yields the same of fused features that join an input (`"both"`)."""
    fusion = cascade.blocks.get("fusion")
    output = None if fusion is None else fusion.output
    for label in output if isinstance(output, dict) else ():
        yield label, f"concat at {shortened(label.partition('_into_')[2])}"
