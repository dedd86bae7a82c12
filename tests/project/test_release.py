"""The programs of a release find what is wrong with distributions, and merge the changelog."""

from __future__ import annotations

import json
import subprocess
import sys
import zipfile

import pytest

from helpers.places import REPOSITORY
from helpers.repository_tools import load_tool

changelog = load_tool("changelog")
check_dist = load_tool("check_dist")
VERSION = check_dist.PROJECT["version"]
INFO = f"deltawitness-{VERSION}.dist-info"


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with the wheel and the source distribution."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "uv", "build", "--quiet", "--out-dir", str(folder)]
    subprocess.run(command, cwd=REPOSITORY, check=True, timeout=100)
    return folder


def contents_of(built):
    """Return the contents of the wheel by name."""
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def problems_with(folder, contents):
    """Return the problems of a wheel with other contents."""
    path = folder / "changed.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return list(check_dist.wheel_problems(path))


# --- distributions -----------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_distributions_of_this_repository_are_complete(built):
    """The wheel and the source distribution have what they must, and nothing else."""
    assert list(check_dist.problems(built)) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("tests/test_run.py", b"", f"tests/test_run.py: neither in the package nor in {INFO}"),
        ("deltawitness/py.typed", None, "deltawitness/py.typed is missing"),
        (f"{INFO}/licenses/LICENSE", None, f"{INFO}/licenses/LICENSE is missing"),
        (
            "deltawitness/run.py",
            b"pass",
            "deltawitness/run.py differs from the source, or is missing",
        ),
        ("deltawitness/x.pyc", b"", "deltawitness/x.pyc is a generated file"),
        (
            "deltawitness/notes.txt",
            str(REPOSITORY).encode(),
            "deltawitness/notes.txt names a folder of this machine",
        ),
        (
            f"{INFO}/entry_points.txt",
            b"",
            "entry points: console_scripts is {}, expected {'deltawitness': 'deltawitness.cli:main'}",
        ),
    ],
    ids=["tests", "marker", "licence", "source", "generated", "folder", "entry points"],
)
def test_a_wrong_file_of_a_wheel_is_a_problem(built, tmp_path, name, content, problem):
    """A file too many, too few, or with other content is named."""
    contents = {**contents_of(built), name: content}
    shown = problems_with(
        tmp_path, {key: value for key, value in contents.items() if value is not None}
    )
    assert problem in shown


@pytest.mark.slow
def test_wrong_metadata_are_a_problem(built, tmp_path):
    """Another version, and a requirement that names a location, are named."""
    contents = contents_of(built)
    metadata = contents[f"{INFO}/METADATA"].decode()
    wrong = metadata.replace(f"Version: {VERSION}", "Version: 9").replace(
        "Requires-Dist: wrapt", "Requires-Dist: wrapt @ https://example.org/wrapt.whl", 1
    )
    shown = problems_with(tmp_path, {**contents, f"{INFO}/METADATA": wrong.encode()})
    assert f"metadata: Version is '9', expected '{VERSION}'" in shown
    assert [problem for problem in shown if "names a location" in problem]


def test_a_link_to_a_file_of_the_repository_is_a_problem():
    """A package index has the description, and none of the files."""
    text = "# deltawitness\n[sql](docs/sql.md) [site](https://example.org) [below](#below)"
    assert list(check_dist.description_problems(text)) == [
        "description: the link to docs/sql.md works in the repository only"
    ]


@pytest.mark.slow
def test_a_distribution_that_is_not_built_is_a_problem(tmp_path):
    """The command exits 1 and names both files."""
    command = [sys.executable, REPOSITORY / "tools/check_dist.py", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        f"deltawitness-{VERSION}-py3-none-any.whl: not built",
        f"deltawitness-{VERSION}.tar.gz: not built",
    ]


def test_a_bill_of_materials_has_the_version_and_every_requirement(tmp_path):
    """A missing requirement, another version and a path are named."""
    bill = {
        "bomFormat": "CycloneDX",
        "metadata": {"component": {"version": "0"}},
        "components": [{"name": "deltalake", "purl": f"file://{REPOSITORY}"}],
    }
    (tmp_path / "bill.json").write_text(json.dumps(bill))
    shown = list(check_dist.sbom_problems(tmp_path / "bill.json"))
    assert shown[0] == f"no CycloneDX document of version {VERSION}"
    assert "wrapt is missing" in shown
    assert "deltalake is missing" not in shown
    assert shown[-1] == "names a folder of this machine"


# --- the changelog -----------------------------------------------------------------------------------

BEFORE = """# Changelog

## Unreleased

## 0.2.0 - 2026-11-27

### Fixed

- One.

### Added

- Two.
  More of two.

### Added

- Three.

## 0.1.0 - 2026-01-01

### Fixed

- Old.

### Fixed

- Older.
"""
AFTER = """# Changelog

## Unreleased

## 0.2.0 - 2026-11-27

### Added

- Two.
  More of two.
- Three.

### Fixed

- One.

## 0.1.0 - 2026-01-01

### Fixed

- Old.

### Fixed

- Older.
"""


def test_repeated_sections_of_the_newest_release_are_merged():
    """Older releases stay as they are, and a second run changes nothing."""
    assert changelog.merged(BEFORE) == AFTER
    assert changelog.merged(AFTER) == AFTER
    newest_alone = BEFORE.partition("## 0.1.0")[0]
    assert changelog.merged(newest_alone) == AFTER.partition("\n## 0.1.0")[0]


def test_a_changelog_without_a_release_is_an_error():
    """The message names the command to run first."""
    with pytest.raises(ValueError, match="make changelog VERSION="):
        changelog.merged("# Changelog\n\n## Unreleased\n\n### Added\n\n- One.\n")
    with pytest.raises(ValueError, match="section 'New' is none of Added"):
        changelog.merged("## 1.0.0 - 2026-01-01\n\n### New\n\n- One.\n")


def test_the_changelog_of_this_repository_can_be_merged():
    """Each entry is there afterwards."""
    text = (
        (REPOSITORY / "CHANGELOG.md")
        .read_text()
        .replace("## Unreleased\n", "## Unreleased\n\n## 9.0 - x\n", 1)
    )
    merged = changelog.merged(text)
    assert sorted(line for line in merged.splitlines() if line and line[0] != "#") == sorted(
        line for line in text.splitlines() if line and line[0] != "#"
    )
