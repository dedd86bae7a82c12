"""What the names of a session resolve to, and since when."""

from __future__ import annotations

import threading
from collections.abc import Collection
from typing import TYPE_CHECKING

from deltawitness.exceptions import StatementError
from deltawitness.ids_and_clock import new_id
from deltawitness.session.core.snapshot import Snapshot, TableName
from deltawitness.session.core.tokens import reference_parts
from deltawitness.session.core.unpatched import unpatched
from deltawitness.session.core.view_records import ViewRecords
from deltawitness.sql_quoting import quote_identifier

if TYPE_CHECKING:
    from datafusion import SessionContext

__all__ = ["SessionNames"]


class SessionNames:
    """The names of the Delta tables and views of one session.

    Attributes:
        lock: the lock that is held while a name changes, and while a table or a view is replaced.
        snapshot: the Delta tables by name, and the default catalog and schema if they are known.
        view_records: the views that follow new versions of their tables.
        rebound: names that resolved to something else before: a view may still read the earlier table.
        epoch: the number of changes of names so far; see `has_changed_since`.
    """

    def __init__(self) -> None:
        self.lock: threading.RLock = threading.RLock()
        self.snapshot: Snapshot = Snapshot({}, None)
        self.view_records: ViewRecords = ViewRecords()
        self.rebound: set[TableName] = set()
        self.epoch: int = 0
        self._changed: dict[TableName | str, int] = {}
        self._all_changed = 0
        self._defaults: set[tuple[str, str]] = set()

    # --- full names --------------------------------------------------------------------------------

    def default_of(self, ctx: SessionContext) -> tuple[str, str]:
        """Return the session's default catalog and schema.

        Python cannot read them from the session's configuration. A probe table is registered under
        an unqualified name, and all schemas are searched for it.
        """
        if self.snapshot.default is not None:
            return self.snapshot.default
        import pyarrow as pa  # noqa: PLC0415 - heavy, loaded with the table

        probe = f"deltawitness_probe_{new_id()}"
        register = unpatched(ctx, "register_record_batches")
        register(quote_identifier(probe), [[pa.record_batch({"probe": [1]})]])
        try:
            default = next(
                (catalog, schema)
                for catalog in unpatched(ctx, "catalog_names")()
                for schema in unpatched(ctx, "catalog")(catalog).schema_names()
                if unpatched(ctx, "table_exist")(quote_identifier(catalog, schema, probe))
            )
        finally:
            unpatched(ctx, "deregister_table")(quote_identifier(probe))
        with self.lock:
            self._defaults.add(default)
            self.snapshot = Snapshot(self.snapshot.entries, default)
        return default

    def forget_default(self) -> None:
        """Drop the default catalog and schema, because a SET statement may have changed them."""
        with self.lock:
            self.snapshot = Snapshot(self.snapshot.entries, None)

    def possible_names(self, ctx: SessionContext, parts: tuple[str, ...]) -> set[TableName]:
        """Return the full names that a name in a plan's text may refer to.

        There may be several: a view's plan uses the default schema of when the view was created.

        Args:
            ctx: a context of this session.
            parts: the parts of the name, at most three.
        """
        missing = len(TableName._fields) - len(parts)
        defaults = {self.default_of(ctx), *self._defaults}
        return {TableName(*default[:missing], *parts) for default in defaults}

    def has_other_default(self, ctx: SessionContext, view: TableName) -> bool:
        """Return whether a view was created under another default schema.

        Unqualified names in its text then resolve to other tables than the view reads.
        """
        default = self.default_of(ctx)
        has_moved = bool(self._defaults - {default})
        return has_moved and self.view_records.default_of(view) != default

    def full_name(self, ctx: SessionContext, parts: tuple[str, ...]) -> TableName:
        """Return the full name of a table for its parts; missing parts come from the defaults.

        Raises:
            StatementError: the name has more than three parts.
        """
        if len(parts) > len(TableName._fields):
            msg = "a table's name has at most three parts: catalog, schema and table"
            raise StatementError(msg)
        missing = len(TableName._fields) - len(parts)
        return TableName(*(self.default_of(ctx)[:missing] if missing else ()), *parts)

    def parsed_name(self, ctx: SessionContext, name: str) -> TableName:
        """Return the full name for a name given as text, parsed as DataFusion parses it.

        Up to three dotted identifiers are a path, and unquoted ones are folded to lower case. Any
        other text is one name, used unchanged.
        """
        return self.full_name(ctx, reference_parts(name))

    # --- changes -----------------------------------------------------------------------------------

    def record_change(self, *names: TableName | str) -> None:
        """Record that names resolve to something else now; without names, that any name may.

        Args:
            *names: names of tables, and unqualified names of functions.
        """
        with self.lock:
            self.epoch += 1
            if not names:
                self._all_changed = self.epoch
            self._changed.update(dict.fromkeys(names, self.epoch))

    def has_changed_since(self, epoch: int, words: Collection[str]) -> bool:
        """Return whether one of these names may resolve to something else since an epoch.

        Args:
            epoch: the earlier value of `epoch`.
            words: unqualified names of tables and of functions.
        """
        if self.epoch == epoch:
            return False
        with self.lock:
            return self._all_changed > epoch or any(
                changed > epoch and (name if isinstance(name, str) else name.table) in words
                for name, changed in self._changed.items()
            )

    def unmark_rebound(self, name: TableName) -> None:
        """Remove a name from `rebound`, because all views that read it are planned again."""
        with self.lock:
            self.rebound.discard(name)

    def drop(self, name: TableName) -> None:
        """Drop a name that is about to be registered again; the caller replaces the views that read it."""
        with self.lock:
            self.snapshot = self.snapshot.without([name])
            self.view_records.drop(name)

    def forget(self, *names: TableName) -> None:
        """Record that these names no longer resolve to a Delta table or a view of this session."""
        with self.lock:
            if names:
                self.record_change(*names)
            self.snapshot = self.snapshot.without(names)
            self.rebound.update(names)
            self.view_records.forget(names)

    def forget_schema(self, catalog: str | None, schema: str | None = None) -> None:
        """Forget every name in a schema that was removed or replaced.

        Args:
            catalog: the catalog; None for all catalogs.
            schema: the schema; None for all schemas of the catalog.
        """
        self.record_change()
        with self.lock:
            names = [*self.snapshot.entries, *self.view_records]
        self.forget(
            *(
                name
                for name in names
                if catalog in {None, name.catalog} and schema in {None, name.schema}
            )
        )

    def forget_missing(self, ctx: SessionContext) -> None:
        """Forget all names that no longer exist in the engine, and stop replacing views.

        For use after a statement that cannot be parsed: a view's name may be another table's now.
        """
        exists = unpatched(ctx, "table_exist")
        with self.lock:
            names = [*self.snapshot.entries, *self.view_records]
            self.view_records.detach_all()
        self.forget(*(name for name in names if not exists(name.sql())))
