"""The guide's examples run, and the reference has every public name."""

import importlib.util
import pkgutil
import re
import textwrap
from pathlib import Path

import keras
import pytest

import keras_cascade as kc

ROOT = Path(__file__).parents[1]
GUIDE = sorted((ROOT / "docs" / "guide").glob("*.md"))


@pytest.fixture(scope="module")
def hooks():
    path = ROOT / "docs" / "hooks.py"
    spec = importlib.util.spec_from_file_location("hooks", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def python_blocks(text: str) -> list[str]:
    pattern = r"^( *)```python\n(.*?)^ *```$"
    blocks = re.findall(pattern, text, re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(code) for _, code in blocks]


def examples(text: str) -> list[str]:
    """The blocks but those for LiteRT, which `test_readme.py` runs."""
    return [code for code in python_blocks(text) if ".tflite" not in code]


@pytest.mark.skipif(
    keras.backend.backend() != "torch",
    reason="the guide does the same on every backend, and torch is the fastest",
)
@pytest.mark.parametrize(
    "page",
    [path for path in GUIDE if python_blocks(path.read_text("utf-8"))],
    ids=lambda path: path.stem,
)
def test_the_examples_of_a_guide_run(page, tmp_path, monkeypatch):
    pytest.importorskip("sklearn")
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in examples(page.read_text("utf-8")):
        exec(compile(block, page.name, "exec"), names)
    for drawn in tmp_path.glob("*.svg"):
        shown = page.with_name(drawn.name).read_text("utf-8")
        assert drawn.read_text("utf-8") == shown, f"draw {drawn.name} again"


def test_blocks_are_found_in_lists_too():
    text = "```python\na = 1\n```\n- b\n\n  ```python\n  c = 2\n  ```\n"
    assert python_blocks(text) == ["a = 1\n", "c = 2\n"]


def test_every_public_name_has_one_place_in_the_reference(hooks):
    public, pages = hooks.public_names(), hooks.reference_pages()
    modules = (kc, kc.adapters, kc.testing, kc.zoo)
    assert public == {
        f"{module.__name__}.{name}"
        for module in modules
        for name in module.__all__
        if name != "__version__"
    }
    assert list(hooks.reference_problems(public, pages)) == []


def test_every_name_in_the_reference_exists(hooks):
    for name in hooks.documented_names(hooks.reference_pages()):
        assert pkgutil.resolve_name(name) is not None


def test_a_public_name_without_a_place_is_found(hooks):
    public = {"keras_cascade.export", "keras_cascade.forgotten"}
    pages = ["# Export\n\n::: keras_cascade.export\n"]
    [problem] = hooks.reference_problems(public, pages)
    assert "keras_cascade.forgotten is public" in problem


def test_a_name_in_a_code_block_has_no_place(hooks):
    pages = ["```\n::: keras_cascade.export\n```\n"]
    [problem] = hooks.reference_problems({"keras_cascade.export"}, pages)
    assert "has no place" in problem


def test_a_name_with_two_places_is_found(hooks):
    pages = ["::: keras_cascade.export\n", "\n::: keras_cascade.export\n"]
    [problem] = hooks.reference_problems({"keras_cascade.export"}, pages)
    assert "twice" in problem


def test_links_of_files_lead_on_from_their_pages(hooks):
    text = (
        "[a](tests/README.md) [b](docs/guide/taps.md#patterns) [c](LICENSE) "
        "[d](https://e.f) [g](#h) [i](keras_cascade) [j](missing.md)"
    )
    repository = hooks.REPOSITORY
    assert hooks.rebase_links(text, "README.md", "index.md") == (
        "[a](tests.md) [b](guide/taps.md#patterns) "
        f"[c]({repository}/blob/main/LICENSE) [d](https://e.f) [g](#h) "
        f"[i]({repository}/tree/main/keras_cascade) [j](missing.md)"
    )


def test_links_start_from_the_folder_of_the_file(hooks):
    text = "[a](../../CONTRIBUTING.md#run-the-tests) [b](export.md)"
    moved = hooks.rebase_links(text, "docs/guide/x.md", "guide/x.md")
    assert moved == "[a](../contributing.md#run-the-tests) [b](export.md)"
    text = "[a](../graph/README.md) `[b](c.md)`\n```\n[d](e.md)\n```\n"
    source = "keras_cascade/cache/README.md"
    moved = hooks.rebase_links(text, source, "internals/cache.md")
    assert moved == text.replace("../graph/README.md", "graph.md")


def test_a_badge_becomes_a_link_and_fetches_no_picture(hooks):
    picture = "[![Open in Colab](https://a.b/badge.svg)](https://c.d/e.ipynb)"
    text = f"# T\n\n{picture}\n\n![png](output_3_0.png)"
    assert hooks.without_badges(text) == (
        "# T\n\n[Open in Colab](https://c.d/e.ipynb)\n\n![png](output_3_0.png)"
    )


def test_links_to_a_notebook_lead_to_its_page(hooks):
    text = "[1](01_quickstart.ipynb)"
    moved = hooks.rebase_links(
        text, "tutorials/README.md", "tutorials/index.md"
    )
    assert moved == "[1](01_quickstart.md)"


def test_the_navigation_has_every_page(hooks):
    yaml = pytest.importorskip("yaml")
    site = yaml.safe_load((ROOT / "mkdocs.yml").read_text("utf-8"))
    pages = {
        path.relative_to(ROOT / "docs").as_posix()
        for path in (ROOT / "docs").rglob("*.md")
    }
    listed = re.findall(r"[\w/-]+\.md", str(site["nav"]))
    assert sorted(listed) == sorted(pages | set(hooks.PAGES))
