"""A mapping of classes as its user writes it, as a matrix of shares.

Tested by `tests/adapters/test_label_map.py`.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from keras_cascade._messages import closest
from keras_cascade.adapters.number_checks import is_finite, is_int

# How many classes there are, or their names; None where it is not said.
Classes = int | Sequence[str] | None
Share = tuple[int, int, float]


@dataclasses.dataclass(frozen=True)
class ClassMapping:
    """The shares of each source class that go to target classes.

    Attributes:
        shares: `(source, target, weight)`, weights above 0; None where they
            are to be learned.
        sources: The source classes, as far as they are known.
        targets: The number of target classes, or their names.
    """

    shares: tuple[Share, ...] | None
    sources: Classes
    targets: int | list[str]

    @classmethod
    def of(
        cls,
        mapping: object,
        source_classes: object,
        target_classes: object,
        where: str,
    ) -> "ClassMapping":
        """Returns the mapping of a user's arguments.

        Args:
            mapping: `{source: target, [targets] or {target: weight}}`, a
                matrix of weights, or None.
            source_classes: The number of source classes, their names, or
                None.
            target_classes: Likewise for the target classes.
            where: The beginning of an error.

        Raises:
            ValueError: If the mapping is empty or negative, names an unknown
                class, or does not fit the numbers of classes; or if nothing
                says how many target classes there are.
        """
        sources = _checked_classes(source_classes, "source_classes", where)
        targets = _checked_classes(target_classes, "target_classes", where)
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
        """The number of target classes."""
        return count(self.targets) or 0

    def weights(self, sources: int, where: str) -> np.ndarray:
        """Returns the weights as a matrix, zero if they are to be learned.

        Args:
            sources: The number of source classes of the input.
            where: The beginning of an error.

        Returns:
            Array `(sources, target classes)`.

        Raises:
            ValueError: If the mapping has other source classes.
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


def class_index(
    given: object, classes: Classes, argument: str, where: str
) -> int:
    """Returns the index of a class that is given by index or by name.

    Raises:
        ValueError: If there is no such class.
    """
    if isinstance(given, str):
        return _index_of_name(given, classes, argument, where)
    if not is_int(given):
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
    """Returns the number of classes, or None where it is unknown."""
    if classes is None or isinstance(classes, int):
        return classes
    return len(classes)


def normalised_rows(weights: np.ndarray, unmapped: str | int) -> np.ndarray:
    """Divides each row by its sum, and fills rows of zeros.

    Args:
        weights: array `(sources, targets)`, not negative.
        unmapped: How rows of zeros are filled: `"renormalize"` leaves them,
            `"spread"` fills them evenly, a target class takes all.
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


def _checked_classes(
    classes: object, argument: str, where: str
) -> int | list[str] | None:
    if classes is None:
        return None
    if is_int(classes) and classes >= 1:
        return int(classes)
    listed: list[object] = []
    if isinstance(classes, Sequence) and not isinstance(classes, str):
        listed += classes
    names = [name for name in listed if isinstance(name, str)]
    if not names or len(names) < len(listed):
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


def _weights(value: object) -> Mapping:
    if isinstance(value, Mapping):
        return value
    if isinstance(value, list | tuple | set | frozenset):
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


def _checked_weight(weight: object, of: str, where: str) -> float:
    if is_finite(weight) and weight >= 0:
        return float(weight)
    raise ValueError(_wrong_weight(weight, of, where))


def _wrong_weight(weight: object, of: str, where: str) -> str:
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
    raise ValueError(
        f"{where}: there is no class '{name}' in `{argument}`."
        f"{closest(name, classes)}"
    )
