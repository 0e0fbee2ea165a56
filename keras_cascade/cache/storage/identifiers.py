"""An index from the hashes of samples to the positions of their rows."""

import numpy as np

IDS = np.dtype("V16")
# NumPy sorts and searches arrays of bytes, void ones slowly if at all. It
# ignores zeros at their end, which is no loss: all have one length.
_KEYS = np.dtype("S16")
# Fewer new rows than this, or than an eighth of all, wait in a dict: merging
# costs as much as everything that is there.
_FEW = 4096


class IdentifierIndex:
    """Finds rows by identifiers: 24 bytes a row, no Python object each."""

    def __init__(self):
        # In one attribute, so that an interrupt finds both or neither.
        self._sorted = np.empty(0, _KEYS), np.empty(0, np.int64)
        self._recent: dict[bytes, int] = {}

    def find(self, ids: np.ndarray) -> np.ndarray:
        """Returns the position of each identifier, as int64; -1 without one."""
        keys = _as_keys(ids)
        found = self._search(keys)
        if self._recent:
            for place in np.flatnonzero(found < 0):
                found[place] = self._recent.get(bytes(keys[place]), -1)
        return found

    def unknown(self, ids: np.ndarray) -> np.ndarray:
        """Returns the places of new identifiers; of equal ones the first."""
        _, first = np.unique(_as_keys(ids), return_index=True)
        first.sort()
        return first[self.find(ids[first]) < 0]

    def add(self, ids: np.ndarray, position: int) -> None:
        """Adds rows from a position on. Known identifiers keep their row."""
        keys = _as_keys(ids)
        positions = np.arange(position, position + len(keys))
        waiting = len(self._recent) + len(keys)
        if waiting > max(_FEW, len(self._sorted[0]) // 8):
            self._merge_recent()
            self._merge(keys, positions)
            return
        new = self.find(ids) < 0
        for key, place in zip(
            keys[new].tolist(), positions[new].tolist(), strict=True
        ):
            self._recent.setdefault(key, place)

    def truncate(self, rows: int) -> None:
        """Forgets all rows from a position on."""
        self._merge_recent()
        keys, positions = self._sorted
        kept = positions < rows
        self._sorted = keys[kept], positions[kept]

    def _search(self, keys: np.ndarray) -> np.ndarray:
        found = np.full(len(keys), -1, np.int64)
        known, positions = self._sorted
        if len(known):
            places = np.searchsorted(known, keys)
            places[places == len(known)] = 0
            same = known[places] == keys
            found[same] = positions[places[same]]
        return found

    def _merge_recent(self) -> None:
        keys = np.array(list(self._recent.keys()), _KEYS)
        positions = np.array(list(self._recent.values()), np.int64)
        self._recent = {}
        self._merge(keys, positions)

    def _merge(self, keys: np.ndarray, positions: np.ndarray) -> None:
        keys = np.concatenate([self._sorted[0], keys])
        positions = np.concatenate([self._sorted[1], positions])
        # Of equal keys a stable order keeps the earlier one first.
        order = np.argsort(keys, kind="stable")
        keys, positions = keys[order], positions[order]
        first = np.append(True, keys[1:] != keys[:-1])[: len(keys)]
        self._sorted = keys[first], positions[first]


def _as_keys(ids: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(ids).view(_KEYS)
