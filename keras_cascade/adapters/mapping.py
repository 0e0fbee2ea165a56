"""A mapping of classes as its user writes it, as a matrix of shares.

Pure NumPy, apart from any layer.
"""

import dataclasses
import difflib
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

# How many classes there are, or their names; None where it is not said.
Classes = int | Sequence[str] | None
Share = tuple[int, int, float]


@dataclasses.dataclass(frozen=True)
class ClassMapping:
    """Which share of each source class goes to which target class.

    Attributes:
        shares: `(source, target, weight)`, weights above 0; None where they
            are to be learned.
        sources: The source classes, as far as they are known.
        targets: The target classes: how many, or their names.
    """

    shares: tuple[Share, ...] | None
    sources: Classes
    targets: int | list[str]

    @classmethod
    def of(
        cls, mapping: Any, sources: Any, targets: Any, where: str
    ) -> "ClassMapping":
        """Checks what the user passed.

        Args:
            mapping: `{source: target, [targets] or {target: weight}}`, a
                matrix of weights, or None.
            sources: How many source classes there are, their names, or None.
            targets: The same of the target classes.
            where: Beginning of an error's message.

        Raises:
            ValueError: The mapping is empty or negative, names a class that
                there is not, or has not the shape of the classes; or how many
                target classes there are is not said.
        """
        sources = _checked_classes(sources, "source_classes", where)
        targets = _checked_classes(targets, "target_classes", where)
        if mapping is None:
            if targets is None:
                raise ValueError(_UNKNOWN_TARGETS.format(where=where))
            return cls(None, sources, targets)
        if isinstance(mapping, Mapping):
            found = list(_shares_of_dict(mapping, sources, targets, where))
            highest = max((target for _, target, _ in found), default=0)
            shape = (sources, highest + 1)
        else:
            matrix = _checked_matrix(mapping, sources, targets, where)
            found = list(_shares_of_matrix(matrix, where))
            shape = matrix.shape
        sources = shape[0] if sources is None else sources
        targets = shape[1] if targets is None else targets
        return cls(_not_empty(found, where), sources, targets)

    @property
    def target_count(self) -> int:
        """How many target classes there are."""
        return count(self.targets) or 0

    def weights(self, sources: int, where: str) -> np.ndarray:
        """The weights as a matrix, zero where they are to be learned.

        Args:
            sources: How many source classes come in.
            where: Beginning of an error's message.

        Returns:
            Array `(sources, target classes)`.

        Raises:
            ValueError: These are not the source classes of the mapping.
        """
        known = count(self.sources)
        if known not in (None, sources):
            raise ValueError(
                f"{where} maps {known} source classes, and its input has "
                f"{sources}."
            )
        matrix = np.zeros((sources, self.target_count))
        for source, target, weight in self.shares or ():
            if source >= sources:
                raise ValueError(
                    f"{where}: the mapping has source class {source}, and the "
                    f"input has {sources} classes, 0 to {sources - 1}."
                )
            matrix[source, target] = weight
        return matrix


def class_index(given: Any, classes: Classes, argument: str, where: str) -> int:
    """The index of a class that is given by index or by name.

    Raises:
        ValueError: There is no such class.
    """
    if isinstance(given, str):
        return _index_of_name(given, classes, argument, where)
    if not _is_int(given):
        raise ValueError(
            f"{where}: a class is given by its index or its name, received "
            f"{given!r}."
        )
    known = count(classes)
    if given < 0 or (known is not None and given >= known):
        possible = "at least 0" if known is None else f"0 to {known - 1}"
        raise ValueError(
            f"{where}: the mapping has class {given}, which is not one of "
            f"`{argument}`: their indices are {possible}."
        )
    return int(given)


def count(classes: Classes) -> int | None:
    """How many classes there are, where it is said."""
    if classes is None or isinstance(classes, int):
        return classes
    return len(classes)


def normalised_rows(weights: np.ndarray, unmapped: str | int) -> np.ndarray:
    """Each row by its sum; rows of zeros as `unmapped` says.

    Args:
        weights: array `(sources, targets)`, not negative.
        unmapped: `"renormalize"` leaves them, `"spread"` fills them alike, a
            target class takes all.
    """
    sums = weights.sum(axis=1, keepdims=True)
    empty = sums[:, 0] == 0
    rows = weights / np.where(sums == 0, 1.0, sums)
    if unmapped == "spread":
        rows[empty] = 1 / weights.shape[1]
    elif isinstance(unmapped, int):
        rows[empty, unmapped] = 1.0
    return rows


