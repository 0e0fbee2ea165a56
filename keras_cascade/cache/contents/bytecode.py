"""The content of compiled functions, and the names that they look up.

Bytecode is what runs: a file may have been edited since it was imported, and
functions of notebooks, of `exec` and of patched classes have no file.

Tested by `tests/cache/contents/test_operations.py`.
"""

import dis
import functools
import hashlib
import re
import types
from collections.abc import Iterator
from typing import NamedTuple

_LOOKUPS = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
# With one of these, a text may be a name.
_BY_TEXT = {
    "__import__",
    "attrgetter",
    "eval",
    "exec",
    "getattr",
    "globals",
    "import_module",
    "vars",
}
_NAME = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")


class Code(NamedTuple):
    """The instructions of a code object and of those inside it.

    Attributes:
        digest: The hash of instructions and constants, without line numbers.
        globals: The names that are looked up in the module.
        names: All names, of attributes too.
        imports: The names of modules that it imports when it runs.
    """

    digest: str
    globals: frozenset[str]
    names: frozenset[str]
    imports: frozenset[str]


@functools.lru_cache(maxsize=4096)
def read_code(code: types.CodeType) -> Code:
    """Returns the content of a code object, and the names in it."""
    codes = [*_codes(code)]
    names = {name for x in codes for name in x.co_names}
    steps = [step for x in codes for step in dis.get_instructions(x)]
    looked_up = {x.argval for x in steps if x.opname in _LOOKUPS}
    imports = {x.argval for x in steps if x.opname == "IMPORT_NAME"}
    if names & _BY_TEXT:
        texts = {x for each in codes for x in _texts(each.co_consts)}
        imports |= texts
        parts = {part for text in texts for part in text.split(".")}
        looked_up, names = looked_up | parts, names | parts
    digest = hashlib.sha256(repr(_content(code)).encode()).hexdigest()
    return Code(digest, *map(frozenset, (looked_up, names, imports)))


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _texts(constants: tuple[object, ...]) -> Iterator[str]:
    for constant in constants:
        if isinstance(constant, str):
            yield from _NAME.findall(constant)
        elif isinstance(constant, tuple):
            yield from _texts(constant)


def _content(x: object) -> object:
    if isinstance(x, types.CodeType):
        return (
            x.co_code,
            x.co_names,
            x.co_varnames,
            (x.co_freevars, x.co_cellvars, x.co_flags),
            (x.co_argcount, x.co_posonlyargcount, x.co_kwonlyargcount),
            x.co_exceptiontable,
            [_content(constant) for constant in x.co_consts],
        )
    if isinstance(x, tuple):
        return [_content(item) for item in x]
    if isinstance(x, frozenset):
        # Its order differs between processes.
        return sorted(repr(_content(item)) for item in x)
    return type(x).__name__, repr(x)
