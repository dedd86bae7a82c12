"""Listings in a real pseudo-terminal: they fit its width, cut nothing, and are plain text in a pipe."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import textwrap

import pytest
from rich.cells import cell_len

from helpers.terminal_commands import environment, in_pipe, in_terminal

PROGRAM = """
    import pyarrow as pa
    from deltalake import DeltaTable, write_deltalake
    from deltawitness import CachePolicy, DeltaCache, ObservedSessionContext, run
    LONG = "orders_of_all_customers_by_day"
    for name in ("flights", LONG):
        write_deltalake(name, pa.table({"x": range(1234567)}), mode="append")
    DeltaTable("flights").delete("x < 7")
    try:
        write_deltalake("flights", pa.table({"x": [0]}))
    except Exception:
        pass
    with run("a job with a name of several words"):
        write_deltalake("flights", pa.table({"x": [3]}), mode="overwrite")
    ctx = ObservedSessionContext()
    ctx.register_delta("flights", "flights")
    cache = DeltaCache(ctx)
    for _ in range(2):
        cache.view("three", ctx.sql("SELECT * FROM flights"), policy=CachePolicy("a_policy")).collect()
"""

PLAIN = """
    import pyarrow as pa
    from deltalake import write_deltalake
    write_deltalake("foreign", pa.table({"x": [1]}))
"""

LISTINGS = {
    "runs": 0,
    "show {run}": 0,
    "writes": 0,
    "commit flights": 0,
    "audit foreign flights": 1,
    "reconcile foreign": 1,
    "cache ls": 0,
    "cache why three": 0,
    "ledger optimize": 0,
    "ledger verify": 0,
}
"""Commands that print tables or lists, with their exit codes."""

WIDTHS = (60, 80, 140)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a ledger of two runs, a cache, and a table that nothing observed."""
    folder = tmp_path_factory.mktemp("place")
    command = [sys.executable, "-m", "deltawitness", "run", "--job", "load", "--quiet", "--"]
    for program in ([*command, sys.executable, "-c", PROGRAM], [sys.executable, "-c", PLAIN]):
        done = subprocess.run(
            [*program[:-1], textwrap.dedent(program[-1])],
            cwd=folder,
            env=environment(DELTAWITNESS_CACHE_ROOT=".deltawitness"),
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == 0, done.stderr
    (run,) = invoke(folder, "runs", "--job", "load")
    (folder / "run").write_text(run["run_id"])
    return folder


def arguments(listing, place):
    return listing.format(run=(place / "run").read_text()[:18]).split()


def invoke(place, *command):
    done = in_pipe(place, *command, "--json")
    return json.loads(done.stdout)


def without_styles(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("listing", LISTINGS)
@pytest.mark.one_case_in(4)
def test_a_listing_fits_the_terminal(listing, width, place):
    """No line is wider than the terminal, and every character of the plain text is there."""
    command = arguments(listing, place)
    output, code = in_terminal(place, width, *command)
    assert code == LISTINGS[listing], output
    lines = without_styles(output).splitlines()
    assert lines
    assert max(map(cell_len, lines)) <= width
    assert "…" not in output
    assert "..." not in output


@pytest.mark.slow
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.one_case_in(2)
def test_numbers_are_not_cut(width, place):
    """Counts of seven digits, durations and versions are in one piece at every width."""
    output, _ = in_terminal(place, width, "writes", "--limit", "100")
    assert (
        "time  " in without_styles(output).splitlines()[0]
        and "result" in without_styles(output).splitlines()[0]
    ) == (width > 60)  # a table, else a block for each row
    assert len(re.findall(r"\+1,234,567\b", output)) == 2
    rows = invoke(place, "writes", "--limit", "100")
    for row in rows:
        assert f"{row['duration_ms'] / 1000:.3f}" in output
        assert row["run_id"][:13] in output
    output, _ = in_terminal(place, width, "runs")
    assert "2,469,135" in output


@pytest.mark.slow
@pytest.mark.parametrize("listing", ["runs", "writes", "cache ls", "cache why three", "show {run}"])
@pytest.mark.one_case_in(2)
def test_a_pipe_gets_plain_text(listing, place):
    """A row is one line without styles, frames and padding, however long it is."""
    done = in_pipe(place, *arguments(listing, place))
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    assert not re.search("[│┃━─┏└├] ?[a-z0-9]* ?[│┃]", done.stdout)
    assert all(line == line.rstrip() for line in done.stdout.splitlines())
    if listing == "writes":
        count = len(invoke(place, "writes", "--limit", "20"))
        assert len(done.stdout.splitlines()) == 1 + count
        assert "orders_of_all_customers_by_day" in done.stdout


@pytest.mark.slow
def test_columns_without_a_value_are_left_out(place):
    """A run without a cache has no columns for hits and misses."""
    header, *rows = in_pipe(
        place, "runs", "--job", "a job with a name of several words"
    ).stdout.splitlines()
    assert header.split() == [
        "run",
        "job",
        "status",
        "started",
        "seconds",
        "writes",
        "rows",
        "+",
        "tables",
    ]
    assert len(rows) == 1


@pytest.mark.slow
def test_a_write_shows_its_mode(place):
    """In the list of operations and in the summary of a run; the default mode is left out."""
    output = in_pipe(place, "writes").stdout
    assert "WRITE append " in output
    assert "WRITE overwrite " in output
    assert "WRITE append, overwrite " in in_pipe(place, *arguments("show {run}", place)).stdout


@pytest.mark.slow
def test_short_ids_are_accepted(place):
    """The id that a listing shows is one that `show`, `writes` and `verify` take."""
    for line in in_pipe(place, "runs").stdout.splitlines()[1:]:
        shown = line.split()[0]
        assert len(shown) == 13
        full = invoke(place, "show", shown)["run"]["run_id"]
        assert full.startswith(shown)
        assert {row["run_id"] for row in invoke(place, "writes", "--run", shown)} == {full}
        assert invoke(place, "verify", shown)["run_id"] == full


@pytest.mark.slow
def test_no_color_leaves_styles_out(place):
    """With NO_COLOR there is no colour in a terminal."""
    output, _ = in_terminal(place, 80, "runs", NO_COLOR="1")
    assert not re.search(r"\x1b\[(?:3\d|4\d|9\d|38|48)", output)


@pytest.mark.slow
@pytest.mark.parametrize("is_terminal", [True, False], ids=["terminal", "pipe"])
def test_columns_sets_the_width(is_terminal, place):
    """The variable wins over the size of the terminal, and bounds a pipe."""
    if is_terminal:
        output, _ = in_terminal(place, 200, "writes", COLUMNS="70")
    else:
        output = in_pipe(place, "writes", COLUMNS="70").stdout
    lines = without_styles(output).splitlines()
    assert max(map(cell_len, lines)) <= 70
