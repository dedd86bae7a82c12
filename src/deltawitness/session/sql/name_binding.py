"""Record the resolved names of a statement when the statement is created.

DataFusion resolves the names of a statement while it plans the statement. A statement over Delta
tables is planned again when one of the tables has a new version, and by then a name may resolve to
another table, view, function or default schema. A :class:`BoundCall` records the resolved tables,
views, functions and settings. It plans the text again in a scratch session that holds exactly these,
with the current versions of the Delta tables.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from deltawitness.events import InputVersion
from deltawitness.exceptions import StatementError
from deltawitness.session.core.frames import FrameState, PlainQuery, attach_state, state_of
from deltawitness.session.core.private_api import UNOPTIMIZED, VIEW_OF_FRAME
from deltawitness.session.core.snapshot import Registered, Snapshot, TableName, View, scanned_names
from deltawitness.session.core.sql_call import SqlCall
from deltawitness.session.core.state import reads_urls
from deltawitness.session.core.tokens import Spelling, Words, folded
from deltawitness.session.core.unpatched import unpatched
from deltawitness.session.sql.delta_sql import unaliased

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionConfig, SessionContext
    from datafusion.catalog import Table
    from datafusion.plan import LogicalPlan
    from deltalake import DeltaTable

    from deltawitness.session.core.state import Session

__all__ = [
    "BoundCall",
    "Planner",
    "TextOrigin",
    "bind",
    "check_same_plan",
    "reads_of_named",
    "state_of_query",
]


# --- binding -----------------------------------------------------------------------------------------


class BoundTable(NamedTuple):
    """A Delta table that a name resolved to.

    Attributes:
        entry: the table, at the version that the session served.
        provider: the engine's table provider of that version.
    """

    entry: Registered
    provider: Table


@dataclass(frozen=True, slots=True)
class BoundCall:
    """The text of a statement, and what its names resolved to when it was created.

    It may hold more names than the statement uses: every word of the text that is a table's name.

    Attributes:
        call: the statement, its parameters copied.
        session: the state of its session.
        config: the session's settings.
        default: the default catalog and schema.
        tables: Delta tables.
        views: views that follow new versions of Delta tables.
        below: the Delta tables that these views read, at the versions that the session served.
        providers: all other tables.
        reads_information_schema: the statement may read `information_schema`.
        cache_names: names of a cache; they are resolved when the text is planned.
        functions: functions, each with the method that registers it.
        prepare: the PREPARE statement that an EXECUTE statement refers to.
        is_name: the text is a table's name, as `SessionContext.table` takes it.
        made_ns: when the statement was created, in nanoseconds since the epoch.
    """

    call: SqlCall
    session: Session
    config: SessionConfig
    default: tuple[str, str]
    tables: Mapping[TableName, BoundTable]
    views: Mapping[TableName, View]
    below: tuple[Registered, ...]
    providers: Mapping[TableName, Table]
    reads_information_schema: bool = False
    cache_names: frozenset[TableName] = frozenset()
    functions: tuple[tuple[str, Any], ...] = ()
    prepare: str | None = None
    is_name: bool = False
    made_ns: int = field(default_factory=time.time_ns)

    @property
    def snapshot(self) -> Snapshot:
        """The Delta tables that the names resolved to, at their versions when they were resolved."""
        entries = {entry.name: entry for entry in self.below}
        entries |= {name: bound.entry for name, bound in self.tables.items()}
        return Snapshot(entries, self.default)

    @property
    def statement(self) -> str:
        """The text of the statement; for EXECUTE, the text of the prepared statement."""
        if self.prepare is None:
            return self.call.text
        words = Words(self.prepare)
        words.until({"AS"})
        words.expect("AS")
        return words.rest()

    def resolves(self, name: TableName) -> bool:
        """Return whether a name in the text resolved to a table or a view."""
        return name in self.tables or name in self.views or name in self.providers

    def frame(self) -> DataFrame:
        """Plan the statement over the versions that the session serves.

        Raises:
            StatementError: it reads `information_schema`, whose content has changed.
        """
        planner = Planner(self)
        frame = planner.frame()
        reads = reads_of_named(self.call)
        attach_state(frame, FrameState(self.call.ctx, self.session, planner.snapshot, reads, self))
        return frame

    __call__ = frame

    def current_frame(self, frame: DataFrame, snapshot: Snapshot) -> DataFrame:
        """Return the statement's frame over the current versions; `frame` if no version has changed.

        Args:
            frame: the frame that was planned when the statement was created.
            snapshot: the Delta tables when it was planned.

        Raises:
            StatementError: the columns of a table have changed.
        """
        plan = unpatched(frame, "logical_plan")()
        if not self.has_new_version(plan, snapshot):
            return frame
        current = self.frame()
        check_same_plan(plan, unpatched(current, "logical_plan")())
        return current

    def has_new_version(
        self, plan: LogicalPlan, snapshot: Snapshot, target: Registered | None = None
    ) -> bool:
        """Return whether the version of a Delta table that a plan reads has changed.

        Args:
            plan: the statement's plan.
            snapshot: the Delta tables when the plan was created.
            target: the table that the statement writes, at its current version; None uses the version
                that the session serves.
        """
        for read in (*scanned_names(plan.display_indent(), snapshot), *self.below):
            is_target = target is not None and read.name == target.name
            current = (
                target
                if is_target and target is not None
                else self.session.tables.current_entry(read)
            )
            if not current.is_same_version(read):
                return True
        return False

    def bind(self) -> BoundCall:
        """Return this object: its names are resolved already."""
        return self

    def view(self, create: str, name: TableName) -> Table:
        """Return the view of a CREATE VIEW statement, planned over the current versions.

        Args:
            create: the text of the statement with OR REPLACE.
            name: the view's name.
        """
        planner = Planner(self)
        planner.sql(create)
        return planner.provider(name)

    def for_execute(self, call: SqlCall) -> BoundCall:
        """Return an EXECUTE of this PREPARE statement, with the names resolved by PREPARE.

        Args:
            call: the call of the EXECUTE statement.
        """
        call = call._replace(named=self.call.named)
        return replace(self, call=call, prepare=self.call.text)


def bind(
    session: Session,
    call: SqlCall,
    config: SessionConfig | None = None,
    default: tuple[str, str] | None = None,
) -> BoundCall:
    """Resolve the names in a statement's text.

    Args:
        session: the state of the session.
        call: the statement, with the texts for `$name` inlined.
        config: the settings to plan with; None for the current settings.
        default: the default catalog and schema; None for the current ones.
    """
    ctx = call.ctx
    default = default or session.names.default_of(ctx)
    tables: dict[TableName, BoundTable] = {}
    views: dict[TableName, View] = {}
    below: dict[TableName, Registered] = {}
    providers: dict[TableName, Table] = {}
    cache_names = set()
    with session.swaps.lock:
        for name in _names_in(call.text, session, ctx, default):
            entry, view = session.names.snapshot.get(name), session.names.view_records.get(name)
            if session.cache_links.owns(name):
                cache_names.add(name)
            elif view is not None:
                views[name] = view
                below.update((e.name, e) for e in session.names.snapshot if view.reads_table(e))
            elif entry is not None:
                tables[name] = BoundTable(entry, _provider(ctx, name))
            else:
                providers[name] = _provider(ctx, name)
    return BoundCall(
        call=call,
        session=session,
        config=config or session.settings.config_of(ctx),
        default=default,
        tables=tables,
        views=views,
        below=tuple(below.values()),
        providers=providers,
        reads_information_schema=INFORMATION_SCHEMA in call.text.lower(),
        cache_names=frozenset(cache_names),
        functions=tuple(_functions_in(call.text, session, ctx)),
    )


_WORD = re.compile(r"[\w$#@]+(?:-[\w$#@]+)*")
_PART_OF_WORD = re.compile(r"[\w$#@]+")
_QUOTED = re.compile(r"""(?=("(?:[^"]|"")*"|`(?:[^`]|``)*`|\[[^\[\]]*\]))""")
"""Every possible quoted name, including those inside strings and comments, which are not recognized."""


