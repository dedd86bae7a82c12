"""Builds a session with every input table at the version that an entry was computed from, for `verify`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from deltawitness.cache.entries.entry import DamagedEntryError, check_files
from deltawitness.commit.log import open_log
from deltawitness.redaction import redact_text
from deltawitness.session.context_handlers import SESSION_HANDLERS
from deltawitness.session.core.frames import FrameState, attach_state
from deltawitness.session.core.snapshot import TableName
from deltawitness.session.core.state import session_of
from deltawitness.session.core.unpatched import unpatched
from deltawitness.session.fingerprint.diff import differences
from deltawitness.session.fingerprint.model import Fingerprint, NotCacheable, TableInput
from deltawitness.session.fingerprint.plan import fingerprint_of
from deltawitness.session.fingerprint.stored_plan import PlannedTable, StoredPlan

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionConfig, SessionContext
    from deltalake import DeltaTable

__all__ = [
    "NotReproducibleError",
    "Opener",
    "attach_session",
    "make_schema",
    "pinned_frame",
    "pinned_session",
    "pinned_table",
]

Opener = Callable[[TableInput], "DeltaTable"]
"""Opens a Delta table at its recorded version; raises :class:`NotReproducibleError` if that is gone."""


class NotReproducibleError(Exception):
    """Why the rows of an entry cannot be computed again from the same inputs."""


def pinned_table(
    pinned: TableInput, uri: str, storage_options: Mapping[str, str] | None
) -> DeltaTable:
    """Open a Delta table at its recorded version.

    Args:
        pinned: the recorded table and version.
        uri: location of the table.
        storage_options: options to open it.

    Raises:
        NotReproducibleError: the table or the version no longer exists, or data files are missing.
    """
    from deltalake import DeltaTable  # noqa: PLC0415 - heavy
    from deltalake.exceptions import TableNotFoundError  # noqa: PLC0415 - heavy

    options = None if storage_options is None else dict(storage_options)
    try:
        table = DeltaTable(uri, version=pinned.version, storage_options=options)
    except Exception as error:
        is_gone = isinstance(error, TableNotFoundError) and not open_log(uri, options).versions()
        gone = f"input gone: the table {pinned.name} does not exist"
        missing = f"version gone: {pinned.name} no longer has version {pinned.version}"
        raise NotReproducibleError(gone if is_gone else missing) from error
    if pinned.identity and str(table.metadata().id) != pinned.identity:
        msg = f"input gone: {pinned.name} was recreated"
        raise NotReproducibleError(msg)
    try:
        check_files(table)
    except DamagedEntryError:
        msg = f"version vacuumed: data files of {pinned.name} version {pinned.version} are missing"
        raise NotReproducibleError(msg) from None
    return table


def pinned_frame(  # noqa: PLR0913 - each is an option, by keyword
    stored: Fingerprint,
    plan: StoredPlan,
    open_table: Opener,
    *,
    source_ctx: SessionContext | None = None,
    functions: Mapping[str, str] | None = None,
    needs_exact_text: bool = True,
) -> DataFrame:
    """Return the frame that computes an entry, over the recorded versions of its inputs.

    The frame keeps its session alive.

    Args:
        stored: the fingerprint of the entry.
        plan: the stored plan.
        open_table: opens the Delta tables.
        source_ctx: the session to copy other tables and functions from.
        functions: versions of the functions in that session, by name.
        needs_exact_text: whether the plan text must have all literals exactly.

    Raises:
        NotReproducibleError: the frame cannot be built over the same inputs.
    """
    missing = [f for f in stored.functions if (functions or {}).get(f.name) != f.version]
    if missing:
        shown = ", ".join(f"{each.name} {each.version}" for each in missing)
        msg = f"user-defined function missing: {shown}"
        raise NotReproducibleError(msg)
    ctx = pinned_session(stored, plan, open_table, source_ctx)
    problem = "the query can no longer be planned"
    for sql, planned in _attempts(ctx, plan):
        try:
            frame = planned()
        except Exception as error:  # noqa: BLE001 - the engines raise exceptions of any type
            problem = f"the query can no longer be planned: {redact_text(str(error))}"
            continue
        now = _checked_fingerprint(frame, stored, sql, needs_exact_text)
        if sql is None or now.plan_hash == stored.plan_hash:
            return frame
        problem = "the query has another plan in this session"
    if stored.files or stored.data:
        names = [*(file.name for file in stored.files), *(each.name for each in stored.data)]
        problem = (
            f"inputs available only in the original session: {', '.join(dict.fromkeys(names))}"
        )
    raise NotReproducibleError(problem)


# --- planning --------------------------------------------------------------------------------------------


def _attempts(
    ctx: SessionContext, plan: StoredPlan
) -> Iterator[tuple[str | None, Callable[[], DataFrame]]]:
    """Yield the ways to plan it: the SQL text of the frame, if it has one, and a planning function."""
    if plan.table is not None:
        yield None, lambda: _frame_of_table(ctx)
    if (sql := plan.sql) is not None:
        yield sql, lambda: attach_session(ctx, unpatched(ctx, "sql")(sql))
    if (content := plan.substrait) is not None:
        yield None, lambda: _frame_of_substrait(ctx, content)


def _frame_of_table(ctx: SessionContext) -> DataFrame:
    (entry,) = session_of(ctx).names.snapshot
    return attach_session(ctx, unpatched(ctx, "table")(entry.name.sql()))


def _frame_of_substrait(ctx: SessionContext, content: bytes) -> DataFrame:
    from datafusion.substrait import Consumer, Serde  # noqa: PLC0415 - heavy

    plan = Consumer.from_substrait_plan(ctx, Serde.deserialize_bytes(content))
    return attach_session(ctx, unpatched(ctx, "create_dataframe_from_logical_plan")(plan))


def attach_session(ctx: SessionContext, frame: DataFrame) -> DataFrame:
    """Attach the state of a session to a frame that its context has planned, and return the frame."""
    session = session_of(ctx)
    attached: DataFrame = attach_state(frame, FrameState(ctx, session, session.names.snapshot))
    return attached


def _checked_fingerprint(
    frame: DataFrame, stored: Fingerprint, sql: str | None, needs_exact_text: bool
) -> Fingerprint:
    """Return the fingerprint of a frame, if its inputs are those of the stored fingerprint.

    Raises:
        NotReproducibleError: they are not.
    """
    versions = {each.name: each.version for each in stored.functions}
    now = fingerprint_of(
        frame,
        functions=versions,
        version=stored.version,
        has_max_age=True,
        query=sql,
        needs_exact_text=needs_exact_text,
    )
    if isinstance(now, NotCacheable):
        raise NotReproducibleError(now.reason)
    _check_commits(stored, now)
    # The plan text may differ (`pinned_frame` checks its hash); `compare` checks the columns.
    expected = replace(
        now,
        plan_hash=stored.plan_hash,
        plan_shape_hash=stored.plan_shape_hash,
        schema_hash=stored.schema_hash,
        columns=stored.columns,
        tables=stored.tables if _table_versions(now) == _table_versions(stored) else now.tables,
    )
    if changed := differences(stored, expected):
        raise NotReproducibleError("; ".join(map(str, changed)))
    return now


def _check_commits(stored: Fingerprint, now: Fingerprint) -> None:
    """Check that each table version has the recorded commit.

    A table restored from a copy can have the same version number with other content.

    Raises:
        NotReproducibleError: it has not.
    """
    commits = {(each.table_id, each.version): each.commit for each in now.tables}
    for pinned in stored.tables:
        found = commits.get((pinned.table_id, pinned.version))
        if found and pinned.commit and found != pinned.commit:
            msg = f"input gone: version {pinned.version} of {pinned.name} now has other content"
            raise NotReproducibleError(msg)


def _table_versions(fingerprint: Fingerprint) -> set[tuple[str, int]]:
    return {(each.table_id, each.version) for each in fingerprint.tables}


# --- the session -------------------------------------------------------------------------------------------


def pinned_session(
    stored: Fingerprint, plan: StoredPlan, open_table: Opener, source_ctx: SessionContext | None
) -> SessionContext:
    """Return a session with the tables of a plan at their recorded versions, and the recorded settings.

    Args:
        stored: the fingerprint with the versions and the settings.
        plan: the stored plan.
        open_table: opens the Delta tables.
        source_ctx: the session to copy other tables and functions from.

    Raises:
        NotReproducibleError: a table cannot be opened.
    """
    from datafusion import SessionContext as Plain  # noqa: PLC0415 - heavy

    ctx = Plain(_config(stored, plan))
    session = session_of(ctx)
    if any(setting.name == "functions" for setting in stored.settings):
        SESSION_HANDLERS["enable_spark_functions"](ctx, (), {})
    for name, pinned in _pinned_names(stored, plan):
        table = open_table(pinned)
        make_schema(ctx, name)
        session.tables.register(ctx, name, table, fixed=True)
    if source_ctx is not None:
        _copy_tables(source_ctx, ctx)
        for function in stored.functions:
            _copy_function(source_ctx, ctx, function.name)
    return ctx


def _config(stored: Fingerprint, plan: StoredPlan) -> SessionConfig:
    """Return a configuration with the settings recorded in the fingerprint."""
    from datafusion import SessionConfig  # noqa: PLC0415 - heavy

    config = SessionConfig()
    for setting in stored.settings:
        if setting.name.startswith("datafusion."):
            config = config.set(setting.name, setting.value)
    return config if plan.default is None else config.with_default_catalog_and_schema(*plan.default)


def _pinned_names(stored: Fingerprint, plan: StoredPlan) -> Iterator[tuple[TableName, TableInput]]:
    """Yield each table name of the plan, with the recorded table and version.

    Raises:
        NotReproducibleError: the plan has a table that the fingerprint lacks.
    """
    if plan.table is not None:
        for pinned in stored.tables:
            yield TableName("datafusion", "public", "source"), pinned
        return
    for planned in plan.tables:
        yield planned.name, _input_of(planned, stored)


def _input_of(planned: PlannedTable, stored: Fingerprint) -> TableInput:
    candidates = [pinned for pinned in stored.tables if pinned.table_id == planned.table_id]
    spellings = {planned.name.table, ".".join(planned.name)}
    named = [pinned for pinned in candidates if pinned.name in spellings]
    for pinned in (*named, *candidates):
        return pinned
    msg = f"the plan reads another table as {planned.name.table}"
    raise NotReproducibleError(msg)


def make_schema(ctx: SessionContext, name: TableName) -> None:
    """Register the catalog and the schema of a table's name, if the session lacks them."""
    from datafusion.catalog import Catalog, Schema  # noqa: PLC0415 - heavy

    if name.catalog not in unpatched(ctx, "catalog_names")():
        unpatched(ctx, "register_catalog_provider")(name.catalog, Catalog.memory_catalog())
    catalog = unpatched(ctx, "catalog")(name.catalog)
    if name.schema not in catalog.schema_names():
        catalog.register_schema(name.schema, Schema.memory_schema())


