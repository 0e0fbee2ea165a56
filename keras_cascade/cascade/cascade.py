"""Defines `Cascade`, which shows, exports and rebuilds itself."""

import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import keras

from keras_cascade._reporting.tables import as_html
from keras_cascade.adapters import Adapter
from keras_cascade.assembly.assemble import assemble
from keras_cascade.assembly.targets import build_targets
from keras_cascade.cascade.rebuilding import rebuild
from keras_cascade.cascade.saving import Saved
from keras_cascade.display.picture.picture import CascadePicture, draw_cascade
from keras_cascade.display.summary import (
    chosen_blocks,
    show_summary,
    summary_parts,
)
from keras_cascade.graph.block import leaf_layers
from keras_cascade.graph.graph import read_graph
from keras_cascade.graph.inlining import inline_shared
from keras_cascade.graph.replay import Replay
from keras_cascade.planning.arguments import Arguments, takes_changes
from keras_cascade.planning.plan import make_plan

if TYPE_CHECKING:
    from keras_cascade.exporting.report import ExportReport


_OURS = "keras_cascade."
# What a cascade has beside the attributes of a `keras.Model`.
_PUBLIC = {
    "adapt",
    "adapters",
    "block_of",
    "blocks",
    "freeze",
    "learning_rates",
    "plot",
    "rebuild",
    "taps",
    "to_plain",
    "unfreeze",
    "upstreams",
}


