"""A model as a list of steps on plain tensors: what files are written from."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import keras

from keras_cascade.graph.block import bind_training_mode
from keras_cascade.graph.flattening import FlatCall, Source, flatten
from keras_cascade.graph.graph import Reference, read_graph


@dataclass(frozen=True)
class Port:
    """An input of a file.

    Attributes:
        name: What it is called.
        shape: With the batch, which is None, as are other open dimensions.
        dtype: Of its values.
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
        args: Its positional arguments, with a `Source` for each tensor.
        kwargs: Its keyword arguments, likewise.
        outputs: The tensors that it gives.
    """

    name: str
    operation: Any
    args: tuple
    kwargs: dict[str, Any]
    outputs: tuple[Reference, ...]

    @cached_property
    def inputs(self) -> tuple[Reference, ...]:
        """The tensors that it takes, masks included."""
        return tuple(_references((self.args, self.kwargs)))

    @property
    def only_input(self) -> Reference | None:
        """The tensor that it takes, if it takes one and nothing else."""
        if self.kwargs or len(self.args) != 1:
            return None
        given = self.args[0]
        return given.reference if isinstance(given, Source) else None

    def on(self, tensors: Sequence[Reference], operation: Any) -> "Step":
        """Another operation on other tensors, which gives what this gives."""
        sources = [Source(tensor) for tensor in tensors]
        args = (sources if len(sources) > 1 else sources[0],)
        return Step(self.name, operation, args, {}, self.outputs)


@dataclass(frozen=True, eq=False)
class Program:
    """A model without nesting, which runs on tensors of the backend.

    Attributes:
        inputs: What goes in.
        outputs: What comes out, by name.
        shapes: Of each tensor, with the batch.
        dtypes: Of each tensor.
        steps: The calls in topological order.
    """

    inputs: tuple[Port, ...]
    outputs: Mapping[str, Reference]
    shapes: Mapping[Reference, tuple[int | None, ...]]
    dtypes: Mapping[Reference, str]
    steps: tuple[Step, ...]

    def __call__(self, *tensors: Any, training: bool = False) -> dict[str, Any]:
        """Runs it, by default in inference mode.

        Args:
            *tensors: One for each input, in their order.
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
        """Its layers that hold variables, each once."""
        found = {id(x.operation): x.operation for x in self.steps}
        return [
            layer
            for layer in found.values()
            if isinstance(layer, keras.Layer) and layer.variables
        ]

    @cached_property
    def consumers(self) -> dict[Reference, list[Step]]:
        """The steps that a tensor goes into."""
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
        """How many steps call an operation, by its id."""
        return Counter(id(step.operation) for step in self.steps)

    def only_consumer(self, reference: Reference) -> Step | None:
        """The one step that a tensor goes into, if there is just one."""
        if reference in self.outputs.values():
            return None
        steps = self.consumers.get(reference, [])
        return steps[0] if len(steps) == 1 else None

    def replaced(self, gone: Iterable[Step], new: Step) -> "Program":
        """The program with a step in the place of the last of several."""
        gone = list(gone)
        steps = [
            new if step is gone[-1] else step
            for step in self.steps
            if step not in gone[:-1]
        ]
        return replace(self, steps=tuple(steps))

    def with_tensor(
        self, reference: Reference, shape: tuple[int | None, ...], dtype: str
    ) -> "Program":
        """The program, which knows of one more tensor."""
        return replace(
            self,
            shapes={**self.shapes, reference: shape},
            dtypes={**self.dtypes, reference: dtype},
        )

    def without(self, step: Step) -> "Program":
        """The program without a step that gives what it takes."""
        given = step.inputs[0]

        def other(x: Any) -> Any:
            at_step = isinstance(x, Source) and x.reference == step.outputs[0]
            return Source(given) if at_step else x

        steps = tuple(
            replace(x, **_changed(x, other))
            if step.outputs[0] in x.inputs
            else x
            for x in self.steps
            if x is not step
        )
        outputs = {
            name: given if ref == step.outputs[0] else ref
            for name, ref in self.outputs.items()
        }
        return replace(self, steps=steps, outputs=outputs)

    def pruned(self, names: Iterable[str]) -> "Program":
        """The program with some of its outputs, and what these need."""
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
    """Reads a functional model; the names of its outputs are the file's.

    Args:
        model: A Functional model; it stays as it is.

    Returns:
        The program, on the model's own layers.
    """
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


def output_names(structure: Any, references: Sequence[Reference]) -> list[str]:
    """What the outputs are called.

    The keys of a dict; `head` where a cascade ends in its head; else the
    operation that gives them.
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


def _step(call: FlatCall) -> Step:
    # What a file does is inference; a mask that comes from nowhere in the
    # graph is handed on by Keras.
    kwargs = {
        name: x
        for name, x in call.kwargs.items()
        if name != "training" and not (name == "mask" and _is_lost(x))
    }
    return Step(
        "/".join(call.address), call.operation, call.args, kwargs, call.outputs
    )


def _is_lost(mask: Any) -> bool:
    return any(
        x is None or (isinstance(x, Source) and x.reference is None)
        for x in keras.tree.flatten(mask)
    )


def _references(structure: Any) -> Iterator[Reference]:
    for x in keras.tree.flatten(structure):
        if isinstance(x, Source) and x.reference is not None:
            yield x.reference


def run_step(
    step: Step, values: Mapping[Reference, Any], training: bool = False
) -> list[Any]:
    """What a step gives.

    Args:
        step: The step.
        values: The tensors that there are.
        training: As in `Program`. Defaults to `False`.
    """

    def value(x: Any) -> Any:
        if not isinstance(x, Source) or x.reference is None:
            return x
        return values[x.reference]

    call = bind_training_mode(step.operation, training)
    if step.only_input is not None:
        found = call(values[step.only_input])
    else:
        given = _changed(step, value)
        found = call(*given["args"], **given["kwargs"])
    if len(step.outputs) == 1 and not isinstance(found, (list, tuple, dict)):
        return [found]
    return keras.tree.flatten(found)


def _changed(step: Step, change: Callable[[Any], Any]) -> dict[str, Any]:
    """The arguments of a step, each leaf changed."""
    return {
        name: keras.tree.map_structure(change, structure)
        for name, structure in (("args", step.args), ("kwargs", step.kwargs))
    }
