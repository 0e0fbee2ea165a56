"""Pads images of open sizes as torch's tracing can follow.

With strides, Keras's `padding="same"` takes another way for odd sizes than for
even ones. A file would only know the way of the size that was traced.
"""

from collections.abc import Callable, Sequence
from typing import Any

from keras_cascade.exporting.formats.errors import ConversionError


def same_padding(
    original: Callable,
    inputs: Any,
    kernel_size: Sequence[int],
    strides: Sequence[int],
    data_format: str,
    operation_type: str,
    dilation_rate: int | Sequence[int] = 1,
) -> tuple[Any, Any]:
    """Returns padded inputs, and the padding that is left to do."""
    import torch

    sizes, count = inputs.shape[2:], len(kernel_size)
    if max(strides) == 1 or not _is_open(inputs):
        return original(
            inputs,
            kernel_size,
            strides,
            data_format,
            operation_type,
            dilation_rate,
        )
    is_one = isinstance(dilation_rate, int)
    rates = [dilation_rate] * count if is_one else list(dilation_rate)
    amounts: list[Any] = []
    for size, kernel, stride, rate in zip(
        sizes, kernel_size, strides, rates, strict=True
    ):
        reach = (kernel - 1) * rate
        # As many as the last step needs.
        steps = (size + stride - 1) // stride - 1
        total = torch.sym_max(0, steps * stride + reach + 1 - size)
        amounts = [total // 2, total - total // 2, *amounts]
    # A maximum never is the padding.
    value = 0.0 if operation_type == "conv" else float("-inf")
    return torch.nn.functional.pad(inputs, amounts, value=value), 0


def average_pool(
    original: Callable,
    inputs: Any,
    pool_size: Any,
    strides: Any = None,
    padding: str = "valid",
    data_format: str | None = None,
) -> Any:
    """Averages as Keras does, if that is the same for all open sizes.

    Raises:
        ConversionError: It is not.
    """
    given = pool_size if strides is None else strides
    steps = [given] if isinstance(given, int) else given
    if padding == "same" and max(steps) > 1 and _is_open(inputs):
        raise ConversionError(
            "Average pooling with padding='same' and strides of more than one "
            "counts the edges of images of odd and even sizes differently on "
            "torch, which a file cannot. Give inputs fixed sizes, or use "
            "padding='valid'."
        )
    return original(inputs, pool_size, strides, padding, data_format)


def _is_open(inputs: Any) -> bool:
    # Channels and batch may be anywhere; the batch is always open.
    return not all(isinstance(size, int) for size in inputs.shape[1:])