_UNKNOWN_TARGETS = (
    "{where} learns a mapping, and must know how many target classes there "
    "are: LabelMapAdapter(target_classes=10)."
)


def _not_empty(found: list[Share], where: str) -> tuple[Share, ...]:
    shares = tuple(share for share in found if share[2] > 0)
    if not shares:
        raise ValueError(
            f"{where}: the mapping is empty, it maps no source class. Give "
            "{source: target}, a matrix of weights, or None to learn it."
        )
    return shares


def _checked_classes(classes: Any, argument: str, where: str) -> Any:
    """A number of classes, or a list of their names, or None."""
    if classes is None:
        return None
    if _is_int(classes) and classes >= 1:
        return int(classes)
    names = list(classes) if isinstance(classes, Sequence) else []
    right = names and all(isinstance(name, str) for name in names)
    if not right or isinstance(classes, str):
        raise ValueError(
            f"{where}: `{argument}` is a positive int or a list of names, "
            f"received {classes!r}."
        )
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise ValueError(f"{where}: `{argument}` has {twice} twice.")
    return names


def _shares_of_dict(
    mapping: Mapping, sources: Classes, targets: Classes, where: str
) -> Iterator[Share]:
    seen: dict[int, Any] = {}
    for given, value in mapping.items():
        source = class_index(given, sources, "source_classes", where)
        if source in seen:
            raise ValueError(
                f"{where}: the mapping has source class {source} twice, as "
                f"{seen[source]!r} and as {given!r}."
            )
        seen[source] = given
        for target, weight in _weights(value).items():
            index = class_index(target, targets, "target_classes", where)
            of = f"of {given!r} for {target!r}"
            yield source, index, _checked_weight(weight, of, where)


def _weights(value: Any) -> Mapping:
    if isinstance(value, Mapping):
        return value
    if isinstance(value, (list, tuple, set, frozenset)):
        return dict.fromkeys(value, 1.0)
    return {value: 1.0}


def _checked_matrix(
    mapping: Any, sources: Classes, targets: Classes, where: str
) -> np.ndarray:
    try:
        matrix = np.asarray(mapping, dtype="float64")
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"{where}: a mapping is a dict of source to target classes, or a "
            f"matrix of weights; received {mapping!r}."
        ) from error
    known = (count(sources), count(targets))
    right = matrix.ndim == 2 and all(
        size in (None, found)
        for size, found in zip(known, matrix.shape, strict=True)
    )
    if not right:
        shown = ", ".join(
            "any" if size is None else str(size) for size in known
        )
        raise ValueError(
            f"{where}: the matrix of a mapping has the shape (source classes, "
            f"target classes), here ({shown}); received {matrix.shape}."
        )
    return matrix


def _shares_of_matrix(matrix: np.ndarray, where: str) -> Iterator[Share]:
    wrong = np.argwhere(~(np.isfinite(matrix) & (matrix >= 0))).tolist()
    if wrong:
        place = tuple(wrong[0])
        raise ValueError(
            _wrong_weight(float(matrix[place]), f"at {place}", where)
        )
    sources, targets = np.nonzero(matrix)
    weights = matrix[sources, targets]
    return zip(
        sources.tolist(), targets.tolist(), weights.tolist(), strict=True
    )


def _checked_weight(weight: Any, of: str, where: str) -> float:
    number = isinstance(weight, (int, float, np.integer, np.floating))
    if number and math.isfinite(weight) and weight >= 0:
        return float(weight)
    raise ValueError(_wrong_weight(weight, of, where))


def _wrong_weight(weight: Any, of: str, where: str) -> str:
    return (
        f"{where}: weights of a mapping are finite and not negative, the one "
        f"{of} is {weight!r}."
    )


def _index_of_name(
    name: str, classes: Classes, argument: str, where: str
) -> int:
    if classes is None or isinstance(classes, int):
        raise ValueError(
            f"{where}: the mapping names the class '{name}', and the classes "
            f"have no names: give them in their order, {argument}=[...]."
        )
    if name in classes:
        return list(classes).index(name)
    close = difflib.get_close_matches(name, classes, n=3, cutoff=0.0)
    listed = ", ".join(f"'{match}'" for match in close)
    raise ValueError(
        f"{where}: there is no class '{name}' in `{argument}`. Closest: "
        f"{listed}."
    )


def _is_int(value: Any) -> bool:
    # A bool is an int, but a class of True is a mistake.
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
