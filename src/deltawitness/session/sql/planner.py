"""Plan the text of a statement with the names that it was bound to, in a scratch session."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from deltawitness.exceptions import StatementError
from deltawitness.session.core.private_api import UNOPTIMIZED
from deltawitness.session.core.snapshot import Registered, Snapshot, TableName
from deltawitness.session.core.sql_call import SqlCall
from deltawitness.session.core.state import reads_urls
from deltawitness.session.core.table_providers import provider_of
from deltawitness.session.core.tokens import Spelling, Words
from deltawitness.session.core.unpatched import unpatched
from deltawitness.session.sql.delta_sql import unaliased

if TYPE_CHECKING:
    from datafusion import DataFrame
    from datafusion.catalog import Table
    from deltalake import DeltaTable

    from deltawitness.session.sql.name_binding import BoundCall

__all__ = ["BoundTable", "Planner"]


class BoundTable(NamedTuple):
    """A Delta table that a name resolved to.

    Attributes:
        entry: the table, at the version that the session served.
        provider: the engine's table provider of that version.
    """

    entry: Registered
    provider: Table


class Planner:
    """Plans texts with the resolved names of a statement, over the versions that the session serves.

    Args:
        bound: the resolved names.
        target: the entry and the open table that the statement writes; the table is read at the
            version at which it is open.

    Raises:
        StatementError: the statement reads `information_schema`, whose content has changed.
    """

    def __init__(
        self, bound: BoundCall, target: tuple[Registered, DeltaTable] | None = None
    ) -> None:
        from datafusion import SessionContext  # noqa: PLC0415 - heavy, already loaded

        if bound.reads_information_schema:
            msg = (
                "the statement reads information_schema and must be planned again with the names that"
                " existed when it was made: write what it reads of information_schema to a table first"
            )
            raise StatementError(msg)
        self.bound = bound
        self.ctx: Any = bound.call.ctx
        self._scratch = SessionContext(bound.config.set(*UNOPTIMIZED))
        if reads_urls(self.ctx):
            self._scratch = unpatched(self._scratch, "enable_url_table")()
        if bound.session.has_spark_functions:
            self._scratch.enable_spark_functions()
        for method, function in bound.functions:
            unpatched(self._scratch, method)(function)
        tables = {n: self._register(n, table, target) for n, table in bound.tables.items()}
        below = {entry.name: bound.session.tables.current_entry(entry) for entry in bound.below}
        self.snapshot: Snapshot = Snapshot({**below, **tables}, bound.default)
        for name, provider in self._other_tables():
            self.register(name, provider)
        if bound.prepare is not None:
            self.sql(bound.prepare)

    @property
    def named(self) -> Mapping[str, Any]:
        """Frames that replace `$name` in the statement."""
        return self.bound.call.named

    def spelling(self) -> Spelling:
        """Return the session's dialect, found by planning probes: Python cannot read the setting."""
        name, text = self._selected("""\"name\", 'a\\b'""")
        return Spelling(
            quote='"' if name.variant_name() == "Column" else "`",
            has_escapes=text.python_value().as_py() != "a\\b",
            has_hash_comments=self._accepts("SELECT 1 # a comment"),
            has_bare_dashes=not self._accepts("SELECT 1 --2 3"),
        )

    def _selected(self, texts: str) -> list[Any]:
        plan = unpatched(
            self.sql(f"SELECT {texts} FROM (SELECT 1 AS name) AS rows"), "logical_plan"
        )()
        return [unaliased(each) for each in plan.to_variant().projections()]

    def _accepts(self, text: str) -> bool:
        try:
            self.sql(text)
        except Exception:  # noqa: BLE001 - the dialect's parser has no such comment
            return False
        return True

    def for_parts(self) -> Planner:
        """Return a planner for parts of the statement's text, with the values of its parameters.

        Raises:
            StatementError: the statement was prepared without the types of its parameters; they cannot
                be inferred from a part of the statement.
        """
        if self.bound.prepare is None:
            return self
        values = self._values_of_execute()
        call = self.bound.call._replace(text=self.bound.statement, param_values=values)
        return _Parts(self, call)

    def _values_of_execute(self) -> dict[str, Any] | None:
        """Return the values of EXECUTE, cast to the types that PREPARE declares; None without parameters.

        Raises:
            StatementError: PREPARE declares no types.
        """
        assert self.bound.prepare is not None
        if not Words(self.bound.statement).has_parameters():
            return None
        words = Words(self.bound.prepare)
        words.expect("PREPARE")
        words.name()
        if not words.take("("):
            msg = (
                "a prepared MERGE INTO needs the types of its parameters:"
                " PREPARE name(BIGINT, ...) AS MERGE INTO ..."
            )
            raise StatementError(msg)
        types = [words.until({","})]
        while words.take(","):
            types.append(words.until({","}))
        execute = Words(self.bound.call.text)
        execute.expect("EXECUTE")
        execute.name()
        columns = ", ".join(f"${place} AS v{place}" for place in range(1, len(types) + 1))
        self.sql(f"PREPARE deltawitness_values({', '.join(types)}) AS SELECT {columns}")
        (batch,) = unpatched(
            self.frame(f"EXECUTE deltawitness_values{execute.rest()}"), "collect"
        )()
        return {str(place): column[0] for place, column in enumerate(batch.columns, 1)}

    def frame(self, text: str | None = None) -> DataFrame:
        """Plan the statement, or another text with its names and parameters, and return its frame.

        The frame belongs to the statement's session, which runs it.
        """
        plan = unpatched(self.sql(text), "logical_plan")()
        frame: DataFrame = unpatched(self.ctx, "create_dataframe_from_logical_plan")(plan)
        return frame

    def sql(self, text: str | None = None) -> DataFrame:
        """Plan the statement or another text in the scratch session, without the caller's options."""
        call = self.bound.call
        if self.bound.is_name and text is None:
            frame: DataFrame = unpatched(self._scratch, "table")(call.text)
            return frame
        return call._replace(ctx=self._scratch, options=None).plan(text)

    def provider(self, name: TableName) -> Table:
        """Return the table provider of a name in the scratch session."""
        return self._scratch.table_provider(name.sql())

    def register(self, name: TableName, provider: Table) -> None:
        """Register a table in the scratch session."""
        self._make_schema(name)
        unpatched(self._scratch, "register_table")(name.sql(), provider)

    def register_rows(self, name: str, frame: DataFrame) -> None:
        """Register a frame's rows under a name in the default schema of the scratch session."""
        view = unpatched(frame, "into_view")()
        self.register(TableName(*self.bound.default, name), view)

    def _other_tables(self) -> Iterator[tuple[TableName, Table]]:
        session = self.bound.session
        yield from self.bound.providers.items()
        for name, view in self.bound.views.items():
            yield name, session.views.current(self.ctx, view)
        for name in self.bound.cache_names:
            if unpatched(self.ctx, "table_exist")(name.sql()):
                yield name, self.ctx.table_provider(name.sql())

    def _register(
        self, name: TableName, bound: BoundTable, target: tuple[Registered, DeltaTable] | None
    ) -> Registered:
        """Register a Delta table at its current version in the scratch session; return its entry."""
        entry, provider = self._current_table(bound, target)
        self.register(name, provider)
        return entry if entry.name == name else replace(entry, name=name)

    def _current_table(
        self, bound: BoundTable, target: tuple[Registered, DeltaTable] | None
    ) -> tuple[Registered, Table]:
        session = self.bound.session
        with session.swaps.lock:
            current = session.tables.current_entry(bound.entry)
            if target is not None and current.table_id == target[0].table_id and not current.fixed:
                wanted, table = target
                if not current.is_same_version(wanted):
                    return wanted, provider_of(table)
            if current.is_same_version(bound.entry):
                return current, bound.provider
            return current, session.tables.current_provider(self.ctx, current)

    def _make_schema(self, name: TableName) -> None:
        from datafusion.catalog import Catalog, Schema  # noqa: PLC0415 - heavy, already loaded

        if name.catalog not in unpatched(self._scratch, "catalog_names")():
            memory = Catalog.memory_catalog()
            unpatched(self._scratch, "register_catalog_provider")(name.catalog, memory)
        catalog = unpatched(self._scratch, "catalog")(name.catalog)
        if name.schema not in catalog.schema_names():
            unpatched(catalog, "register_schema")(name.schema, Schema.memory_schema())


class _Parts(Planner):
    """Plans parts of a prepared statement's text, with the values of its EXECUTE."""

    def __init__(self, planner: Planner, call: SqlCall) -> None:
        self.bound = replace(planner.bound, call=call, prepare=None)
        self.ctx = planner.ctx
        self.snapshot = planner.snapshot
        self._scratch = planner._scratch  # noqa: SLF001 - shares the scratch session of another planner
