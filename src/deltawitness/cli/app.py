"""The Typer application with all commands."""

from __future__ import annotations

from typing import Annotated

import typer

from deltawitness.cli.adopt import adopt_command
from deltawitness.cli.audit import audit_command
from deltawitness.cli.bench import bench_command
from deltawitness.cli.bisect import bisect_command
from deltawitness.cli.blame import blame_command
from deltawitness.cli.cache import (
    ls_command,
    prune_command,
    verify_entry_command,
    verify_run_command,
    why_command,
)
from deltawitness.cli.ci_report import ci_report_command
from deltawitness.cli.collector import collector_init_command
from deltawitness.cli.commit import commit_command
from deltawitness.cli.cost import cost_command
from deltawitness.cli.diff import diff_command
from deltawitness.cli.doctor import doctor_command
from deltawitness.cli.errors import errors_command
from deltawitness.cli.impact import impact_command
from deltawitness.cli.info import info_command, version_line
from deltawitness.cli.lineage import lineage_command
from deltawitness.cli.lineage_export import lineage_export_command
from deltawitness.cli.live import live_command
from deltawitness.cli.maintenance import (
    drain_command,
    expire_command,
    fold_command,
    optimize_command,
    serve_command,
    verify_command,
    views_command,
)
from deltawitness.cli.mcp import mcp_command
from deltawitness.cli.notify import notify_command
from deltawitness.cli.overdue import overdue_command
from deltawitness.cli.program_plan import apply_command, plan_command
from deltawitness.cli.reconcile import reconcile_command
from deltawitness.cli.regressions import regressions_command
from deltawitness.cli.release import (
    create_release_command,
    diff_releases_command,
    drop_release_command,
    list_releases_command,
    restore_release_command,
    verify_release_command,
)
from deltawitness.cli.report import report_command
from deltawitness.cli.run import run_command
from deltawitness.cli.run_time import time_command
from deltawitness.cli.runs import runs_command
from deltawitness.cli.show import show_command
from deltawitness.cli.storage_options import with_storage_options
from deltawitness.cli.ui import ui_command
from deltawitness.cli.undo import undo_command
from deltawitness.cli.writes import writes_command

__all__ = ["app", "main"]

app: typer.Typer = typer.Typer(
    no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)
ledger: typer.Typer = typer.Typer(
    no_args_is_help=True, help="Compact, fold, serve, expire, check and query the ledger."
)
release: typer.Typer = typer.Typer(
    no_args_is_help=True, help="Name sets of table versions; compare, verify and restore them."
)
collector: typer.Typer = typer.Typer(
    no_args_is_help=True, help="Files for a Collector, Prometheus and Grafana."
)
cache: typer.Typer = typer.Typer(
    no_args_is_help=True, help="List, explain, prune and verify cache entries."
)


def main() -> None:
    """Run the command line."""
    app()


def _print_version(wanted: bool) -> None:
    if wanted:
        print(version_line())
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print the version, and those of the engines.",
        ),
    ] = False,
) -> None:
    """Observe every Delta Lake write that a program makes."""


app.command(
    "run", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)(with_storage_options(run_command))
app.command("live")(with_storage_options(live_command))
app.command("runs")(with_storage_options(runs_command))
app.command("show")(with_storage_options(show_command))
app.command("diff")(with_storage_options(diff_command))
app.command("writes")(with_storage_options(writes_command))
app.command("errors")(with_storage_options(errors_command))
app.command("lineage")(with_storage_options(lineage_command))
app.command("lineage-export")(with_storage_options(lineage_export_command))
app.command("impact")(with_storage_options(impact_command))
app.command("bisect")(with_storage_options(bisect_command))
app.command("blame")(with_storage_options(blame_command))
app.command("overdue")(with_storage_options(overdue_command))
app.command("regressions")(with_storage_options(regressions_command))
app.command("notify")(with_storage_options(notify_command))
app.command("ci-report")(with_storage_options(ci_report_command))
app.command("report")(with_storage_options(report_command))
app.command("undo")(with_storage_options(undo_command))
app.command(
    "plan", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False}
)(with_storage_options(plan_command))
app.command("apply")(with_storage_options(apply_command))
app.command("doctor")(with_storage_options(doctor_command))
app.command("time")(with_storage_options(time_command))
app.command("cost")(with_storage_options(cost_command))
app.command("ui")(with_storage_options(ui_command))
app.command("mcp")(with_storage_options(mcp_command))
app.command("commit")(with_storage_options(commit_command))
app.command("audit")(with_storage_options(audit_command))
app.command("reconcile")(with_storage_options(reconcile_command))
app.command("adopt")(with_storage_options(adopt_command))
app.command("drain")(with_storage_options(drain_command))
ledger.command("optimize")(with_storage_options(optimize_command))
ledger.command("fold")(with_storage_options(fold_command))
ledger.command("expire")(with_storage_options(expire_command))
ledger.command("serve")(with_storage_options(serve_command))
ledger.command("views")(with_storage_options(views_command))
ledger.command("verify")(with_storage_options(verify_command))
app.add_typer(ledger, name="ledger")
release.command("create")(with_storage_options(create_release_command))
release.command("ls")(with_storage_options(list_releases_command))
release.command("diff")(with_storage_options(diff_releases_command))
release.command("verify")(with_storage_options(verify_release_command))
release.command("restore")(with_storage_options(restore_release_command))
release.command("drop")(with_storage_options(drop_release_command))
app.add_typer(release, name="release")
app.command("verify")(with_storage_options(verify_run_command))
app.command("bench")(with_storage_options(bench_command))
app.command("info")(with_storage_options(info_command))
cache.command("ls")(with_storage_options(ls_command))
cache.command("why")(with_storage_options(why_command))
cache.command("prune")(with_storage_options(prune_command))
cache.command("verify")(with_storage_options(verify_entry_command))
app.add_typer(cache, name="cache")
collector.command("init")(collector_init_command)
app.add_typer(collector, name="collector")
