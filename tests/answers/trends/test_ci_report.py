"""`ci_report` says in Markdown what fails a pull request."""

from __future__ import annotations

from datetime import timedelta

import pytest

from deltawitness import ci_report
from deltawitness.answers.trends.ci_values import CiCheck
from deltawitness.answers.trends.markdown import MARKER, escape
from helpers.past_ledgers import AT, PastLedger

HOUR = timedelta(hours=1)


@pytest.fixture
def ledger():
    """A ledger with a job that broke, and one that runs well."""
    ledger = PastLedger()
    for back in reversed(range(1, 10)):
        ledger.run("good", AT - back * HOUR)
        ledger.run("bad|job", AT - back * HOUR, status="ok" if back > 1 else "error", table="t")
    ledger.write(
        "t",
        AT - HOUR,
        None,
        result="error",
        version=None,
        job="bad|job",
        run_id="run-17",
        error_type="schema_mismatch",
        error_message="<b>no</b> column @team",
    )
    return ledger


@pytest.mark.slow
def test_the_report_of_a_broken_job(ledger, tmp_path):
    found = ci_report(at=AT, root=ledger.save(tmp_path / "ledger"))
    checks = [(each.check, each.subject, each.fails) for each in found.problems]
    assert checks == [(CiCheck.BROKEN, "bad|job", True), (CiCheck.FAILED, "t", True)]
    assert not found.is_ok
    lines = found.markdown.splitlines()
    assert lines[:2] == [MARKER, "## deltawitness: 2 problems"]
    assert (
        "| **fails** | broken | bad\\|job | the last 1 of 9 runs failed: OSError" in found.markdown
    )
    assert "schema\\_mismatch: \\<b\\>no\\</b\\> column @\u200bteam" in found.markdown
    assert "<summary>18 runs, 1 not ok, " in found.markdown
    assert found.markdown.endswith("</details>\n")


@pytest.mark.slow
def test_checks_that_do_not_fail_the_report_are_warnings(ledger, tmp_path):
    root = ledger.save(tmp_path / "ledger")
    found = ci_report(at=AT, root=root, fail_on=["late", CiCheck.FLAKY])
    assert found.is_ok
    assert found.markdown.splitlines()[1] == "## deltawitness: 2 warnings"
    with pytest.raises(ValueError, match="nothing"):
        ci_report(at=AT, root=root, fail_on=["nothing"])


@pytest.mark.slow
def test_one_job_and_a_shorter_time(ledger, tmp_path):
    root = ledger.save(tmp_path / "ledger")
    found = ci_report(at=AT, since=AT - 2.5 * HOUR, job="good", root=root)
    assert (found.is_ok, found.problems, len(found.runs)) == (True, (), 2)
    assert "## deltawitness: no problems" in found.markdown
    earlier = ci_report(at=AT - 1.5 * HOUR, root=root)
    assert (earlier.is_ok, len(earlier.runs)) == (True, 16)


@pytest.mark.slow
def test_a_failed_first_run_is_in_the_heading(tmp_path):
    """No check finds a job that never ended well; the heading counts its runs."""
    past = PastLedger()
    past.run("first", AT - HOUR, status="abandoned")
    found = ci_report(at=AT, root=past.save(tmp_path / "ledger"))
    assert found.problems == ()
    assert "## deltawitness: no problems, but 1 run not ok" in found.markdown


@pytest.mark.slow
def test_all_checks_have_problems(tmp_path):
    """Each kind of problem has a line in the report."""
    ledger = PastLedger()
    for back in reversed(range(1, 20)):
        is_bad = back in {1, 4, 8}
        ledger.run("flaky", AT - back * HOUR, status="error" if is_bad and back > 1 else "ok")
        ledger.run("empty", AT - back * HOUR, rows=100 if back > 1 else None)
        ledger.run("many", AT - back * HOUR, rows=100 if back > 1 else 9_000)
        ledger.run("slower", AT - back * HOUR, seconds=10 if back > 1 else 90)
        if back > 5:
            ledger.run("late", AT - back * HOUR)
    found = ci_report(at=AT, root=ledger.save(tmp_path / "ledger"))
    checks = {(each.check.value, each.subject.partition("@")[0]) for each in found.problems}
    assert checks == {
        ("flaky", "flaky"),
        ("empty", "empty"),
        ("late", "empty"),
        ("smaller", "empty"),
        ("volume", "many"),
        ("slower", "slower"),
        ("late", "late"),
    }
    assert [each.check.value for each in found.problems if not each.fails] == ["flaky"]


@pytest.mark.slow
def test_a_report_is_of_bounded_length(tmp_path):
    ledger = PastLedger()
    for number in range(150):
        ledger.run(f"job {number} " + "x" * 900, AT - HOUR, rows=None)
    found = ci_report(at=AT, root=ledger.save(tmp_path / "ledger"))
    assert "and 100 more" in found.markdown
    assert len(found.markdown) < 65_536


def test_text_cannot_break_a_table():
    assert escape("a\n| `b` [c](d)") == "a \\| \\`b\\` \\[c\\](d)"
