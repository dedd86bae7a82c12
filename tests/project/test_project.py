"""The files for contributors agree with the project: targets, paths, workflows, decisions, classifiers."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

from helpers.places import REPOSITORY

ROOT = REPOSITORY
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
MAKEFILE = (ROOT / "Makefile").read_text()
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
DECISIONS = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))
PAGES = [
    *(ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "CODE_OF_CONDUCT.md")),
    *(ROOT / name for name in ("changes/README.md", "docs/policy.md", "docs/decisions/README.md")),
    *DECISIONS,
]
HEADINGS = ["Context", "Decision", "Consequences", "What would change our mind"]
CHANGES = {kind["directory"] for kind in PROJECT["tool"]["towncrier"]["type"]}


def name_of(path):
    """Return a path as the project spells it, for the id of a test."""
    return path.relative_to(ROOT).as_posix()


def targets():
    """Return the targets of the Makefile."""
    return set(re.findall(r"^([a-z][a-z0-9-]*):(?!=)", MAKEFILE, re.MULTILINE))


def jobs(workflow):
    """Return the jobs of a workflow by name."""
    return yaml.safe_load(workflow.read_text())["jobs"]


def commands(workflow):
    """Return what the steps of a workflow run."""
    steps = (step for job in jobs(workflow).values() for step in job.get("steps", []))
    return [step["run"] for step in steps if "run" in step]


# --- the Makefile ----------------------------------------------------------------------------------


def test_make_help_shows_every_target():
    """Each target has a line with a description, and is declared phony."""
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout
    described = dict(line.split(maxsplit=1) for line in shown.splitlines())
    phony = re.search(r"^\.PHONY: ((?:.*\\\n)*.*)$", MAKEFILE, re.MULTILINE)[1]
    assert described.keys() == targets() == set(phony.replace("\\\n", " ").split())


@pytest.mark.parametrize("page", [ROOT / "README.md", *PAGES], ids=name_of)
def test_every_target_that_a_page_names_exists(page):
    """A reader can run each `make` command of a page."""
    named = set(re.findall(r"(?:`|\$ )make ([a-z][a-z0-9-]*)", page.read_text()))
    assert named <= targets()


# --- files ----------------------------------------------------------------------------------------


def test_the_top_folder_has_no_files_that_a_program_wrote():
    """What a program writes into its working directory was once committed with a change of the tests."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False, timeout=30
    )
    if listed.returncode != 0:
        pytest.skip("git, or its repository, is missing: this is an unpacked sdist")
    paths = [Path(line) for line in listed.stdout.splitlines()]
    files = {path.suffix for path in paths if len(path.parts) == 1}
    assert files <= {"", ".md", ".toml", ".lock", ".py", ".yaml"}
    assert not [path for path in paths if "_delta_log" in path.parts and path.parts[0] != "tests"]


