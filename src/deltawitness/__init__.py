"""Observe every Delta write: commit metadata, spans, metrics, logs and a ledger.

PYTEST_DONT_REWRITE: an observed process imports this package before pytest does; without this word
pytest warns that it can no longer rewrite the package's assertions.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Imported eagerly: an import of the module `deltawitness.run` would otherwise replace the function `run`.
from deltawitness.run import cache_context, current_run, run, suppressed
from deltawitness.run_context import CacheContext, RunContext

if TYPE_CHECKING:
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
    from deltawitness.answers.impact_report import Dependent, DependentInput, Impact
    from deltawitness.answers.lineage_graph import (
        EdgeKind,
        Lineage,
        LineageDirection,
        LineageEdge,
        LineageNode,
    )
    from deltawitness.answers.questions import errors, impact, lineage, runs, show, writes
    from deltawitness.answers.rows import CountedOperation, RunRow, TableVersion, WriteRow
    from deltawitness.answers.shown_commit import ShownCommit
    from deltawitness.answers.shown_run import RunOutput, RunProcess, ShownRun, TraceLink
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
        Exported,
        Failed,
        InputVersion,
        Landed,
        NoCommit,
        NoCommitReason,
        WriteEvent,
        WriteIntent,
        WriteOutcome,
        WriteSink,
    )
    from deltawitness.hashing import plan_hash, plan_shape_hash, schema_hash
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
    from deltawitness.locations import table_id
    from deltawitness.observe import flush
    from deltawitness.observe.receipts import Receipts, last_commit, receipts
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
    from deltawitness.semconv import CacheScope, ErrorType
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
    "CacheCommitMetadataRequest": "commit",
    "CacheEntry": "cache.entries.listing",
    "CachePolicy": "cache.entries.policy",
    "CacheScope": "semconv",
    "CallSite": "call_site",
    "ColumnChange": "answers.diff.table_values",
    "ColumnStatistics": "answers.diff.table_values",
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
    "ErrorType": "semconv",
    "ExpireResult": "ledger.drain.expire",
    "Explanation": "cache.delta_cache",
    "Exported": "events",
    "Failed": "events",
    "FileChanges": "answers.diff.table_values",
    "Finding": "ledger.integrity",
    "FoldResult": "ledger.drain.fold",
    "Impact": "answers.impact_report",
    "InMemoryDiagnosticsSink": "telemetry.diagnostics",
    "InfoResult": "installation.model",
    "InputVersion": "events",
    "IntegrityResult": "ledger.integrity",
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
    "MaintenanceResult": "ledger.drain.maintenance",
    "MetadataSnapshot": "cache.kinds.snapshots",
    "Miss": "session.fingerprint.diff",
    "MissReason": "session.fingerprint.diff",
    "NoCommit": "events",
    "NoCommitReason": "events",
    "ObservedDataFrame": "session.proxies",
    "ObservedSessionContext": "session.proxies",
    "ObservedWritePipeline": "pipeline.observed",
    "OnError": "cache.entries.policy",
    "OnceBlock": "app_transactions",
    "OtelDiagnosticsSink": "telemetry.diagnostics",
    "PhantomRow": "ledger.reconcile.findings",
    "Problem": "ledger.integrity",
    "PropertyChange": "answers.diff.table_values",
    "PruneResult": "cache.entries.prune",
    "Receipt": "commit.receipts",
    "Receipts": "observe.receipts",
    "ReconcilePlan": "ledger.reconcile.plan",
    "Requirement": "settings",
    "ReservedKeys": "settings",
    "RowChanges": "answers.diff.table_values",
    "RowExample": "answers.diff.table_values",
    "RunDiff": "answers.diff.run_values",
    "RunDifference": "answers.diff.run_values",
    "RunOrigin": "run_origin",
    "RunOutput": "answers.shown_run",
    "RunProcess": "answers.shown_run",
    "RunRow": "answers.rows",
    "RunTable": "answers.diff.run_values",
    "RunTableDiff": "answers.diff.run_values",
    "SeamState": "delta_rs.seam_states",
    "SeamStatus": "delta_rs.seam_states",
    "ServeResult": "ledger.drain.serve",
    "SettingInfo": "installation.model",
    "SettingSource": "installation.model",
    "Settings": "settings",
    "ShownCommit": "answers.shown_commit",
    "ShownRun": "answers.shown_run",
    "TableDiff": "answers.diff.table_values",
    "TableNames": "settings",
    "TableVersion": "answers.rows",
    "TraceLink": "answers.shown_run",
    "UndoPlan": "answers.undo_plan",
    "UndoState": "answers.undo_plan",
    "UndoTable": "answers.undo_plan",
    "UnreadableTable": "ledger.reconcile.findings",
    "UnrecordedWrite": "ledger.reconcile.findings",
    "Verdict": "cache.verify.results",
    "VerifyResult": "cache.verify.results",
    "WriteEvent": "events",
    "WriteFormat": "pipeline.pipeline",
    "WriteIntent": "events",
    "WriteMode": "pipeline.pipeline",
    "WriteOutcome": "events",
    "WritePipeline": "pipeline.pipeline",
    "WriteRequest": "pipeline.pipeline",
    "WriteResult": "pipeline.pipeline",
    "WriteRow": "answers.rows",
    "WriteSink": "events",
    "adopt": "ledger.ledger",
    "cache_commit_metadata": "commit",
    "cache_span": "telemetry.cache_spans",
    "diagnostics_sink": "telemetry.diagnostics",
    "diff": "answers.diff.question",
    "errors": "answers.questions",
    "exactly_once": "app_transactions",
    "flush": "observe",
    "history": "commit",
    "impact": "answers.questions",
    "info": "installation.info",
    "last_commit": "observe.receipts",
    "lineage": "answers.questions",
    "memory_diagnostics": "telemetry.diagnostics",
    "metric_views": "telemetry.metrics",
    "once": "app_transactions",
    "plan_hash": "hashing",
    "plan_shape_hash": "hashing",
    "read_commit_metadata": "commit",
    "receipts": "observe.receipts",
    "run_environment": "propagation",
    "runs": "answers.questions",
    "schema_hash": "hashing",
    "seam_states": "delta_rs.seam_states",
    "show": "answers.questions",
    "table_id": "locations",
    "undo": "answers.undo",
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
    "CacheCommitMetadataRequest",
    "CacheContext",
    "CacheEntry",
    "CachePolicy",
    "CacheScope",
    "CallSite",
    "ColumnChange",
    "ColumnStatistics",
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
    "ErrorType",
    "ExpireResult",
    "Explanation",
    "Exported",
    "Failed",
    "FileChanges",
    "Finding",
    "FoldResult",
    "Impact",
    "InMemoryDiagnosticsSink",
    "InfoResult",
    "InputVersion",
    "IntegrityResult",
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
    "MaintenanceResult",
    "MetadataSnapshot",
    "Miss",
    "MissReason",
    "NoCommit",
    "NoCommitReason",
    "ObservedDataFrame",
    "ObservedSessionContext",
    "ObservedWritePipeline",
    "OnError",
    "OnceBlock",
    "OtelDiagnosticsSink",
    "PhantomRow",
    "Problem",
    "PropertyChange",
    "PruneResult",
    "Pruned",
    "Receipt",
    "Receipts",
    "ReconcilePlan",
    "Requirement",
    "ReservedKeys",
    "RowChanges",
    "RowExample",
    "RunContext",
    "RunDiff",
    "RunDifference",
    "RunOrigin",
    "RunOutput",
    "RunProcess",
    "RunRow",
    "RunTable",
    "RunTableDiff",
    "SeamState",
    "SeamStatus",
    "ServeResult",
    "SettingInfo",
    "SettingSource",
    "Settings",
    "ShownCommit",
    "ShownRun",
    "TableDiff",
    "TableNames",
    "TableVersion",
    "TraceLink",
    "UndoPlan",
    "UndoState",
    "UndoTable",
    "UnreadableTable",
    "UnrecordedWrite",
    "Verdict",
    "Verified",
    "VerifyResult",
    "WriteEvent",
    "WriteFormat",
    "WriteIntent",
    "WriteMode",
    "WriteOutcome",
    "WritePipeline",
    "WriteRequest",
    "WriteResult",
    "WriteRow",
    "WriteSink",
    "__version__",
    "adopt",
    "cache_commit_metadata",
    "cache_context",
    "cache_span",
    "current_run",
    "diagnostics_sink",
    "diff",
    "errors",
    "exactly_once",
    "flush",
    "history",
    "impact",
    "info",
    "last_commit",
    "lineage",
    "memory_diagnostics",
    "metric_views",
    "once",
    "plan_hash",
    "plan_shape_hash",
    "read_commit_metadata",
    "receipts",
    "run",
    "run_environment",
    "runs",
    "schema_hash",
    "seam_states",
    "show",
    "suppressed",
    "table_id",
    "undo",
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
