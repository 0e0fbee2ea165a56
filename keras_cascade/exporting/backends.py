"""Lists the backends that can write a format, and what is missing here."""

import importlib.util
from collections.abc import Sequence

import keras

from keras_cascade._package.extras import pip_line
from keras_cascade.exporting.options import LARGEST, ExportOptions
from keras_cascade.graph.program import Program

# The packages that a backend needs to write ONNX, beside `onnx` itself.
_ONNX_CONVERTERS = {
    "tensorflow": "tf2onnx",
    "jax": "jax2onnx",
    "torch": "onnxscript",
}


def backends_for(options: ExportOptions) -> list[str]:
    """Returns the backends that can write the file here, the best first.

    Raises:
        ModuleNotFoundError: There is none; the message says what to install.
    """
    possible = possible_backends(options.format)
    missing = {backend: _missing(options, backend) for backend in possible}
    ready = [backend for backend, packages in missing.items() if not packages]
    if ready:
        return ready
    ways = "; or ".join(
        f"on {backend}: {pip_line(*_missing(options, backend, whole=True))}"
        for backend in possible
    )
    raise ModuleNotFoundError(
        f"Nothing that is installed here writes a file of format "
        f"'{options.format}' from the {keras.config.backend()} backend. {ways}"
    )


def possible_backends(format: str) -> tuple[str, ...]:
    """Returns the backends that can write a format, the best first."""
    running = keras.config.backend()
    if format == "keras":
        return (running,)
    if format == "torch":
        return ("torch",)
    if format == "onnx":
        # torch's converter takes the most; jax2onnx almost as many.
        others = [x for x in ("torch", "jax", "tensorflow") if x != running]
        return (running, *others)
    return ("tensorflow",)


def backends_for_weights(
    backends: Sequence[str], options: ExportOptions, weights: int
) -> list[str]:
    """Returns the backends that write files with so many bytes of weights.

    Raises:
        ModuleNotFoundError: There is none.
    """
    if options.format != "onnx" or weights <= LARGEST["onnx"]:
        return list(backends)
    # TensorFlow's graphs, which tf2onnx takes, are protocol buffers too.
    ready = [backend for backend in backends if backend != "tensorflow"]
    if ready:
        return ready
    raise ModuleNotFoundError(
        f"'{options.path.name}': the weights take {weights:,} bytes, and "
        f"tf2onnx writes at most {LARGEST['onnx']:,}. torch and JAX write "
        f"more: {pip_line('torch', 'onnxscript')}"
    )


def check_runtime(options: ExportOptions) -> None:
    """Raises a ModuleNotFoundError if the runtime of the format is missing."""
    if options.format == "onnx" and not is_installed("onnxruntime"):
        raise ModuleNotFoundError(
            "check_data needs the runtime of ONNX files: "
            + pip_line("onnxruntime")
        )
    if options.format == "tflite" and not (
        is_installed("ai_edge_litert") or is_installed("tensorflow")
    ):
        raise ModuleNotFoundError(
            "check_data needs the runtime of LiteRT files: "
            + pip_line("ai_edge_litert")
        )


def can_be_tried(options: ExportOptions, program: Program) -> bool:
    """Whether a file can be run on made-up inputs, as all its inputs can be."""
    if options.format == "onnx":
        return is_installed("onnxruntime")
    # A network may need more of an open size than a made-up input has.
    sizes = [size for port in program.inputs for size in port.shape[1:]]
    return options.format == "tflite" and None not in sizes


def is_installed(module: str) -> bool:
    """Whether a module can be imported."""
    return importlib.util.find_spec(module) is not None


def _missing(
    options: ExportOptions, backend: str, whole: bool = False
) -> list[str]:
    """Returns the missing modules that a backend needs to write the file.

    Args:
        options: The options of the export.
        backend: The backend.
        whole: Whether those are listed as well that check or quantize the
            file, so that one command installs all. Defaults to `False`.
    """
    needed = [backend]
    if options.format == "onnx":
        needed += [_ONNX_CONVERTERS[backend], "onnx"]
        # The quantizer is a part of the runtime.
        needed += ["onnxruntime"] if options.quantize or whole else []
    return [module for module in needed if not is_installed(module)]
