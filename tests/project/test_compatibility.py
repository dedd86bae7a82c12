"""The compatibility matrix: its cases agree with the project, and the page with its results."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from helpers.places import REPOSITORY
from helpers.repository_tools import load_tool

matrix = load_tool("matrix")
PROJECT = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
CASES = {case.name: case for case in matrix.cases()}


@pytest.fixture
def compatibility(monkeypatch):
    """The script that writes the tables."""
    monkeypatch.setitem(sys.modules, "matrix", matrix)
    return load_tool("compatibility")


def allowed(name):
    """Return the versions of a package that the project allows, with those of its extras."""
    extras = (text for extra in PROJECT["optional-dependencies"].values() for text in extra)
    found = [Requirement(text) for text in (*PROJECT["dependencies"], *extras)]
    (requirement,) = [each for each in found if each.name == name]
    return requirement.specifier


# --- cases -------------------------------------------------------------------------------------------


def test_each_case_has_another_name():
    """A name is a session and a file."""
    assert len(CASES) == len(list(matrix.cases()))


def test_the_tests_of_each_suite_exist():
    """A suite whose files were renamed would pass without a test."""
    for paths in matrix.SUITES.values():
        for path in paths:
            assert (REPOSITORY / path).is_file(), path


def test_the_pins_are_versions_that_the_project_allows():
    """Each release of deltalake and each DataFusion of the matrix is within the requirements."""
    for version in (*matrix.ENGINES, *matrix.PAIRS.values()):
        assert version in allowed("deltalake"), version
    for major in matrix.PAIRS:
        assert f"{major}.0.0" in allowed("datafusion"), major


@pytest.mark.slow
def test_the_newest_engines_are_those_of_the_lock_file():
    """A newer release that is locked is added to the matrix."""
    lock = tomllib.loads((REPOSITORY / "uv.lock").read_text())
    locked = {package["name"]: package["version"] for package in lock["package"]}
    assert matrix.ENGINES[-1] == locked["deltalake"]
    assert max(matrix.PAIRS, key=int) == locked["datafusion"].partition(".")[0]


def test_each_datafusion_that_the_project_allows_is_tested():
    """The bounds of the requirement are those of the pairs."""
    majors = [int(major) for major in matrix.PAIRS]
    bounds = [each for each in allowed("datafusion") if each.operator != "!="]
    assert {*bounds} == {*SpecifierSet(f">={min(majors)},<{max(majors) + 1}")}


def test_each_extra_has_a_case():
    """So has the wheel without an extra."""
    tested = {case.extras for case in CASES.values() if case.group == "extras"}
    assert tested == {(), *((extra,) for extra in PROJECT["optional-dependencies"])}


def test_the_oldest_python_is_the_lower_bound():
    """CI tests the same versions of CPython."""
    assert PROJECT["requires-python"] == f">={matrix.OLDEST_PYTHON}"
    assert matrix.PYTHONS[0] == matrix.OLDEST_PYTHON


@pytest.mark.slow
def test_a_missing_interpreter_is_found_to_be_missing():
    """An interpreter counts if it starts and has the version."""
    running = ".".join(map(str, sys.version_info[:2]))
    assert matrix.interpreter(running) is not None
    assert matrix.interpreter("3.99") is None


# --- results -----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_counts_of_a_report_are_those_of_the_tests(tmp_path):
    """Failures and errors of fixtures count as failed, and have their ids in the result."""
    (tmp_path / "test_all.py").write_text(
        "import pytest\n"
        "@pytest.fixture\n"
        "def broken(): raise ValueError\n"
        "def test_good(): pass\n"
        "def test_bad(): assert False\n"
        "def test_broken(broken): pass\n"
        "@pytest.mark.skip\n"
        "def test_skipped(): pass\n"
    )
    report = tmp_path / "report.xml"
    subprocess.run(
        [sys.executable, "-m", "pytest", "-q", f"--junitxml={report}", "-p", "no:deltawitness"],
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
    )
    result = matrix.Result("x", "failed")
    matrix.read_report(report, result)
    assert (result.passed, result.failed, result.skipped) == (1, 2, 1)
    assert result.failures == ["test_all::test_bad", "test_all::test_broken"]


def test_the_versions_of_a_freeze_are_read():
    """The wheel is installed from a file; other packages are left out."""
    frozen = (
        "deltalake==1.0.2\nnumpy==2.0\nopentelemetry-api==1.45.2\n"
        "deltawitness @ file:///x/dist/deltawitness-0.2.0rc1-py3-none-any.whl\n"
    )
    assert matrix.of_interest(frozen) == {
        "deltalake": "1.0.2",
        "opentelemetry-api": "1.45.2",
        "deltawitness": "0.2.0rc1",
    }


def test_results_are_merged_in_the_order_of_the_cases(compatibility, tmp_path):
    """A newer result replaces an older one, and one of a case that is gone is dropped."""
    first, second = list(CASES)[:2]
    (tmp_path / f"{first}.json").write_text(json.dumps({"status": "new"}))
    older = {"gone": {}, second: {"status": "old"}, first: {"status": "old"}}
    merged = compatibility.collect(tmp_path, older)
    assert list(merged.items()) == [(first, {"status": "new"}), (second, {"status": "old"})]


def test_each_state_of_a_case_has_a_row(compatibility):
    """A case that has not run, one without an interpreter, and one that failed are told apart."""
    failed = matrix.Result("deltalake-1.0.2", "failed", {"deltalake": "1.0.2"}, 3, 7, 1)
    failed.failures = [f"tests.x::test_{number}[a]" for number in range(7)]
    missing = matrix.Result("python-3.14", "no interpreter")
    shown = compatibility.tables({each.name: each.to_json() for each in (failed, missing)})
    row = next(line for line in shown.splitlines() if "| `deltalake-1.0.2` |" in line)
    assert "| 1.0.2 |" in row
    assert row.endswith("| 3 passed, 7 failed, 1 skipped | failed |")
    assert re.search(r"\| `python-3.14` \|.*\|  \| no interpreter \|", shown)
    assert re.search(r"\| `python-3.12` \|.*\| not run \|", shown)
    names = ", ".join(f"`test_{number}`" for number in range(5))
    assert f"- `deltalake-1.0.2`: {names}, 2 more\n" in shown


def test_the_page_keeps_what_is_written_by_hand(compatibility):
    """Only the text between the markers is replaced, and both markers are needed."""
    page = f"before\n{compatibility.BEGIN}old\n{compatibility.END}\nafter\n"
    assert compatibility.page_with(page, "new\n") == page.replace("old", "new")
    with pytest.raises(ValueError, match="markers"):
        compatibility.page_with("no marker", "new\n")


def test_the_tables_on_the_page_are_those_of_the_results(compatibility):
    """`make matrix-tables` writes them."""
    page = compatibility.PAGE.read_text()
    assert compatibility.page_with(page, compatibility.tables(compatibility.recorded())) == page
