"""What a command imports: a listing reads the ledger without pandas, pyarrow and DataFusion."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap

import pytest

from deltawitness import Ledger
from deltawitness.ledger.tables.listing import IS_REBUILT, LedgerListing
from deltawitness.ledger.tables.run_rows import RunStatus
from deltawitness.ledger.tables.schema import INVENTORY, RUNS
from deltawitness.semconv import Env

PROGRAM = """
    import sys
    import pyarrow as pa
    from datafusion import SessionContext
    from deltalake import write_deltalake
    from deltawitness import CachePolicy, DeltaCache, ObservedSessionContext, run
    assert "pyarrow.compute" not in sys.modules  # its import takes as long as that of pyarrow
    write_deltalake("flights", pa.table({"x": [1, 2]}))
    with run("inner", run_id="inner-1", attributes={"shard": "3"}):
        write_deltalake("flights", pa.table({"x": [3]}), mode="append")
    ctx = ObservedSessionContext()
    ctx.register_delta("flights", "flights")
    cache = DeltaCache(ctx)
    cache.view("long", ctx.sql("SELECT * FROM flights WHERE x > 1"), policy=CachePolicy("p")).collect()
"""

LISTINGS = [
    ["runs"],
    ["show", "inner"],
    ["writes", "--table", "flights"],
    ["writes", "--json"],
    ["cache", "ls"],
    ["cache", "why", "long"],
    ["commit", "flights"],
]

HEAVY = (
    *("pandas", "pyarrow", "numpy", "datafusion", "sqlglot", "duckdb", "polars"),
    *("deltawitness.ledger.drain.drain", "deltawitness.ledger.ledger"),
    *("deltawitness.cache.delta_cache", "deltawitness.session.proxies"),
    *("deltawitness.cli.run", "deltawitness.answers.bisect", "deltawitness.html_report.content"),
)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a ledger and a cache."""
    folder = tmp_path_factory.mktemp("place")
    command = [sys.executable, "-m", "deltawitness", "run", "--", sys.executable, "-c"]
    done = subprocess.run(
        [*command, textwrap.dedent(PROGRAM)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_a_listing_imports_neither_pandas_nor_the_drain(place):
    """A command that lists rows starts without an engine besides delta-rs, and without other commands.

    All commands run in one process: what none of them imports, no single one imports.
    """
    program = f"""
        import gc, sys
        from deltawitness.cli import main
        for command in {LISTINGS!r}:
            print("#", *command)
            sys.argv = ["deltawitness", *command]
            try:
                main()
            except SystemExit as end:
                found = sorted({{*{HEAVY!r}}} & {{*sys.modules}})
                is_frozen = gc.isenabled() and not any(each is vars(sys) for each in gc.get_objects())
                print(*command, end.code or 0, found, is_frozen, file=sys.stderr)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)],
        cwd=place,
        env=os.environ | {Env.CACHE_ROOT.value: ".deltawitness"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    names = [" ".join(command) for command in LISTINGS]
    assert done.stderr.splitlines() == [f"{name} 0 [] True" for name in names]
    first, *outputs = re.split("^# (.*)\n", done.stdout, flags=re.MULTILINE)
    assert (first, outputs[::2]) == ("", names)
    assert all(outputs[1::2])


@pytest.mark.slow
def test_instrument_imports_no_engine_beyond_delta_rs():
    """`instrument()` loads neither pyarrow nor DataFusion nor what a ledger or a pool of workers needs.

    Nor does it load wrapt and OpenTelemetry's base class, which import asyncio and packaging.
    """
    heavy = {*HEAVY, "opentelemetry.sdk", "rich", "typer", "multiprocessing.pool"}
    heavy |= {"concurrent.futures.process", "deltawitness.ledger.drain.recorder"}
    heavy |= {
        "opentelemetry.instrumentation",
        "wrapt",
        "packaging",
        "asyncio",
        "importlib.metadata",
    }
    program = f"""
        import sys, deltawitness
        deltawitness.DeltaLakeInstrumentor().instrument()
        print(sorted({heavy!r} & {{*sys.modules}}))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program)], capture_output=True, text=True, timeout=60
    )
    assert done.stdout == "[]\n", done.stderr


@pytest.mark.slow
def test_listings_have_the_rows_of_the_frames(place):
    """The queries of the listings return what the DataFusion frames of `Ledger` return."""
    ledger = Ledger(place / ".deltawitness")
    listing = LedgerListing(ledger.root)
    for table, frame in ((RUNS, ledger.runs()), (INVENTORY, ledger.inventory())):
        rows = listing.rows(table, order="run_id")
        expected = [
            {name: value for name, value in row.items() if name != "event_date"}
            for row in frame.to_pylist()
        ]
        assert len(rows) > 1

        def by_text(row):
            return repr(sorted(row.items()))

        assert sorted(rows, key=by_text) == sorted(expected, key=by_text)


def test_listings_accept_the_status_of_reconstructed_runs():
    """The query names the status that `RunStatus` has."""
    assert f"'{RunStatus.RECONSTRUCTED}'" in IS_REBUILT
