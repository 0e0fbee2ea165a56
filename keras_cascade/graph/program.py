"""Defines programs: models as lists of steps, without nesting.

Exported files are written from such a program, caching cuts it in two, and
analysis follows tensors through it.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import keras

from keras_cascade.graph.block import bind_training_mode
from keras_cascade.graph.graph import Reference
from keras_cascade.graph.paths import Address

# The tensors of the backend that a program has computed.
Values = Mapping[Reference, Any]


@dataclass(frozen=True)
class Source:
    """Stands for a tensor among the arguments of a step.

    Attributes:
        reference: The tensor; None if it is not in the graph.
    """

    reference: Reference | None


@dataclass(frozen=True)
class Port:
    """An input of a program.

    Attributes:
        name: The name of the input.
        shape: The shape with the batch, which is None, as other open sizes.
        dtype: The dtype of the values.
        reference: The tensor in the program.
        optional: Whether the values may be None.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    reference: Reference
    optional: bool = False


@dataclass(frozen=True, eq=False)
class Step:
    """One call of an operation that is no network.

    Attributes:
        address: The keys of the calls that lead to it.
        operation: The layer, operation or function itself.
        args: The positional arguments, with a `Source` for each tensor.
        kwargs: The keyword arguments, likewise, masks included.
        outputs: The tensors that the step gives.
    """

    address: Address
    operation: Any
    args: tuple
    kwargs: dict[str, Any]
    outputs: tuple[Reference, ...]

    @cached_property
    def name(self) -> str:
        """The path of the operation."""
        return "/".join(self.address)

    @property
    def label(self) -> str:
        """The operation's class and path, for messages."""
        return f"{type(self.operation).__name__} '{self.name}'"

    @cached_property
    def inputs(self) -> tuple[Reference, ...]:
        """The tensors of the graph that the step takes, masks included."""
        sources = _sources((self.args, self.kwargs))
        return tuple(x for x in sources if x is not None)

    @property
    def data_inputs(self) -> list[Reference | None]:
        """The tensors that the step takes, without masks.

        One that is not in the graph is None.
        """
        kwargs = {k: v for k, v in self.kwargs.items() if k != "mask"}
        return _sources((self.args, kwargs))

    @property
    def only_input(self) -> Reference | None:
        """The tensor that the step takes, if it is its only argument."""
        if self.kwargs or len(self.args) != 1:
            return None
        given = self.args[0]
        return given.reference if isinstance(given, Source) else None

    def on(self, tensors: Sequence[Reference], operation: object) -> "Step":
        """Returns a step with this one's outputs, of another operation."""
        sources = [Source(tensor) for tensor in tensors]
        args = (sources if len(sources) > 1 else sources[0],)
        return Step(self.address, operation, args, {}, self.outputs)

    def map_arguments(self, change: Callable[[Any], Any]) -> "Step":
        """Returns the step with each leaf of its arguments changed."""
        args = keras.tree.map_structure(change, self.args)
        return replace(
            self,
            args=args,
            kwargs=keras.tree.map_structure(change, self.kwargs),
        )


