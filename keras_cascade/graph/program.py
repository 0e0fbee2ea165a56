"""Reads a model as a list of steps on plain tensors, without nesting.

Exported files are written from such a program, and caching cuts it in two.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import keras

from keras_cascade.graph.block import bind_training_mode
from keras_cascade.graph.flattening import FlatCall, Source, flatten
from keras_cascade.graph.graph import Reference, read_graph

# The tensors of the backend that a program has computed.
Values = Mapping[Reference, Any]


@dataclass(frozen=True)
class Port:
    """An input of a program.

    Attributes:
        name: The name of the input.
        shape: The shape with the batch, which is None, as other open sizes.
        dtype: The dtype of the values.
        reference: The tensor in the program.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str
    reference: Reference


@dataclass(frozen=True, eq=False)
class Step:
    """One call of one operation.

    Attributes:
        name: The path of the operation.
        operation: The layer, operation or function itself.
        args: The positional arguments, with a `Source` for each tensor.
        kwargs: The keyword arguments, likewise.
        outputs: The tensors that the step gives.
    """

    name: str
    operation: Any
    args: tuple
    kwargs: dict[str, Any]
    outputs: tuple[Reference, ...]

    @cached_property
    def inputs(self) -> tuple[Reference, ...]:
        """The tensors that the step takes, masks included."""
        return tuple(
            x.reference
            for x in keras.tree.flatten((self.args, self.kwargs))
            if isinstance(x, Source) and x.reference is not None
        )

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
        return Step(self.name, operation, args, {}, self.outputs)

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
    """

    inputs: tuple[Port, ...]
    outputs: Mapping[str, Reference]
    shapes: Mapping[Reference, tuple[int | None, ...]]
    dtypes: Mapping[Reference, str]
    steps: tuple[Step, ...]

    def __call__(self, *tensors: Any, training: bool = False) -> dict[str, Any]:
        """Runs the program, by default in inference mode.

        Args:
            *tensors: The inputs, in their order.
            training: Whether each layer runs in the mode that its flag asks
                for. Defaults to `False`.
        """
        values = {
            port.reference: tensor
            for port, tensor in zip(self.inputs, tensors, strict=True)
        }
        for step in self.steps:
            outputs = run_step(step, values, training)
            values.update(zip(step.outputs, outputs, strict=True))
        return {name: values[ref] for name, ref in self.outputs.items()}

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
        found: dict[Reference, list[Step]] = {}
        for step in self.steps:
            for reference in dict.fromkeys(step.inputs):
                found.setdefault(reference, []).append(step)
        return found

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


def as_program(model: keras.Model) -> Program:
    """Reads a functional model as a program on the model's own layers."""
    graph = read_graph(model, keep_names=True)
    flat = flatten(graph)
    inputs = tuple(
        Port(tensor.name, tuple(tensor.shape), tensor.dtype, reference)
        for tensor, reference in zip(graph.inputs, flat.inputs, strict=True)
    )
    outputs = [ref for ref in flat.outputs if ref is not None]
    names = output_names(graph.output_structure, outputs)
    return Program(
        inputs=inputs,
        outputs=dict(zip(names, outputs, strict=True)),
        shapes=flat.shapes,
        dtypes=flat.dtypes,
        steps=tuple(_step(call) for call in flat.calls),
    )


def output_names(
    structure: object, references: Sequence[Reference]
) -> list[str]:
    """Returns the names of a model's outputs in exported files.

    They are the keys of a dict, `head` if a cascade ends in its head, else the
    operations that give the outputs.
    """
    if isinstance(structure, dict):
        paths = (path for path, _ in keras.tree.flatten_with_path(structure))
        return ["_".join(map(str, path)) for path in paths]
    names = [
        "head" if ref[0] == "head" else str(ref[-2]).partition(":")[0]
        for ref in references
    ]
    return [
        f"{name}_{names[:place].count(name)}" if name in names[:place] else name
        for place, name in enumerate(names)
    ]


def run_step(step: Step, values: Values, training: bool = False) -> list[Any]:
    """Returns the outputs of a step, by the tensors computed so far."""

    def value(x: Any) -> Any:
        if not isinstance(x, Source) or x.reference is None:
            return x
        return values[x.reference]

    call = bind_training_mode(step.operation, training)
    if step.only_input is not None:
        found = call(values[step.only_input])
    else:
        given = step.map_arguments(value)
        found = call(*given.args, **given.kwargs)
    if len(step.outputs) == 1 and not isinstance(found, (list, tuple, dict)):
        return [found]
    return keras.tree.flatten(found)


def _step(call: FlatCall) -> Step:
    # Programs run in inference mode unless told otherwise; a mask that comes
    # from outside the graph is one that Keras passes on by itself.
    kwargs = {
        name: x
        for name, x in call.kwargs.items()
        if name != "training" and not (name == "mask" and _is_lost(x))
    }
    name = "/".join(call.address)
    return Step(name, call.operation, call.args, kwargs, call.outputs)


def _is_lost(mask: object) -> bool:
    """Whether a mask, or one of several, is not in the graph."""
    return any(
        x is None or (isinstance(x, Source) and x.reference is None)
        for x in keras.tree.flatten(mask)
    )
