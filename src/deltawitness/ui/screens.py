"""The screens about one version of a table, one run, one operation and one entry of the cache."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import Screen
from textual.widgets import Footer, Header, Static, TabbedContent, TabPane, Tree
from textual.widgets.tree import TreeNode

from deltawitness.answers.lineage_graph import Lineage, LineageDirection, LineageEdge, LineageNode
from deltawitness.answers.rows import TableVersion, WriteRow
from deltawitness.cache.entries.listing import CacheEntry
from deltawitness.report.format import operation, timestamp
from deltawitness.report.lineage import visible
from deltawitness.ui.background import in_thread
from deltawitness.ui.cells import READS, WRITES, read_cells, write_cells
from deltawitness.ui.reading import Reader, error_text, table_name, write_lines
from deltawitness.ui.tables import PagedTable, cell

__all__ = ["CommitScreen", "DetailScreen", "EntryScreen", "RunScreen", "WriteScreen", "open_write"]


class DetailScreen(Screen[None]):
    """A screen with a text that is read on a thread.

    Args:
        reader: reads the ledger.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        ("escape", "app.pop_screen", "Back"),
        ("q", "app.quit", "Quit"),
        Binding("ctrl+c", "app.quit", show=False),
    ]

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self.reader = reader

    @work(group="details")
    async def show_text(self, target: str, read: Callable[[], str]) -> None:
        """Read a text and show it in a widget; an error of reading is shown there as well.

        Args:
            target: selector of the widget.
            read: returns the text.
        """
        try:
            shown = Text("\n".join(map(visible, (await in_thread(read)).splitlines())))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - an engine that panics raises no Exception
            shown = _error(error)
        for widget in self.query(target).results(Static):
            widget.update(shown)

    def load_table(self) -> None:
        """Read the list of the screen, and give it the keyboard."""
        table = self.query_one(PagedTable)
        table.reload()
        table.focus()

    def on_paged_table_failed(self, event: PagedTable.Failed) -> None:
        """Show why a list cannot be read."""
        self.notify(visible(error_text(event.error)), severity="error", markup=False, timeout=20)


def _error(error: BaseException) -> Text:
    return Text(f"cannot be read: {visible(error_text(error))}", style="bold red")


class LineageTree(Tree[TableVersion]):
    """A graph of versions as a tree; a version that is in it already has no branches.

    Args:
        direction: what the branches are.
        id: id of the widget.
    """

    def __init__(self, direction: LineageDirection, id: str) -> None:  # noqa: A002 - as for every widget
        super().__init__(Text("..."), id=id)
        self.direction = direction

    def show_graph(self, graph: Lineage) -> None:
        """Replace the content by a graph."""
        nodes = {node.table: node for node in graph.nodes}
        below: dict[TableVersion, list[LineageEdge]] = {}
        is_up = graph.direction is LineageDirection.UP
        for edge in graph.edges:
            below.setdefault(edge.target if is_up else edge.source, []).append(edge)
        first = graph.nodes[0].table
        self.clear()
        self.root.set_label(_label(nodes[first]))
        self.root.data = first
        shown = {first}
        pending: list[tuple[TreeNode[TableVersion], TableVersion]] = [(self.root, first)]
        while pending:
            branch, table = pending.pop()
            for edge in below.get(table, ()):
                far = edge.source if is_up else edge.target
                label = Text.assemble((f"{edge.kind.value}: ", "dim"), _label(nodes[far]))
                if far in shown or far not in below:
                    branch.add_leaf(label, far)
                else:
                    pending.append((branch.add(label, far, expand=True), far))
                shown.add(far)
        self.root.expand()
        if first not in below:
            words = "nothing is known to be an input" if is_up else "nothing is known to read it"
            self.root.add_leaf(Text(words, style="dim"))

    def show_error(self, error: BaseException) -> None:
        """Replace the content by an error of reading."""
        self.clear()
        self.root.set_label(_error(error))


def _label(node: LineageNode) -> Text:
    parts = [str(node.table), operation(node.operation, node.mode), timestamp(node.time), node.job]
    more = [] if node.in_ledger else ["not in the ledger"]
    text = "  ".join(filter(None, [*parts, *more, "..." if node.is_cut else ""]))
    return cell(text, width=200)


