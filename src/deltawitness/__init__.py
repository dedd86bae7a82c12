"""Observe every Delta write: commit metadata, spans, metrics, logs and a ledger.

PYTEST_DONT_REWRITE: an observed process imports this package before pytest does; without this word
pytest warns that it can no longer rewrite the package's assertions.
"""

from __future__ import annotations

from deltawitness.command_interrupt import exit_at_interrupt, is_command

if is_command():
    exit_at_interrupt()  # before everything else is imported, and until the command runs

# isort: split

import importlib
from typing import TYPE_CHECKING, Any

# Imported eagerly: an import of the module `deltawitness.run` would otherwise replace the function `run`.
from deltawitness.run import cache_context, current_run, run, suppressed
from deltawitness.run_context import CacheContext, RunContext

if TYPE_CHECKING:
    from deltawitness.alerts.question import notify
    from deltawitness.alerts.values import Alert, AlertKind, MessageFormat, NotifyResult
    from deltawitness.answers.bisect import bisect
    from deltawitness.answers.bisect_values import (
        BisectInput,
        BisectResult,
        BisectState,
        TestedVersion,
    )
    from deltawitness.answers.blame import blame
    from deltawitness.answers.blame_values import BlamedRow, BlamedWrite, BlameResult
    from deltawitness.answers.column_graph import (
        ColumnEdge,
        ColumnLineage,
        RowsEdge,
        TableColumn,
        UnknownColumns,
    )
    from deltawitness.answers.columns import column_lineage
    from deltawitness.answers.cost import cost
    from deltawitness.answers.cost_values import JobCost, TableCost
    from deltawitness.answers.diff.question import diff
    from deltawitness.answers.diff.run_values import (
        DiffCause,
        RunDiff,
        RunDifference,
        RunTable,
        RunTableDiff,
    )
    from deltawitness.answers.diff.table_values import (
        ColumnChange,
        ColumnStatistics,
        DiffChange,
        DiffOperation,
        FileChanges,
        PropertyChange,
        RowChanges,
        RowExample,
        TableDiff,
    )
    from deltawitness.answers.doctor import doctor
    from deltawitness.answers.health.values import (
        Health,
        HealthCheck,
        HealthFinding,
        Severity,
        SizeBucket,
        TableHealth,
    )
    from deltawitness.answers.impact_report import Dependent, DependentInput, Impact
    from deltawitness.answers.lineage_events import lineage_events
    from deltawitness.answers.lineage_graph import (
        EdgeKind,
        Lineage,
        LineageDirection,
        LineageEdge,
        LineageNode,
    )
    from deltawitness.answers.live.question import live
    from deltawitness.answers.live.values import (
        LiveProcess,
        LiveReport,
        LiveSource,
        LiveWrite,
        ProcessState,
        RunningWrite,
    )
    from deltawitness.answers.program_plan.application import apply
    from deltawitness.answers.program_plan.question import plan
    from deltawitness.answers.program_plan.values import (
        AppliedPlan,
        AppliedTable,
        PlannedState,
        PlannedTable,
        ProgramPlan,
    )
    from deltawitness.answers.questions import errors, impact, lineage, runs, show, writes
    from deltawitness.answers.releases.question import (
        create_release,
        diff_releases,
        drop_release,
        releases,
        verify_release,
    )
    from deltawitness.answers.releases.restore import restore_release
    from deltawitness.answers.releases.values import (
        CheckedTable,
        NeededFiles,
        ReleaseCheck,
        ReleaseDiff,
        ReleaseRestore,
        ReleaseTableDiff,
        ReleaseTableState,
    )
    from deltawitness.answers.rows import CountedOperation, RunRow, TableVersion, WriteRow
    from deltawitness.answers.run_time import OperationTime, RunTime, time
    from deltawitness.answers.shown_commit import ShownCommit
    from deltawitness.answers.shown_run import RunOutput, RunProcess, ShownRun, TraceLink
    from deltawitness.answers.trends.ci_report import ci_report
    from deltawitness.answers.trends.ci_values import CiCheck, CiProblem, CiReport
    from deltawitness.answers.trends.freshness import FreshnessWatch, watch_freshness
    from deltawitness.answers.trends.overdue import overdue
    from deltawitness.answers.trends.regressions import regressions
    from deltawitness.answers.trends.values import (
        EmptyRun,
        OverdueResult,
        Regression,
        RegressionKind,
        RegressionResult,
        TableCadence,
        TableState,
        UnusualVolume,
    )
    from deltawitness.answers.undo import undo
    from deltawitness.answers.undo_plan import LaterCommit, UndoPlan, UndoState, UndoTable
    from deltawitness.app_transactions import OnceBlock, exactly_once, once
    from deltawitness.cache.delta_cache import DeltaCache, Explanation
    from deltawitness.cache.entries.listing import CacheEntry
    from deltawitness.cache.entries.policy import CachePolicy, OnError
    from deltawitness.cache.entries.prune import PruneResult
    from deltawitness.cache.entries.prune import PruneResult as Pruned
    from deltawitness.cache.kinds.snapshots import MetadataSnapshot
    from deltawitness.cache.verify.results import Verdict, VerifyResult
    from deltawitness.cache.verify.results import VerifyResult as Verified
    from deltawitness.call_site import CallSite
    from deltawitness.catalog_metrics import CatalogMetricsSink, CatalogTable
    from deltawitness.column_sources import ColumnUse
    from deltawitness.commit import (
        CacheCommitMetadataRequest,
        CommitMetadata,
        cache_commit_metadata,
        history,
        read_commit_metadata,
    )
    from deltawitness.commit.receipts import Receipt
    from deltawitness.delta_rs.seam_states import SeamState, SeamStatus, seam_states
    from deltawitness.distributed.result import DistributedWriteResult
    from deltawitness.distributed.write import write_distributed
    from deltawitness.events import (
        CommitMetrics,
        Committed,
        ExpectationCheck,
        ExpectationReport,
        Exported,
        Failed,
        InputVersion,
        Landed,
        NoCommit,
        NoCommitReason,
        WriteEvent,
        WriteIntent,
        WriteOutcome,
        WritePhase,
        WriteSink,
    )
    from deltawitness.expectations import ExpectationBlock, Within, expect, within
    from deltawitness.hashing import plan_hash, plan_shape_hash, schema_hash
    from deltawitness.html_report.question import HtmlReport, report_html
    from deltawitness.installation.info import info
    from deltawitness.installation.model import InfoResult, LedgerInfo, SettingInfo, SettingSource
    from deltawitness.instrumentation import DataFusionInstrumentor, DeltaLakeInstrumentor
    from deltawitness.ledger.drain.drain import DrainResult
    from deltawitness.ledger.drain.expire import ExpireResult
    from deltawitness.ledger.drain.fold import FoldResult
    from deltawitness.ledger.drain.maintenance import MaintenanceResult
    from deltawitness.ledger.drain.serve import ServeResult
    from deltawitness.ledger.integrity import Finding, IntegrityResult, Problem
    from deltawitness.ledger.ledger import Ledger, adopt
    from deltawitness.ledger.reconcile.adoption import AdoptResult
    from deltawitness.ledger.reconcile.findings import (
        Difference,
        DifferingRow,
        PhantomRow,
        UnreadableTable,
        UnrecordedWrite,
    )
    from deltawitness.ledger.reconcile.plan import ReconcilePlan
    from deltawitness.ledger.tables.releases import Release, ReleasedTable
    from deltawitness.locations import table_id
    from deltawitness.observe import flush
    from deltawitness.observe.receipts import Receipts, last_commit, receipts
    from deltawitness.openlineage.sink import OpenLineageSink
    from deltawitness.pipeline.observed import ObservedWritePipeline
    from deltawitness.pipeline.pipeline import (
        WriteFormat,
        WriteMode,
        WritePipeline,
        WriteRequest,
        WriteResult,
    )
    from deltawitness.propagation import run_environment
    from deltawitness.run_origin import RunOrigin
    from deltawitness.semconv import WITNESS_VERSION as __version__  # noqa: N811 - the conventional name
    from deltawitness.semconv import (
        CacheScope,
        ErrorType,
        ExpectationAction,
        ExpectationResult,
        ExpectationRule,
    )
    from deltawitness.session.fingerprint.diff import Miss, MissReason
    from deltawitness.session.proxies import ObservedDataFrame, ObservedSessionContext
    from deltawitness.settings import (
        DiagnosticsChoice,
        LedgerMessages,
        LedgerMode,
        Requirement,
        ReservedKeys,
        Settings,
        TableNames,
    )
    from deltawitness.telemetry.cache_spans import cache_span
    from deltawitness.telemetry.diagnostics import (
        DiagnosticsSink,
        InMemoryDiagnosticsSink,
        OtelDiagnosticsSink,
        diagnostics_sink,
        memory_diagnostics,
    )
    from deltawitness.telemetry.metrics import metric_views

