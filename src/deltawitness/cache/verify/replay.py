"""A session in which names stand for what they stood for when an entry was made: tables at pinned versions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from deltawitness.cache.entries.plan_store import PlannedTable, StoredPlan
from deltawitness.cache.entries.store import DamagedEntryError, check_files
from deltawitness.cache.fingerprint.diff import differences
from deltawitness.cache.fingerprint.model import Fingerprint, NotCacheable, TableInput
from deltawitness.cache.fingerprint.plan import fingerprint_of
from deltawitness.commit.log import open_log
from deltawitness.redaction import redact_text
from deltawitness.session.core.frames import FrameState, attach_state
from deltawitness.session.core.snapshot import TableName
from deltawitness.session.core.state import session_of
from deltawitness.session.core.unpatched import unpatched

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionConfig, SessionContext
    from deltalake import DeltaTable

__all__ = ["NotReproducibleError", "Opener", "pinned_frame", "pinned_table"]

Opener = Callable[[TableInput], "DeltaTable"]
"""Opens a Delta table at the recorded version; raises :class:`NotReproducibleError` if that is gone."""


class NotReproducibleError(Exception):
    """Why the rows of an entry cannot be made again as they were made."""


def pinned_table(
    mark: TableInput, uri: str, storage_options: Mapping[str, str] | None
) -> DeltaTable:
    """Return a Delta table at the version of its mark.

    Args:
        mark: the table as it was read.
        uri: where it lies.
        storage_options: how it is opened.

    Raises:
        Unpinned: there is no such version any more.
    """
    from deltalake import DeltaTable  # noqa: PLC0415 - heavy
    from deltalake.exceptions import TableNotFoundError  # noqa: PLC0415 - heavy

    options = None if storage_options is None else dict(storage_options)
    try:
        table = DeltaTable(uri, version=mark.version, storage_options=options)
    except Exception as error:
        is_gone = isinstance(error, TableNotFoundError) and not open_log(uri, options).versions()
        gone = f"input gone: {mark.name} is not where it was"
        forgotten = f"version gone: {mark.name} has no version {mark.version} any more"
        raise NotReproducibleError(gone if is_gone else forgotten) from error
    if mark.identity and str(table.metadata().id) != mark.identity:
        msg = f"input gone: {mark.name} was made anew"
        raise NotReproducibleError(msg)
    try:
        check_files(table)
    except DamagedEntryError:
        msg = f"version vacuumed: files of {mark.name} {mark.version} are not there any more"
        raise NotReproducibleError(msg) from None
    return table


def pinned_frame(
    kept: Fingerprint,
    plan: StoredPlan,
    opened: Opener,
    *,
    live: SessionContext | None = None,
    functions: Mapping[str, str] | None = None,
) -> DataFrame:
    """Return the frame that an entry was the result of, over what it was made from.

    The frame keeps its session alive.

    Args:
        kept: what the entry was made from.
        plan: how.
        opened: opens its Delta tables.
        live: the session that may know its other tables and its functions.
        functions: the versions that functions of that session have.

    Raises:
        Unpinned: it cannot be had.
    """
    missing = [f for f in kept.functions if (functions or {}).get(f.name) != f.version]
    if missing:
        told = ", ".join(f"{mark.name} {mark.version}" for mark in missing)
        msg = f"a user-defined function: {told} is not available"
        raise NotReproducibleError(msg)
    ctx = _session(kept, plan, opened, live)
    problem = "its query cannot be planned any more"
    for sql, planned in _attempts(ctx, plan):
        try:
            frame = planned()
        except Exception as error:  # noqa: BLE001 - the engines raise whatever they like
            problem = f"its query cannot be planned any more: {redact_text(str(error))}"
            continue
        now = _inputs_of(frame, kept, sql)
        if sql is None or now.plan_hash == kept.plan_hash:
            return frame
        problem = "its query means something else in this session"
    if kept.files or kept.data:
        names = [mark.name for mark in kept.files] + [mark.name for mark in kept.data]
        problem = f"a source that only its session knows: {', '.join(dict.fromkeys(names))}"
    raise NotReproducibleError(problem)


# --- planning --------------------------------------------------------------------------------------------


def _attempts(
    ctx: SessionContext, plan: StoredPlan
) -> Iterator[tuple[str | None, Callable[[], DataFrame]]]:
    """Yield the ways to plan it, each with the text that the frame is of."""
    if plan.table is not None:
        yield None, lambda: _of_table(ctx)
    if (sql := plan.sql) is not None:
        yield sql, lambda: _known(ctx, unpatched(ctx, "sql")(sql))
    if (content := plan.substrait) is not None:
        yield None, lambda: _of_substrait(ctx, content)


def _of_table(ctx: SessionContext) -> DataFrame:
    (entry,) = session_of(ctx).snapshot
    return _known(ctx, unpatched(ctx, "table")(entry.name.sql()))


def _of_substrait(ctx: SessionContext, content: bytes) -> DataFrame:
    from datafusion.substrait import Consumer, Serde  # noqa: PLC0415 - heavy

    plan = Consumer.from_substrait_plan(ctx, Serde.deserialize_bytes(content))
    return _known(ctx, unpatched(ctx, "create_dataframe_from_logical_plan")(plan))


def _known(ctx: SessionContext, frame: DataFrame) -> DataFrame:
    session = session_of(ctx)
    known: DataFrame = attach_state(frame, FrameState(ctx, session, session.snapshot))
    return known


def _inputs_of(frame: DataFrame, kept: Fingerprint, sql: str | None) -> Fingerprint:
    """Return what a frame is made from, if that is what an entry was made from.

    Raises:
        Unpinned: it is not.
    """
    versions = {mark.name: mark.version for mark in kept.functions}
    now = fingerprint_of(frame, functions=versions, version=kept.version, is_aging=True, query=sql)
    if isinstance(now, NotCacheable):
        raise NotReproducibleError(now.reason)
    _check_commits(kept, now)
    # The plan may be told in other words, which is looked at elsewhere; columns are compared later.
    alike = replace(
        now,
        plan_hash=kept.plan_hash,
        plan_shape_hash=kept.plan_shape_hash,
        schema_hash=kept.schema_hash,
        columns=kept.columns,
        tables=kept.tables if _versions(now) == _versions(kept) else now.tables,
    )
    if changed := differences(kept, alike):
        raise NotReproducibleError("; ".join(map(str, changed)))
    return now


def _check_commits(kept: Fingerprint, now: Fingerprint) -> None:
    """See that a version is the one that was read: a table put back from a copy may have it again.

    Raises:
        Unpinned: it is not.
    """
    commits = {(mark.table_id, mark.version): mark.commit for mark in now.tables}
    for mark in kept.tables:
        found = commits.get((mark.table_id, mark.version))
        if found and mark.commit and found != mark.commit:
            msg = f"input gone: {mark.name} has another version {mark.version} now"
            raise NotReproducibleError(msg)


def _versions(fingerprint: Fingerprint) -> set[tuple[str, int]]:
    return {(mark.table_id, mark.version) for mark in fingerprint.tables}


# --- the session -------------------------------------------------------------------------------------------


def _session(
    kept: Fingerprint, plan: StoredPlan, opened: Opener, live: SessionContext | None
) -> SessionContext:
    from datafusion import SessionContext as Plain  # noqa: PLC0415 - heavy

    ctx = Plain(_config(kept, plan))
    session = session_of(ctx)
    if any(setting.name == "functions" for setting in kept.settings):
        unpatched(ctx, "enable_spark_functions")()
        session.has_spark_functions = True
    for name, mark in _named(kept, plan):
        table = opened(mark)
        _make_schema(ctx, name)
        session.register(ctx, name, table, fixed=True)
    if live is not None:
        _lend(live, ctx)
        for function in kept.functions:
            _lend_function(live, ctx, function.name)
    return ctx


def _config(kept: Fingerprint, plan: StoredPlan) -> SessionConfig:
    """Return the settings that an entry was made with, as far as they count."""
    from datafusion import SessionConfig  # noqa: PLC0415 - heavy

    config = SessionConfig()
    for setting in kept.settings:
        if setting.name.startswith("datafusion."):
            config = config.set(setting.name, setting.value)
    return config if plan.default is None else config.with_default_catalog_and_schema(*plan.default)


def _named(kept: Fingerprint, plan: StoredPlan) -> Iterator[tuple[TableName, TableInput]]:
    """Yield which name stands for which table at which version.

    Raises:
        Unpinned: the plan does not tell it.
    """
    if plan.table is not None:
        for mark in kept.tables:
            yield TableName("datafusion", "public", "source"), mark
        return
    for planned in plan.tables:
        yield planned.name, _mark_of(planned, kept)


def _mark_of(planned: PlannedTable, kept: Fingerprint) -> TableInput:
    marks = [mark for mark in kept.tables if mark.table_id == planned.table_id]
    spellings = {planned.name.table, ".".join(planned.name)}
    named = [mark for mark in marks if mark.name in spellings]
    for mark in (*named, *marks):
        return mark
    msg = f"its plan reads another table as {planned.name.table}"
    raise NotReproducibleError(msg)


def _make_schema(ctx: SessionContext, name: TableName) -> None:
    from datafusion.catalog import Catalog, Schema  # noqa: PLC0415 - heavy

    if name.catalog not in unpatched(ctx, "catalog_names")():
        unpatched(ctx, "register_catalog_provider")(name.catalog, Catalog.memory_catalog())
    catalog = unpatched(ctx, "catalog")(name.catalog)
    if name.schema not in catalog.schema_names():
        catalog.register_schema(name.schema, Schema.memory_schema())


def _lend(live: SessionContext, ctx: SessionContext) -> None:
    """Have a session know the tables of another that are neither Delta tables nor views.

    A view would read the newest versions; where a plan reads one, it holds what it stands for.
    """
    delta = session_of(live).snapshot.entries
    for catalog in unpatched(live, "catalog_names")():
        for schema in unpatched(live, "catalog")(catalog).schema_names():
            known = unpatched(live, "catalog")(catalog).schema(schema)
            for table in known.names():
                name = TableName(catalog, schema, table)
                _make_schema(ctx, name)
                if name not in delta and not unpatched(ctx, "table_exist")(name.sql()):
                    _lend_table(ctx, name, known.table(table))


def _lend_table(ctx: SessionContext, name: TableName, table: Any) -> None:
    if table.kind != "view":
        unpatched(ctx, "register_table")(name.sql(), table)


_KINDS_OF_FUNCTIONS = ("udf", "udaf", "udwf")


def _lend_function(live: SessionContext, ctx: SessionContext, name: str) -> None:
    for kind in _KINDS_OF_FUNCTIONS:
        try:
            function = unpatched(live, kind)(name)
        except Exception:  # noqa: BLE001, S112 - it is of another kind
            continue
        unpatched(ctx, f"register_{kind}")(function)
        return
    msg = f"a user-defined function: the session does not know {name}"
    raise NotReproducibleError(msg)
