"""The frozen part that a cascade has now, ready to compute features."""

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_cascade.cache.fingerprint import (
    digest_of,
    tensor_key,
    weights_content,
)
from keras_cascade.cache.frozen import Arrays, Compiled
from keras_cascade.cache.probing import probe
from keras_cascade.cache.storage.columns import CacheFull
from keras_cascade.data.inputs import as_input
from keras_cascade.graph.cutting import Cut, find_cut
from keras_cascade.graph.program import Port, Program, as_program
from keras_cascade.graph.program_model import MASK_SUFFIX, ProgramModel

# Every layer that is found to be random moves the cut; there is an end to it.
_ATTEMPTS = 20


class NothingToCacheError(Exception):
    """No layer is frozen and the same each time, as far as the inputs go."""

    def __init__(self, cut: Cut):
        self.blocked = cut.blocked
        super().__init__(f"{cut.why_nothing()}.")


@dataclass(frozen=True)
class Entry:
    """One tensor that is kept of each sample.

    Attributes:
        name: What the parts call it.
        key: What computes it.
        shape: Of a sample.
        dtype: In the cascade.
        inputs: The inputs of the cascade that it depends on.
    """

    name: str
    key: str
    shape: tuple[int, ...]
    dtype: str
    inputs: tuple[str, ...]

    @property
    def description(self) -> dict[str, Any]:
        """What it is, for people who look into a folder."""
        return {"tensor": self.name, "inputs": list(self.inputs)}

    def key_as(self, dtype: str) -> str:
        """The key of what is kept of it, with floats in a dtype."""
        return digest_of(self.key, str(dtype))


class FrozenPart:
    """What computes the features at a cut.

    Args:
        cut: Where the cascade is cut.
        function: The frozen part, compiled.
        keys: What computes each of its outputs.
        entries: What it gives.
        barred: What is frozen and not the same each time: name to reason.
    """

    def __init__(
        self,
        cut: Cut,
        function: Compiled,
        keys: Mapping[str, str],
        entries: Sequence[Entry],
        barred: Mapping[str, str],
    ):
        self.cut, self.entries = cut, tuple(entries)
        self.keys, self.barred = dict(keys), dict(barred)
        self._function = function

    @property
    def ports(self) -> dict[str, Any]:
        """The inputs that it takes, by name."""
        return {port.name: port for port in self.cut.frozen.inputs}

    @property
    def carried(self) -> list[str]:
        """The inputs that the trainable part takes as they are."""
        return [x.name for x in self.cut.borders if x.is_input]

    def weights(self) -> str:
        """The content of its weights, as they are now."""
        steps = self.cut.frozen.steps
        return weights_content([step.operation for step in steps])

    def cut_anew(self, cut: Cut) -> "FrozenPart":
        """The same part, where other layers train behind the same cut."""
        return FrozenPart(
            cut, self._function, self.keys, self.entries, self.barred
        )

    def compute(self, inputs: Arrays, size: int) -> Arrays:
        """The features of some rows.

        Args:
            inputs: The rows, by input.
            size: How many the function takes at once; rows are made up to it.
        """
        rows = len(next(iter(inputs.values())))
        padded = {
            name: _padded(_as_input(x, self.ports[name]), size)
            for name, x in inputs.items()
        }
        return {k: x[:rows] for k, x in self._function(padded).items()}


def frozen_part(
    cascade: keras.Model,
    first: Arrays,
    store: Any,
    known: FrozenPart | None = None,
) -> FrozenPart:
    """Finds the cut, and that what lies before it is the same each time.

    Args:
        cascade: The cascade, with the flags that count.
        first: A batch, by input.
        store: Where features are kept: what was found once holds.
        known: A part that was found before; it is given again where it holds.

    Raises:
        NothingToCacheError: If no layer is left before the cut.
    """
    program = as_program(cascade)
    barred = {} if known is None else dict(known.barred)
    for _ in range(_ATTEMPTS):
        cut = find_cut(program, barred)
        if not cut.frozen.steps:
            raise NothingToCacheError(cut)
        keys = {n: tensor_key(cut.frozen, n) for n in cut.frozen.outputs}
        if known is not None and known.keys == keys:
            return known.cut_anew(cut)
        strategy = getattr(cascade, "distribute_strategy", None)
        function = Compiled(ProgramModel(cut.frozen), strategy)
        part, found = _checked(cut, function, keys, first, store, barred)
        if not found:
            return part
        barred |= found
    raise NothingToCacheError(cut)


def _checked(
    cut: Cut,
    function: Compiled,
    keys: Mapping[str, str],
    first: Arrays,
    store: Any,
    barred: Mapping[str, str],
) -> tuple[FrozenPart, dict[str, str]]:
    """The part, and the steps in it that are not the same each time."""
    ports = {port.name: port for port in cut.frozen.inputs}
    inputs = {n: _as_input(first[n], port) for n, port in ports.items()}
    shapes = {name: list(x.shape[1:]) for name, x in inputs.items()}
    name = f"parts/{digest_of(keys, shapes)}"
    known, found = store.load_json(name), {}
    if known is None:
        given, found = probe(function, cut.frozen, inputs)
        known = {n: [list(x.shape[1:]), str(x.dtype)] for n, x in given.items()}
        if not found:
            # Where a note has no room, features have none: that is said there.
            with contextlib.suppress(CacheFull):
                store.save_json(name, known)
    entries = [_entry(cut.frozen, keys, n, *kind) for n, kind in known.items()]
    return FrozenPart(cut, function, keys, entries, barred), found


def _entry(
    program: Program, keys: Mapping, name: str, shape: list, dtype: str
) -> Entry:
    tensor = name.removesuffix(MASK_SUFFIX)
    kind = "mask" if name != tensor else "values"
    return Entry(
        name,
        digest_of(keys[tensor], kind, shape),
        tuple(shape),
        dtype,
        tuple(port.name for port in program.pruned([tensor]).inputs),
    )


def _as_input(x: np.ndarray, port: Port) -> np.ndarray:
    return as_input(x, port.shape, port.dtype)


def _padded(array: np.ndarray, size: int) -> np.ndarray:
    """More rows, so that no second function is compiled."""
    missing = size - len(array)
    if missing <= 0:
        return array
    return np.concatenate([array, np.repeat(array[:1], missing, axis=0)])
