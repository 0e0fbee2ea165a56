"""The release that code is of: installed packages have one, a user's not.

Code of a release is known by name and version. All other code is read.

Tested by `tests/cache/contents/test_operations.py`.
"""

import functools
import importlib.metadata
import json
import os
import sys
import sysconfig
import types
from pathlib import Path

# Their versions are in each key, or do not change what is computed.
_KNOWN = ("keras", "keras_cascade")
_INSTALLED = {"site-packages", "dist-packages"}
_PYTHON = f"python {sys.version_info.major}.{sys.version_info.minor}"


def release_of_function(function: types.FunctionType) -> str | None:
    """Returns the release of a function; None for a user's own."""
    module = function.__globals__.get("__name__", "")
    return release_of(str(module), function.__code__.co_filename)


def release_of_class(kind: type) -> str | None:
    """Returns the release of a class; None for a user's own."""
    module = sys.modules.get(kind.__module__)
    if module is not None and not _is_in(module, kind):
        members = vars(kind).values()
        functions = [x for x in members if isinstance(x, types.FunctionType)]
        if any(release_of_function(x) is None for x in functions):
            return None
    return release_of(kind.__module__, getattr(module, "__file__", None))


def _is_in(module: types.ModuleType, kind: type) -> bool:
    """Whether a module has a class; not one that a function or `exec` made."""
    found: object = module
    for name in kind.__qualname__.split("."):
        found = getattr(found, name, None)
    return found is kind


def release_of_module(module: types.ModuleType) -> str | None:
    """Returns the release of a module; None for a user's own."""
    return release_of(module.__name__, getattr(module, "__file__", None))


@functools.lru_cache(maxsize=4096)
def release_of(module: str, file: str | None) -> str | None:
    """Returns the release of a module, by its name and the file of its code."""
    package = module.partition(".")[0]
    if package in _KNOWN:
        return package
    if file is None or file.startswith("<frozen"):
        is_python = package in sys.stdlib_module_names
        return _PYTHON if is_python else None
    if _INSTALLED.intersection(Path(file).absolute().parts):
        return _release(package)
    return _PYTHON if _is_of_python(file) else None


def _is_of_python(file: str) -> bool:
    folders = {sysconfig.get_path(name) for name in ("stdlib", "platstdlib")}
    path = os.path.realpath(file)
    return any(
        path.startswith(os.path.realpath(folder) + os.sep) for folder in folders
    )


@functools.cache
def _release(package: str) -> str | None:
    try:
        found = [importlib.metadata.distribution(package)]
    except importlib.metadata.PackageNotFoundError:
        # Slow: reads the files of all distributions.
        names = importlib.metadata.packages_distributions().get(package, ())
        found = [importlib.metadata.distribution(x) for x in sorted({*names})]
    if not found or any(map(_is_of_a_folder, found)):
        return None
    return ", ".join(f"{x.metadata['Name']} {x.version}" for x in found)


def _is_of_a_folder(found: importlib.metadata.Distribution) -> bool:
    """Whether it was installed from a folder, whose version seldom changes."""
    text = found.read_text("direct_url.json")
    return text is not None and "dir_info" in json.loads(text)