# --- paths, tests and links ------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_path_that_a_page_names_exists(page):
    """A path in backticks is one of the repository."""
    folders = r"(?:src|tests|docs|benchmarks|examples|collector|changes|\.github)"
    paths = re.findall(rf"`({folders}(?:/[\w.-]+)*/?)`", page.read_text())
    assert [path for path in paths if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_link_of_a_page_leads_somewhere(page):
    """A relative link names a file of the repository."""
    links = re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_test_that_the_guide_names_exists():
    """A recipe of CONTRIBUTING.md names the tests that fail until the change is complete."""
    named = set(
        re.findall(r"\b(test_[a-z0-9_]+)\b(?!\.py)", (ROOT / "CONTRIBUTING.md").read_text())
    )
    defined = {
        name
        for file in (ROOT / "tests").rglob("test_*.py")
        for name in re.findall(r"^def (test_\w+)", file.read_text(), re.MULTILINE)
    }
    assert len(named) > 10
    assert named <= defined


@pytest.mark.slow
def test_the_names_in_recipes_exist():
    """A function, a constant or a class in CONTRIBUTING.md is in the code, or the recipe adds it: see the last line."""
    text = (ROOT / "CONTRIBUTING.md").read_text()
    files = [path for folder in ("src", "tests") for path in (ROOT / folder).rglob("*.py")]
    known = set(re.findall(r"\w+", "\n".join(path.read_text() for path in files)))
    added = "\n".join(re.findall(r"^ *\+(.*)$", text, re.MULTILINE))
    named = {
        *re.findall(r"`(?:\w+\.)*(\w+)\(\)`", text),
        *re.findall(r"`([A-Z_]{4,})`", text),
        *re.findall(r"\b([A-Za-z_]\w*)[(.]", added),
    }
    assert named <= known | {"path_command", "DELTAWITNESS_MERGES_PENDING"}


def test_the_page_of_metrics_names_every_instrument():
    """An instrument that is added to the code is added to the page, and none is only on the page."""
    source = (ROOT / "src/deltawitness/semconv.py").read_text()
    instruments = set(re.findall(r'^METRIC_\w+: Final = "([a-z_.]+)"$', source, re.MULTILINE))
    page = (ROOT / "docs/observability.md").read_text()
    table = page.split("## Metrics\n")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `([a-z_.]+)`", table, re.MULTILINE)) == instruments


# --- decisions and fragments -----------------------------------------------------------------------


def test_the_index_links_every_decision_in_order():
    """Numbers have no gap, and a line of the index has the title of its page."""
    index = (ROOT / "docs/decisions/README.md").read_text()
    lines = re.findall(r"^\| (\d+) \| \[(.+)\]\((.+)\) \|$", index, re.MULTILINE)
    assert [file for _, _, file in lines] == [path.name for path in DECISIONS]
    assert [int(number) for number, _, _ in lines] == list(range(1, len(DECISIONS) + 1))
    for path, (number, title, _) in zip(DECISIONS, lines, strict=True):
        assert path.name.startswith(f"{int(number):04}-")
        assert path.read_text().startswith(f"# {number}. {title}\n")


@pytest.mark.parametrize("page", DECISIONS, ids=name_of)
def test_a_decision_has_the_four_sections_on_one_page(page):
    """Context, decision, consequences, and what would change our mind."""
    text = page.read_text()
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS
    assert len(text.splitlines()) <= 60


def test_every_fragment_is_one_that_towncrier_reads():
    """A file with another name would be missing from the changelog without a word."""
    fragments = {path.name for path in (ROOT / "changes").iterdir()} - {"README.md", "template.md"}
    kinds = "|".join(sorted(CHANGES))
    assert [
        name for name in fragments if not re.fullmatch(rf"\+[\w-]+\.(?:{kinds})\.md", name)
    ] == []
    guide = (ROOT / "changes/README.md").read_text()
    assert [kind for kind in CHANGES if f"`{kind}`" not in guide] == []


def test_the_changelog_has_the_heading_that_fragments_go_below():
    """It occurs once, in the form of Keep a Changelog."""
    changelog = (ROOT / "CHANGELOG.md").read_text()
    assert changelog.count(PROJECT["tool"]["towncrier"]["start_string"]) == 1
    for heading in re.findall(r"^### (.+)$", changelog, re.MULTILINE):
        assert heading.lower() in CHANGES


# --- workflows -------------------------------------------------------------------------------------


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=name_of)
def test_a_workflow_calls_targets_that_exist(workflow):
    """CI runs what a contributor can run."""
    called = {word for run in commands(workflow) for word in re.findall(r"make ([\w-]+)", run)}
    assert called
    assert called <= targets()


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=name_of)
def test_every_action_is_pinned_by_commit_and_names_its_version(workflow):
    """One version of an action in all workflows."""
    uses = re.findall(r"uses: (?!\./)(.+)$", workflow.read_text(), re.MULTILINE)
    assert uses
    for use in uses:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", use), use
    everywhere = {
        use
        for each in WORKFLOWS
        for use in re.findall(r"uses: (?!\./)(.+)$", each.read_text(), re.MULTILINE)
    }
    assert len(everywhere) == len({use.partition("@")[0] for use in everywhere})


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=name_of)
def test_a_job_has_the_rights_that_it_needs_and_a_bound(workflow):
    """No right by default; only the job that publishes has an identity, and a protected environment."""
    assert yaml.safe_load(workflow.read_text())["permissions"] == {}
    for job in jobs(workflow).values():
        publishes = job["permissions"] == {"id-token": "write"}
        assert publishes or job["permissions"] == {"contents": "read"}
        assert publishes == ("environment" in job)
        assert "uses" in job or job["timeout-minutes"] <= 120


def test_workflows_use_the_uv_of_the_makefile():
    """One version of uv locks, tests and publishes."""
    expected = re.search(r"^UV_VERSION := (.+)$", MAKEFILE, re.MULTILINE)[1]
    used = {
        version
        for workflow in WORKFLOWS
        for run in commands(workflow)
        for version in re.findall(r"uv==(\S+)", run)
    }
    assert used == {expected}


# --- metadata of the package -----------------------------------------------------------------------


def test_classifiers_are_within_requires_python_and_tested():
    """The lowest is the lower bound, and each has a required job."""
    classifiers = PROJECT["project"]["classifiers"]
    versions = [
        tuple(map(int, found[1].split(".")))
        for each in classifiers
        if (found := re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", each))
    ]
    lowest = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert min(versions) == tuple(map(int, lowest.split(".")))
    assert versions == sorted(versions)
    tests = jobs(ROOT / ".github/workflows/tests.yml")["tests"]
    assert "continue-on-error" not in tests
    tested = {tuple(map(int, text.split("."))) for text in tests["strategy"]["matrix"]["python"]}
    assert set(versions) <= tested


def test_classifiers_and_keywords_are_sorted_and_unique():
    """A list in order shows what is in it twice."""
    for name in ("classifiers", "keywords"):
        values = PROJECT["project"][name]
        assert len(set(values)) == len(values)
    assert PROJECT["project"]["keywords"] == sorted(PROJECT["project"]["keywords"])


def test_the_classifiers_name_only_systems_with_required_jobs():
    """Tests on a system whose job may fail say nothing about it."""
    tests = jobs(ROOT / ".github/workflows/tests.yml")
    required = {
        job["runs-on"].partition("-")[0]
        for job in tests.values()
        if not job.get("continue-on-error")
    }
    assert required == {"ubuntu"}
    systems = [each for each in PROJECT["project"]["classifiers"] if each.startswith("Operating")]
    assert systems == ["Operating System :: POSIX :: Linux"]
