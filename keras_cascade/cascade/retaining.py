"""What a cascade keeps of its networks, so that training retains it."""

from collections.abc import Mapping
from typing import Any

from keras_cascade.cascade.composition import Composition
from keras_cascade.graph.graph import Graph, read_graph
from keras_cascade.networks.loading import as_network
from keras_cascade.training.retention import Retention
from keras_cascade.training.retention.keeper import Keeper
from keras_cascade.training.retention.setup import build_keeper


class Retaining(Composition):
    """Adds the penalties of retention to the loss."""

    def compute_loss(
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """Keras's `compute_loss`, with the penalties of retention.

        Args:
            x: The inputs, which `LwF` needs. Defaults to `None`.
            y: As Keras takes it. Defaults to `None`.
            y_pred: As Keras takes it. Defaults to `None`.
            sample_weight: As Keras takes it. Defaults to `None`.
            training: As Keras takes it. Defaults to `True`.
        """
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        penalties = [p for keeper in self._kept for p in keeper.penalties(x)]
        return sum(penalties, start=loss)

    @property
    def taught(self) -> list[str]:
        """The blocks that are held to old answers, on the inputs themselves."""
        return [name for keeper in self._kept for name in keeper.teachers]

    def retain(
        self, retention: Mapping[str, Retention], graphs: Mapping[str, Graph]
    ) -> None:
        """Keeps what a mapping of retention asks for, and nothing else.

        Args:
            retention: Path pattern to method.
            graphs: The original networks, by their blocks.
        """
        keeper = build_keeper(self, retention, graphs) if retention else None
        self._kept.clear()
        if keeper is not None:
            self._keep(keeper)

    def known_fishers(self) -> dict[str, Any]:
        """The Fisher information that is kept, by the paths of weights."""
        return {
            path: fisher
            for keeper in self._kept
            for path, fisher in keeper.known_fishers().items()
        }

    def _keep(self, keeper: Keeper) -> None:
        keeper.attach(self)
        self._kept.append(keeper)

    def _retain_anew(self, retention: Mapping[str, Retention]) -> None:
        """Retention that comes after the cascade was built."""
        graphs = self._original_graphs() if retention else {}
        self.retain(retention, graphs)
        self._spec = self._spec.with_changes(retention=dict(retention))

    def _original_graphs(self) -> dict[str, Graph]:
        blocks = [name for name in self.blocks if name in self._spec.networks]
        if self._spec.shares:
            raise ValueError(
                "compile(retention=...) needs the networks as they were, and "
                "with copy=False the cascade trains their own layers. Give "
                "retention to build_cascade."
            )
        sources = {name: self.source(name) for name in blocks}
        if gone := [name for name, source in sources.items() if source is None]:
            names = ", ".join(f"'{name}'" for name in gone)
            raise ValueError(
                "compile(retention=...) needs the networks that the cascade "
                f"was built from, and those of {names} are not there any "
                "more. Build it with them again: rebuild(upstream=network, "
                "downstream=network, retention=...)."
            )
        return {
            name: read_graph(as_network(source, name))
            for name, source in sources.items()
            if source is not None
        }
