"""Builds a cascade. Read this first.

1. `planning.arguments.Arguments` collects the arguments as they were given.
2. `planning.plan.make_plan` checks them and settles everything: networks,
   taps, inputs, adapters, and the layers that features enter.
3. `assembly.assemble.assemble` builds one graph of blocks: preprocessing,
   upstreams, adapters, fusion, downstream, head.
4. `cascade.Cascade` is the model: it sets what trains, and how fast, and
   compiles.
"""

from collections.abc import Mapping
from typing import Any

from keras_cascade.cascade.cascade import Cascade
from keras_cascade.graph.taps import Taps
from keras_cascade.planning.arguments import Arguments, Network
from keras_cascade.training.lora import LoRA
from keras_cascade.training.retention import Retention


def build_cascade(
    upstream: Network | Mapping[str, Network],
    downstream: Network | None = None,
    *,
    taps: Taps = None,
    adapters: object = "auto",
    fusion: object = "concat",
    inject: Mapping[str, Any] | None = None,
    inputs: Mapping[str, Any] | None = None,
    extra_inputs: Mapping[str, Any] | None = None,
    downstream_input: str | None = None,
    head: object = None,
    preprocess: object = "auto",
    trainable: bool | Mapping[str, bool | LoRA] | None = None,
    learning_rates: Mapping[str, Any] | None = None,
    retention: Mapping[str, Retention] | None = None,
    optimizer: object = "adam",
    loss: object = None,
    metrics: object = None,
    copy: bool = True,
    name: str = "cascade",
) -> Cascade:
    """Builds one Keras model from pretrained networks.

    Named intermediate outputs of the upstream, the taps, pass through
    adapters and are merged: with side features into the input of the
    downstream, or into its inner layers. All taps come from one forward pass;
    layers that no tap needs are not in the cascade. The upstream is frozen
    unless `trainable` says otherwise, and frozen layers run in inference mode.

    Args:
        upstream: The network whose features are read, or several by their
            names. One object under several names is one network: one block,
            `anchor-positive`, that is called for each, with one set of
            weights; `keras.models.clone_model` makes two. A network is a
            `keras.Model` with a defined input shape, the name of a Keras
            application (`"MobileNetV3Small"`), the path of a `.keras` file,
            a KerasHub preset (`"hub:resnet_18_imagenet"`), or a network of
            timm or transformers (`"timm:resnet18"`, `"hf:user/model"`). A
            PyTorch module becomes one by `from_torch`.
        downstream: The network that receives them; `None` ends the cascade
            after the fusion, or with `head`. Defaults to `None`.
        taps: The outputs that are read: a path, a list of paths, `{tap name:
            path}`, `"stages"` for those that `stages` finds, or `None` for
            every output of the upstream. With several upstreams a path
            begins with the name of one. `list_taps` shows the paths;
            `keras_cascade.graph.paths` has their grammar. Defaults to `None`.
        adapters: The layers after the taps: `"auto"`, `None`, a number of
            units, an adapter or Keras layer (a template, copied for each
            tap), a list in order, or `{tap or extra input: any of these}`,
            where taps left out get `"auto"`. Open widths are settled by the
            shape that the downstream expects. Defaults to `"auto"`.
        fusion: How taps are merged: `"concat"`, `"add"`, `"average"`,
            `"multiply"`, `"maximum"`, a merging layer, or `None`: taps and
            extra inputs feed the downstream's inputs of their names, or are
            the outputs. Defaults to `"concat"`.
        inject: `{tap or extra input: path in the downstream, Injection, or a
            list of these}`: features that are merged into inner layers. An
            injected tap does not join the fusion. Defaults to `None`.
        inputs: `{network: name}` or `{network: {its input: name}}`: the names
            of the cascade's inputs. One name given to several networks is
            shared, images being resized for each. `None` shares inputs of one
            shape. Defaults to `None`.
        extra_inputs: Side features, `{name: shape without batch}` or
            `{name: keras.Input}`, concatenated after the merged taps.
            Defaults to `None`.
        downstream_input: The input of the downstream: `"features"`,
            `"inputs"` (the cascade's own input), or `"both"`: the input joined
            with the features and projected back to its width, at first equal
            to the input.
            `None` is `"inputs"` if every tap is injected, else `"features"`.
            Defaults to `None`.
        head: The layers at the end: a number of classes (Dense and softmax;
            1: sigmoid), a layer, a list of layers that may end in a number,
            or `{output name: any of these}`; under a tap's name it reads
            that tap (an auxiliary loss). Defaults to `None`.
        preprocess: The preprocessing of pixels in [0, 255]: a module
            of `keras.applications` (`"resnet_v2"`), a layer, `None`, or
            `{network: any of these}`. `"auto"` does it for networks that are
            given by name or preset. Defaults to `"auto"`.
        trainable: The layers that train: `None` freezes the upstream; a bool
            sets all; `{path pattern: bool or LoRA}` applies on top of `None`,
            later entries over earlier ones. Defaults to `None`.
        learning_rates: `{path pattern: float or LearningRateSchedule}`; the
            other layers have the optimizer's rate. Defaults to `None`.
        retention: `{path pattern: L2SP, EWC or LwF}`: penalties against
            forgetting. Defaults to `None`.
        optimizer: Name or object, which is copied. Defaults to `"adam"`.
        loss: As in `compile`. `None` leaves compiling to you. Defaults to
            `None`.
        metrics: As in `compile`. Defaults to `None`.
        copy: Whether to work on copies, so that the networks passed in stay
            as they are. Layers that networks share are shared by the copies;
            a downstream that features enter has copies of its own, with a
            warning if an upstream has the same layers. With `False` their own
            layers are used, flags included, under the names that they have.
            Defaults to `True`.
        name: The name of the model. Defaults to `"cascade"`.

    Returns:
        The `Cascade`, compiled if there is a loss.

    Raises:
        ValueError: If arguments do not fit each other; the message says what,
            where, and what is possible.
        TypeError: If an argument has a wrong type.

    Example:
    >>> cascade = kc.build_cascade(
    ...     kc.zoo.load("glyph_encoder"),
    ...     kc.zoo.load("digits_expert"),
    ...     taps={"texture": "stage2_out", "shape": "-1"},
    ...     adapters={"texture": kc.adapters.PCAAdapter(32)},
    ...     extra_inputs={"metadata": (2,)},
    ... )
    """
    # The parameters are the fields of Arguments: a test holds them together.
    return Cascade.from_arguments(Arguments(**locals()))