_MODULES = {
    "AdoptResult": "ledger.reconcile.adoption",
    "AppliedPlan": "answers.program_plan.values",
    "AppliedTable": "answers.program_plan.values",
    "BisectInput": "answers.bisect_values",
    "Alert": "alerts.values",
    "AlertKind": "alerts.values",
    "BisectResult": "answers.bisect_values",
    "BisectState": "answers.bisect_values",
    "BlameResult": "answers.blame_values",
    "BlamedRow": "answers.blame_values",
    "BlamedWrite": "answers.blame_values",
    "CacheCommitMetadataRequest": "commit",
    "CacheEntry": "cache.entries.listing",
    "CachePolicy": "cache.entries.policy",
    "CacheScope": "semconv",
    "CallSite": "call_site",
    "CatalogMetricsSink": "catalog_metrics",
    "CatalogTable": "catalog_metrics",
    "CheckedTable": "answers.releases.values",
    "CiCheck": "answers.trends.ci_values",
    "CiProblem": "answers.trends.ci_values",
    "CiReport": "answers.trends.ci_values",
    "ColumnChange": "answers.diff.table_values",
    "ColumnEdge": "answers.column_graph",
    "ColumnLineage": "answers.column_graph",
    "ColumnStatistics": "answers.diff.table_values",
    "ColumnUse": "column_sources",
    "CommitMetadata": "commit",
    "CommitMetrics": "events",
    "Committed": "events",
    "CountedOperation": "answers.rows",
    "DataFusionInstrumentor": "instrumentation",
    "DeltaCache": "cache.delta_cache",
    "DeltaLakeInstrumentor": "instrumentation",
    "Dependent": "answers.impact_report",
    "DependentInput": "answers.impact_report",
    "DiagnosticsChoice": "settings",
    "DiagnosticsSink": "telemetry.diagnostics",
    "DiffCause": "answers.diff.run_values",
    "DiffChange": "answers.diff.table_values",
    "DiffOperation": "answers.diff.table_values",
    "Difference": "ledger.reconcile.findings",
    "DifferingRow": "ledger.reconcile.findings",
    "DistributedWriteResult": "distributed.result",
    "DrainResult": "ledger.drain.drain",
    "EdgeKind": "answers.lineage_graph",
    "EmptyRun": "answers.trends.values",
    "ErrorType": "semconv",
    "ExpectationAction": "semconv",
    "ExpectationBlock": "expectations",
    "ExpectationCheck": "events",
    "ExpectationReport": "events",
    "ExpectationResult": "semconv",
    "ExpectationRule": "semconv",
    "ExpireResult": "ledger.drain.expire",
    "Explanation": "cache.delta_cache",
    "Exported": "events",
    "Failed": "events",
    "FileChanges": "answers.diff.table_values",
    "Finding": "ledger.integrity",
    "FoldResult": "ledger.drain.fold",
    "FreshnessWatch": "answers.trends.freshness",
    "Health": "answers.health.values",
    "HealthCheck": "answers.health.values",
    "HealthFinding": "answers.health.values",
    "HtmlReport": "html_report.question",
    "Impact": "answers.impact_report",
    "InMemoryDiagnosticsSink": "telemetry.diagnostics",
    "InfoResult": "installation.model",
    "InputVersion": "events",
    "IntegrityResult": "ledger.integrity",
    "JobCost": "answers.cost_values",
    "Landed": "events",
    "LaterCommit": "answers.undo_plan",
    "Ledger": "ledger.ledger",
    "LedgerInfo": "installation.model",
    "LedgerMessages": "settings",
    "LedgerMode": "settings",
    "Lineage": "answers.lineage_graph",
    "LineageDirection": "answers.lineage_graph",
    "LineageEdge": "answers.lineage_graph",
    "LineageNode": "answers.lineage_graph",
    "LiveProcess": "answers.live.values",
    "LiveReport": "answers.live.values",
    "LiveSource": "answers.live.values",
    "LiveWrite": "answers.live.values",
    "MaintenanceResult": "ledger.drain.maintenance",
    "MessageFormat": "alerts.values",
    "MetadataSnapshot": "cache.kinds.snapshots",
    "Miss": "session.fingerprint.diff",
    "MissReason": "session.fingerprint.diff",
    "NeededFiles": "answers.releases.values",
    "NoCommit": "events",
    "NoCommitReason": "events",
    "NotifyResult": "alerts.values",
    "ObservedDataFrame": "session.proxies",
    "ObservedSessionContext": "session.proxies",
    "ObservedWritePipeline": "pipeline.observed",
    "OnError": "cache.entries.policy",
    "OnceBlock": "app_transactions",
    "OpenLineageSink": "openlineage.sink",
    "OperationTime": "answers.run_time",
    "OtelDiagnosticsSink": "telemetry.diagnostics",
    "OverdueResult": "answers.trends.values",
    "PhantomRow": "ledger.reconcile.findings",
    "PlannedState": "answers.program_plan.values",
    "PlannedTable": "answers.program_plan.values",
    "Problem": "ledger.integrity",
    "ProcessState": "answers.live.values",
    "ProgramPlan": "answers.program_plan.values",
    "PropertyChange": "answers.diff.table_values",
    "PruneResult": "cache.entries.prune",
    "Receipt": "commit.receipts",
    "Receipts": "observe.receipts",
    "ReconcilePlan": "ledger.reconcile.plan",
    "Regression": "answers.trends.values",
    "RegressionKind": "answers.trends.values",
    "RegressionResult": "answers.trends.values",
    "Release": "ledger.tables.releases",
    "ReleaseCheck": "answers.releases.values",
    "ReleaseDiff": "answers.releases.values",
    "ReleaseRestore": "answers.releases.values",
    "ReleaseTableDiff": "answers.releases.values",
    "ReleaseTableState": "answers.releases.values",
    "ReleasedTable": "ledger.tables.releases",
    "Requirement": "settings",
    "ReservedKeys": "settings",
    "RowChanges": "answers.diff.table_values",
    "RowExample": "answers.diff.table_values",
    "RowsEdge": "answers.column_graph",
    "RunDiff": "answers.diff.run_values",
    "RunDifference": "answers.diff.run_values",
    "RunOrigin": "run_origin",
    "RunOutput": "answers.shown_run",
    "RunProcess": "answers.shown_run",
    "RunRow": "answers.rows",
    "RunTable": "answers.diff.run_values",
    "RunTableDiff": "answers.diff.run_values",
    "RunTime": "answers.run_time",
    "RunningWrite": "answers.live.values",
    "SeamState": "delta_rs.seam_states",
    "SeamStatus": "delta_rs.seam_states",
    "ServeResult": "ledger.drain.serve",
    "SettingInfo": "installation.model",
    "SettingSource": "installation.model",
    "Settings": "settings",
    "Severity": "answers.health.values",
    "ShownCommit": "answers.shown_commit",
    "ShownRun": "answers.shown_run",
    "SizeBucket": "answers.health.values",
    "TableCadence": "answers.trends.values",
    "TableColumn": "answers.column_graph",
    "TableCost": "answers.cost_values",
    "TableDiff": "answers.diff.table_values",
    "TableHealth": "answers.health.values",
    "TableNames": "settings",
    "TableState": "answers.trends.values",
    "TableVersion": "answers.rows",
    "TestedVersion": "answers.bisect_values",
    "TraceLink": "answers.shown_run",
    "UndoPlan": "answers.undo_plan",
    "UndoState": "answers.undo_plan",
    "UndoTable": "answers.undo_plan",
    "UnknownColumns": "answers.column_graph",
    "UnreadableTable": "ledger.reconcile.findings",
    "UnrecordedWrite": "ledger.reconcile.findings",
    "UnusualVolume": "answers.trends.values",
    "Verdict": "cache.verify.results",
    "VerifyResult": "cache.verify.results",
    "Within": "expectations",
    "WriteEvent": "events",
    "WriteFormat": "pipeline.pipeline",
    "WriteIntent": "events",
    "WriteMode": "pipeline.pipeline",
    "WriteOutcome": "events",
    "WritePhase": "events",
    "WritePipeline": "pipeline.pipeline",
    "WriteRequest": "pipeline.pipeline",
    "WriteResult": "pipeline.pipeline",
    "WriteRow": "answers.rows",
    "WriteSink": "events",
    "adopt": "ledger.ledger",
    "apply": "answers.program_plan.application",
    "bisect": "answers.bisect",
    "blame": "answers.blame",
    "cache_commit_metadata": "commit",
    "cache_span": "telemetry.cache_spans",
    "ci_report": "answers.trends.ci_report",
    "column_lineage": "answers.columns",
    "cost": "answers.cost",
    "create_release": "answers.releases.question",
    "diagnostics_sink": "telemetry.diagnostics",
    "diff": "answers.diff.question",
    "diff_releases": "answers.releases.question",
    "doctor": "answers.doctor",
    "drop_release": "answers.releases.question",
    "errors": "answers.questions",
    "exactly_once": "app_transactions",
    "expect": "expectations",
    "flush": "observe",
    "history": "commit",
    "impact": "answers.questions",
    "info": "installation.info",
    "last_commit": "observe.receipts",
    "lineage": "answers.questions",
    "lineage_events": "answers.lineage_events",
    "live": "answers.live.question",
    "memory_diagnostics": "telemetry.diagnostics",
    "metric_views": "telemetry.metrics",
    "notify": "alerts.question",
    "once": "app_transactions",
    "overdue": "answers.trends.overdue",
    "plan": "answers.program_plan.question",
    "plan_hash": "hashing",
    "plan_shape_hash": "hashing",
    "read_commit_metadata": "commit",
    "receipts": "observe.receipts",
    "regressions": "answers.trends.regressions",
    "releases": "answers.releases.question",
    "report_html": "html_report.question",
    "restore_release": "answers.releases.restore",
    "run_environment": "propagation",
    "runs": "answers.questions",
    "schema_hash": "hashing",
    "seam_states": "delta_rs.seam_states",
    "show": "answers.questions",
    "table_id": "locations",
    "time": "answers.run_time",
    "undo": "answers.undo",
    "verify_release": "answers.releases.question",
    "watch_freshness": "answers.trends.freshness",
    "within": "expectations",
    "write_distributed": "distributed.write",
    "writes": "answers.questions",
}

