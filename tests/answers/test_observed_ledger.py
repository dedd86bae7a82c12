"""In an instrumented process, the questions are about its ledger without a `root`."""

from __future__ import annotations

import inspect
import sys
from dataclasses import replace

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

import deltawitness
from deltawitness import DeltaLakeInstrumentor, Ledger, Settings, run
from deltawitness.exceptions import LedgerLookupError, PlanError
from deltawitness.ledger.tables.locations import chosen_settings
from deltawitness.semconv import Env
from helpers.webhook_server import webhook_server

pytestmark = pytest.mark.slow


@pytest.fixture
def ledger(tmp_path, monkeypatch):
    """A process whose ledger is in a folder that only its settings name, with two versions of a table."""
    monkeypatch.chdir(tmp_path)
    for name in (Env.ROOT, Env.CACHE_ROOT):
        monkeypatch.delenv(name, raising=False)
    root = tmp_path / "own"
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(root)))
    with run("nightly", run_id="run-1"):
        write_deltalake("t", pa.table({"x": [1]}))
        write_deltalake("t", pa.table({"x": [2]}), mode="append")
    yield root
    DeltaLakeInstrumentor().uninstrument()


def made_release():
    """Store a release, and return the functions that then know it."""
    deltawitness.create_release("r", ["t"])
    return deltawitness


def dry_notification():
    with webhook_server() as hook:
        return deltawitness.notify(hook.url, dry_run=True)


def watched():
    watch = deltawitness.watch_freshness(["t"])
    watch.stop()
    return watch


def refusal():
    with pytest.raises(PlanError) as raised:
        deltawitness.apply("nope")
    return str(raised.value)


def planned():
    program = "from deltalake import DeltaTable; DeltaTable('t')"
    return deltawitness.plan([sys.executable, "-c", program])


CALLS = {
    "Ledger": (Ledger, lambda found: found.inventory().count() == 2),
    "adopt": (lambda: deltawitness.adopt("t"), lambda found: found.operations == 0),
    "apply": (refusal, lambda text: "/own/" in text),
    "bisect": (lambda: deltawitness.bisect("t", "x > 1"), lambda found: found.commit.in_ledger),
    "blame": (
        lambda: deltawitness.blame("t", "x = 1"),
        lambda found: found.rows[0].writes[0].commit.in_ledger,
    ),
    "ci_report": (deltawitness.ci_report, lambda found: len(found.runs) == 1),
    "column_lineage": (
        lambda: deltawitness.column_lineage("t"),
        lambda found: found.requested.version == 1,
    ),
    "cost": (lambda: deltawitness.cost("t"), lambda found: "nightly" in repr(found)),
    "create_release": (
        lambda: deltawitness.create_release("r", ["t"]),
        lambda _: [each.name for each in deltawitness.releases()] == ["r"],
    ),
    "diff": (
        lambda: deltawitness.diff("t", 0, 1, rows=False),
        lambda found: found.operations[0].run_id == "run-1",
    ),
    "diff_releases": (lambda: made_release().diff_releases("r"), lambda found: found is not None),
    "doctor": (
        lambda: deltawitness.doctor("t"),
        lambda found: "is not in the ledger" not in repr(found),
    ),
    "drop_release": (
        lambda: made_release().drop_release("r"),
        lambda _: deltawitness.releases() == [],
    ),
    "errors": (deltawitness.errors, lambda found: found == []),
    "impact": (lambda: deltawitness.impact("t"), lambda found: found.dependents == ()),
    "lineage": (lambda: deltawitness.lineage("t"), lambda found: found.nodes[0].in_ledger),
    "lineage_events": (
        lambda: list(deltawitness.lineage_events()),
        lambda found: len(found) > 1,
    ),
    "live": (deltawitness.live, lambda found: len(found.processes) == 1),
    "notify": (dry_notification, lambda found: found.alerts == ()),
    "overdue": (deltawitness.overdue, lambda found: found.tables[0].job == "nightly"),
    "plan": (planned, lambda found: found.exit_code == 0),
    "regressions": (deltawitness.regressions, lambda found: found.jobs == 1),
    "releases": (lambda: made_release().releases(), lambda found: len(found) == 1),
    "report_html": (deltawitness.report_html, lambda page: "nightly" in page.html),
    "restore_release": (
        lambda: made_release().restore_release("r"),
        lambda found: len(found.tables) == 1,
    ),
    "runs": (deltawitness.runs, lambda found: [each.run_id for each in found] == ["run-1"]),
    "show": (lambda: deltawitness.show("t@1"), lambda found: found.in_ledger),
    "time": (lambda: deltawitness.time("run-1"), lambda found: found.job == "nightly"),
    "undo": (lambda: deltawitness.undo("run-1"), lambda found: len(found.tables) == 1),
    "verify_release": (
        lambda: made_release().verify_release("r"),
        lambda found: len(found.tables) == 1,
    ),
    "watch_freshness": (watched, lambda found: found.settings.cache_root.endswith("own")),
    "writes": (deltawitness.writes, lambda found: len(found) == 2),
}
"""For each function with a root and settings a call, and a condition of its result."""


def test_every_function_has_a_call():
    """A new function that reads a ledger gets a call here."""
    named = {
        name
        for name in deltawitness.__all__
        if callable(function := getattr(deltawitness, name))
        and {"root", "settings"} <= set(_parameters(function))
    }
    # A cache has a root of its own: entries that a program has are not looked for in the ledger's root.
    assert named == set(CALLS) | {"DeltaCache"}


def _parameters(function):
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return ()


@pytest.mark.parametrize("name", CALLS)
def test_a_function_finds_the_ledger_of_its_process(name, ledger, tmp_path):
    """Neither a root nor settings are needed, and no other ledger is made."""
    call, is_right = CALLS[name]
    assert is_right(call())
    assert not (tmp_path / ".deltawitness").exists()


def test_settings_and_root_come_first(ledger, tmp_path, monkeypatch):
    """Explicit settings, another root and a variable for a process without a ledger are used as before."""
    other = str(tmp_path / "other")
    assert chosen_settings(None, None, Settings(cache_root=other)).cache_root == other
    assert chosen_settings(other, None, None) == replace(Settings.from_env(), cache_root=other)
    assert chosen_settings(ledger, None, None).cache_root == str(ledger)
    with pytest.raises(LedgerLookupError, match="there is no ledger"):
        deltawitness.runs(root=other)
    DeltaLakeInstrumentor().uninstrument()
    monkeypatch.setenv(Env.ROOT, other)
    assert chosen_settings(None, None, None).cache_root == other
    DeltaLakeInstrumentor().instrument(settings=Settings())
    assert chosen_settings(None, None, None).cache_root == other
    assert DeltaTable("t").version() == 1
