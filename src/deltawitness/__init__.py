"""Every Delta write, witnessed: commit metadata, spans, metrics and logs.

PYTEST_DONT_REWRITE: an observed process imports this package before pytest, which would warn of it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

# Not on demand as the others: the module of the same name would take the function's place.
from deltawitness.run import RunContext, cache_context, current_run, run, suppressed

if TYPE_CHECKING:
    from deltawitness.cache.delta_cache import CacheEntry, DeltaCache, Explanation
    from deltawitness.cache.entries.policy import CachePolicy
    from deltawitness.cache.entries.prune import PruneResult
    from deltawitness.cache.entries.prune import PruneResult as Pruned
    from deltawitness.cache.kinds.snapshots import MetadataSnapshot
    from deltawitness.cache.verify.verifier import Verdict, VerifyResult
    from deltawitness.cache.verify.verifier import VerifyResult as Verified
    from deltawitness.commit import (
        CacheCommitMetadataRequest,
        CommitMetadata,
        cache_commit_metadata,
        history,
        read_commit_metadata,
    )
    from deltawitness.events import (
        CommitMetrics,
        Committed,
        Exported,
        Failed,
        NoCommit,
        WriteEvent,
        WriteIntent,
        WriteOutcome,
        WriteSink,
    )
    from deltawitness.hashing import plan_hash, plan_shape_hash, schema_hash, table_id
    from deltawitness.instrumentation import DataFusionInstrumentor, DeltaLakeInstrumentor
    from deltawitness.ledger.ledger import Ledger
    from deltawitness.observe import flush
    from deltawitness.pipeline.observed import ObservedWritePipeline
    from deltawitness.pipeline.pipeline import (
        WriteFormat,
        WriteMode,
        WritePipeline,
        WriteRequest,
        WriteResult,
    )
    from deltawitness.propagation import run_environment
    from deltawitness.semconv import WITNESS_VERSION as __version__  # noqa: N811 - the name that packaging expects
    from deltawitness.session.proxies import ObservedDataFrame, ObservedSessionContext
    from deltawitness.settings import Settings
    from deltawitness.telemetry.cache_spans import cache_span
    from deltawitness.telemetry.diagnostics import (
        DiagnosticsSink,
        InMemoryDiagnosticsSink,
        OtelDiagnosticsSink,
        diagnostics_sink,
    )
    from deltawitness.telemetry.metrics import metric_views

_HOMES = {
    "CacheCommitMetadataRequest": "commit",
    "CacheEntry": "cache.delta_cache",
    "CachePolicy": "cache.entries.policy",
    "CommitMetadata": "commit",
    "CommitMetrics": "events",
    "Committed": "events",
    "DataFusionInstrumentor": "instrumentation",
    "DeltaCache": "cache.delta_cache",
    "DeltaLakeInstrumentor": "instrumentation",
    "DiagnosticsSink": "telemetry.diagnostics",
    "Explanation": "cache.delta_cache",
    "Exported": "events",
    "Failed": "events",
    "InMemoryDiagnosticsSink": "telemetry.diagnostics",
    "Ledger": "ledger.ledger",
    "MetadataSnapshot": "cache.kinds.snapshots",
    "NoCommit": "events",
    "ObservedDataFrame": "session.proxies",
    "ObservedSessionContext": "session.proxies",
    "ObservedWritePipeline": "pipeline.observed",
    "OtelDiagnosticsSink": "telemetry.diagnostics",
    "PruneResult": "cache.entries.prune",
    "Settings": "settings",
    "Verdict": "cache.verify.verifier",
    "VerifyResult": "cache.verify.verifier",
    "WriteEvent": "events",
    "WriteFormat": "pipeline.pipeline",
    "WriteIntent": "events",
    "WriteMode": "pipeline.pipeline",
    "WriteOutcome": "events",
    "WritePipeline": "pipeline.pipeline",
    "WriteRequest": "pipeline.pipeline",
    "WriteResult": "pipeline.pipeline",
    "WriteSink": "events",
    "cache_commit_metadata": "commit",
    "cache_span": "telemetry.cache_spans",
    "diagnostics_sink": "telemetry.diagnostics",
    "flush": "observe",
    "history": "commit",
    "metric_views": "telemetry.metrics",
    "plan_hash": "hashing",
    "plan_shape_hash": "hashing",
    "read_commit_metadata": "commit",
    "run_environment": "propagation",
    "schema_hash": "hashing",
    "table_id": "hashing",
}

_ALIASES = {"Pruned": "PruneResult", "Verified": "VerifyResult"}
"""Former public names, which stay valid."""

__all__ = [
    "CacheCommitMetadataRequest",
    "CacheEntry",
    "CachePolicy",
    "CommitMetadata",
    "CommitMetrics",
    "Committed",
    "DataFusionInstrumentor",
    "DeltaCache",
    "DeltaLakeInstrumentor",
    "DiagnosticsSink",
    "Explanation",
    "Exported",
    "Failed",
    "InMemoryDiagnosticsSink",
    "Ledger",
    "MetadataSnapshot",
    "NoCommit",
    "ObservedDataFrame",
    "ObservedSessionContext",
    "ObservedWritePipeline",
    "OtelDiagnosticsSink",
    "PruneResult",
    "Pruned",
    "RunContext",
    "Settings",
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
    "WriteSink",
    "__version__",
    "cache_commit_metadata",
    "cache_context",
    "cache_span",
    "current_run",
    "diagnostics_sink",
    "flush",
    "history",
    "metric_views",
    "plan_hash",
    "plan_shape_hash",
    "read_commit_metadata",
    "run",
    "run_environment",
    "schema_hash",
    "suppressed",
    "table_id",
]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first asked for: the engines are heavy, and most need one."""
    if name == "__version__":
        from deltawitness.semconv import WITNESS_VERSION  # noqa: PLC0415 - as the others

        return WITNESS_VERSION
    new_name = _ALIASES.get(name, name)
    home = _HOMES.get(new_name)
    if home is None:
        msg = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(msg)
    value = getattr(importlib.import_module(f"{__name__}.{home}"), new_name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