@dataclass(frozen=True, eq=False)
class Program:
    """A model without nesting, which runs on tensors of the backend.

    Attributes:
        inputs: The inputs.
        outputs: The output tensors, by name.
        shapes: The shape of each tensor, with the batch.
        dtypes: The dtype of each tensor.
        steps: The calls in topological order.
        aliases: The other references of tensors that enter or leave nested
            networks.
    """

    inputs: tuple[Port, ...]
    outputs: Mapping[str, Reference]
    shapes: Mapping[Reference, tuple[int | None, ...]]
    dtypes: Mapping[Reference, str]
    steps: tuple[Step, ...]
    aliases: Mapping[Reference, Reference] = field(default_factory=dict)

    def __call__(
        self, *tensors: Any, training: bool | None = False
    ) -> dict[str, Any]:
        """Runs the program, by default in inference mode.

        Args:
            *tensors: The inputs, in their order.
            training: Whether each layer runs in the mode that its flag asks
                for; None is inference mode, but for calls that record another
                one. Defaults to `False`.
        """
        values = {
            port.reference: tensor
            for port, tensor in zip(self.inputs, tensors, strict=True)
        }
        for step in self.steps:
            outputs = run_step(step, values, training)
            values.update(zip(step.outputs, outputs, strict=True))
        return {name: values[ref] for name, ref in self.outputs.items()}

    def resolve(self, reference: Reference) -> Reference:
        """Returns the reference that a tensor has in the program."""
        return self.aliases.get(reference, reference)

    @property
    def layers(self) -> list[keras.Layer]:
        """The layers that have variables, each once."""
        found = {id(x.operation): x.operation for x in self.steps}
        return [
            layer
            for layer in found.values()
            if isinstance(layer, keras.Layer) and layer.variables
        ]

    @cached_property
    def consumers(self) -> dict[Reference, list[Step]]:
        """The steps that take a tensor."""
        return _group(self.steps, lambda step: step.inputs)

    @cached_property
    def data_consumers(self) -> dict[Reference, list[Step]]:
        """The steps that take a tensor otherwise than as a mask."""
        return _group(self.steps, lambda step: step.data_inputs)

    @cached_property
    def producers(self) -> dict[Reference, Step]:
        """The step that gives a tensor; inputs have none."""
        return {ref: step for step in self.steps for ref in step.outputs}

    @cached_property
    def uses(self) -> Counter[int]:
        """The number of steps that call an operation, by its id."""
        return Counter(id(step.operation) for step in self.steps)

    def only_consumer(self, reference: Reference) -> Step | None:
        """Returns the step that takes a tensor, if nothing else uses it."""
        if reference in self.outputs.values():
            return None
        steps = self.consumers.get(reference, [])
        return steps[0] if len(steps) == 1 else None

    def replaced(self, gone: Iterable[Step], new: Step) -> "Program":
        """Returns the program with a step in place of the last of several."""
        *others, last = gone
        steps = [
            new if step is last else step
            for step in self.steps
            if step not in others
        ]
        return replace(self, steps=tuple(steps))

    def with_tensor(
        self, reference: Reference, shape: tuple[int | None, ...], dtype: str
    ) -> "Program":
        """Returns the program with one more tensor in `shapes` and `dtypes`."""
        return replace(
            self,
            shapes={**self.shapes, reference: shape},
            dtypes={**self.dtypes, reference: dtype},
        )

    def without(self, step: Step) -> "Program":
        """Returns the program without a step that gives what it takes."""
        given, gone = step.inputs[0], step.outputs[0]

        def other(x: Any) -> Any:
            is_gone = isinstance(x, Source) and x.reference == gone
            return Source(given) if is_gone else x

        steps = tuple(
            x.map_arguments(other) if gone in x.inputs else x
            for x in self.steps
            if x is not step
        )
        outputs = {
            name: given if reference == gone else reference
            for name, reference in self.outputs.items()
        }
        return replace(self, steps=steps, outputs=outputs)

    def pruned(self, names: Iterable[str]) -> "Program":
        """Returns the program with some of its outputs, and their steps."""
        outputs = {name: self.outputs[name] for name in names}
        needed, steps = set(outputs.values()), []
        for step in reversed(self.steps):
            if needed & set(step.outputs):
                needed |= set(step.inputs)
                steps.append(step)
        return replace(
            self,
            inputs=tuple(x for x in self.inputs if x.reference in needed),
            outputs=outputs,
            steps=tuple(reversed(steps)),
        )


def run_step(
    step: Step, values: Values, training: bool | None = False
) -> list[Any]:
    """Returns the outputs of a step, by the tensors computed so far."""

    def value(x: Any) -> Any:
        if not isinstance(x, Source) or x.reference is None:
            return x
        return values[x.reference]

    call = bind_training_mode(step.operation, training)
    # Most steps: walking through all arguments takes longer.
    if step.only_input is not None:
        found = call(values[step.only_input])
    else:
        given = step.map_arguments(value)
        found = call(*given.args, **given.kwargs)
    if len(step.outputs) == 1 and not isinstance(found, (list, tuple, dict)):
        return [found]
    return keras.tree.flatten(found)


def _sources(structure: object) -> list[Reference | None]:
    leaves = keras.tree.flatten(structure)
    return [x.reference for x in leaves if isinstance(x, Source)]


def _group(
    steps: Iterable[Step], tensors: Callable[[Step], Iterable[Reference | None]]
) -> dict[Reference, list[Step]]:
    """Returns the steps by each of their tensors."""
    found: dict[Reference, list[Step]] = {}
    for step in steps:
        for reference in dict.fromkeys(tensors(step)):
            if reference is not None:
                found.setdefault(reference, []).append(step)
    return found