_NEED_DATAFUSION = frozenset(
    {
        "DeltaCache",
        "Explanation",
        "MetadataSnapshot",
        "ObservedDataFrame",
        "ObservedSessionContext",
    }
)
"""The names that need the extra `datafusion`."""

_ALIASES = {"Pruned": "PruneResult", "Verified": "VerifyResult"}
"""Former public names, which stay valid."""

__all__ = [
    "AdoptResult",
    "Alert",
    "AlertKind",
    "AppliedPlan",
    "AppliedTable",
    "BisectInput",
    "BisectResult",
    "BisectState",
    "BlameResult",
    "BlamedRow",
    "BlamedWrite",
    "CacheCommitMetadataRequest",
    "CacheContext",
    "CacheEntry",
    "CachePolicy",
    "CacheScope",
    "CallSite",
    "CatalogMetricsSink",
    "CatalogTable",
    "CheckedTable",
    "CiCheck",
    "CiProblem",
    "CiReport",
    "ColumnChange",
    "ColumnEdge",
    "ColumnLineage",
    "ColumnStatistics",
    "ColumnUse",
    "CommitMetadata",
    "CommitMetrics",
    "Committed",
    "CountedOperation",
    "DataFusionInstrumentor",
    "DeltaCache",
    "DeltaLakeInstrumentor",
    "Dependent",
    "DependentInput",
    "DiagnosticsChoice",
    "DiagnosticsSink",
    "DiffCause",
    "DiffChange",
    "DiffOperation",
    "Difference",
    "DifferingRow",
    "DistributedWriteResult",
    "DrainResult",
    "EdgeKind",
    "EmptyRun",
    "ErrorType",
    "ExpectationAction",
    "ExpectationBlock",
    "ExpectationCheck",
    "ExpectationReport",
    "ExpectationResult",
    "ExpectationRule",
    "ExpireResult",
    "Explanation",
    "Exported",
    "Failed",
    "FileChanges",
    "Finding",
    "FoldResult",
    "FreshnessWatch",
    "Health",
    "HealthCheck",
    "HealthFinding",
    "HtmlReport",
    "Impact",
    "InMemoryDiagnosticsSink",
    "InfoResult",
    "InputVersion",
    "IntegrityResult",
    "JobCost",
    "Landed",
    "LaterCommit",
    "Ledger",
    "LedgerInfo",
    "LedgerMessages",
    "LedgerMode",
    "Lineage",
    "LineageDirection",
    "LineageEdge",
    "LineageNode",
    "LiveProcess",
    "LiveReport",
    "LiveSource",
    "LiveWrite",
    "MaintenanceResult",
    "MessageFormat",
    "MetadataSnapshot",
    "Miss",
    "MissReason",
    "NeededFiles",
    "NoCommit",
    "NoCommitReason",
    "NotifyResult",
    "ObservedDataFrame",
    "ObservedSessionContext",
    "ObservedWritePipeline",
    "OnError",
    "OnceBlock",
    "OpenLineageSink",
    "OperationTime",
    "OtelDiagnosticsSink",
    "OverdueResult",
    "PhantomRow",
    "PlannedState",
    "PlannedTable",
    "Problem",
    "ProcessState",
    "ProgramPlan",
    "PropertyChange",
    "PruneResult",
    "Pruned",
    "Receipt",
    "Receipts",
    "ReconcilePlan",
    "Regression",
    "RegressionKind",
    "RegressionResult",
    "Release",
    "ReleaseCheck",
    "ReleaseDiff",
    "ReleaseRestore",
    "ReleaseTableDiff",
    "ReleaseTableState",
    "ReleasedTable",
    "Requirement",
    "ReservedKeys",
    "RowChanges",
    "RowExample",
    "RowsEdge",
    "RunContext",
    "RunDiff",
    "RunDifference",
    "RunOrigin",
    "RunOutput",
    "RunProcess",
    "RunRow",
    "RunTable",
    "RunTableDiff",
    "RunTime",
    "RunningWrite",
    "SeamState",
    "SeamStatus",
    "ServeResult",
    "SettingInfo",
    "SettingSource",
    "Settings",
    "Severity",
    "ShownCommit",
    "ShownRun",
    "SizeBucket",
    "TableCadence",
    "TableColumn",
    "TableCost",
    "TableDiff",
    "TableHealth",
    "TableNames",
    "TableState",
    "TableVersion",
    "TestedVersion",
    "TraceLink",
    "UndoPlan",
    "UndoState",
    "UndoTable",
    "UnknownColumns",
    "UnreadableTable",
    "UnrecordedWrite",
    "UnusualVolume",
    "Verdict",
    "Verified",
    "VerifyResult",
    "Within",
    "WriteEvent",
    "WriteFormat",
    "WriteIntent",
    "WriteMode",
    "WriteOutcome",
    "WritePhase",
    "WritePipeline",
    "WriteRequest",
    "WriteResult",
    "WriteRow",
    "WriteSink",
    "__version__",
    "adopt",
    "apply",
    "bisect",
    "blame",
    "cache_commit_metadata",
    "cache_context",
    "cache_span",
    "ci_report",
    "column_lineage",
    "cost",
    "create_release",
    "current_run",
    "diagnostics_sink",
    "diff",
    "diff_releases",
    "doctor",
    "drop_release",
    "errors",
    "exactly_once",
    "expect",
    "flush",
    "history",
    "impact",
    "info",
    "last_commit",
    "lineage",
    "lineage_events",
    "live",
    "memory_diagnostics",
    "metric_views",
    "notify",
    "once",
    "overdue",
    "plan",
    "plan_hash",
    "plan_shape_hash",
    "read_commit_metadata",
    "receipts",
    "regressions",
    "releases",
    "report_html",
    "restore_release",
    "run",
    "run_environment",
    "runs",
    "schema_hash",
    "seam_states",
    "show",
    "suppressed",
    "table_id",
    "time",
    "undo",
    "verify_release",
    "watch_freshness",
    "within",
    "write_distributed",
    "writes",
]


def __getattr__(name: str) -> Any:
    """Import a public name on first access: most names need an engine, which is slow to import.

    Raises:
        MissingExtraError: the name needs an extra that is not installed.
    """
    if name == "__version__":
        from deltawitness.semconv import WITNESS_VERSION  # noqa: PLC0415 - as the others

        return WITNESS_VERSION
    new_name = _ALIASES.get(name, name)
    home = _MODULES.get(new_name)
    if home is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    if name in _NEED_DATAFUSION:
        from deltawitness.extras import require  # noqa: PLC0415 - as the others

        require(name, "datafusion", "sqlglot")
    value = getattr(importlib.import_module(f"{__name__}.{home}"), new_name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
