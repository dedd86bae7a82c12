"""Expectations in a file: a program needs no change to be checked."""

from __future__ import annotations

import os
import sys

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import DeltaLakeInstrumentor, Settings, within
from deltawitness.exceptions import ConfigurationError, ExpectationError
from deltawitness.expectations import load_expectations
from deltawitness.expectations.block import has_expectations
from deltawitness.expectations.rules import parse_rules
from helpers.terminal_commands import run_command

RULES = """
[[expect]]
table = "t"
rows_added = { within = [0.5, 2.0], of = "last 5", min_commits = 2 }
schema = "unchanged"
nulls = { id = 0, note = 0.5 }
unique = ["id"]

[[expect]]
policy = "nightly"
rows_added = { min = 1 }
values = { price = { min = 0, max = 10 }, currency = ["EUR", "USD"] }
on_failure = "quarantine"
quarantine = "q"
"""


def test_a_file_has_the_arguments_of_expect(tmp_path):
    (tmp_path / "rules.toml").write_text(RULES)
    first, second = load_expectations(str(tmp_path / "rules.toml"))
    assert first._rules == parse_rules(
        rows_added=within(0.5, 2.0, of="last 5", min_commits=2),
        schema="unchanged",
        nulls={"id": 0, "note": 0.5},
        unique="id",
    )
    assert second._rules == parse_rules(
        rows_added=(1, None),
        values={"price": (0, 10), "currency": {"EUR", "USD"}},
        on_failure="quarantine",
        quarantine="q",
    )


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("[[expect]\n", "cannot be read"),
        ("[expect]\nschema = 'unchanged'\n", "tables"),
        ("[[expect]]\nschema = 'unchanged'\n[[rules]]\n", "tables"),
        ("[[expect]]\nschema = 'same'\n", "number 1: expect: `schema`"),
        ("[[expect]]\nrows = 1\n", "number 1: unknown key 'rows'"),
        ("[[expect]]\nrows_added = 1\npolicy = 3\n", "`policy` must be text"),
        ("[[expect]]\nrows_added = { within = 1 }\n", "`within` must be"),
        ("[[expect]]\nrows_added = { within = [2, 1] }\n", "within: "),
        ("[[expect]]\nrows_added = { least = 1 }\n", "`rows_added`"),
    ],
)
def test_an_invalid_file_is_an_error_before_anything_is_instrumented(tmp_path, content, reason):
    (tmp_path / "rules.toml").write_text(content)
    settings = Settings(expectations=str(tmp_path / "rules.toml"))
    with pytest.raises(ConfigurationError, match=f"DELTAWITNESS_EXPECTATIONS: .*{reason}"):
        DeltaLakeInstrumentor().instrument(settings=settings)
    with pytest.raises(ConfigurationError, match="cannot be read"):
        load_expectations(str(tmp_path / "none.toml"))


def test_a_file_is_in_force_while_the_process_is_instrumented(tmp_path):
    (tmp_path / "rules.toml").write_text("[[expect]]\nnulls = { id = 0 }\n")
    rows, table = pa.table({"id": pa.array([None], pa.int64())}), str(tmp_path / "t")
    settings = Settings(expectations=str(tmp_path / "rules.toml"))
    DeltaLakeInstrumentor().instrument(settings=settings)
    with pytest.raises(ExpectationError):
        write_deltalake(table, rows)
    DeltaLakeInstrumentor().uninstrument()
    assert not has_expectations()
    DeltaLakeInstrumentor().instrument()
    write_deltalake(table, rows)
    DeltaLakeInstrumentor().uninstrument()


@pytest.mark.slow
def test_a_program_under_run_is_checked(tmp_path):
    """An invalid file ends it before it starts, with exit code 2 and one line."""
    rules, program = tmp_path / "rules.toml", tmp_path / "program.py"
    rules.write_text("[[expect]]\ntable = 't'\nrows_added = { min = 2 }\n")
    program.write_text(
        "import pyarrow as pa\nfrom deltalake import write_deltalake\n"
        "for count in (2, 1):\n"
        "    write_deltalake('t', pa.table({'id': range(count)}), mode='append')\n"
    )

    def run():
        environment = {**os.environ, "DELTAWITNESS_EXPECTATIONS": str(rules)}
        command = ["run", "--", sys.executable, program]
        return run_command(*command, folder=tmp_path, environment=environment)

    done = run()
    assert (done.returncode, DeltaTable(tmp_path / "t").version()) == (1, 0)
    assert (
        "ExpectationError: expectations not met, nothing was committed: rows_added" in done.stderr
    )
    rules.write_text("[[expect]]\n")
    done = run()
    assert (done.returncode, DeltaTable(tmp_path / "t").version()) == (2, 0)
    assert (
        "DELTAWITNESS_EXPECTATIONS: [[expect]] number 1: expect: give at least one" in done.stderr
    )
