"""Says what pip has to install for a module that is missing."""

# Module to the extra that has it, as in pyproject.toml.
_EXTRA_OF = {
    "ai_edge_litert": "litert",
    "jax": "jax",
    "jax2onnx": "jax2onnx",
    "keras_hub": "hub",
    "matplotlib": "analysis",
    "onnx": "onnx",
    "onnx_ir": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "scipy": "analysis",
    "sklearn": "analysis",
    "tensorflow": "tensorflow",
    "tf2onnx": "onnx",
    "threadpoolctl": "analysis",
    "timm": "torch-hub",
    "torch": "torch",
    "transformers": "torch-hub",
}
# Those whose package has another name, and is in no extra.
_PACKAGE_OF = {"PIL": "pillow", "google": "protobuf"}


def pip_line(*modules: str) -> str:
    """Returns the command that installs all modules that are named.

    Args:
        *modules: The names of modules, such as `"sklearn.datasets"`.
    """
    roots = [module.partition(".")[0] for module in modules]
    extras = sorted({_EXTRA_OF[x] for x in roots if x in _EXTRA_OF})
    words = [f'"keras_cascade[{",".join(extras)}]"'] if extras else []
    others = {_PACKAGE_OF.get(x, x) for x in roots if x not in _EXTRA_OF}
    return " ".join(["pip install", *words, *sorted(others)])
