"""The application: a tab for each list, and a status line for what cannot be read."""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.screen import Screen
from textual.widgets import Footer, Header, Input, Static, TabbedContent, TabPane

from deltawitness.answers.health.values import Health
from deltawitness.plurals import count_of
from deltawitness.report.lineage import visible
from deltawitness.settings import Settings
from deltawitness.ui.background import in_thread
from deltawitness.ui.cells import (
    CACHE,
    FINDINGS,
    HEALTH,
    RUNS,
    WRITES,
    cache_cells,
    finding_cells,
    health_cells,
    run_cells,
    write_cells,
)
from deltawitness.ui.reading import FilterError, Reader, error_text, write_filter
from deltawitness.ui.screens import DetailScreen, EntryScreen, RunScreen, open_write
from deltawitness.ui.tables import PagedTable

__all__ = ["LedgerApp"]


class ListsScreen(Screen[None]):
    """The lists of a ledger, each in a tab.

    Args:
        reader: reads the ledger.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        ("1", "tab('runs')", "Runs"),
        ("2", "tab('writes')", "Writes"),
        ("3", "tab('cache')", "Cache"),
        ("4", "tab('doctor')", "Doctor"),
        ("slash", "filter", "Filter"),
        ("r", "reload", "Reload"),
        ("f", "files", "List files"),
        ("q", "app.quit", "Quit"),
        Binding("ctrl+c", "app.quit", show=False),
    ]

    def __init__(self, reader: Reader) -> None:
        super().__init__()
        self.reader = reader
        self.sub_title: str = visible(reader.title)
        self._filter: dict[str, Any] = {}
        self._is_opened: set[str] = set()

    def compose(self) -> ComposeResult:
        """Create the widgets."""
        reader = self.reader
        yield Header(icon="")
        with TabbedContent(initial="runs", id="tabs"):
            with TabPane("Runs", id="runs"):
                yield PagedTable(RUNS, run_cells, reader.runs, id="runs-table")
            with TabPane("Writes", id="writes"):
                yield Input(
                    placeholder="filter: orders, job=load, run=01a2, operation=merge, result=error",
                    id="filter",
                    compact=True,
                )
                yield PagedTable(WRITES, write_cells, self._read_writes, id="writes-table")
            with TabPane("Cache", id="cache"):
                yield PagedTable(CACHE, cache_cells, self._read_cache, id="cache-table")
            with TabPane("Doctor", id="doctor"):
                yield PagedTable(HEALTH, health_cells, id="doctor-table")
                yield PagedTable(FINDINGS, finding_cells, width=200, id="findings")
        yield Static("reading...", id="status")
        yield Footer()

    # --- reading -------------------------------------------------------------------------------------

    def _read_writes(self, offset: int) -> Any:
        return self.reader.writes(offset, chosen=self._filter)

    def _read_cache(self, offset: int) -> Any:
        return [] if offset else self.reader.cache()

    def on_tabbed_content_tab_activated(self, event: TabbedContent.TabActivated) -> None:
        """Read the list of a tab when it is shown first."""
        name = event.pane.id or ""
        if name not in self._is_opened:
            self._is_opened.add(name)
            self._reload(name)
        else:
            self._show_count(self._table(name))
        self._table(name).focus()
        self.refresh_bindings()

    def _reload(self, name: str) -> None:
        self._show_status("reading...")
        if name == "doctor":
            self._check(files=False)
        else:
            self._table(name).reload()

    def _table(self, name: str) -> PagedTable:
        return self.query_one(f"#{name}-table", PagedTable)

    @work(group="doctor", exclusive=True)
    async def _check(self, *, files: bool) -> None:
        try:
            health = await in_thread(lambda: self.reader.health(files=files))
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # noqa: BLE001 - an engine that panics raises no Exception
            self._show_error(error)
        else:
            self._show_health(health, files)

    def _show_health(self, health: Health, files: bool) -> None:
        self._table("doctor").show_items(health.tables)
        self.query_one("#findings", PagedTable).show_items(health.findings)
        hint = "" if files else "; the files were not listed: press f to list them"
        counts = count_of(len(health.tables), "table"), count_of(len(health.findings), "finding")
        self._show_status(f"{', '.join(counts)}{hint}")

    # --- the status line -----------------------------------------------------------------------------

    def on_paged_table_loaded(self, event: PagedTable.Loaded) -> None:
        """Show the number of rows."""
        self._show_count(event.table)

    def on_paged_table_failed(self, event: PagedTable.Failed) -> None:
        """Show why a list cannot be read."""
        self._show_error(event.error)

    def _show_count(self, table: PagedTable) -> None:
        more = "" if table.is_complete else ", and more below"
        self._show_status(f"{count_of(len(table.items), 'row')}{more}")

    def _show_status(self, text: str) -> None:
        self._set_status(text, is_error=False)

    def _show_error(self, error: BaseException) -> None:
        self._set_status(error_text(error), is_error=True)

    def _set_status(self, text: str, *, is_error: bool) -> None:
        status = self.query_one("#status", Static)
        status.set_class(is_error, "error")
        status.update(Text(visible(text)))

    # --- keys and mouse --------------------------------------------------------------------------------

    @property
    def _active(self) -> str:
        return self.query_one("#tabs", TabbedContent).active

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Offer the key for listing files only where it has a meaning."""
        del parameters
        return action != "files" or (self.is_mounted and self._active == "doctor")

    def action_tab(self, name: str) -> None:
        """Show a tab."""
        self.query_one("#tabs", TabbedContent).active = name

    def action_reload(self) -> None:
        """Read the list again."""
        self._reload(self._active)

    def action_files(self) -> None:
        """Check the health of the tables with their files on the storage."""
        self._show_status("reading, with the files on the storage...")
        self._check(files=True)

    def action_filter(self) -> None:
        """Go to the filter of the writes."""
        self.action_tab("writes")
        self.call_after_refresh(self.query_one("#filter", Input).focus)

    def on_input_submitted(self, event: Input.Submitted) -> None:
        """Filter the writes."""
        try:
            self._filter = write_filter(event.value)
        except FilterError as error:
            self._show_error(error)
            return
        self._is_opened.add("writes")
        self._reload("writes")
        self._table("writes").focus()

    def on_data_table_row_selected(self, event: PagedTable.RowSelected) -> None:
        """Open what is at the cursor."""
        table = event.data_table
        if not isinstance(table, PagedTable) or table.selected is None:
            return
        screen = self._screen_of(table.id or "", table.selected)
        if screen is not None:
            self.app.push_screen(screen)

    def _screen_of(self, name: str, item: Any) -> DetailScreen | None:
        match name:
            case "runs-table":
                return RunScreen(self.reader, item.run_id)
            case "writes-table":
                return open_write(self.reader, item)
            case "cache-table":
                return EntryScreen(self.reader, item)
        return None


class LedgerApp(App[None]):
    """Shows a ledger.

    Args:
        settings: the location of the ledger.
    """

    TITLE: str | None = "deltawitness"
    ENABLE_COMMAND_PALETTE: ClassVar[bool] = False
    CSS: ClassVar[str] = """
    #status { height: 1; padding: 0 1; color: $text-muted; }
    #status.error { color: $text-error; text-style: bold; }
    #above { height: 40%; }
    #text { padding: 0 1; }
    #findings { height: 50%; }
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._reader = Reader(settings)

    def get_default_screen(self) -> Screen[None]:
        """Return the screen with the lists."""
        return ListsScreen(self._reader)