def _copy_tables(source_ctx: SessionContext, ctx: SessionContext) -> None:
    """Register the tables of another session that are neither Delta tables nor views.

    Views are left out: they would read the newest versions, and stored plans contain their content.
    """
    delta = session_of(source_ctx).names.snapshot.entries
    for catalog in unpatched(source_ctx, "catalog_names")():
        for schema in unpatched(source_ctx, "catalog")(catalog).schema_names():
            provider = unpatched(source_ctx, "catalog")(catalog).schema(schema)
            for table in provider.names():
                name = TableName(catalog, schema, table)
                make_schema(ctx, name)
                if name not in delta and not unpatched(ctx, "table_exist")(name.sql()):
                    _copy_table(ctx, name, provider.table(table))


def _copy_table(ctx: SessionContext, name: TableName, table: Any) -> None:
    if table.kind != "view":
        unpatched(ctx, "register_table")(name.sql(), table)


_FUNCTION_KINDS = ("udf", "udaf", "udwf")


def _copy_function(source_ctx: SessionContext, ctx: SessionContext, name: str) -> None:
    for kind in _FUNCTION_KINDS:
        try:
            function = unpatched(source_ctx, kind)(name)
        except Exception:  # noqa: BLE001, S112 - a function of another kind
            continue
        unpatched(ctx, f"register_{kind}")(function)
        return
    msg = f"user-defined function missing: {name} is not registered in the session"
    raise NotReproducibleError(msg)