def _words_in(text: str) -> set[str]:
    """Return every word of a text that may be a name, also inside strings and comments.

    Unquoted words are returned both unchanged and folded, for any setting of the session. Names that
    the statement does not use do no harm.
    """
    words = {*_WORD.findall(text), *_PART_OF_WORD.findall(text)}
    words |= {folded(word) for word in words}
    for found in _QUOTED.findall(text):
        inside, quote = found[1:-1], found[0]
        words.add(inside if quote == "[" else inside.replace(quote * 2, quote))
    return words


def _names_in(
    text: str, session: Session, ctx: SessionContext, default: tuple[str, str]
) -> Iterator[TableName]:
    """Yield every table and view of the session that a text may name."""
    words, lower = _words_in(text), text.lower()
    recorded = {
        *session.names.snapshot.entries,
        *session.names.view_records,
        *session.cache_links.names,
    }
    # Recorded names are searched as substrings, so that no spelling of a name hides them.
    yield from (name for name in recorded if any(each in lower for each in _spellings(name.table)))
    exists = unpatched(ctx, "table_exist")
    for catalog, schema in _schemas_in(text, words, ctx, default):
        for word in words:
            name = TableName(catalog, schema, word)
            if name not in recorded and exists(name.sql()):
                yield name


def _spellings(name: str) -> set[str]:
    """Return the possible spellings of a name in a text, in lower case; a quote in it is doubled."""
    lower = name.lower()
    return {lower, lower.replace('"', '""'), lower.replace("`", "``"), lower.replace("]", "]]")}


