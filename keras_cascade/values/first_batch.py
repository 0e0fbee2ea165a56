"""Tells, by a first batch, values that the networks of a cascade do not expect.

Tested by `tests/behaviour/test_first_batches.py`.
"""

import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import keras
import numpy as np

from keras_cascade._cascade_view import CascadeView, as_model
from keras_cascade.data import to_numpy
from keras_cascade.graph.flattening import as_program
from keras_cascade.graph.graph import Reference
from keras_cascade.graph.program import Program, Step
from keras_cascade.networks.applications import recognise
from keras_cascade.values.range_inference import consumers_of
from keras_cascade.values.requirements import (
    Requirement,
    application_range,
    range_shown_by,
)
from keras_cascade.values.value_ranges import UNKNOWN

_PREPROCESSING = "preprocessing"
_NOT_FINITE = (
    "input '{name}' has values that are not finite (NaN or infinity) in its "
    "first batch, which make the loss NaN unless a layer replaces them. "
    "np.isfinite(x) finds them."
)


class FirstBatches:
    """Warns once, early, of inputs whose values look wrong.

    What a cascade expects is read off its layers at the first batch.
    """

    def __init__(self) -> None:
        self._known: Mapping[str, list[Requirement]] | None = None
        self._said: set[tuple[str, str]] = set()

    def look(
        self,
        cascade: CascadeView,
        given: Mapping[str, Any],
        call: str,
        finite: bool = True,
    ) -> None:
        """Warns of the inputs of a batch, if it has not done so before.

        Args:
            cascade: The cascade.
            given: The inputs of the batch, by their names.
            call: The call that the data were passed to, for the warnings.
            finite: Whether to warn of values that are not finite. Defaults to
                `True`.
        """
        if self._known is None:
            self._known = find_requirements(cascade)
        for name, values in given.items():
            found = [*self._off_scale(name, values)]
            if finite and _is_number(values) and not _extent(values):
                found.append(("finite", _NOT_FINITE.format(name=name)))
            for key, text in found:
                if (name, key) not in self._said:
                    self._said.add((name, key))
                    # The caller of `fit` and `adapt`.
                    warnings.warn(f"{call}: {text}", stacklevel=6)

    def _off_scale(self, name: str, values: Any) -> Iterator[tuple[str, str]]:
        """Yields what is wrong, each after what it is said once about."""
        extent = _extent(values)
        for one in (self._known or {}).get(name, []):
            if one.conflict:
                yield f"{one.network} twice", " ".join(one.conflict)
            if extent and (found := one.off_scale(*extent)):
                yield one.network, f"input '{name}': {' '.join(found)}"


def find_requirements(cascade: CascadeView) -> dict[str, list[Requirement]]:
    """Returns what the networks need at each input of a cascade.

    Networks are recognised by the models that they were copied from, as long
    as these exist, and by their blocks from then on.
    """
    flat = as_program(as_model(cascade))
    return {
        port.name: [
            _requirement(cascade, flat, entry, calls)
            for entry, calls in _entries(flat, port.reference)
        ]
        for port in flat.inputs
        if len(port.shape) > 2
    }


def _entries(
    flat: Program, reference: Reference
) -> Iterator[tuple[Reference, list[Step]]]:
    """Yields the tensors at which networks begin, and their first layers."""
    calls = flat.data_consumers.get(flat.resolve(reference), [])
    inside = [x for x in calls if x.address[0] == _PREPROCESSING]
    blocks: dict[str, list[Step]] = {}
    for call in calls:
        if call not in inside:
            blocks.setdefault(call.address[0], []).append(call)
    for several in blocks.values():
        yield reference, several
    for call in inside:
        for output in call.outputs:
            yield from _entries(flat, output)


def _requirement(
    cascade: CascadeView, flat: Program, entry: Reference, calls: list[Step]
) -> Requirement:
    # `a-b:1` is the second call of what two upstreams share.
    key = calls[0].address[0]
    block, _, call = key.partition(":")
    names = cascade.spec.roles.get(block, [block])
    role = names[int(call or 0) % len(names)]
    info = cascade.spec.networks.get(role)
    title = f"{role} '{info.name}'" if info else f"'{role}'"
    network: Any = cascade.source(block) or cascade.blocks.get(block)
    found = recognise(network) if isinstance(network, keras.Model) else None
    own = UNKNOWN
    if info is not None:
        first = (x for x in consumers_of(flat, entry) if x.address[0] == key)
        own = application_range(found) if found else range_shown_by(first)
    preprocess = cascade.spec.preprocess.get(role)
    return Requirement(role, title, own, preprocess, found)


def _extent(values: Any) -> tuple[float, float] | None:
    """Returns the least and largest value; None if one is not finite."""
    if not _is_number(values):
        return None
    array = to_numpy(values)
    low, high = float(np.min(array)), float(np.max(array))
    return (low, high) if np.isfinite([low, high]).all() else None


def _is_number(values: Any) -> bool:
    # NumPy has dtypes for objects and text, which Keras does not name.
    dtype = str(getattr(values, "dtype", None))
    return "float" in dtype or "int" in dtype