@keras.saving.register_keras_serializable(package="keras_cascade")
class Cascade(Saved):
    """Pretrained networks as one Keras model, made by `build_cascade`.

    It is a Functional `keras.Model`: `fit`, `evaluate`, `predict`, `save` and
    `keras.saving.load_model` work as for any other, with `keras_cascade`
    imported where it is loaded. Frozen layers run in inference mode.

    Example:
    >>> cascade = keras_cascade.build_cascade(network, head=10, loss="mse")
    >>> list(cascade.blocks)
    ['upstream', 'head']
    """

    def __dir__(self) -> list[str]:
        """Returns the names of Keras's models and the public ones.

        What modules of the package ask of each other is left out.
        """
        own = (x for x in type(self).__mro__ if x.__module__.startswith(_OURS))
        added = {name for base in own for name in vars(base) if name[0] != "_"}
        hidden = added - _PUBLIC - set(dir(keras.Model))
        return sorted(set(super().__dir__()) - hidden)

    @classmethod
    def from_arguments(cls, arguments: Arguments) -> Self:
        """Builds the cascade of some arguments, as `build_cascade` does."""
        plan = make_plan(arguments)
        inputs, outputs = assemble(plan)
        cascade = cls(inputs, outputs, spec=plan.spec, name=arguments.name)
        cascade.set_up(plan)
        cascade.stitch_to(build_targets(plan))
        if arguments.loss is not None:
            cascade.compile(
                optimizer=arguments.optimizer,
                loss=arguments.loss,
                metrics=arguments.metrics,
            )
        return cascade

    def summary(
        self,
        line_length: int | None = None,
        positions: list | None = None,
        print_fn: Callable[[str], object] | None = None,
        expand_nested: bool = False,
        show_trainable: bool = False,
        layer_range: list | None = None,
    ) -> None:
        """Shows a table with a row a block: as HTML in notebooks.

        A row names the block, its taps, its output shapes, its parameters,
        how many of them train, and at which rate. As text it is as wide as the
        terminal, or, in a file or a pipe, as its cells. The cascade's Keras
        layers are its blocks; the tables of their layers are Keras's own.

        Args:
            line_length: The width in characters. Defaults to `None`: that of
                the terminal, or no limit.
            positions: The ends of the columns of Keras's tables. The table of
                blocks fits its columns to their cells, and does not follow
                it. Defaults to `None`.
            print_fn: Called with each table as text, without a limit of its
                width unless `line_length` says one. Defaults to `None`: shown
                where the caller reads.
            expand_nested: Whether Keras's tables of each block's layers
                follow. Defaults to `False`.
            show_trainable: Whether Keras's tables say which layers train; the
                table of blocks always says how many parameters do. Defaults
                to `False`.
            layer_range: The first and the last block to show, as names or
                regular expressions. Totals are of all blocks. Defaults to
                `None`: all blocks.

        Raises:
            ValueError: If an end of `layer_range` matches no block.

        Example:
        >>> tables = []
        >>> cascade.summary(line_length=80, print_fn=tables.append)
        """
        show_summary(self, line_length, print_fn, layer_range)
        if positions is not None and not expand_nested:
            warnings.warn(
                "summary(positions=...) places the columns of Keras's tables, "
                "which expand_nested=True shows. The table of blocks fits its "
                "columns to their cells.",
                stacklevel=2,
            )
        if expand_nested:
            for name in chosen_blocks(self, layer_range):
                self.blocks[name].summary(
                    line_length=line_length,
                    positions=positions,
                    print_fn=print_fn,
                    expand_nested=True,
                    show_trainable=show_trainable,
                )

    def plot(self, path: str | Path | None = None) -> CascadePicture:
        """Draws the cascade: its networks, adapters, fusion and injections.

        Networks are boxes with a row for each stretch between taps, and rows
        where features enter. Colours say what is frozen and what trains, with
        the number of parameters and the learning rates as compiled.

        Args:
            path: A file to write, `.svg` or `.png`. PNG needs matplotlib.
                Defaults to `None`: no file.

        Returns:
            The picture, which a notebook shows. Its `svg` is its text, and
            `save(path)` writes a file.

        Raises:
            ValueError: If the ending is another.
            ImportError: If it is a PNG file, and matplotlib is not installed.

        Example:
        >>> import tempfile
        >>> picture = cascade.plot(f"{tempfile.mkdtemp()}/cascade.svg")
        """
        picture = draw_cascade(self)
        if path is not None:
            picture.save(path)
        return picture

    def _repr_html_(self) -> str:
        return f"{self.plot()._repr_html_()}\n{as_html(summary_parts(self))}"

    def to_plain(self) -> keras.Model:
        """Returns the same model in stock Keras layers.

        It loads without this package and gives the same outputs. Trained
        further, its frozen Dropout layers drop again, as Keras's do. Networks
        that share layers are one network in it: Keras could not load them.

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
        model, _ = replay.build(graph, self.name, whole=True)
        replay.copy_states()
        return inline_shared(model)

    # Not Keras's signature: the arguments are those of `kc.export`.
    def export(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        path: str | Path,
        format: str | None = None,
        quantize: str | None = None,
        calibration_data: Any = None,
        check_data: Any = None,
        tolerance: float | None = None,
        input_dtype: str | Mapping[str, str] | None = None,
        output_dtype: str | Mapping[str, str] | None = None,
        labels: Sequence[str] | Mapping[str, Sequence[str]] | None = None,
        *,
        outputs: str | Sequence[str] | None = None,
        fold: bool = True,
        timeout: float = 3600.0,
        batch_size: int | None = None,
        verbose: bool = True,
    ) -> "ExportReport":
        """Writes the cascade for where it is to run, as `kc.export` does.

        The arguments, and the errors, are those of `keras_cascade.export`.

        Returns:
            The `ExportReport`.

        Example:
        >>> import tempfile
        >>> path = f"{tempfile.mkdtemp()}/plain.keras"
        >>> cascade = cascade.adapt(images, verbose=False)
        >>> report = cascade.export(path, verbose=False)
        """
        # Imported here: few sessions export, and all import this module.
        from keras_cascade.exporting.exporter import export

        return export(
            self,
            path,
            format,
            quantize,
            calibration_data,
            check_data,
            tolerance,
            input_dtype,
            output_dtype,
            labels,
            outputs=outputs,
            fold=fold,
            timeout=timeout,
            batch_size=batch_size,
            verbose=verbose,
        )

    @takes_changes
    def rebuild(self, **changes: Any) -> Self:
        """Builds the cascade again with some arguments changed.

        Learned weights of equal path and shape are carried over;
        `spec.reinitialized` of the result, and its summary, list the others.
        Taps that the cascade does not contain need the original network: it
        is used as long as it exists, and can be passed as `upstream=` else.

        Args:
            **changes: Arguments of `build_cascade`.

        Returns:
            A new cascade; this one stays as it is. It is compiled as this one
            is, without the optimizer's state.

        Raises:
            TypeError: If `build_cascade` has no such argument.
            ValueError: If the arguments do not go together.

        Example:
        >>> wider = cascade.rebuild(adapters={"shape": 64})
        """
        return rebuild(self, changes, type(self).from_arguments)
