"""The files around the code: what GitHub, pip and contributors read."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

import keras_cascade

# No backend takes part in it.
pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
YAML = [
    ROOT / "CITATION.cff",
    ROOT / ".pre-commit-config.yaml",
    ROOT / "mkdocs.yml",
    *sorted((ROOT / ".github").rglob("*.yml")),
]
yaml = pytest.importorskip("yaml")


def read(path: Path) -> dict:
    return yaml.safe_load(path.read_text("utf-8"))


def tracked(pattern: str) -> list[Path]:
    """The files of the checkout that git knows or would add."""
    git = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(
        [*git, "--", pattern], cwd=ROOT, capture_output=True, text=True
    )
    paths = [ROOT / line for line in done.stdout.splitlines()]
    return [path for path in paths if path.is_file()]


def steps(workflow: dict) -> list[dict]:
    return [
        s for job in workflow["jobs"].values() for s in job.get("steps", [])
    ]


@pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
def test_every_yaml_file_can_be_read(path: Path):
    assert isinstance(read(path), dict)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_has_triggers_jobs_and_no_more_rights_than_it_needs(path):
    workflow = read(path)
    # YAML 1.1 reads the key `on` as a boolean.
    assert workflow[True]
    assert workflow["jobs"]
    assert workflow["permissions"] == {"contents": "read"}


def test_every_default_tox_environment_runs_on_three_systems():
    jobs = read(ROOT / ".github" / "workflows" / "tests.yml")["jobs"]
    matrix = jobs["tests"]["strategy"]["matrix"]
    assert [name.split("-")[0] for name in matrix["os"]] == [
        "ubuntu",
        "macos",
        "windows",
    ]
    checks = jobs["checks"]["strategy"]["matrix"]["env"]
    assert {*matrix["env"], *checks} >= set(PROJECT["tool"]["tox"]["env_list"])


def test_workflows_name_tox_environments_that_exist():
    known = set(PROJECT["tool"]["tox"]["env"])
    named = set()
    for path in WORKFLOWS:
        for job in read(path)["jobs"].values():
            matrix = job.get("strategy", {}).get("matrix", {})
            named |= set(matrix.get("env", []))
            named |= {row["env"] for row in matrix.get("include", [])}
            named |= set(re.findall(r"tox -e (\w+)", str(job)))
    assert named
    assert named <= known


def test_a_release_is_tested_and_published_without_a_token():
    release = read(ROOT / ".github" / "workflows" / "release.yml")
    assert release[True] == {"push": {"tags": ["v*"]}}
    publish = release["jobs"]["publish"]
    assert publish["permissions"] == {"id-token": "write"}
    assert set(publish["needs"]) == {"tests", "build"}
    assert publish["steps"][-1]["uses"].startswith(
        "pypa/gh-action-pypi-publish@"
    )
    assert "secrets." not in str(release)


def test_actions_and_hooks_are_pinned():
    used = [s["uses"] for p in WORKFLOWS for s in steps(read(p)) if "uses" in s]
    assert used
    assert all(re.search(r"@(v\d|release/v1$)", name) for name in used)
    for repo in read(ROOT / ".pre-commit-config.yaml")["repos"]:
        assert repo["repo"].startswith("https://github.com/")
        assert re.fullmatch(r"v\d+\.\d+\.\d+", repo["rev"])


def test_issue_forms_have_labelled_fields_with_ids_of_their_own():
    folder = ROOT / ".github" / "ISSUE_TEMPLATE"
    for name in ("bug", "feature"):
        form = read(folder / f"{name}.yml")
        assert form["name"]
        assert form["description"]
        ids = [field["id"] for field in form["body"]]
        assert len(set(ids)) == len(ids)
        assert all(field["attributes"]["label"] for field in form["body"])


def test_the_citation_and_the_changelog_are_of_this_version():
    citation = read(ROOT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert citation["version"] == keras_cascade.__version__
    assert {"message", "title", "authors"} <= set(citation)
    assert citation["license"] == PROJECT["project"]["license"]
    changelog = (ROOT / "CHANGELOG.md").read_text("utf-8")
    assert re.search(r"^## \[Unreleased\]$", changelog, re.MULTILINE)
    assert keras_cascade.__version__ in changelog


def test_the_project_says_where_it_lives():
    urls = PROJECT["project"]["urls"]
    assert set(urls) == {
        "Homepage",
        "Documentation",
        "Repository",
        "Issues",
        "Changelog",
    }
    assert read(ROOT / "CITATION.cff")["repository-code"] == urls["Repository"]


def relative_links(text: str) -> list[str]:
    """Targets of Markdown links to files, without those in code."""
    text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    links = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", text))
    return [
        link.split("#")[0] for link in links if not re.match(r"\w+:|#", link)
    ]


@pytest.mark.parametrize(
    "path", tracked("*.md"), ids=lambda path: str(path.relative_to(ROOT))
)
def test_links_between_files_lead_somewhere(path: Path):
    links = relative_links(path.read_text("utf-8"))
    assert [x for x in links if not (path.parent / x).exists()] == []


def test_a_broken_link_is_caught_and_code_is_no_link():
    text = "[a](b.md#c) [d](https://e.f) `[g](h)`\n```\n[i](j)\n```\n[k](#l)"
    assert relative_links(text) == ["b.md"]


def failures(text: str) -> list[str]:
    """Lines such as a test run prints for tests that fail."""
    pattern = r"^\W*(?:FAIL|FAILED|ERROR)\b.*\btest_\w+.*$"
    return re.findall(pattern, text, re.MULTILINE)


@pytest.mark.parametrize(
    "path", tracked("*.md"), ids=lambda path: str(path.relative_to(ROOT))
)
def test_no_document_names_a_failing_test(path: Path):
    assert failures(path.read_text("utf-8")) == []


def test_a_failing_test_in_a_document_is_caught():
    line = "FAIL torch test_a_file_answers_as_the_cascade"
    pytests = "FAILED tests/test_zoo.py::test_it - AssertionError"
    assert failures(f"| a |\n{line}\n| b |\n{pytests}\n") == [line, pytests]
    assert failures("A test fails without the change: test_it.") == []
