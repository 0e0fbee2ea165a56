"""Converts a PyTorch module to a native Keras network.

Tested by `tests/networks/pytorch/test_conversion.py`.
"""

from typing import TYPE_CHECKING, Any

import keras

from keras_cascade.networks.pytorch.decomposition import decompose
from keras_cascade.networks.pytorch.interpreter import Interpreter
from keras_cascade.networks.pytorch.outputs import named_results
from keras_cascade.networks.pytorch.preprocessing import (
    Steps,
    preprocessing,
)
from keras_cascade.networks.pytorch.tracing import Example, read_example, trace
from keras_cascade.networks.pytorch.values import (
    Value,
    channels_last,
    in_plain_order,
)
from keras_cascade.networks.pytorch.verification import (
    Converted,
    verify_network,
)

if TYPE_CHECKING:
    import torch
    from torch.export import ExportedProgram


# What an operation is made of may have no rule either, and be made of others.
_ROUNDS = 3


def from_torch(
    module: "torch.nn.Module | ExportedProgram",
    example: object,
    *,
    name: str | None = None,
    data_format: str | None = None,
    preprocess: Any = None,
    verify: bool = True,
) -> keras.Model:
    """Returns a PyTorch module as a Keras network of stock layers.

    The module is traced by torch.export on an example. Each of its operations
    becomes a layer where it has weights or a mode (Dense, convolutions,
    normalization, Embedding, Dropout, LSTM, GRU), else a function of
    `keras.ops`. The network trains, saves and loads in safe mode as any other,
    on every backend, without PyTorch and without this package.

    Layers are called after modules: `layer1.0.conv1` in PyTorch is the layer
    `layer1-0-conv1`, as Keras on PyTorch refuses a "." in names; path patterns
    take either. The output of each module, `layer1`, can be tapped under its
    name, as in torchvision's `create_feature_extractor`.

    Every parameter is a weight: a bare one, such as a class token, is that of
    an `Embedding` of its name. Tied parameters are one weight, a module called
    twice is one layer. Those without gradients arrive frozen. Constants of the
    module are in the network's config, or frozen weights if they are large.

    In evaluation mode, in which the module is traced, PyTorch leaves no trace
    of stochastic depth and of dropout in attention: the network has neither.
    The two biases of an LSTM are one in Keras.

    Args:
        module: The module, which stays as it is, or what torch.export made of
            it.
        example: What the module is called with: a tensor or array with a
            batch axis, of any number of samples; a tuple of those for several
            arguments; a mapping by the arguments' names; or, in place of any
            of them, its shape without the batch, `(3, 224, 224)`, for floats.
            None in a shape leaves that size free.
        name: The network's name. Defaults to the name of the module's class.
        data_format: "channels_last" or "channels_first": how images (floats
            of four axes and more) enter and leave. Defaults to
            `keras.config.image_data_format()`. Inside, channels are last.
        preprocess: What is done with pixels in [0, 255] before the module:
            a layer, or a mapping with "mean" and "std" (of pixels in [0, 1],
            one for each channel), and, to be resized to, "size" (height,
            width). Defaults to nothing: images enter as the module wants them.
        verify: Whether the network is compared with the module, on the
            example repeated to two and to three samples. Defaults to `True`.

    Returns:
        A functional model, with the module's outputs by their names if it
        returns a mapping. What the module returns beside tensors that depend
        on its input is left out.

    Raises:
        TypeError: If `module` or `example` is of another type.
        ValueError: If PyTorch cannot trace the module; if an operation has no
            rule, nor one for the simpler ones that PyTorch makes of it, all
            of which are named, with their modules; or if the network differs
            from the module by more than 1e-3 of the spread of its outputs.

    Example:
        >>> module = torch.nn.Sequential(
        ...     torch.nn.Conv2d(3, 8, 3), torch.nn.ReLU()
        ... )
        >>> network = kc.from_torch(module, (3, 32, 32))
        >>> network.output_shape
        (None, 30, 30, 8)
    """
    _check(module, name, data_format)
    given = read_example(example)
    steps = preprocessing(preprocess, data_format)
    converted = convert(
        module, given, name=name, data_format=data_format, preprocess=steps
    )
    if verify:
        verify_network(converted, module, given)
    return converted.network


def _check(module: object, name: object, data_format: object) -> None:
    import torch

    if not isinstance(module, torch.nn.Module | torch.export.ExportedProgram):
        raise TypeError(
            "module must be a torch.nn.Module, or what torch.export makes of "
            f"one; received {module!r} of type {type(module).__name__}."
        )
    if name is not None and (not isinstance(name, str) or "/" in name):
        raise ValueError(
            f"name must be a string without '/'; received {name!r}."
        )
    if data_format not in (None, "channels_last", "channels_first"):
        raise ValueError(
            "data_format must be 'channels_last' or 'channels_first'; "
            f"received {data_format!r}."
        )


def convert(
    module: Any,
    example: Example,
    *,
    name: str | None = None,
    data_format: str | None = None,
    preprocess: Steps | None = None,
) -> Converted:
    """Returns the network, and what of it stands for what of the module."""
    import torch

    program = (
        module
        if isinstance(module, torch.export.ExportedProgram)
        else trace(module, example)
    )
    data_format = data_format or keras.config.image_data_format()
    channels_first = data_format == "channels_first"
    interpreter = Interpreter(program, channels_first, preprocess)
    for _ in range(_ROUNDS):
        if not (unknown := interpreter.unknown()):
            break
        program = decompose(program, unknown)
        interpreter = Interpreter(program, channels_first, preprocess)
    named, are_named = named_results(program, interpreter.run())
    builder = interpreter.builder
    if preprocess and not any(x.rank > 3 for x in builder.inputs.values()):
        raise ValueError(
            "preprocess is for images, and the module takes none: no argument "
            "has floats of four axes."
        )
    outputs = {
        k: _output(builder.for_each_sample(value), channels_first)
        for k, value in named.items()
    }
    network = keras.Model(
        _one_or_all(builder.entries),
        _structure(outputs, are_named),
        name=name or type(module).__name__.lower(),
    )
    for weight in builder.weights:
        weight.load()
    inputs = list(builder.inputs.values())
    return Converted(network, builder.weights, inputs, outputs)


def _output(value: Value, channels_first: bool) -> Value:
    """Returns an output: a map in Keras's data format, else PyTorch's axes."""
    is_map = value.order == channels_last(value.rank) and value.rank > 3
    return value if is_map and not channels_first else in_plain_order(value)


def _one_or_all(named: dict[str, keras.KerasTensor]) -> Any:
    return named if len(named) > 1 else next(iter(named.values()))


def _structure(outputs: dict[str, Value], are_named: bool) -> Any:
    """Returns a dict if the module names its outputs, else one or a list."""
    tensors = {k: value.tensor for k, value in outputs.items()}
    if are_named:
        return tensors
    return list(tensors.values()) if len(tensors) > 1 else tensors.popitem()[1]
