"""Which backend writes a format, and what has to be installed for it."""

import importlib.util

import keras

from keras_cascade.exporting.rehosting import is_installed
from keras_cascade.exporting.request import Request, format_backend

# What a backend needs to write a format, beside itself: module to what pip
# installs it.
_CONVERTERS = {
    ("onnx", "tensorflow"): {"tf2onnx": "tf2onnx"},
    ("onnx", "jax"): {"jax2onnx": "jax2onnx"},
    ("onnx", "torch"): {"onnxscript": "onnxscript"},
}
_ONNX = {"onnx": "onnx"}
_ONNXRUNTIME = {"onnxruntime": "onnxruntime"}


def backends_for(request: Request) -> list[str]:
    """The backends that can write the file here, the best first.

    Raises:
        ModuleNotFoundError: There is none; the message says what to install.
    """
    possible = format_backend(request.format)
    missing = {backend: _missing(request, backend) for backend in possible}
    ready = [backend for backend, lacks in missing.items() if not lacks]
    if ready:
        return ready
    ways = "; or ".join(
        f"on {backend}: pip install {' '.join(lacks)}"
        for backend, lacks in missing.items()
    )
    raise ModuleNotFoundError(
        f"Nothing that is installed here writes a file of format "
        f"'{request.format}' from the {keras.config.backend()} backend. {ways}"
    )


def check_runtime(request: Request) -> None:
    """Whether the runtime is there that a file is checked with.

    Raises:
        ModuleNotFoundError: It is not; the message says what to install.
    """
    if request.format == "onnx" and not _found("onnxruntime"):
        raise ModuleNotFoundError(
            "check_data needs the runtime of ONNX files: pip install "
            '"keras_cascade[onnx]"'
        )
    if request.format == "tflite" and not (
        _found("ai_edge_litert") or _found("tensorflow")
    ):
        raise ModuleNotFoundError(
            "check_data needs the runtime of LiteRT files: pip install "
            '"keras_cascade[litert]"'
        )


def has_onnxruntime() -> bool:
    """Whether an ONNX file can be run here."""
    return _found("onnxruntime")


def _missing(request: Request, backend: str) -> list[str]:
    """What pip has to install for a backend to write the file."""
    lacks = [] if is_installed(backend) else [f'"keras_cascade[{backend}]"']
    modules = dict(_CONVERTERS.get((request.format, backend), {}))
    if request.format == "onnx":
        modules |= _ONNX
        modules |= _ONNXRUNTIME if request.quantize else {}
    return lacks + [pip for name, pip in modules.items() if not _found(name)]


def _found(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
