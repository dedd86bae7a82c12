"""`deltawitness report` writes the file, and prints the verdict in a line."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.ledger_commands import invoke, json_of
from helpers.report_ledgers import operation, run_row, write_ledger


@pytest.fixture
def root(tmp_path, monkeypatch):
    """The working directory, with a ledger of one operation in its default place."""
    monkeypatch.chdir(tmp_path)
    return write_ledger(tmp_path / ".deltawitness", [operation(0)], [run_row(0)])


@pytest.mark.slow
def test_the_report_of_a_job_is_written_and_summed_up(root):
    done = invoke("report", "--job", "load", "-o", "job.html")
    assert done.exit_code == 0, done.output
    verdict, wrote = done.stdout.splitlines()
    assert verdict == "all is well: 1 run, 1 operation on 1 table"
    assert wrote.startswith("wrote job.html (")
    assert Path("job.html").read_text().startswith("<!DOCTYPE html>")


@pytest.mark.slow
def test_without_options_the_report_is_about_the_last_seven_days(root):
    """The operation of the ledger is older."""
    found = json_of("report")
    assert found["verdict"] == "nothing was recorded in this time"
    assert (found["path"], found["operations"], found["is_ok"]) == ("report.html", 0, True)
    assert found["bytes"] == Path("report.html").stat().st_size


@pytest.mark.slow
def test_the_report_of_a_run_goes_to_standard_output(root):
    done = invoke("report", "--run", "00000001", "-o", "-")
    assert done.stdout.endswith("</html>\n")
    assert not list(Path().glob("*.html"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--run", "0", "--job", "load"], 2, "--run: cannot be combined with --job or --since"),
        (["-o", "-", "--json"], 2, "'-' cannot be combined with --json or --open"),
        (["--run", "ffff"], 1, "--run: no run begins with ffff"),
        (
            ["--job", "load", "-o", "none/report.html"],
            1,
            "the report cannot be written to none/report.html",
        ),
        (["--root", "elsewhere"], 1, "there is no ledger at"),
    ],
    ids=["run-and-job", "stdout-and-json", "no-run", "no-folder", "no-ledger"],
)
def test_an_invalid_option_or_a_missing_ledger_is_an_error_in_one_line(root, arguments, code, text):
    done = invoke("report", *arguments)
    assert done.exit_code == code
    assert text in " ".join(done.output.split())


@pytest.mark.slow
def test_open_shows_the_file(root, monkeypatch):
    """The browser of the system gets the address of the file."""
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    assert invoke("report", "--job", "load", "--open").exit_code == 0
    assert opened == [Path("report.html").absolute().as_uri()]
