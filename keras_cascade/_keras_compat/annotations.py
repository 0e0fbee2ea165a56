"""Names for the types that Keras takes and returns without annotations."""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import keras

Shape = tuple[int | None, ...]
DType = str | keras.DTypePolicy | None
Activation = str | Mapping[str, Any] | Callable[..., Any] | None
Initializer = (
    str
    | Mapping[str, Any]
    | keras.initializers.Initializer
    | Callable[..., Any]
    | None
)
Regularizer = str | Mapping[str, Any] | keras.regularizers.Regularizer | None
Constraint = str | Mapping[str, Any] | keras.constraints.Constraint | None


@runtime_checkable
class Tensor(Protocol):
    """A tensor of the backend, a symbolic one, a variable or an array.

    Keras's operations take any of these, and have no common class for them.
    """

    @property
    def shape(self) -> Any:
        """The size of each axis, the batch first; None where unknown."""
        ...

    @property
    def dtype(self) -> Any:
        """The type of the elements."""
        ...

    def __getitem__(self, key: Any, /) -> Any: ...
