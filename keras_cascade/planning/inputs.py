"""Plans the inputs of a cascade: their names, and which networks share one."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import keras

from keras_cascade import _keras_compat as compat
from keras_cascade._reporting.messages import closest, listed
from keras_cascade.graph.graph import Graph
from keras_cascade.graph.names import is_numbered_by_keras
from keras_cascade.graph.tensors import input_like
from keras_cascade.planning.spec import ExtraInput

Tensors = dict[str, keras.KerasTensor]
# Network to what the cascade calls its inputs.
Names = Mapping[str, Mapping[str, str]]


@dataclass(frozen=True, eq=False)
class NetworkInput:
    """An input of a network that the cascade has to feed.

    Attributes:
        network: The block of the network.
        name: The input's name in the network.
        base: Its name in the cascade where no other input has that name:
            `inputs` if the network has one input.
        tensor: A symbolic tensor of its shape and dtype, batch included.
        data_format: The data format of a map.
    """

    network: str
    name: str
    base: str
    tensor: keras.KerasTensor
    data_format: str | None


@dataclass(frozen=True, eq=False)
class CascadeInput:
    """An input of the cascade.

    Attributes:
        name: Its name.
        tensor: A symbolic tensor of its shape and dtype, batch included.
        feeds: The inputs of networks that it feeds.
    """

    name: str
    tensor: keras.KerasTensor
    feeds: tuple[NetworkInput, ...]


def network_inputs(
    graph: Graph, network: str, data_format: str | None
) -> list[NetworkInput]:
    """Returns the inputs of a network, in the order of its flat inputs.

    A single one is called `inputs`; several keep their names, but for those
    that Keras numbered.
    """
    nodes = [graph.sources[id(tensor)][0] for tensor in graph.inputs]
    bases, unnamed = ["inputs"], 1
    if len(nodes) > 1:
        bases, unnamed = [], 0
        for node in nodes:
            bases.append(node.name)
            if is_numbered_by_keras(node.operation):
                bases[-1] = f"inputs_{unnamed}" if unnamed else "inputs"
                unnamed += 1
    return [
        NetworkInput(network, node.name, base, tensor, data_format)
        for node, base, tensor in zip(nodes, bases, graph.inputs, strict=True)
    ]


def declared_order(structure: object) -> list[keras.KerasTensor]:
    """Returns the inputs in a structure in the order in which they stand.

    Keras flattens a dict by its sorted keys.
    """
    if isinstance(structure, Mapping):
        structure = list(structure.values())
    if isinstance(structure, list | tuple):
        return [x for inner in structure for x in declared_order(inner)]
    return [cast(keras.KerasTensor, structure)]


def normalise_inputs(
    inputs: object, known: Mapping[str, Sequence[NetworkInput]]
) -> dict[str, dict[str, str]]:
    """Returns the argument `inputs` as {network: {its input: name}}.

    Raises:
        ValueError: If a network or an input does not exist, one name is given
            to several inputs, or a name is no identifier.
        TypeError: If the argument is no mapping.
    """
    if inputs is None:
        return {}
    if not isinstance(inputs, Mapping):
        raise TypeError(
            "inputs must be a mapping {network: name} or {network: {its "
            f"input: name}}}}; received {inputs!r}."
        )
    for network in inputs:
        if network not in known:
            raise ValueError(
                f"inputs names '{network}', which is no network of the "
                f"cascade.{closest(str(network), known)} There are: "
                f"{listed(known)}."
            )
    return {
        network: _names_of(network, value, known[network])
        for network, value in inputs.items()
    }


def plan_inputs(
    needed: Iterable[NetworkInput], names: Names, taken: Mapping[str, str]
) -> list[CascadeInput]:
    """Returns the inputs of a cascade that feed those of its networks.

    Inputs of one name and one shape are shared. Where names are equal and
    shapes are not, they are called `<network>_<input>`. Names that the user
    gave hold, and a name that is given twice is shared: images of several
    sizes are then taken at the largest, and resized for each network.

    Args:
        needed: The inputs of networks that are to be fed.
        names: The names that the user gave.
        taken: Names that are in use, each with a description of its owner.

    Raises:
        ValueError: If inputs cannot be shared, or a name is taken.
    """
    groups = _grouped(needed, names)
    for name, group in groups.items():
        if name in taken:
            fed = listed(f"{one.network}/{one.name}" for one in group)
            raise ValueError(
                f"The input '{name}' of the cascade, which feeds {fed}, has "
                f"the name of {taken[name]}. Call it otherwise, by "
                f"inputs={{'{group[0].network}': name}}, or rename the other."
            )
    return [
        CascadeInput(name, _common(name, group), tuple(group))
        for name, group in groups.items()
    ]


def make_inputs(inputs: Iterable[CascadeInput]) -> Tensors:
    """Returns the symbolic inputs, by their names."""
    return {x.name: input_like(x.tensor, x.name) for x in inputs}


def side_inputs(extras: Mapping[str, ExtraInput]) -> Tensors:
    """Returns the symbolic extra inputs, by their names."""
    return {
        name: input_like(extra.tensor, name) for name, extra in extras.items()
    }


def packed(inputs: Tensors) -> keras.KerasTensor | Tensors:
    """Returns a single input itself, several by their names."""
    return inputs if len(inputs) > 1 else next(iter(inputs.values()))


def _names_of(
    network: str, value: object, known: Sequence[NetworkInput]
) -> dict[str, str]:
    if isinstance(value, str):
        if len(known) > 1:
            raise ValueError(
                f"inputs['{network}']={value!r} is one name, and the network "
                f"has {len(known)} inputs ({listed(x.name for x in known)}). "
                "Give {its input: name}."
            )
        value = {known[0].name: value}
    if not isinstance(value, Mapping):
        raise TypeError(
            f"inputs['{network}'] must be a name or a mapping {{its input: "
            f"name}}; received {value!r}."
        )
    possible = [x.name for x in known]
    for inner, name in value.items():
        if inner not in possible:
            raise ValueError(
                f"inputs['{network}'] names '{inner}', which is no input of "
                f"it.{closest(str(inner), possible)} There are: "
                f"{listed(possible)}."
            )
        if not isinstance(name, str) or not name.isidentifier():
            raise ValueError(
                f"inputs['{network}']['{inner}'] must be an identifier; "
                f"received {name!r}."
            )
    return dict(value)


def _grouped(
    needed: Iterable[NetworkInput], names: Names
) -> dict[str, list[NetworkInput]]:
    """Returns each input of the cascade with the network inputs it feeds."""
    needed = list(needed)
    by_base: dict[str, list[NetworkInput]] = {}
    for one in needed:
        if _given_name(one, names) is None:
            by_base.setdefault(one.base, []).append(one)
    groups: dict[str, list[NetworkInput]] = {}
    for one in needed:
        name = _given_name(one, names)
        if name is None:
            alike = _agree(by_base[one.base])
            name = one.base if alike else f"{one.network}_{one.base}"
        groups.setdefault(name, []).append(one)
    return groups


def _given_name(one: NetworkInput, names: Names) -> str | None:
    return names.get(one.network, {}).get(one.name)


def _agree(group: Sequence[NetworkInput]) -> bool:
    """Whether one tensor fits all inputs; an open size fits any."""
    tensors = [x.tensor for x in group]
    kinds = {(x.dtype, len(x.shape), x.sparse, x.ragged) for x in tensors}
    if len(kinds) > 1:
        return False
    sizes = zip(*(x.shape for x in tensors), strict=True)
    return all(len({s for s in size if s is not None}) <= 1 for size in sizes)


def _common(name: str, group: Sequence[NetworkInput]) -> keras.KerasTensor:
    """Returns a symbolic tensor that fits all inputs of a group."""
    if len(group) == 1:
        return group[0].tensor
    if _agree(group) or _are_images(group):
        sizes = zip(*(x.tensor.shape for x in group), strict=True)
        shape = [max((s or 0 for s in size), default=0) for size in sizes]
        dtypes = dict.fromkeys(x.tensor.dtype for x in group)
        dtype = next(iter(dtypes)) if len(dtypes) == 1 else "float32"
        tensors = [x.tensor for x in group]
        result: Any = keras.Input(
            batch_shape=[s or None for s in shape],
            dtype=dtype,
            sparse=tensors[0].sparse,
            ragged=tensors[0].ragged,
            optional=all(map(compat.may_be_none, tensors)),
        )
        return result
    shapes = ", ".join(
        f"'{x.network}' {tuple(x.tensor.shape[1:])} {x.tensor.dtype}"
        for x in group
    )
    raise ValueError(
        f"inputs gives one name, '{name}', to inputs that differ: {shapes}. "
        "Images of several sizes and equal channels can; else give each its "
        "own name."
    )


def _are_images(group: Sequence[NetworkInput]) -> bool:
    """Whether inputs are images that differ in height and width only."""
    formats = {x.data_format or keras.config.image_data_format() for x in group}
    if len(formats) > 1 or any(len(x.tensor.shape) != 4 for x in group):
        return False
    axis = 1 if formats == {"channels_first"} else -1
    return len({x.tensor.shape[axis] for x in group}) == 1
