"""The terminal user interface, driven by Textual's pilot: screens, keys, mouse, pages, errors, hostile names."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
import threading
import time

import pyarrow as pa
import pytest

pytest.importorskip("textual", reason="needs the extra ui")
from deltalake import write_deltalake
from textual.app import App
from textual.widgets import Input, Static, TabbedContent

from deltawitness import DeltaLakeInstrumentor, Settings, cache_context, run
from deltawitness.ui.app import LedgerApp
from deltawitness.ui.reading import PAGE
from deltawitness.ui.screens import CommitScreen, LineageTree, RunScreen, WriteScreen
from deltawitness.ui.tables import PagedTable
from helpers.ledger_commands import invoke
from helpers.report_ledgers import hostile_ledger, operation, run_row, write_ledger

SIZE = (140, 40)


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """The root of a ledger with two runs: a table, a table made from it, and a failed write."""
    folder = tmp_path_factory.mktemp("lake")
    instrumentor = DeltaLakeInstrumentor()
    instrumentor.instrument(settings=Settings(cache_root=str(folder / "ledger")))
    try:
        with run("ingest"):
            write_deltalake(folder / "orders", pa.table({"x": [1, 2]}))
        with run("clean"), cache_context(message="as every night"):
            from deltalake import DeltaTable

            rows = DeltaTable(folder / "orders").to_pyarrow_table()
            write_deltalake(folder / "orders_clean", rows)
            with pytest.raises(Exception, match="y"):
                write_deltalake(folder / "orders", pa.table({"y": ["a"]}), mode="append")
    finally:
        instrumentor.uninstrument()
    return str(folder / "ledger")


def drive(root, steps, size=SIZE):
    """Run the application on a ledger, and call an asynchronous function with it and its pilot."""

    async def main():
        app = LedgerApp(Settings(cache_root=root))
        async with app.run_test(size=size) as pilot:
            await settle(app, pilot)
            await steps(app, pilot)
            return app

    return asyncio.run(asyncio.wait_for(main(), 100))


async def settle(app, pilot):
    """Wait until nothing is being read."""
    await pilot.pause()
    await app.workers.wait_for_complete()
    await pilot.pause()
    await pilot.pause()


async def press(app, pilot, *keys):
    """Press keys, and wait until nothing is being read."""
    await pilot.press(*keys)
    await settle(app, pilot)


def text_of(app):
    """Return what the screen shows, as text."""
    strips = app.screen._compositor.render_strips()
    return "\n".join("".join(segment.text for segment in strip).rstrip() for strip in strips)


def status_of(app):
    """Return the status line."""
    return str(app.screen.query_one("#status", Static).render())


@pytest.mark.slow
def test_a_user_goes_from_a_run_to_a_version_and_its_inputs(root):
    """Enter opens a run, its write, and the version; the tree of inputs leads to the input; escape goes back."""

    async def steps(app, pilot):
        assert status_of(app) == "2 rows"
        assert re.search(r"clean +error|clean +ok", text_of(app))
        await press(app, pilot, "enter")
        assert isinstance(app.screen, RunScreen)
        assert "as every night" in text_of(app) or "outputs: orders_clean@0" in text_of(app)
        await press(app, pilot, "enter")  # the newest operation has failed
        assert isinstance(app.screen, WriteScreen)
        assert "schema_mismatch" in text_of(app)
        assert re.search(r"landed +no", text_of(app))
        await press(app, pilot, "escape", "down", "enter")
        assert isinstance(app.screen, CommitScreen)
        assert "as every night" in text_of(app)
        app.screen.query_one(TabbedContent).active = "made-from"
        await settle(app, pilot)
        assert "inferred: orders@0" in text_of(app)
        tree = app.screen.query_one("#up", LineageTree)
        tree.focus()
        await press(app, pilot, "down", "enter")
        assert isinstance(app.screen, CommitScreen)
        assert app.screen.table.endswith("/orders@0")
        app.screen.query_one(TabbedContent).active = "read-by"
        await settle(app, pilot)
        assert "orders_clean@0" in text_of(app)
        await press(app, pilot, "escape", "escape", "escape")
        assert len(app.screen_stack) == 1

    drive(root, steps)


@pytest.mark.slow
def test_filter_doctor_and_mouse(root):
    """The filter selects writes, a click opens a tab, and `f` lists the files of the tables."""

    async def steps(app, pilot):
        await press(app, pilot, "slash")
        await press(app, pilot, *"result", "equals_sign", *"error", "enter")
        assert status_of(app) == "1 row"
        await press(app, pilot, "slash", "end", *" x", "equals_sign", *"1", "enter")
        assert status_of(app).startswith("filter: expected table=, run=")
        box = app.screen.query_one("#filter", Input)
        box.value = "no-such-table"
        await press(app, pilot, "slash", "enter")
        assert "no-such-table" in status_of(app)
        box.value = ""
        await press(app, pilot, "slash", "enter")
        assert status_of(app) == "3 rows"
        await pilot.click("#--content-tab-doctor")
        await settle(app, pilot)
        assert status_of(app).startswith("2 tables, 0 findings; the files were not listed")
        await press(app, pilot, "f")
        assert status_of(app) == "2 tables, 0 findings"
        await press(app, pilot, "3")
        assert status_of(app) == "0 rows"

    drive(root, steps)


@pytest.mark.slow
def test_an_entry_of_the_cache_has_its_inputs_and_reads(tmp_path):
    """Enter opens an entry: the versions that it was made from, a miss with its reason, and a hit."""
    pytest.importorskip("datafusion")
    from deltawitness import CachePolicy, DeltaCache, ObservedSessionContext

    root = str(tmp_path / "ledger")
    write_deltalake(tmp_path / "orders", pa.table({"x": [1]}))
    instrumentor = DeltaLakeInstrumentor()
    instrumentor.instrument(settings=Settings(cache_root=root))
    try:
        with run("marts"):
            ctx = ObservedSessionContext()
            ctx.register_delta("orders", str(tmp_path / "orders"))
            cache = DeltaCache(ctx, root)
            for _ in range(2):
                view = ctx.sql("SELECT count(*) AS n FROM orders")
                cache.view("daily_count", view, policy=CachePolicy("daily")).collect()
    finally:
        instrumentor.uninstrument()

    async def steps(app, pilot):
        await press(app, pilot, "3")
        assert status_of(app) == "1 row"
        await press(app, pilot, "enter")
        shown = text_of(app)
        assert "view daily_count: live" in shown
        assert "table orders 0" in shown
        assert re.search(r"miss +absent", shown)
        assert re.search(r"marts +hit", shown)
        await press(app, pilot, "enter")
        assert isinstance(app.screen, RunScreen)

    drive(root, steps)


@pytest.mark.slow
def test_a_long_list_is_read_page_by_page(tmp_path):
    """The next page is read when the cursor nears the end, and each operation is there once."""
    count = 3 * PAGE // 2
    rows = [operation(number // 7, write_id=f"w{number:05}") for number in range(count)]
    root = write_ledger(tmp_path / "ledger", rows, [run_row(1)])

    async def steps(app, pilot):
        await press(app, pilot, "2")
        table = app.screen.query_one("#writes-table", PagedTable)
        assert len(table.items) == PAGE
        assert status_of(app) == f"{PAGE} rows, and more below"
        table.move_cursor(row=PAGE - 1)
        await settle(app, pilot)
        assert sorted(row.write_id for row in table.items) == [f"w{n:05}" for n in range(count)]
        assert status_of(app) == f"{count} rows"

    drive(root, steps)


@pytest.mark.slow
def test_a_page_of_an_earlier_filter_is_not_shown():
    """The list is read again before the first reading has ended, which then takes longer."""
    first_may_end, calls = threading.Event(), []

    def read(offset):
        calls.append(offset)
        if len(calls) > 1:
            return ["new"]
        first_may_end.wait(60)
        return ["old"]

    class Lists(App):
        def compose(self):
            yield PagedTable((("name", False),), lambda item: (item,), read)

    async def main():
        app = Lists()
        async with app.run_test() as pilot:
            table = app.query_one(PagedTable)
            table.reload()
            while not calls:
                await pilot.pause()
            table.reload()
            while not table.items:
                await pilot.pause()
            first_may_end.set()
            await settle(app, pilot)
            assert (table.items, table.row_count) == (["new"], 1)

    asyncio.run(asyncio.wait_for(main(), 60))


@pytest.mark.slow
def test_an_error_of_reading_is_a_line(tmp_path):
    """A missing ledger, and a damaged one, are a line of the status; the application goes on."""

    async def missing(app, pilot):
        assert status_of(app).startswith("there is no ledger at ")
        await press(app, pilot, "2", "3")
        assert status_of(app) == "0 rows"
        await press(app, pilot, "4")
        assert "no ledger" in status_of(app) or status_of(app).startswith("0 tables")

    drive(str(tmp_path / "none"), missing)
    root = write_ledger(tmp_path / "ledger", [operation(1)], [run_row(1)])
    for log in (tmp_path / "ledger").rglob("_delta_log/*.json"):
        log.write_text("{damaged")

    async def damaged(app, pilot):
        await press(app, pilot, "2")
        assert "rows" not in status_of(app)
        assert "error" in app.screen.query_one("#status", Static).classes
        await press(app, pilot, "r")
        assert "Traceback" not in text_of(app)

    drive(root, damaged)


@pytest.mark.slow
def test_hostile_names_are_text(tmp_path, size):
    """Markup, control characters and names of 10 kB are shown as text, in lists and in details."""
    root = hostile_ledger(tmp_path / "ledger")

    async def steps(app, pilot):
        await press(app, pilot, "2")
        table = app.screen.query_one("#writes-table", PagedTable)
        for number in range(0, len(table.items), size(5, 1, 13)):
            table.move_cursor(row=number)
            await press(app, pilot, "enter")
            assert len(app.screen_stack) == 2
            assert not re.search("[\x00-\x08\x1b\u202e]", text_of(app))
            await press(app, pilot, "escape")

    drive(root, steps)


def test_without_a_terminal_or_the_extra_it_is_one_line(tmp_path, monkeypatch):
    """The command says what it needs, and exits with 2."""
    done = invoke("ui", "--root", tmp_path)
    assert (done.exit_code, done.stderr.count("\n")) == (2, 1)
    assert "needs a terminal" in done.stderr
    monkeypatch.setitem(sys.modules, "textual", None)
    done = invoke("ui", "--root", tmp_path)
    assert (done.exit_code, done.stderr) == (
        2,
        "deltawitness: deltawitness ui needs Textual: pip install 'deltawitness[ui]'\n",
    )


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("tmux") is None, reason="needs tmux")
def test_in_a_real_terminal(root, tmp_path):
    """In tmux, the lists are drawn, keys work, and `q` leaves a usable terminal."""
    tmux = ["tmux", "-f", "/dev/null", "-S", str(tmp_path / "socket")]

    def call(*arguments):
        return subprocess.run([*tmux, *arguments], capture_output=True, text=True, timeout=60)

    def wait_for(*texts):
        """Wait until the screen has all texts: it may be captured while it is being drawn."""
        for _ in range(400):
            shown = call("capture-pane", "-p").stdout
            if all(text in shown for text in texts):
                return
            time.sleep(0.25)
        raise AssertionError(shown)

    program = f"{sys.executable} -m deltawitness ui --root {root}; echo left with $?; exec cat"
    try:
        started = call("new-session", "-d", "-x", "120", "-y", "30", "-e", "TERM=screen", program)
        assert started.returncode == 0, started.stderr
        wait_for("2 rows", "clean")
        call("send-keys", "2")
        wait_for("3 rows", "orders_clean")
        call("send-keys", "q")
        wait_for("left with 0")
    finally:
        call("kill-server")
