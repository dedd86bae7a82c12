"""The Typer application: all commands, or the one that a command line names.

A command imports what answers its question, and all commands together import three times as much. So
the commands are named here, and :func:`main` imports the module of the command that it runs.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterable, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer

from deltawitness.cli.info import version_line
from deltawitness.cli.storage_options import with_storage_options

__all__ = ["app", "main"]

app: typer.Typer
"""The application with all commands; made when it is first used."""

_COMMANDS = {
    "run": "run.run_command",
    "live": "live.live_command",
    "runs": "runs.runs_command",
    "show": "show.show_command",
    "diff": "diff.diff_command",
    "writes": "writes.writes_command",
    "errors": "errors.errors_command",
    "lineage": "lineage.lineage_command",
    "lineage-export": "lineage_export.lineage_export_command",
    "impact": "impact.impact_command",
    "bisect": "bisect.bisect_command",
    "blame": "blame.blame_command",
    "overdue": "overdue.overdue_command",
    "regressions": "regressions.regressions_command",
    "notify": "notify.notify_command",
    "ci-report": "ci_report.ci_report_command",
    "report": "report.report_command",
    "undo": "undo.undo_command",
    "plan": "program_plan.plan_command",
    "apply": "program_plan.apply_command",
    "doctor": "doctor.doctor_command",
    "time": "run_time.time_command",
    "cost": "cost.cost_command",
    "ui": "ui.ui_command",
    "mcp": "mcp.mcp_command",
    "commit": "commit.commit_command",
    "audit": "audit.audit_command",
    "reconcile": "reconcile.reconcile_command",
    "adopt": "adopt.adopt_command",
    "drain": "maintenance.drain_command",
    "verify": "cache.verify_run_command",
    "bench": "bench.bench_command",
    "info": "info.info_command",
}
"""The module in this package and the function of each command, in the order of `--help`."""

_GROUPS = {
    "ledger": "Compact, fold, serve, expire, check and query the ledger.",
    "release": "Name sets of table versions; compare, verify and restore them.",
    "cache": "List, explain, prune and verify cache entries.",
    "collector": "Files for a Collector, Prometheus and Grafana.",
}
"""The help text of each group of commands, in the order of `--help`."""

_GROUPED_COMMANDS = {
    "ledger": {
        "optimize": "maintenance.optimize_command",
        "fold": "maintenance.fold_command",
        "expire": "maintenance.expire_command",
        "serve": "maintenance.serve_command",
        "views": "maintenance.views_command",
        "verify": "maintenance.verify_command",
    },
    "release": {
        "create": "release.create_release_command",
        "ls": "release.list_releases_command",
        "diff": "release.diff_releases_command",
        "verify": "release.verify_release_command",
        "restore": "release.restore_release_command",
        "drop": "release.drop_release_command",
    },
    "cache": {
        "ls": "cache.ls_command",
        "why": "cache.why_command",
        "prune": "cache.prune_command",
        "verify": "cache.verify_entry_command",
    },
    "collector": {"init": "collector.collector_init_command"},
}
"""The module in this package and the function of each command of a group."""

_WITH_PROGRAM = {"run", "plan"}
"""Commands whose arguments are a program and its options."""

_WITHOUT_STORAGE = {"collector"}
"""Groups of commands that read no storage."""


def main() -> None:
    """Run the command line."""
    # Imports leave no garbage, and what they create lives to the end of the process. Without collections of
    # it, of which the interpreter's end has several, a command takes a fifth less time.
    gc.disable()
    chosen = _create_app(_names_for(sys.argv[1:]))
    gc.freeze()
    gc.enable()
    try:
        chosen()
    finally:
        gc.freeze()


def _names_for(words: Sequence[str]) -> Sequence[str]:
    """Return the commands and groups that a command line needs: all, if its first word is none of them."""
    names = [*_COMMANDS, *_GROUPS]
    first = words[0] if words else ""
    if first == "--version":
        return []
    return [first] if first in names else names


def __getattr__(name: str) -> typer.Typer:
    if name != "app":
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    globals()["app"] = created = _create_app(_names_for([]))
    return created


def _create_app(names: Iterable[str]) -> typer.Typer:
    """Return the application with some of its commands and groups.

    Args:
        names: their names, in the order of `--help`.
    """
    created = typer.Typer(
        no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
    )
    created.callback()(_options)
    for name in names:
        if name in _GROUPS:
            created.add_typer(_create_group(name), name=name)
        else:
            settings = _PROGRAM_SETTINGS if name in _WITH_PROGRAM else None
            function = with_storage_options(_import_command(_COMMANDS[name]))
            created.command(name, context_settings=settings)(function)
    return created


_PROGRAM_SETTINGS = {"ignore_unknown_options": True, "allow_interspersed_args": False}
"""Settings with which the first word that is no option begins the program."""


def _create_group(name: str) -> typer.Typer:
    group = typer.Typer(no_args_is_help=True, help=_GROUPS[name])
    for command, path in _GROUPED_COMMANDS[name].items():
        function = _import_command(path)
        group.command(command)(
            function if name in _WITHOUT_STORAGE else with_storage_options(function)
        )
    return group


def _import_command(path: str) -> Callable[..., Any]:
    """Return the function of a command; `path` is the module in this package, and its name."""
    module, _, function = path.partition(".")
    found: Callable[..., Any] = getattr(import_module(f"deltawitness.cli.{module}"), function)
    return found


def _print_version(wanted: bool) -> None:
    if wanted:
        print(version_line())
        raise typer.Exit


def _options(
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
