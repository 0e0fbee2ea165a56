"""A mapping of classes as its user writes it, as a matrix of shares.

Errors do not name the adapter: the adapter adds its name to them.

Tested by `tests/adapters/test_label_map.py`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_cascade._reporting.messages import closest
from keras_cascade.adapters.learning import is_finite, is_int

# The number of classes, or their names; None where it is unknown.
Classes = int | Sequence[str] | None
Share = tuple[int, int, float]


@dataclass(frozen=True)
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
        cls, mapping: object, source_classes: object, target_classes: object
    ) -> "ClassMapping":
        """Returns the mapping of the arguments of `LabelMapAdapter`."""
        sources = _checked_classes(source_classes, "source_classes")
        targets = _checked_classes(target_classes, "target_classes")
        if mapping is None:
            if targets is None:
                raise ValueError(
                    "to learn a mapping, it must know how many target classes "
                    "there are: LabelMapAdapter(target_classes=10)."
                )
            return cls(None, sources, targets)
        if isinstance(mapping, Mapping):
            found = list(_shares_of_dict(mapping, sources, targets))
            highest = max((target for _, target, _ in found), default=0)
            shape = (sources, highest + 1)
        else:
            matrix = _checked_matrix(mapping, (count(sources), count(targets)))
            found = list(_shares_of_matrix(matrix))
            shape = matrix.shape
        shares = tuple(share for share in found if share[2] > 0)
        if not shares:
            raise ValueError(
                "the mapping is empty, it maps no source class. Give {source: "
                "target}, a matrix of weights, or None to learn it."
            )
        sources = shape[0] if sources is None else sources
        return cls(shares, sources, shape[1] if targets is None else targets)

    @property
    def target_count(self) -> int:
        """The number of target classes."""
        return count(self.targets) or 0

    def weights(self, sources: int) -> np.ndarray:
        """Returns the weights `(sources, targets)`, zero if to be learned."""
        known = count(self.sources)
        if known not in (None, sources):
            raise ValueError(
                f"it maps {known} source classes, and its input has {sources}."
            )
        matrix = np.zeros((sources, self.target_count))
        for source, target, weight in self.shares or ():
            if source >= sources:
                raise ValueError(
                    f"the mapping has source class {source}, and the input "
                    f"has {sources} classes, 0 to {sources - 1}."
                )
            matrix[source, target] = weight
        return matrix


def class_index(given: object, classes: Classes, argument: str) -> int:
    """Returns the index of a class, given by index or name; else an error."""
    if isinstance(given, str):
        return _index_of_name(given, classes, argument)
    if not is_int(given):
        raise ValueError(
            f"a class is given by its index or its name, received {given!r}."
        )
    known = count(classes)
    if given < 0 or (known is not None and given >= known):
        possible = "at least 0" if known is None else f"0 to {known - 1}"
        raise ValueError(
            f"the mapping has class {given}, which is not one of "
            f"`{argument}`: their indices are {possible}."
        )
    return int(given)


def count(classes: Classes) -> int | None:
    """Returns the number of classes, or None where it is unknown."""
    if classes is None or isinstance(classes, int):
        return classes
    return len(classes)


def normalised_rows(weights: np.ndarray, unmapped: str | int) -> np.ndarray:
    """Divides each row by its sum, and fills rows of zeros by `unmapped`."""
    sums = weights.sum(axis=1, keepdims=True)
    empty = sums[:, 0] == 0
    rows = weights / np.where(sums == 0, 1.0, sums)
    if unmapped == "spread":
        rows[empty] = 1 / weights.shape[1]
    elif isinstance(unmapped, int):
        rows[empty, unmapped] = 1.0
    return rows


def _checked_classes(classes: object, argument: str) -> Any:
    """Returns the number of classes, their names as a list, or None."""
    if classes is None:
        return None
    if is_int(classes) and classes >= 1:
        return int(classes)
    names: list[Any] = []
    if isinstance(classes, Sequence) and not isinstance(classes, str):
        names += classes
    if not names or not all(isinstance(name, str) for name in names):
        raise ValueError(
            f"`{argument}` is a positive int or a list of names, received "
            f"{classes!r}."
        )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"`{argument}` has {twice} twice.")
    return names


def _shares_of_dict(
    mapping: Mapping, sources: Classes, targets: Classes
) -> Iterator[Share]:
    seen: dict[int, Any] = {}
    for given, value in mapping.items():
        source = class_index(given, sources, "source_classes")
        if source in seen:
            raise ValueError(
                f"the mapping has source class {source} twice, as "
                f"{seen[source]!r} and as {given!r}."
            )
        seen[source] = given
        for target, weight in _weights(value).items():
            if not is_finite(weight) or weight < 0:
                raise _wrong_weight(weight, f"of {given!r} for {target!r}")
            index = class_index(target, targets, "target_classes")
            yield source, index, float(weight)


def _weights(value: object) -> Mapping:
    if isinstance(value, Mapping):
        return value
    if isinstance(value, list | tuple | set | frozenset):
        return dict.fromkeys(value, 1.0)
    return {value: 1.0}


def _checked_matrix(
    mapping: Any, known: tuple[int | None, int | None]
) -> np.ndarray:
    try:
        matrix = np.asarray(mapping, dtype="float64")
    except (TypeError, ValueError) as error:
        raise ValueError(
            "a mapping is a dict of source to target classes, or a matrix of "
            f"weights; received {mapping!r}."
        ) from error
    if matrix.ndim != 2 or any(
        size not in (None, found)
        for size, found in zip(known, matrix.shape, strict=True)
    ):
        shown = ", ".join("any" if n is None else str(n) for n in known)
        raise ValueError(
            "the matrix of a mapping has the shape (source classes, target "
            f"classes), here ({shown}); received {matrix.shape}."
        )
    return matrix


def _shares_of_matrix(matrix: np.ndarray) -> Iterator[Share]:
    wrong = np.argwhere(~(np.isfinite(matrix) & (matrix >= 0))).tolist()
    if wrong:
        place = tuple(wrong[0])
        raise _wrong_weight(float(matrix[place]), f"at {place}")
    sources, targets = np.nonzero(matrix)
    columns = (sources, targets, matrix[sources, targets])
    return zip(*(column.tolist() for column in columns), strict=True)


def _wrong_weight(weight: object, of: str) -> ValueError:
    return ValueError(
        "weights of a mapping are finite and not negative, the one "
        f"{of} is {weight!r}."
    )


def _index_of_name(name: str, classes: Classes, argument: str) -> int:
    if classes is None or isinstance(classes, int):
        raise ValueError(
            f"the mapping names the class '{name}', and the classes have no "
            f"names: give them in their order, {argument}=[...]."
        )
    if name in classes:
        return list(classes).index(name)
    raise ValueError(
        f"there is no class '{name}' in `{argument}`.{closest(name, classes)}"
    )
