"""Which sample lies in which row, by the digest of its content."""

import numpy as np

IDS = np.dtype("V16")
# Arrays of bytes are sorted and searched by NumPy, void ones slowly if at all.
# Their zeros at the end do not count, which is no loss: all have one length.
_KEYS = np.dtype("S16")
# Below this, and below an eighth of all, what is new waits in a dict: merging
# costs as much as everything that is there.
_FEW = 4096


class IdentifierIndex:
    """Finds rows by identifiers: 24 bytes a row, no Python object each."""

    def __init__(self):
        # In one attribute, so that an interrupt finds both or neither.
        self._settled = np.empty(0, _KEYS), np.empty(0, np.int64)
        self._recent: dict[bytes, int] = {}

    def find(self, ids: np.ndarray) -> np.ndarray:
        """The row of each identifier.

        Args:
            ids: Identifiers, of dtype `IDS`.

        Returns:
            Their positions, as int64; -1 for those that are not there.
        """
        keys = _as_keys(ids)
        found = self._find_settled(keys)
        if self._recent:
            for place in np.flatnonzero(found < 0):
                found[place] = self._recent.get(bytes(keys[place]), -1)
        return found

    def unknown(self, ids: np.ndarray) -> np.ndarray:
        """Places in `ids` of what is not there, of equal ones the first.

        Args:
            ids: Identifiers, of dtype `IDS`.

        Returns:
            Places, as int64, in ascending order.
        """
        _, first = np.unique(_as_keys(ids), return_index=True)
        first.sort()
        return first[self.find(ids[first]) < 0]

    def add(self, ids: np.ndarray, position: int) -> None:
        """Takes up rows. An identifier that is there keeps its first row.

        Args:
            ids: Identifiers of consecutive rows, of dtype `IDS`.
            position: The first one's position.
        """
        keys = _as_keys(ids)
        positions = np.arange(position, position + len(keys))
        waiting = len(self._recent) + len(keys)
        if waiting > max(_FEW, len(self._settled[0]) // 8):
            self._settle()
            self._merge(keys, positions)
            return
        new = self.find(ids) < 0
        for key, place in zip(
            keys[new].tolist(), positions[new].tolist(), strict=True
        ):
            self._recent.setdefault(key, place)

    def clip(self, rows: int) -> None:
        """Forgets all rows from a position on.

        Args:
            rows: How many rows stay.
        """
        self._settle()
        keys, positions = self._settled
        kept = positions < rows
        self._settled = keys[kept], positions[kept]

    def _find_settled(self, keys: np.ndarray) -> np.ndarray:
        found = np.full(len(keys), -1, np.int64)
        settled, positions = self._settled
        if len(settled):
            places = np.searchsorted(settled, keys)
            places[places == len(settled)] = 0
            same = settled[places] == keys
            found[same] = positions[places[same]]
        return found

    def _settle(self) -> None:
        keys = np.array(list(self._recent.keys()), _KEYS)
        positions = np.array(list(self._recent.values()), np.int64)
        self._recent = {}
        self._merge(keys, positions)

    def _merge(self, keys: np.ndarray, positions: np.ndarray) -> None:
        keys = np.concatenate([self._settled[0], keys])
        positions = np.concatenate([self._settled[1], positions])
        # Of equal keys a stable order keeps the earlier one in front.
        order = np.argsort(keys, kind="stable")
        keys, positions = keys[order], positions[order]
        first = np.append(True, keys[1:] != keys[:-1])[: len(keys)]
        self._settled = keys[first], positions[first]


def _as_keys(ids: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(ids).view(_KEYS)
