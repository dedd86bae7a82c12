"""`deltawitness cache` and `deltawitness verify`: list, explain, prune and verify entries."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from deltawitness.answers.lists import list_reads
from deltawitness.cli.console import (
    FAILED,
    CommandError,
    JsonOption,
    console,
    exit_on_error,
    log_to_stderr,
    print_json,
)
from deltawitness.cli.durations import parse_duration
from deltawitness.cli.ledger_option import (
    RootOption,
    existing_ledger,
    exit_on_ledger_error,
    listed_ledger,
    other_location,
    settings_of,
    shown_root,
)
from deltawitness.cli.ledger_queries import Row, rewritable_writes
from deltawitness.extras import require
from deltawitness.ledger.tables.locations import lock_folder, root_of
from deltawitness.report.cache import print_entries, print_pruned, print_verified, print_why

if TYPE_CHECKING:
    from deltawitness.cache.delta_cache import DeltaCache
    from deltawitness.cache.entries.entry import Entry
    from deltawitness.cache.entries.listing import CacheEntry
    from deltawitness.cache.entries.prune import PruneResult
    from deltawitness.cache.verify.results import VerifyResult

__all__ = [
    "ls_command",
    "prune_command",
    "verify_entry_command",
    "verify_run_command",
    "why_command",
]

UNVERIFIED = 3
"""Exit code if nothing differs, and nothing could be recomputed."""


def ls_command(
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """List the entries of a cache, with their state.

    Exits 1 if the cache cannot be read, 2 if the command line or a setting is invalid.
    """
    with _exit_on_cache_error(root, "read"):
        entries = [
            asdict(entry) | _creation_time(entry.made_at) for entry in _existing_entries(root)
        ]
    if as_json:
        print_json(entries)
    else:
        print_entries(console(sys.stdout), entries)


def why_command(
    name: Annotated[str, typer.Argument(help="The entry's name.")],
    limit: Annotated[int, typer.Option(min=1, help="Number of last reads to show.")] = 10,
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Show what an entry was made from, and for its last reads why it was served or not.

    Exits 1 if there is no such entry or it cannot be read, 2 if the command line or a setting is invalid.
    """
    with _exit_on_cache_error(root, "read"):
        entries = _entries_named(root, name)
        reads = _reads(root, name, limit)
        if not entries and not reads:
            _check_listing(root)
            msg = f"there is no entry {name} at {shown_root(root)}{other_location(root)}"
            raise CommandError(msg)
    if as_json:
        print_json({"entries": entries, "reads": reads})
    else:
        print_why(console(sys.stdout), name, entries, reads)


