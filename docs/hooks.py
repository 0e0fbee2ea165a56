"""Hooks of the site's build: pages from the repository, a complete reference.

MkDocs calls the functions that begin with `on_`. Everything else is plain
functions of text, which `tests/test_docs.py` tests without MkDocs.
"""

import ast
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "tutorials").glob("*.ipynb"))
REPOSITORY = "https://github.com/keras-cascade/keras_cascade"

# Pages of the site that are files of the repository.
PAGES = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "security.md": "SECURITY.md",
    "tutorials/index.md": "tutorials/README.md",
    "tests.md": "tests/README.md",
    "benchmarks.md": "tests/benchmarks/README.md",
    "internals/networks.md": "keras_cascade/networks/README.md",
    "internals/graph.md": "keras_cascade/graph/README.md",
    "internals/training.md": "keras_cascade/training/README.md",
    "internals/retention.md": "keras_cascade/training/retention/README.md",
    "internals/cache.md": "keras_cascade/cache/README.md",
    "internals/storage.md": "keras_cascade/cache/storage/README.md",
    "internals/exporting.md": "keras_cascade/exporting/README.md",
    "internals/ranking.md": "keras_cascade/ranking/README.md",
    **{f"tutorials/{x.stem}.md": f"tutorials/{x.name}" for x in NOTEBOOKS},
}
# The modules whose exports are the public API.
FACES = {
    "keras_cascade": "keras_cascade/__init__.py",
    "keras_cascade.adapters": "keras_cascade/adapters/__init__.py",
    "keras_cascade.testing": "keras_cascade/testing/__init__.py",
    "keras_cascade.zoo": "keras_cascade/zoo.py",
}

_FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(\]\()([^)\s]+)(\))")
# The site fetches nothing from elsewhere, pictures of badges included.
_BADGE = re.compile(r"\[!\[([^\]]+)\]\(https://[^)]+\)\]")
_DIRECTIVE = re.compile(r"^::: ([\w.]+)", re.MULTILINE)


def on_pre_build(config: Any) -> None:
    """Stops the build where a public name has no place in the reference."""
    from mkdocs.exceptions import PluginError

    if problems := list(reference_problems(public_names(), reference_pages())):
        raise PluginError("\n".join(problems))


def on_files(files: Any, config: Any) -> Any:
    """Adds the pages that are files of the repository, with their pictures."""
    from mkdocs.structure.files import File

    for page, source in PAGES.items():
        is_notebook = source.endswith(".ipynb")
        read = read_notebook if is_notebook else read_markdown
        for name, content in read(page, ROOT / source).items():
            files.append(File.generated(config, name, content=content))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Fills in the layer order, and has links lead on within the site."""
    name = page.file.src_uri
    if name == "index.md":  # the home page is alone in its section
        page.meta["hide"] = ["navigation"]
    if name == "guide/compared.md":  # a wide table
        page.meta["hide"] = ["toc"]
    contributing = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    text = markdown.replace("{{ layers }}", layer_order(contributing))
    return rebase_links(text, PAGES.get(name, f"docs/{name}"), name)


def read_markdown(page: str, path: Path) -> dict[str, str | bytes]:
    """Returns a page's text under its name."""
    return {page: path.read_text("utf-8")}


def read_notebook(page: str, path: Path) -> dict[str, str | bytes]:
    """Returns the text and the pictures of a notebook with its outputs."""
    from nbconvert import MarkdownExporter

    pictures = {"output_files_dir": path.stem}
    text, found = MarkdownExporter().from_filename(str(path), pictures)
    folder = PurePosixPath(page).parent
    outputs = {str(folder / k): x for k, x in found["outputs"].items()}
    return {page: without_badges(text), **outputs}


def without_badges(text: str) -> str:
    """Returns text with links in place of badges that are links."""
    return _BADGE.sub(r"[\1]", text)


def public_names() -> set[str]:
    """Returns the full names of the public API, without `__version__`."""
    return {
        f"{module}.{name}"
        for module, path in FACES.items()
        for name in _exported((ROOT / path).read_text("utf-8"))
        if not name.startswith("__")
    }


def reference_pages() -> list[str]:
    """Returns the texts of the reference's pages."""
    folder = ROOT / "docs" / "reference"
    return [path.read_text("utf-8") for path in sorted(folder.glob("*.md"))]


def documented_names(pages: Iterable[str]) -> list[str]:
    """Returns the names after `:::` in pages, leaving code blocks out."""
    return [n for p in pages for n in _DIRECTIVE.findall(_FENCE.sub("", p))]


def reference_problems(
    public: Iterable[str], pages: Iterable[str]
) -> Iterator[str]:
    """Yields a sentence for each name that is missing or there twice."""
    documented = documented_names(pages)
    for name in sorted(set(public) - set(documented)):
        yield f"{name} is public and has no place in docs/reference/."
    for name in sorted({n for n in documented if documented.count(n) > 1}):
        yield f"{name} is documented twice in docs/reference/."


def layer_order(contributing: str) -> str:
    """Returns the table of the layers, from the text of CONTRIBUTING.md."""
    table = re.search(r"^\| layer .*?\n(?=\n)", contributing, re.M | re.S)
    if table is None:
        raise ValueError("CONTRIBUTING.md has no table that begins '| layer'.")
    return table[0]


def rebase_links(text: str, source: str, page: str) -> str:
    """Returns a file's text with links that lead on from a page of the site.

    Args:
        text: Markdown whose relative links start from `source`.
        source: The file's path in the repository.
        page: The page's path in the site.
    """
    pages = {file: name for name, file in PAGES.items()}

    def replaced(match: re.Match) -> str:
        target, _, anchor = match[2].partition("#")
        if not target or re.match(r"\w+:", target):
            return match[0]
        folder = PurePosixPath(source).parent
        path = os.path.normpath(folder / target).replace(os.sep, "/")
        if path in pages or path.startswith("docs/"):
            where = pages.get(path, path.removeprefix("docs/"))
            new = os.path.relpath(where, PurePosixPath(page).parent)
            new = new.replace(os.sep, "/")
        elif (ROOT / path).exists():
            kind = "tree" if (ROOT / path).is_dir() else "blob"
            new = f"{REPOSITORY}/{kind}/main/{path}"
        else:
            return match[0]  # for MkDocs to complain about
        return match[1] + new + (f"#{anchor}" if anchor else "") + match[3]

    return _outside_code(text, lambda part: _LINK.sub(replaced, part))


def _outside_code(text: str, change: Any) -> str:
    parts, end = [], 0
    for fence in _FENCE.finditer(text):
        parts += [change(text[end : fence.start()]), fence[0]]
        end = fence.end()
    return "".join([*parts, change(text[end:])])


def _exported(source: str) -> list[str]:
    """Returns `__all__` of a module's source, or else its `X as X` imports."""
    tree = ast.parse(source)
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else []
        if any(ast.unparse(target) == "__all__" for target in targets):
            return list(ast.literal_eval(node.value))
    imports = [x for x in ast.walk(tree) if isinstance(x, ast.ImportFrom)]
    aliases = [alias for node in imports for alias in node.names]
    return [alias.name for alias in aliases if alias.asname == alias.name]
