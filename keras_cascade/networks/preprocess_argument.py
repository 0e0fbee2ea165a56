"""Resolves the argument `preprocess` to the layers before each network."""

import warnings
from collections.abc import Mapping, Sequence

import keras

from keras_cascade._keras_compat import input_name
from keras_cascade._reporting.messages import closest, listed
from keras_cascade.networks import presets, torch_presets
from keras_cascade.networks.applications import APPLICATIONS, MODES, recognise
from keras_cascade.networks.preprocessing import (
    MODE_SCALINGS,
    Preprocess,
    Scaling,
    check_module,
)


def resolve_preprocess(
    preprocess: object,
    roles: Sequence[str],
    sources: Mapping[str, object],
    networks: Mapping[str, keras.Model],
) -> dict[str, Preprocess | None]:
    """Returns the preprocessing of each network's images.

    "auto" gives networks that were named by a string the preprocessing that
    they were trained with. A network that was passed as a model may be fed by
    the user already: it gets nothing, and a warning if it is a Keras
    application that expects something.

    Args:
        preprocess: "auto", None, the name of a module of `keras.applications`,
            a layer or a list of layers, or `{network name: any of these}`,
            where networks left out get "auto".
        roles: The names of the networks that read the cascade's own inputs.
        sources: The networks as the user passed them, by name.
        networks: The networks by name.

    Returns:
        The preprocessing of each of `roles`, or None for nothing.

    Raises:
        ValueError: If a name belongs to no network or module, or a network
            cannot have the preprocessing.
        TypeError: If a value is of no such type.
    """
    choices = dict.fromkeys(roles, preprocess)
    if isinstance(preprocess, Mapping):
        _check_names(preprocess, roles, networks)
        choices = {role: preprocess.get(role, "auto") for role in roles}
    return {
        role: _resolve(choice, role, sources[role], networks[role])
        for role, choice in choices.items()
    }


def _check_names(
    preprocess: Mapping[object, object],
    roles: Sequence[str],
    networks: Mapping[str, keras.Model],
) -> None:
    for name, choice in preprocess.items():
        # A rebuild may carry over the choice for a network that reads features
        # now.
        known = choice is None or isinstance(choice, Preprocess)
        if name in roles or (name in networks and known):
            continue
        if name in networks:
            raise ValueError(
                f"preprocess names '{name}', which does not read the cascade's "
                "own inputs but features. Those that do: "
                f"{', '.join(roles)}."
            )
        raise ValueError(
            f"preprocess names {name!r}, which is no network of the cascade."
            f"{closest(str(name), roles)} There are: "
            f"{', '.join(networks)}."
        )


def _resolve(
    choice: object, role: str, source: object, network: keras.Model
) -> Preprocess | None:
    if choice is None or isinstance(choice, Preprocess):
        return choice
    if isinstance(choice, str) and choice == "auto":
        return _automatic(role, source, network)
    if len(network.inputs) != 1:
        inputs = listed(map(input_name, network.inputs))
        raise ValueError(
            f"preprocess of '{role}': '{network.name}' has "
            f"{len(network.inputs)} inputs ({inputs}); what has one input can "
            "have preprocessing. Put the layers into the network, or pass "
            f"preprocess={{'{role}': None}}."
        )
    if isinstance(choice, str):
        return _of_module(choice, role, network)
    return _of_layers(choice, role)


def _automatic(
    role: str, source: object, network: keras.Model
) -> Preprocess | None:
    if isinstance(source, str) and source.startswith(presets.PREFIX):
        scaling = presets.preset_scaling(source, role, network)
        preset = source.removeprefix(presets.PREFIX)
        return scaling and _scaled(preset, scaling, role, network)
    if isinstance(source, str) and source.startswith(torch_presets.PREFIXES):
        scaling = torch_presets.torch_preset_scaling(source, role, network)
        return scaling and _scaled(source, scaling, role, network)
    if isinstance(source, str) and source in APPLICATIONS:
        return _of_module(APPLICATIONS[source][0], role, network)
    found = recognise(network)
    if found is not None and found.needs is not None:
        warnings.warn(
            f"{role} '{network.name}' is a network of keras.applications."
            f"{found.module}, which expects {MODE_SCALINGS[found.needs].text}. "
            f"Pass preprocess={{'{role}': '{found.module}'}} to feed the "
            "cascade pixels in [0, 255], or "
            f"preprocess={{'{role}': None}} if you feed it what the network "
            "was trained on.",
            stacklevel=2,
        )
    return None


def _of_module(name: str, role: str, network: keras.Model) -> Preprocess:
    """Returns the preprocessing of a module, as far as the network lacks it."""
    module = check_module(name, f"preprocess of '{role}'")
    mode = MODES[module]
    recognised = recognise(network)
    if recognised and recognised.module == module and mode is None:
        mode = recognised.needs
    if mode is None:
        return Preprocess(f"{module}: done by its networks themselves")
    return _scaled(module, MODE_SCALINGS[mode], role, network)


def _scaled(
    name: str, scaling: Scaling, role: str, network: keras.Model
) -> Preprocess:
    text = f"{name}: {scaling.text}"
    data_format = keras.config.image_data_format()
    if scaling.by_channel:
        data_format = _data_format(network, f"{role}: {text}")
    return Preprocess(text, tuple(scaling.layers(data_format)))


def _of_layers(choice: object, role: str) -> Preprocess:
    layers: tuple = (
        tuple(choice) if isinstance(choice, list | tuple) else (choice,)
    )
    if layers and all(isinstance(layer, keras.Layer) for layer in layers):
        return Preprocess(", ".join(x.name for x in layers), layers)
    raise TypeError(
        f"preprocess of '{role}' must be 'auto', None, the name of a module of "
        "keras.applications such as 'resnet_v2', a Keras layer or a list of "
        f"them; received {choice!r}."
    )


def _data_format(network: keras.Model, what: str) -> str:
    """Returns the data format of images, by their axis of three channels."""
    usual = keras.config.image_data_format()
    shape = network.inputs[0].shape
    axes = {"channels_last": 3, "channels_first": 1}
    fitting = [
        data_format
        for data_format, axis in axes.items()
        if len(shape) == 4 and shape[axis] == 3
    ]
    if not fitting:
        raise ValueError(
            f"{what} is for images of three channels; '{network.name}' takes "
            f"shape {tuple(shape)}."
        )
    return usual if usual in fitting else fitting[0]
