"""Chooses which inputs and outputs of a LiteRT file are integers.

Inputs that are integers in the model, such as ids, stay as they are. Pixels
have a scale of one: the bytes of a camera are the values of the model.
"""

from collections.abc import Iterable, Mapping

import keras
import numpy as np

from keras_cascade._reporting.messages import listed
from keras_cascade.exporting.options import DTYPES
from keras_cascade.exporting.samples import Samples
from keras_cascade.graph.graph import Reference
from keras_cascade.graph.program import Port, Program

# Fractions are pixels if an image has values above this one. In a network that
# scales bytes, dark images are pixels too.
_BRIGHT, _LEAST = 16, 2
_LARGEST_SCALE = 1 / 50
# Types are compared: a subclass may compute something else.
_MOVE_PIXELS = (
    keras.layers.CenterCrop,
    keras.layers.Flatten,
    keras.layers.Identity,
    keras.layers.Permute,
    keras.layers.Reshape,
    keras.layers.Resizing,
    keras.layers.ZeroPadding2D,
)


def integer_types(
    name: str, given: str | Mapping[str, str], dtypes: Mapping[str, str]
) -> dict[str, str]:
    """Returns the inputs or outputs that become integers, and their dtypes.

    Args:
        name: The argument, `input_dtype` or `output_dtype`.
        given: A dtype for all floating ones, or a mapping from names.
        dtypes: Name to dtype in the model.

    Raises:
        ValueError: A name is unknown, or an integer would change its dtype.
    """
    floating = [key for key, dtype in dtypes.items() if "float" in dtype]
    if isinstance(given, Mapping):
        for key, dtype in given.items():
            _check_entry(name, key, dtype, dtypes)
        given = {key: given[key] for key in floating if key in given}
    elif given == "float32":
        return {}
    elif not floating:
        raise ValueError(
            f"{name}={given!r}: {listed(dtypes)} are integers already, and "
            f"stay as they are. Leave {name} out."
        )
    else:
        given = dict.fromkeys(floating, given)
    return {key: x for key, x in given.items() if x != "float32"}


def _check_entry(
    name: str, key: str, dtype: str, dtypes: Mapping[str, str]
) -> None:
    side = name.removesuffix("_dtype")
    if key not in dtypes:
        raise ValueError(
            f"{name}: there is no {side} {key!r}. There are: {listed(dtypes)}."
        )
    if "float" in dtypes[key]:
        possible: tuple[str, ...] = DTYPES
    else:
        possible = (dtypes[key],)
    if dtype not in possible:
        raise ValueError(
            f"{name}: {side} '{key}' is {dtypes[key]} in the model. In the "
            f"file it can be {listed(possible)}; received {dtype!r}."
        )


def pixel_inputs(
    program: Program, samples: Samples, names: Iterable[str]
) -> tuple[str, ...]:
    """Returns those of some inputs that take pixels from 0 to 255.

    They are recognised by the samples: whole numbers, images, or values of a
    network that begins with scaling bytes.
    """
    ports = [port for port in program.inputs if port.name in set(names)]
    return tuple(x.name for x in ports if _takes_pixels(x, program, samples))


def _takes_pixels(port: Port, program: Program, samples: Samples) -> bool:
    batches = [batch[port.name] for batch in samples]
    least = min(float(x.min()) for x in batches)
    most = max(float(x.max()) for x in batches)
    if least < 0 or most > 255 or most <= _LEAST:
        return False
    if _is_scaled(program, port.reference):
        return True
    is_whole = all(np.array_equal(x, np.floor(x)) for x in batches)
    has_colours = port.shape[-1] in (1, 3, 4) or port.shape[1] in (1, 3)
    is_image = len(port.shape) >= 4 and has_colours
    return most > _BRIGHT and (is_whole or is_image)


def _is_scaled(program: Program, reference: Reference) -> bool:
    """Whether the network scales bytes down to about one."""
    steps = program.data_consumers.get(reference, [])
    scalings = [
        x.operation
        for x in steps
        if type(x.operation) is keras.layers.Rescaling
    ]
    if scalings:
        largest = max(np.abs(x.scale).max() for x in scalings)
        return bool(0 < largest <= _LARGEST_SCALE)
    moved = [x for x in steps if type(x.operation) in _MOVE_PIXELS]
    return any(_is_scaled(program, x.outputs[0]) for x in moved)