def _schemas_in(
    text: str, words: set[str], ctx: SessionContext, default: tuple[str, str]
) -> Iterator[tuple[str, str]]:
    """Yield the default schema and every other schema that a text may name."""
    yield default
    if "." not in text:
        return
    for catalog in unpatched(ctx, "catalog_names")():
        if catalog == default[0] or catalog in words:
            for schema in unpatched(ctx, "catalog")(catalog).schema_names():
                if schema in words and (catalog, schema) != default:
                    yield catalog, schema


def _provider(ctx: SessionContext, name: TableName) -> Table:
    return ctx.table_provider(name.sql())


INFORMATION_SCHEMA = "information_schema"

_KINDS = (("udfs", "udf"), ("udafs", "udaf"), ("udwfs", "udwf"))
"""The methods of a context that list and return each kind of function; `register_` plus the second
registers one."""


@cache
def _engine_functions() -> Mapping[str, frozenset[str]]:
    """Return the names of DataFusion's built-in functions, by kind."""
    from datafusion import SessionContext  # noqa: PLC0415 - heavy, already loaded

    plain = SessionContext()
    return {kind: frozenset(getattr(plain, listed)()) for listed, kind in _KINDS}


def _functions_in(text: str, session: Session, ctx: SessionContext) -> Iterator[tuple[str, Any]]:
    called = _words_in(text)
    if session.earlier_functions is None:
        listed = {name for listing, _ in _KINDS for name in getattr(ctx, listing)()}
        session.earlier_functions = listed.difference(*_engine_functions().values())
    user_defined = called & (session.functions | session.earlier_functions)
    for _, kind in _KINDS:
        for name in (called & _engine_functions()[kind]) | user_defined:
            try:
                function = getattr(ctx, kind)(name)
            except KeyError:
                continue  # a function of another kind
            yield f"register_{kind}", function
    for function in session.table_functions:
        yield "register_udtf", function


# --- planning ----------------------------------------------------------------------------------------


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
        return _provider(self._scratch, name)

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
                yield name, _provider(self.ctx, name)

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
        from deltawitness.session.core.table_providers import provider_of  # noqa: PLC0415 - heavy, already loaded

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


def reads_of_named(call: SqlCall) -> tuple[InputVersion, ...]:
    """Return the Delta tables that are read by the frames that replace `$name` in a statement."""
    return tuple(
        read
        for value in call.named.values()
        if (state := state_of(value)) is not None
        for read in state.inputs(unpatched(value, "logical_plan")().display_indent())
    )


def check_same_plan(made: Any, now: Any) -> None:
    """Refuse a statement whose plan has changed in more than the versions of its tables.

    Args:
        made: the plan when the statement was created.
        now: the current plan of the same text.

    Raises:
        StatementError: the plans differ in more than names that the engine generates.
    """
    texts = [VIEW_OF_FRAME.sub("view", plan.display_indent_schema()) for plan in (made, now)]
    if texts[0] != texts[1]:
        msg = (
            "the columns of a table that the statement reads or writes have changed since it was"
            " made: run its text again"
        )
        raise StatementError(msg)


# --- frames ------------------------------------------------------------------------------------------


@dataclass(slots=True)
class TextOrigin:
    """Plans a query again over the current versions; resolves its names on first use.

    Names are not resolved for every query, because most frames are never planned again.

    Attributes:
        session: the state of the session.
        call: the query.
        epoch: `session.names.epoch` before the query was planned.
        config: the session's settings when the query was planned.
        default: the default catalog and schema when the query was planned.
        is_name: the text is a table's name, as `SessionContext.table` takes it.
    """

    session: Session
    call: SqlCall
    epoch: int
    config: SessionConfig | None
    default: tuple[str, str] | None
    is_name: bool = False
    _bound: BoundCall | None = field(default=None, init=False)

    def bind(self) -> BoundCall:
        """Resolve the query's names, unless they are resolved already.

        Raises:
            StatementError: a name may resolve to something else than when the query was planned.
        """
        if self._bound is None:
            bound = bind(self.session, self.call, self.config, self.default)
            if self.session.names.has_changed_since(self.epoch, _words_in(self.call.text)):
                msg = (
                    "a name in the frame's query has been registered again since, and a table that it"
                    " reads has a new version: create the frame again"
                )
                raise StatementError(msg)
            self._bound = replace(bound, is_name=self.is_name)
        return self._bound

    def __call__(self) -> DataFrame:
        """Return the frame over the current versions."""
        return self.bind().frame()


def state_of_query(query: PlainQuery) -> FrameState:
    """Return the state of the frame of plain SQL text.

    Args:
        query: what the frame has in place of its state.
    """
    ctx, session, snapshot, epoch, config, text, _ = query
    origin = TextOrigin(session, SqlCall(ctx, text), epoch, config, snapshot.default)
    return FrameState(ctx, session, snapshot, (), origin)
