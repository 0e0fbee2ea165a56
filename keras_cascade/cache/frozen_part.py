"""The frozen part of a cascade, ready to compute features.

Tested by `tests/cache/test_staleness.py` and `tests/cache/test_refusing.py`.
"""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeGuard

import numpy as np

from keras_cascade._cascade_view import CascadeView, as_model
from keras_cascade.cache.compiled import Arrays, CompiledModel
from keras_cascade.cache.contents.operations import note_written, states_of
from keras_cascade.cache.determinism import find_nondeterministic
from keras_cascade.cache.fingerprint import (
    digest_of,
    state_digest,
    tensor_key,
    unknown_contents,
)
from keras_cascade.cache.storage.columns import CacheFull, is_kind
from keras_cascade.cache.storage.stores import Store
from keras_cascade.data.inputs import as_input
from keras_cascade.graph.cutting import Cut, find_cut
from keras_cascade.graph.flattening import as_program
from keras_cascade.graph.program import Port, Program
from keras_cascade.graph.program_model import MASK_SUFFIX, ProgramModel

# Each layer that is found to be random moves the cut; this ends the search.
_ATTEMPTS = 20


class NothingToCacheError(Exception):
    """No layer that follows on the inputs is frozen and deterministic."""

    def __init__(self, cut: Cut):
        self.blocked = cut.blocked
        super().__init__(f"{cut.why_nothing()}.")


@dataclass(frozen=True)
class CachedTensor:
    """A tensor that is stored for each sample.

    Attributes:
        name: Its name as an output of the frozen part.
        key: The hash of the operations that compute it.
        shape: The shape of a sample.
        dtype: The dtype in the cascade.
        inputs: The names of the inputs that it is computed from.
    """

    name: str
    key: str
    shape: tuple[int, ...]
    dtype: str
    inputs: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class FrozenPart:
    """The part of a cascade whose outputs are the features.

    Attributes:
        cut: The cascade in its two parts.
        function: The frozen part, compiled.
        keys: The hash of what computes each of its outputs, by name.
        tensors: The tensors to store.
        excluded: The frozen steps that are not deterministic: name to reason.
        unknown: The frozen steps whose features serve this process alone:
            name to reason.
    """

    cut: Cut
    function: CompiledModel
    keys: Mapping[str, str]
    tensors: tuple[CachedTensor, ...]
    excluded: Mapping[str, str]
    unknown: Mapping[str, str]

    @property
    def ports(self) -> dict[str, Port]:
        """The inputs that it takes, by name."""
        return {port.name: port for port in self.cut.frozen.inputs}

    @property
    def is_open(self) -> bool:
        """Whether the shapes of what is stored depend on the samples."""
        return any(None in border.shape[1:] for border in self.cut.borders)

    @property
    def passed_on(self) -> list[str]:
        """The inputs that the trainable part takes unchanged."""
        return [x.name for x in self.cut.borders if x.is_input]

    def state_digest(self) -> str:
        """Returns the hash of its weights and of its code, as they are now."""
        return state_digest([x.operation for x in self.cut.frozen.steps])

    def compute(self, inputs: Arrays, size: int) -> Arrays:
        """Returns the features of some rows, filled up to a number of rows."""
        rows = len(next(iter(inputs.values())))
        filled = {
            name: _filled_up(_as_input(x, self.ports[name]), size)
            for name, x in inputs.items()
        }
        return {k: x[:rows] for k, x in self.function(filled).items()}


def find_frozen_part(
    cascade: CascadeView,
    first: Arrays,
    store: Store,
    known: FrozenPart | None = None,
    key: str | None = None,
) -> FrozenPart:
    """Finds the cut, and checks that the part before it is deterministic.

    Args:
        cascade: The cascade.
        first: A batch, by input.
        store: The store of features, which remembers what was checked.
        known: An earlier part, whose function is used again if it computes
            the same. Defaults to `None`.
        key: A name by which the user says that compiled code is the same.
            Defaults to `None`.

    Raises:
        NothingToCacheError: No layer is left before the cut.
    """
    program = as_program(as_model(cascade))
    # A layer that was found to be random is not tried again.
    excluded = {} if known is None else dict(known.excluded)
    cut = find_cut(program, excluded)
    for _ in range(_ATTEMPTS):
        if not cut.frozen.steps:
            break
        keys = {n: tensor_key(cut.frozen, n, key) for n in cut.frozen.outputs}
        # Other layers may train after the same cut.
        if known is not None and known.keys == keys:
            return replace(known, cut=cut)
        strategy = getattr(cascade, "distribute_strategy", None)
        function = CompiledModel(ProgramModel(cut.frozen), strategy)
        tensors, found = _checked(cut.frozen, function, keys, first, store)
        if tensors is None:
            continue
        if not found:
            unknown = unknown_contents(cut.frozen, key)
            return FrozenPart(cut, function, keys, tensors, excluded, unknown)
        excluded |= found
        cut = find_cut(program, excluded)
    raise NothingToCacheError(cut)


def _checked(
    program: Program,
    function: CompiledModel,
    keys: Mapping[str, str],
    first: Arrays,
    store: Store,
) -> tuple[tuple[CachedTensor, ...] | None, dict[str, str]]:
    """Returns the tensors, and the steps that are not deterministic.

    None in place of the tensors if the code changed values that it reads: the
    keys are to be found again without these.
    """
    inputs = {
        port.name: _as_input(first[port.name], port)
        for port in program.inputs
        if port.name in first or not port.optional
    }
    shapes = {name: list(x.shape[1:]) for name, x in inputs.items()}
    # In a folder the check is remembered for other processes too.
    name = f"parts/{digest_of(keys, shapes)}"
    known, found = store.load_json(name), {}
    if not _are_kinds(known, program):
        operations = [step.operation for step in program.steps]
        before = states_of(operations)
        outputs, found = find_nondeterministic(function, program, inputs)
        if not found and note_written(operations, before):
            return None, {}
        known = {
            n: [list(x.shape[1:]), str(x.dtype)] for n, x in outputs.items()
        }
        if not found:
            # Without room for this there is none for features: a later error.
            with contextlib.suppress(CacheFull):
                store.save_json(name, known)
    tensors = [_tensor(program, keys, n, *kind) for n, kind in known.items()]
    return tuple(tensors), found


def _are_kinds(known: object, program: Program) -> TypeGuard[dict[str, list]]:
    """Whether a value is as it was stored: a shape and dtype by output."""
    if not isinstance(known, dict):
        return False
    names = {name.removesuffix(MASK_SUFFIX) for name in known}
    return names == {*program.outputs} and all(
        is_kind(kind) for kind in known.values()
    )


def _tensor(
    program: Program,
    keys: Mapping[str, str],
    name: str,
    shape: list[int],
    dtype: str,
) -> CachedTensor:
    # The mask of a tensor is an output beside it, from the same operations.
    values = name.removesuffix(MASK_SUFFIX)
    kind = "mask" if name != values else "values"
    return CachedTensor(
        name,
        digest_of(keys[values], kind, shape),
        tuple(shape),
        dtype,
        tuple(port.name for port in program.pruned([values]).inputs),
    )


def _as_input(x: np.ndarray, port: Port) -> np.ndarray:
    return as_input(x, port.shape, port.dtype)


def _filled_up(array: np.ndarray, size: int) -> np.ndarray:
    # The function is compiled for one size of batches.
    missing = size - len(array)
    if missing <= 0:
        return array
    return np.concatenate([array, np.repeat(array[:1], missing, axis=0)])
