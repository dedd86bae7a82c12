"""Write the pictures of the HTML report in `docs/assets`: `make screenshots`.

The pictures of the steps are of the ledger that the job of `examples/tour.py` leaves. The overview has a ledger
that is made up: ten nights of a shop's jobs, the last one with a failure, a retry and a slow job.
"""

from __future__ import annotations

import datetime as dt
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(REPOSITORY / "tests"), str(REPOSITORY / "examples")]

import tour  # noqa: E402 - after the path

from deltawitness import report_html, runs  # noqa: E402 - after the path
from helpers import browser  # noqa: E402 - after the path
from helpers.report_ledgers import operation, run_row, write_ledger  # noqa: E402 - after the path

ASSETS = REPOSITORY / "docs/assets"
NIGHTS = 10
STEPS = (
    ("ingest", "orders", (), 40_000),
    ("ingest", "customers", (), 900),
    ("ingest", "payments", (), 38_000),
    ("clean", "orders_clean", ("orders", "customers"), 39_500),
    ("clean", "payments_clean", ("payments",), 37_900),
    ("marts", "revenue", ("orders_clean", "payments_clean"), 400),
    ("marts", "churn", ("orders_clean", "customers"), 120),
    ("publish", "dashboard", ("revenue", "churn"), 30),
)
HIT_RATIO = 0.6
FAILED = {
    "result": "error",
    "version": None,
    "versions": [],
    "error_type": "schema_mismatch",
    "error_message": "Cannot cast schema, number of fields does not match: 11 vs 12",
    "landed": "no",
    "rows_added": 0,
    "files_added": 0,
    "bytes_added": 0,
}
RUN = "{night:08}-{job:04}-7000-8000-000000000000"


def at(time: dt.datetime, row: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return a row with another time."""
    return {**row, "event_date": time.date(), **dict.fromkeys(names, time)}


class History:
    """The operations and the runs of all nights.

    Args:
        end: when the last night began.
    """

    def __init__(self, end: dt.datetime) -> None:
        self.source = random.Random(5)  # noqa: S311 - no secret
        self.inventory: list[dict[str, Any]] = []
        self.runs: list[dict[str, Any]] = []
        jobs = list(dict.fromkeys(job for job, *_ in STEPS))
        for night in range(NIGHTS):
            begin = end - dt.timedelta(days=NIGHTS - 1 - night)
            for number, job in enumerate(jobs):
                self._add_run(night, number, job, begin + dt.timedelta(minutes=9 * number))

    def _add_run(self, night: int, number: int, job: str, begin: dt.datetime) -> None:
        run_id, time = RUN.format(night=night + 1, job=number), begin
        common = {"run_id": run_id, "job": job}
        first = len(self.inventory)
        for _, table, read, count in (step for step in STEPS if step[0] == job):
            time = self._add_write(night, table, read, count, time, common)
            if self.inventory[-1]["result"] == "error":
                break
            if read:
                time = self._add_read(night, table, time, common)
        own = self.inventory[first:]
        made = run_row(night, **common, message=f"night {night + 1}", end_time=time)
        made["writes"] = sum(row["result"] == "write" for row in own)
        made["rows_added"] = sum(row["rows_added"] for row in own)
        if own[-1]["result"] == "error":
            made |= {"status": "error", "error_type": "SchemaMismatchError", "errors": 1}
        self.runs.append(at(begin, made, "start_time"))

    def _add_write(  # noqa: PLR0913, PLR0917 - the parts of one row
        self,
        night: int,
        table: str,
        read: tuple[str, ...],
        count: int,
        time: dt.datetime,
        common: dict[str, Any],
    ) -> dt.datetime:
        is_last = night == NIGHTS - 1
        seconds = self.source.uniform(40, 90) * (3.2 if is_last and common["job"] == "clean" else 1)
        row = operation(
            night,
            **common,
            write_id=f"{night}-{table}",
            table_name=table,
            rows_added=round(count * self.source.uniform(0.9, 1.1)),
            bytes_added=count * 60,
            duration_ms=seconds * 1000,
            inputs=[
                {"uri": f"file:///lake/{name}", "table_id": f"id-{name}", "version": night}
                for name in read
            ],
            retries=1 if is_last and table == "customers" else 0,
        )
        row |= FAILED if is_last and table == "revenue" else {}
        self.inventory.append(at(time, row, "event_time"))
        return time + dt.timedelta(seconds=seconds + 5)

    def _add_read(
        self, night: int, table: str, time: dt.datetime, common: dict[str, Any]
    ) -> dt.datetime:
        is_hit = self.source.random() < HIT_RATIO
        row = operation(
            night,
            **common,
            **dict.fromkeys(("rows_added", "files_added", "bytes_added"), 0),
            write_id=f"{night}-{table}-read",
            table_name=table,
            operation=None,
            mode=None,
            cache_operation="read",
            key=table,
            policy="daily",
            result="hit" if is_hit else "miss",
            reason=None if is_hit else "an input has a new version",
            version=None,
            versions=[],
            duration_ms=400.0 if is_hit else 9_000.0,
        )
        self.inventory.append(at(time, row, "event_time"))
        return time + dt.timedelta(seconds=10)


def overview(folder: Path) -> dict[str, Any]:
    """Write the pictures of the page: light, dark and on a phone."""
    now = dt.datetime.now(dt.UTC)
    end = now.replace(hour=2, minute=0, second=0, microsecond=0)
    end -= dt.timedelta(days=1 if end > now - dt.timedelta(hours=1) else 0)
    history = History(end)
    root = write_ledger(folder / "ledger", history.inventory, history.runs)
    html = report_html(since=end - dt.timedelta(hours=1), root=root).html
    run = RUN.format(night=NIGHTS, job=0)
    return picture(folder, html.replace(root, "/lake/.deltawitness"), run, "orders", "overview")


def steps(folder: Path) -> dict[str, Any]:
    """Write the pictures of the steps from the verdict to what depends on a failed run."""
    tour.play(str(folder), (tour.WRITE, tour.BREAK))
    root = folder / ".deltawitness"
    (failed,) = runs(job="load", status="error", root=root)
    html = report_html(root=root).html.replace(str(folder), "/home/ann")
    return picture(folder, html, failed.run_id, "weather", "steps")


def picture(folder: Path, html: str, run: str, wanted: str, kind: str) -> dict[str, Any]:
    """Write pictures of a page, in which no path of this machine is left."""
    path = folder / "report.html"
    path.write_text(html, encoding="ascii")
    found: dict[str, Any] = browser.run(
        "browse_report.py", str(path), run, wanted, str(ASSETS), kind
    )
    return found


def main() -> None:
    """Write the pictures."""
    missing = browser.missing()
    if missing is not None:
        sys.exit(missing)
    for make in (overview, steps):
        with tempfile.TemporaryDirectory() as temporary:
            found = make(Path(temporary))
        if found["console"]:
            sys.exit("\n".join(found["console"]))
    for written in sorted(ASSETS.glob("report-*.png")):
        print(f"{written.relative_to(REPOSITORY)}  {written.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