def prune_command(
    older_than: Annotated[
        dt.timedelta | None,
        typer.Option(
            parser=parse_duration,
            metavar="DURATION",
            help="Use this age in place of retentions, such as 12h or 7d.",
        ),
    ] = None,
    set_aside: Annotated[
        bool, typer.Option("--set-aside", help="Also delete quarantined (damaged) entries.")
    ] = False,
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Delete entries past their retention. Exits 1 if any could not be deleted."""
    with _exit_on_cache_error(root, "pruned"):
        if set_aside and older_than is None:
            msg = "--set-aside needs --older-than, because quarantined entries have no retention"
            raise CommandError(msg)
        _existing_entries(root)
        with _record_in_ledger(root):
            pruned = _prune(root, older_than, set_aside=set_aside)
    if as_json:
        print_json(asdict(pruned))
    else:
        print_pruned(console(sys.stdout), pruned)
    if pruned.failed:
        raise typer.Exit(FAILED)


def verify_entry_command(
    name: Annotated[str, typer.Argument(help="The entry's name.")],
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Recompute an entry from its input versions and compare. Exits 1 on a difference.

    Exits 3 if it cannot be recomputed, with the reason.
    """
    with _exit_on_cache_error(root, "read"):
        require("deltawitness cache verify", "datafusion", "sqlglot")
        verified = _existing_cache(root).verify(name)
    if as_json:
        print_json(asdict(verified))
    else:
        print_verified(console(sys.stdout), [verified])
    _exit_by_verdict([verified])


def verify_run_command(
    run_id: Annotated[str, typer.Argument(help="Run id, or an unambiguous prefix of it.")],
    root: Annotated[str | None, RootOption] = None,
    as_json: Annotated[bool, JsonOption] = False,
) -> None:
    """Re-run a run's stored plans and compare the results. Exits 1 on a difference.

    Exits 0 if at least one write is reproducible and none differs, and 3 if no write can be recomputed,
    or the run has written nothing.
    """
    from deltawitness.cache.verify.verifier import Verifier  # noqa: PLC0415 - heavy

    with exit_on_ledger_error(root, "read"):
        require("deltawitness verify", "datafusion", "sqlglot")
        ledger = listed_ledger(root)
        full_id, rows = rewritable_writes(ledger, run_id)
        verified = list(Verifier(ledger.root).verify_writes(rows))
    if as_json:
        print_json({"run_id": full_id, **_counts(verified), "writes": list(map(asdict, verified))})
    else:
        print_verified(console(sys.stdout), verified)
    _exit_by_verdict(verified)


def _counts(verified: list[VerifyResult]) -> dict[str, int]:
    from deltawitness.cache.verify.results import Verdict  # noqa: PLC0415 - heavy

    return {
        verdict.value: sum(found.verdict is verdict for found in verified) for verdict in Verdict
    }


def _exit_by_verdict(verified: list[VerifyResult]) -> None:
    """End the command with the code of the verdicts; a difference takes precedence."""
    counts = _counts(verified)
    if counts["differs"]:
        raise typer.Exit(FAILED)
    if not counts["reproducible"]:
        raise typer.Exit(UNVERIFIED)


# --- caches and entries ---------------------------------------------------------------------------------------


@contextmanager
def _exit_on_cache_error(root: str | None, done: str) -> Iterator[None]:
    with exit_on_error("the settings cannot be read"):
        where = shown_root(root)
    with exit_on_error(f"the cache at {where} cannot be {done}"):
        yield


@contextmanager
def _record_in_ledger(root: str | None) -> Iterator[None]:
    """Record the cache operations of the block as a run in the ledger, if the cache's root has one."""
    from deltawitness.instrumentation import DeltaLakeInstrumentor  # noqa: PLC0415 - heavy
    from deltawitness.run import run  # noqa: PLC0415 - heavy
    from deltawitness.settings import Settings  # noqa: PLC0415 - needed with the above

    try:
        ledger = existing_ledger(root)
    except CommandError:
        yield
        return
    settings = replace(Settings.from_env(), cache_root=ledger.root.uri)
    instrumentor = DeltaLakeInstrumentor()
    instrumentor.instrument(settings=settings)
    try:
        with run("deltawitness cache prune"):
            yield
        ledger.drain()
    finally:
        instrumentor.uninstrument()


def _prune(root: str | None, older_than: dt.timedelta | None, *, set_aside: bool) -> PruneResult:
    """Prune the cache, without the session that a `DeltaCache` needs."""
    from deltawitness.cache.entries.prune import prune  # noqa: PLC0415 - heavy
    from deltawitness.cache.entries.store import Entries  # noqa: PLC0415 - heavy

    settings = settings_of(root)
    place = root_of(settings)
    locks = lock_folder(settings, place)
    entries = Entries(place, settings)
    return prune(entries, locks, policy=None, older_than=older_than, set_aside=set_aside)


def _existing_cache(root: str | None) -> DeltaCache:
    """Return the cache.

    Raises:
        CommandError: the root has no cache entry.
    """
    from deltawitness.cache.delta_cache import DeltaCache  # noqa: PLC0415 - heavy
    from deltawitness.session.proxies import ObservedSessionContext  # noqa: PLC0415 - heavy

    _existing_entries(root)
    return DeltaCache(ObservedSessionContext(), root)


def _check_listing(root: str | None) -> None:
    """List the cache: the listing raises if the storage cannot be read, while a lookup finds no entry."""
    from deltawitness.cache.entries.listing import iter_entries  # noqa: PLC0415 - heavy
    from deltawitness.cache.entries.store import Entries  # noqa: PLC0415 - heavy

    next(iter_entries(Entries(listed_ledger(root, is_required=False).root)), None)


def _existing_entries(root: str | None) -> list[CacheEntry]:
    """Return the entries of the cache.

    Raises:
        CommandError: the root has no cache entry.
    """
    from deltawitness.cache.entries.listing import iter_entries  # noqa: PLC0415 - heavy
    from deltawitness.cache.entries.store import Entries  # noqa: PLC0415 - heavy

    log_to_stderr()
    entries = list(iter_entries(Entries(listed_ledger(root, is_required=False).root)))
    if not entries:
        msg = f"there is no cache at {shown_root(root)}{other_location(root)}"
        raise CommandError(msg)
    return entries


def _entries_named(root: str | None, name: str) -> list[Row]:
    from deltawitness.cache.entries.definitions import checked_name  # noqa: PLC0415 - heavy
    from deltawitness.cache.entries.entry import DamagedEntryError  # noqa: PLC0415 - heavy
    from deltawitness.cache.entries.store import Entries  # noqa: PLC0415 - heavy
    from deltawitness.semconv import CacheScope  # noqa: PLC0415 - heavy

    checked_name(name)
    entries = Entries(listed_ledger(root, is_required=False).root)
    found: list[Row] = []
    for scope in (CacheScope.VIEW, CacheScope.DATASET, CacheScope.ARTIFACT, CacheScope.METADATA):
        try:
            entry = entries.read(scope, name)
        except DamagedEntryError as damage:
            found.append({"name": name, "scope": scope.value, "state": f"damaged: {damage}"})
            continue
        if entry is not None:
            found.append(_entry_row(entry))
    return found


def _entry_row(entry: Entry) -> Row:
    from deltawitness.cache.entries.entry import PRUNED  # noqa: PLC0415 - heavy

    made_from = entry.fingerprint
    removed = PRUNED if PRUNED in entry.properties else "invalidated"
    return {
        "name": entry.name,
        "scope": entry.scope.value,
        "state": "live" if made_from is not None else removed,
        "policy": entry.policy,
        "version": entry.version,
        **_creation_time(entry.made_at),
        "key": None if made_from is None else made_from.key,
        "made_from": None if made_from is None else made_from.as_json(),
    }


def _creation_time(made_at: int | None) -> dict[str, Any]:
    from deltawitness.ids_and_clock import now_ns  # noqa: PLC0415 - for two commands only

    if made_at is None:
        return {"made_at": None, "age_s": None}
    time = dt.datetime.fromtimestamp(made_at / 1000, tz=dt.UTC)
    return {"made_at": time, "age_s": round(now_ns() / 1e9 - made_at / 1000, 3)}


_READ = ("event_time", "run_id", "job", "result", "reason", "version", "duration_ms")


def _reads(root: str | None, name: str, limit: int) -> list[Row]:
    rows = list_reads(listed_ledger(root, is_required=False), name, limit)
    return [{column: row[column] for column in _READ} for row in rows]
