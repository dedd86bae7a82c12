"""Every public call of the installed delta-rs that writes is observed: once, with the right values."""

from __future__ import annotations

from pathlib import Path

import pytest

from deltawitness import DeltaLakeInstrumentor, Settings, flush, suppressed
from deltawitness.commit import read_commit_metadata
from deltawitness.ledger.tables.schema import INVENTORY
from deltawitness.observe.observer import current_observer
from deltawitness.semconv import DELTA_TABLE_VERSION
from deltawitness.testing import InMemoryTelemetry
from helpers.ledger_parts import rows_of
from helpers.write_entry_points import (
    ENTRY_POINTS,
    committing_callables,
    entry_point_of,
    public_callables,
)

PRESENT = [name for name in ENTRY_POINTS if entry_point_of(name) in public_callables()]


def versions_in(uri):
    log = Path(uri) / "_delta_log"
    return {int(file.stem) for file in log.glob("*.json") if file.stem.isdigit()}


def test_every_public_callable_that_commits_has_a_call():
    """A new entry point that takes commit properties must be called here."""
    assert committing_callables() <= {entry_point_of(name) for name in ENTRY_POINTS}


@pytest.mark.slow
@pytest.mark.parametrize("name", PRESENT)
def test_an_entry_point_is_stamped_and_recorded_once(name, tmp_path):
    """The call's commits have its ids; it is one span and one row of the ledger, with right values."""
    entry, uri = ENTRY_POINTS[name], str(tmp_path / "t")
    with suppressed():
        entry.prepare(uri)
    before, telemetry = versions_in(uri), InMemoryTelemetry.create()
    DeltaLakeInstrumentor().instrument(
        settings=Settings(cache_root=str(tmp_path / "cache"), drain_interval=3600),
        **telemetry.providers(),
    )
    entry.act(uri)
    (span,) = telemetry.spans()
    recorder = current_observer().recorder
    flush()
    assert recorder.drain()
    (row,) = rows_of(recorder.root, INVENTORY)

    versions = sorted(versions_in(uri) - before)
    assert len(versions) == entry.commits
    commits = [read_commit_metadata(uri, version) for version in versions]
    assert [commit.write_id for commit in commits] == [row["write_id"]] * len(versions)
    assert {commit.run_id for commit in commits} <= {row["run_id"]}
    assert (row["operation"], row["versions"] or []) == (entry.operation, versions)
    assert (row["result"], row["landed"]) == ("write" if versions else "noop", None)
    assert span.attributes.get(DELTA_TABLE_VERSION) == (versions[-1] if versions else None)
    assert {key: row[key] for key in entry.metrics} == entry.metrics
