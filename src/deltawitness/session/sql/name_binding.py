"""Record the resolved names of a statement when the statement is created.

DataFusion resolves the names of a statement while it plans the statement. A statement over Delta
tables is planned again when one of the tables has a new version, and by then a name may resolve to
another table, view, function or default schema. A :class:`BoundCall` records the resolved tables,
views, functions and settings. It plans the text again in a scratch session that holds exactly these,
with the current versions of the Delta tables.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from deltawitness.events import InputVersion
from deltawitness.exceptions import StatementError
from deltawitness.session.core.frames import FrameState, PlainQuery, attach_state, state_of
from deltawitness.session.core.private_api import VIEW_OF_FRAME
from deltawitness.session.core.snapshot import Registered, Snapshot, TableName, View, scanned_names
from deltawitness.session.core.sql_call import SqlCall
from deltawitness.session.core.tokens import Words
from deltawitness.session.core.unpatched import unpatched
from deltawitness.session.sql.planner import BoundTable, Planner
from deltawitness.session.sql.statement_names import functions_in, names_in, words_in

if TYPE_CHECKING:
    from datafusion import DataFrame, SessionConfig
    from datafusion.catalog import Table
    from datafusion.plan import LogicalPlan

    from deltawitness.session.core.state import Session

__all__ = [
    "BoundCall",
    "TextOrigin",
    "bind",
    "check_same_plan",
    "reads_of_named",
    "state_of_query",
]


# --- binding -----------------------------------------------------------------------------------------


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


INFORMATION_SCHEMA = "information_schema"


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
        for name in names_in(call.text, session, ctx, default):
            entry, view = session.names.snapshot.get(name), session.names.view_records.get(name)
            if session.cache_links.owns(name):
                cache_names.add(name)
            elif view is not None:
                views[name] = view
                below.update((e.name, e) for e in session.names.snapshot if view.reads_table(e))
            elif entry is not None:
                tables[name] = BoundTable(entry, ctx.table_provider(name.sql()))
            else:
                providers[name] = ctx.table_provider(name.sql())
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
        functions=tuple(functions_in(call.text, session, ctx)),
    )


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
            if self.session.names.has_changed_since(self.epoch, words_in(self.call.text)):
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