class CommitScreen(DetailScreen):
    """One version of a table: who, when and why, and what it was made from.

    Args:
        reader: reads the ledger.
        table: the version, as `show` finds it.
    """

    def __init__(self, reader: Reader, table: str) -> None:
        super().__init__(reader)
        self.table = table
        self.sub_title: str = visible(table)

    def compose(self) -> ComposeResult:
        """Create the widgets."""
        yield Header(icon="")
        with TabbedContent():
            with TabPane("Version", id="version"), VerticalScroll():
                yield Static("reading...", id="text")
            with TabPane("Made from", id="made-from"):
                yield LineageTree(LineageDirection.UP, "up")
            with TabPane("Read by", id="read-by"):
                yield LineageTree(LineageDirection.DOWN, "down")
        yield Footer()

    def on_mount(self) -> None:
        """Start to read."""
        self.show_text("#text", lambda: self.reader.commit_text(self.table))
        for tree in self.query(LineageTree):
            self._show_lineage(tree)

    @work(group="lineage")
    async def _show_lineage(self, tree: LineageTree) -> None:
        try:
            graph = await in_thread(lambda: self.reader.lineage(self.table, tree.direction))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - an engine that panics raises no Exception
            tree.show_error(error)
        else:
            tree.show_graph(graph)

    def on_tree_node_selected(self, event: Tree.NodeSelected[TableVersion]) -> None:
        """Open the version of a node."""
        table = event.node.data
        if table is not None and not event.node.is_root:
            self.app.push_screen(CommitScreen(self.reader, table_name(table)))


class WriteScreen(DetailScreen):
    """One operation that has no version, such as a failed write.

    Args:
        reader: reads the ledger.
        row: the operation.
    """

    def __init__(self, reader: Reader, row: WriteRow) -> None:
        super().__init__(reader)
        self.row = row
        self.sub_title: str = visible(row.write_id or "")

    def compose(self) -> ComposeResult:
        """Create the widgets."""
        lines = write_lines(self.row)
        width = max(len(name) for name, _ in lines)
        yield Header(icon="")
        with VerticalScroll():
            text = "\n".join(f"{name:{width}}  {visible(value)}" for name, value in lines)
            yield Static(Text(text), id="text")
        yield Footer()


def open_write(reader: Reader, row: WriteRow) -> DetailScreen:
    """Return the screen of an operation: that of its version, if it has one.

    Args:
        reader: reads the ledger.
        row: the operation.
    """
    if row.version is None or not (row.table_uri or row.table_id):
        return WriteScreen(reader, row)
    table = TableVersion(row.version, row.table_name, row.table_uri, row.table_id)
    return CommitScreen(reader, table_name(table))


class RunScreen(DetailScreen):
    """One run with its operations.

    Args:
        reader: reads the ledger.
        run_id: id of the run.
    """

    def __init__(self, reader: Reader, run_id: str) -> None:
        super().__init__(reader)
        self.run_id = run_id
        self.sub_title: str = visible(run_id)

    def compose(self) -> ComposeResult:
        """Create the widgets."""
        chosen = {"run": self.run_id}
        yield Header(icon="")
        with VerticalScroll(id="above"):
            yield Static("reading...", id="text")
        yield PagedTable(
            WRITES,
            write_cells,
            lambda offset: self.reader.writes(offset, chosen=chosen),
            id="writes",
        )
        yield Footer()

    def on_mount(self) -> None:
        """Start to read."""
        self.show_text("#text", lambda: self.reader.run_text(self.run_id))
        self.load_table()

    def on_data_table_row_selected(self, event: PagedTable.RowSelected) -> None:
        """Open the operation at the cursor."""
        event.stop()
        row = self.query_one(PagedTable).selected
        if row is not None:
            self.app.push_screen(open_write(self.reader, row))


class EntryScreen(DetailScreen):
    """One entry of the cache: its inputs, and its last reads with the reasons of misses.

    Args:
        reader: reads the ledger and the cache.
        entry: the entry.
    """

    def __init__(self, reader: Reader, entry: CacheEntry) -> None:
        super().__init__(reader)
        self.entry = entry
        self.sub_title: str = visible(entry.name)

    def compose(self) -> ComposeResult:
        """Create the widgets."""
        yield Header(icon="")
        with VerticalScroll(id="above"):
            yield Static("reading...", id="text")
        yield PagedTable(READS, read_cells, self._read, id="reads")
        yield Footer()

    def _read(self, offset: int) -> list[WriteRow]:
        return [] if offset else list(self.reader.cache_reads(self.entry.name))

    def on_mount(self) -> None:
        """Start to read."""
        self.show_text("#text", lambda: self.reader.entry_text(self.entry))
        self.load_table()

    def on_data_table_row_selected(self, event: PagedTable.RowSelected) -> None:
        """Open the run of the read at the cursor."""
        event.stop()
        row = self.query_one(PagedTable).selected
        if row is not None and row.run_id:
            self.app.push_screen(RunScreen(self.reader, row.run_id))
