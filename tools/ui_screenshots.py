"""Write the pictures of `deltawitness ui` in `docs/assets`: `make screenshots`.

The ledger is real: a few observed writes, one of which fails, and an entry of the cache.
"""

from __future__ import annotations

import asyncio
import re
import tempfile
from contextlib import suppress
from pathlib import Path

import pyarrow as pa
from deltalake import write_deltalake
from textual.pilot import Pilot
from textual.widgets import TabbedContent

from deltawitness import (
    CachePolicy,
    DeltaCache,
    DeltaLakeInstrumentor,
    ObservedSessionContext,
    Settings,
    run,
)
from deltawitness.ui.app import LedgerApp

ASSETS = Path(__file__).resolve().parents[1] / "docs/assets"
SIZE = (124, 28)
NIGHTS = 4
FONT_FACE = re.compile(r"@font-face\s*\{[^}]*\}\s*")
"""The pictures must load nothing from the net: a browser has a monospace font."""

COMMENT = re.compile(r"<!--.*?-->\s*", re.DOTALL)
LENGTH = re.compile(r' textLength="[^"]*"')


def orders(night: int) -> pa.Table:
    """Return the orders of a night."""
    return pa.table({"id": [night * 10 + row for row in range(9)], "amount": [1.5 * night] * 9})


def write_lake(lake: Path, root: str) -> None:
    """Write the tables and the ledger."""
    instrumentor = DeltaLakeInstrumentor()
    instrumentor.instrument(settings=Settings(cache_root=root))
    try:
        for night in range(NIGHTS):
            with run("ingest", message=f"night {night + 1}"):
                write_deltalake(lake / "orders", orders(night), mode="append")
                write_deltalake(lake / "customers", pa.table({"id": [night]}), mode="append")
            ctx = ObservedSessionContext()
            ctx.register_delta("orders", str(lake / "orders"))
            with run("marts", message=f"night {night + 1}"):
                totals = ctx.sql(
                    "SELECT id % 10 AS kind, sum(amount) AS amount FROM orders GROUP BY 1"
                )
                totals.write_delta(str(lake / "revenue"), mode="overwrite")
                cache = DeltaCache(ctx, root)
                view = ctx.sql("SELECT count(*) AS orders FROM orders")
                for _ in range(2):
                    cache.view("orders_per_day", view, policy=CachePolicy("daily")).collect()
        with run("ingest", message="a new column"), suppress(Exception):
            write_deltalake(lake / "orders", pa.table({"discount": ["none"]}), mode="append")
    finally:
        instrumentor.uninstrument()


async def take_pictures(lake: Path, root: str) -> None:
    """Drive the application, and write a picture of each screen."""
    app = LedgerApp(Settings(cache_root=root))
    async with app.run_test(size=SIZE) as pilot:
        await settle(app, pilot)
        save(app, lake, "runs")
        await pilot.press("slash", *"revenue", "enter")
        await settle(app, pilot)
        await pilot.press("enter")
        await settle(app, pilot)
        save(app, lake, "version")
        app.screen.query_one(TabbedContent).active = "made-from"
        await settle(app, pilot)
        save(app, lake, "lineage")


async def settle(app: LedgerApp, pilot: Pilot[None]) -> None:
    """Wait until nothing is being read."""
    await pilot.pause()
    await app.workers.wait_for_complete()
    await pilot.pause()
    await pilot.pause()


def save(app: LedgerApp, lake: Path, name: str) -> None:
    """Write what the screen shows as SVG, without links and without the folder of this machine."""
    picture = COMMENT.sub("", FONT_FACE.sub("", app.export_screenshot()))
    # The shorter text must not be stretched to the length of the folder's name.
    picture = re.sub(
        r"<text [^>]*>[^<]*</text>",
        lambda found: (
            LENGTH.sub("", found[0]).replace(str(lake), "/lake")
            if str(lake) in found[0]
            else found[0]
        ),
        picture,
    )
    picture = "\n".join(line.rstrip() for line in picture.splitlines()) + "\n"
    path = ASSETS / f"ui-{name}.svg"
    path.write_text(picture, encoding="utf-8")
    print(f"docs/assets/{path.name}  {path.stat().st_size:,} bytes")


def main() -> None:
    """Write the pictures."""
    with tempfile.TemporaryDirectory() as folder:
        lake = Path(folder)
        root = str(lake / "ledger")
        write_lake(lake, root)
        asyncio.run(take_pictures(lake, root))


if __name__ == "__main__":
    main()
