"""The Cascade: shows, saves and rebuilds itself; delegates the rest."""

from typing import Any

import keras

from keras_cascade.adapters import Adapter
from keras_cascade.cascade.trainer import Trainer
from keras_cascade.display.summary import print_summary
from keras_cascade.graph.block import leaf_layers
from keras_cascade.graph.graph import read_graph
from keras_cascade.graph.replay import Replay


@keras.saving.register_keras_serializable(package="keras_cascade")
class Cascade(Trainer):
    """Pretrained networks as one Keras model, made by `build_cascade`.

    It is a Functional `keras.Model`: `fit`, `evaluate`, `predict`, `save` and
    `keras.saving.load_model` work as for any other, with `keras_cascade`
    imported where it is loaded. Frozen layers run in inference mode.

    Example:
    >>> cascade = keras_cascade.build_cascade(network, head=10, loss="mse")
    >>> list(cascade.blocks)
    ['upstream', 'head']
    """

    _rebuilder: Any = None
    _exporter: Any = None

    def summary(
        self,
        line_length: int | None = None,
        positions: list | None = None,
        print_fn: Any = None,
        expand_nested: bool = False,
        show_trainable: bool = False,
        layer_range: list | None = None,
    ) -> None:
        """Prints a table with a row a block.

        What each block is, its taps, the shapes that it gives, its
        parameters, how many of them train, and at which rate.

        Args:
            line_length: Width in characters; `None` is as wide as needed.
                Defaults to `None`.
            positions: For Keras's own tables. Defaults to `None`.
            print_fn: What each table is handed to; `None` prints. Defaults to
                `None`.
            expand_nested: Whether Keras's tables of each block's layers
                follow. Defaults to `False`.
            show_trainable: For Keras's own tables. Defaults to `False`.
            layer_range: For Keras's own tables. Defaults to `None`.
        """
        print_summary(self, line_length, print_fn)
        if expand_nested:
            for block in self.blocks.values():
                block.summary(
                    line_length=line_length,
                    positions=positions,
                    print_fn=print_fn,
                    expand_nested=True,
                    show_trainable=show_trainable,
                    layer_range=layer_range,
                )

    def to_plain(self) -> keras.Model:
        """The same model in stock Keras layers.

        It loads without this package. It answers the same; trained further,
        its frozen layers drop out again, as Keras's do.

        Returns:
            A stock Functional model with a copy of the weights, not compiled.

        Raises:
            NotImplementedError: If an adapter of yours has no `to_plain`.
            ValueError: If an adapter has not been fitted.
        """
        self._check_fitted("writing a plain model")
        graph = read_graph(self, keep_names=True)
        plain = {
            id(layer): layer.to_plain()
            for _, layer in leaf_layers(self)
            if isinstance(layer, Adapter)
        }
        replay = Replay(network_class=keras.Model, replace=plain)
        model = replay.whole(graph, self.name)
        replay.fill()
        return model

    def export(self, path: Any, *args: Any, **kwargs: Any) -> Any:
        """Writes the cascade for where it is to run: `keras_cascade.export`.

        Args:
            path: Where the file goes.
            *args: The arguments of `keras_cascade.export`.
            **kwargs: Likewise.

        Returns:
            The `ExportReport`.

        Example:
        >>> import tempfile
        >>> path = f"{tempfile.mkdtemp()}/plain.keras"
        >>> cascade = cascade.adapt(images, verbose=False)
        >>> report = cascade.export(path, verbose=False)
        """
        return type(self)._exporter(self, path, *args, **kwargs)

    def rebuild(self, **changes: Any) -> "Cascade":
        """Builds the cascade again with some arguments changed.

        Learned weights whose path and shape are the same are carried over;
        `spec.started_anew` of the result, and its summary, list the others.
        Taps that the cascade does not hold need the original network: it is
        used as long as it lives, and can be passed as `upstream=` else.

        Args:
            **changes: Arguments of `build_cascade`.

        Returns:
            A new cascade; this one stays as it is. It is compiled as this one
            is, without the optimizer's state.

        Example:
        >>> wider = cascade.rebuild(adapters={"shape": 64})
        """
        return type(self)._rebuilder(self, changes)

    def get_config(self) -> dict:
        """The graph, the spec, and what is kept of the networks."""
        config = {**super().get_config(), "spec": self._spec.get_config()}
        serialize = keras.saving.serialize_keras_object
        if self._kept:
            config["kept"] = [serialize(keeper) for keeper in self._kept]
        return config

    @classmethod
    def from_config(cls, config: dict, custom_objects: dict | None = None):
        """The cascade, with what it keeps of the networks beside it."""
        config = dict(config)
        kept: list[Any] = config.pop("kept", [])
        cascade: Any = super().from_config(config, custom_objects)
        for keeper in kept:
            cascade._keep(keras.saving.deserialize_keras_object(keeper))
        return cascade

    @classmethod
    def set_rebuilder(cls, function: Any) -> None:
        """Tells how to build again: that stands above this module."""
        cls._rebuilder = staticmethod(function)

    @classmethod
    def set_exporter(cls, function: Any) -> None:
        """Tells how to export: that stands above this module."""
        cls._exporter = staticmethod(function)
