"""The process of one benchmark variant: write on request, and report the duration of each write.

This file runs as a script, and imports nothing of deltawitness at its top: the process of the variant
`bare` never loads the package. The first line of standard input is the work as JSON, each further line
requests one write. Each response is a line of JSON: `{"ns": 5061000}` or `{"error": "..."}`.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import time
from collections.abc import Callable
from typing import IO, Any, TypeAlias

__all__ = ["VARIANTS", "sdk"]

REOPEN_EVERY = 20
"""Number of writes after which a table is replaced by a new one, to limit the length of its log."""

Write: TypeAlias = Callable[..., object]
"""A function with the parameters of `write_deltalake`: a table, the data and `mode`."""


# --- variants: each prepares its process and returns the function that a round calls ----------------


def sdk() -> dict[str, Any]:
    """Return SDK providers that batch as in production, with exporters that discard everything."""
    from opentelemetry.sdk._logs import LoggerProvider  # noqa: PLC0415 - the variant's own
    from opentelemetry.sdk._logs.export import (  # noqa: PLC0415 - as above
        BatchLogRecordProcessor,
        LogRecordExporter,
        LogRecordExportResult,
    )
    from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415 - as above
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader  # noqa: PLC0415 - as above
    from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415 - as above
    from opentelemetry.sdk.trace.export import (  # noqa: PLC0415 - as above
        BatchSpanProcessor,
        SpanExporter,
        SpanExportResult,
    )

    class Nowhere(SpanExporter):
        def export(self, spans: object) -> SpanExportResult:  # noqa: ARG002 - the exporter's signature
            return SpanExportResult.SUCCESS

    class NoLogs(LogRecordExporter):
        def export(self, batch: object) -> LogRecordExportResult:  # noqa: ARG002 - as above
            return LogRecordExportResult.SUCCESS

        def force_flush(self, timeout_millis: int = 10_000) -> bool:  # noqa: ARG002 - as above
            return True

        def shutdown(self) -> None:
            """Do nothing: there is nothing to close."""

    tracers, loggers = TracerProvider(), LoggerProvider()
    tracers.add_span_processor(BatchSpanProcessor(Nowhere()))
    loggers.add_log_record_processor(BatchLogRecordProcessor(NoLogs()))
    meters = MeterProvider([InMemoryMetricReader()])
    return {"tracer_provider": tracers, "logger_provider": loggers, "meter_provider": meters}


def _bare() -> Write:
    from deltalake import write_deltalake  # noqa: PLC0415 - the variant's own

    observer = sys.modules.get("deltawitness.observe.observer")
    if observer is not None and observer.current_observer() is not None:
        msg = "the environment instruments every Python process; run without OpenTelemetry auto-instrumentation"
        raise RuntimeError(msg)
    return write_deltalake


def _imported() -> Write:
    import deltawitness  # noqa: F401, PLC0415 - that is the variant

    return _bare()


def _without_sdk() -> Write:
    from deltalake import write_deltalake  # noqa: PLC0415 - the variant's own

    from deltawitness import DeltaLakeInstrumentor  # noqa: PLC0415 - as above

    DeltaLakeInstrumentor().instrument()
    return write_deltalake


def _all_signals() -> Write:
    from deltalake import write_deltalake  # noqa: PLC0415 - the variant's own

    from deltawitness import DeltaLakeInstrumentor  # noqa: PLC0415 - as above

    DeltaLakeInstrumentor().instrument(**sdk())
    return write_deltalake


def _reusing_handles() -> Write:
    """Return an observed write with the setting `reuse_handles`, for writes by URI."""
    from deltalake import write_deltalake  # noqa: PLC0415 - the variant's own

    from deltawitness import DeltaLakeInstrumentor, Settings  # noqa: PLC0415 - as above

    DeltaLakeInstrumentor().instrument(settings=Settings(reuse_handles=True, ledger=False), **sdk())
    return write_deltalake


def _hand_written() -> Write:
    """Return a write with hand-written telemetry: a span, a counter, a histogram, commit metadata."""
    from deltalake import CommitProperties, write_deltalake  # noqa: PLC0415 - the variant's own

    providers = sdk()
    tracer = providers["tracer_provider"].get_tracer("app")
    meter = providers["meter_provider"].get_meter("app")
    counter = meter.create_counter("writes")
    histogram = meter.create_histogram("write.duration", "s")

    def write(table: Any, data: Any, **options: Any) -> None:
        attributes = {"db.system.name": "deltalake", "db.operation.name": "WRITE"}
        with tracer.start_as_current_span("WRITE t", attributes=attributes) as span:
            context = span.get_span_context()
            started = time.perf_counter()
            metadata = {
                "run_id": "01a20cc8-b26f-75e7-8455-af381e0c1c48",
                "traceparent": f"00-{context.trace_id:032x}-{context.span_id:016x}-01",
            }
            properties = CommitProperties(custom_metadata=metadata)
            write_deltalake(table, data, commit_properties=properties, **options)
            counter.add(1, attributes)
            histogram.record(time.perf_counter() - started, attributes)

    return write


def _with_keys() -> Write:
    """Return a write with the commit keys of an observed write, made in advance, and without telemetry.

    The engine converts and writes the keys: what they cost is the least that any observer costs.
    """
    from deltalake import CommitProperties, write_deltalake  # noqa: PLC0415 - the variant's own

    keys = {**COMMIT_KEYS, "userMetadata": json.dumps(COMMIT_KEYS, separators=(",", ":"))}

    def write(table: Any, data: Any, **options: Any) -> None:
        properties = CommitProperties(custom_metadata=keys)
        write_deltalake(table, data, commit_properties=properties, **options)

    return write


def _minimum() -> Write:
    """Return a write with the least that an observer of all writes does, in one function of Python.

    It takes the place of the engine's own callable, makes the ids, adds the commit keys, calls the engine,
    reads the commit and queues the result. It has none of the library's features: no runs, contexts, blocks,
    templates, receipts, call sites, or settings. Its queue drops what no one takes.
    """
    from collections import deque  # noqa: PLC0415 - the variant's own

    from deltalake import CommitProperties, write_deltalake  # noqa: PLC0415 - as above
    from deltalake._internal import RawDeltaTable  # noqa: PLC0415 - as above

    constant = {key: COMMIT_KEYS[key] for key in COMMIT_KEYS if key not in _IDS}
    run_id, mirrored = COMMIT_KEYS["run_id"], json.dumps(constant, separators=(",", ":"))[1:]
    queue: deque[tuple[object, ...]] = deque(maxlen=1000)
    original = RawDeltaTable.write
    numbers = iter(range(1 << 40))

    def observed(table: Any, *args: Any, **kwargs: Any) -> Any:
        begun, started_at = time.perf_counter_ns(), time.time_ns()
        uri, base = table.table_uri(), table.version()
        milliseconds, number = started_at // 1_000_000, next(numbers)
        write_id = f"{milliseconds >> 16:08x}-{milliseconds & 0xFFFF:04x}-7000-8000-{number:012x}"
        traceparent = f"00-{milliseconds:032x}-{number:016x}-01"
        ids = {"run_id": run_id, "write_id": write_id, "traceparent": traceparent}
        mirror = f'{{"run_id":"{run_id}","write_id":"{write_id}","traceparent":"{traceparent}",{mirrored}'
        keys = {**ids, **constant, "userMetadata": mirror}
        kwargs["commit_properties"] = CommitProperties(custom_metadata=keys)
        entered = time.perf_counter_ns()
        result = original(table, *args, **kwargs)
        ended, version = time.perf_counter_ns(), table.version()
        log = f"{uri.removeprefix('file://')}_delta_log/{version:020d}.json"
        descriptor = os.open(log, os.O_RDONLY)
        try:
            content = os.read(descriptor, 1 << 16)
        finally:
            os.close(descriptor)
        queue.append((uri, base, version, ids, content, begun, entered, ended))
        return result

    RawDeltaTable.write = observed  # type: ignore[assignment]  # that is the variant
    return write_deltalake


_IDS = frozenset({"run_id", "write_id", "traceparent"})

COMMIT_KEYS = {
    "run_id": "01a20cc8-b26f-75e7-8455-af381e0c1c48",
    "write_id": "01a20cc8-b270-7a31-9c0e-5d1f7b6a2e94",
    "traceparent": "00-01a20cc8b26f75e78455af381e0c1c48-5d1f7b6a2e94ac01-01",
    "job_name": "python",
    "code_version": "236acc694258bedd530d627d9707ae1a4997c584",
    "cache_policy": "unmanaged",
    "cache_scope": "dataset",
    "cache_operation": "write",
    "cache_result": "write",
    "schema_hash": "5d1f7b6a2e94ac015d1f7b6a2e94ac01",
    "witness_version": "0.2.0rc1",
}
"""Commit keys as an observed append by handle has them, as literals: the process never loads the package.
`tests/project/test_benchmarks.py` compares them with those of an observed write."""


def _pipeline() -> Write:
    """Return a write by the observed pipeline, which caches table handles."""
    from deltawitness import (  # noqa: PLC0415 - the variant's own
        DeltaLakeInstrumentor,
        ObservedWritePipeline,
        WritePipeline,
        WriteRequest,
    )

    DeltaLakeInstrumentor().instrument(**sdk())
    observed = ObservedWritePipeline(WritePipeline(), policy="bench")

    def write(table: Any, data: Any, *, mode: Any) -> None:
        observed.write(WriteRequest(source=data, destination=table, mode=mode))

    return write


VARIANTS: dict[str, Callable[[], Write]] = {
    "bare": _bare,
    "bare again": _bare,
    "imported": _imported,
    "no SDK": _without_sdk,
    "all signals": _all_signals,
    "observed": _all_signals,
    "hand-written": _hand_written,
    "commit keys": _with_keys,
    "minimum": _minimum,
    "pipeline": _pipeline,
    "reused handles": _reusing_handles,
}
"""The compared variants by name. `observed` is the name of `all signals` in the results for users."""


# --- the work ----------------------------------------------------------------------------------------


def rows(count: int) -> Any:
    """Return an Arrow table with `count` rows, the data that a case writes."""
    import pyarrow as pa  # noqa: PLC0415 - heavy, and of this process

    numbers = range(count)
    ids = pa.array(numbers, pa.int64())
    if count <= _FEW:
        return pa.table({"id": ids, "name": [f"row {number}" for number in numbers]})
    return pa.table({"id": ids, "value": pa.array(number * 0.5 for number in numbers)})


_FEW = 10
"""Maximum rows with a text column; with more rows, encoding text would dominate the duration."""


class _Target:
    """The table that a variant writes to. It is replaced after every `REOPEN_EVERY` writes.

    Args:
        work: `place`, under which tables are created; `template`, a local table to copy, or None;
            `by`, `handle` for writes to an open table or `uri`; `storage_options`.
    """

    def __init__(self, work: dict[str, Any]) -> None:
        self._place: str = work["place"]
        self._template: str | None = work["template"]
        self._by: str = work["by"]
        self._options: dict[str, str] | None = work["storage_options"]
        self._number = 0

    def renew(self, data: Any) -> Any:
        """Remove the old table, create a new one, and return it as the argument of a write."""
        if self._number:
            self._remove(str(self._number))
        self._number += 1
        uri = f"{self._place}/{self._number}"
        self._create(uri, data)
        if self._by == "uri":
            return uri
        from deltalake import DeltaTable  # noqa: PLC0415 - heavy, and of this process

        return DeltaTable(uri, storage_options=self._options)

    def _create(self, uri: str, data: Any) -> None:
        if self._template is not None:
            shutil.copytree(self._template, uri)
            return
        from deltalake import DeltaTable  # noqa: PLC0415 - heavy, and of this process

        DeltaTable.create(uri, data.schema, storage_options=self._options)

    def _remove(self, name: str) -> None:
        if "://" not in self._place:
            shutil.rmtree(f"{self._place}/{name}")
            return
        from deltalake.fs import DeltaStorageHandler  # noqa: PLC0415 - only for remote tables

        DeltaStorageHandler(self._place, self._options).delete_dir(name)


def _serve(requests: IO[str], answer: Callable[[dict[str, object]], None]) -> None:
    work = json.loads(requests.readline())
    write = VARIANTS[work["variant"]]()
    data, mode, options = rows(work["rows"]), work["mode"], work["storage_options"]
    # A write by URI needs the storage options; an open table has them.
    more = {"storage_options": options} if options and work["by"] == "uri" else {}
    target = _Target(work)
    table: Any = None
    for count, _ in enumerate(requests):
        if count % REOPEN_EVERY == 0:
            table = target.renew(data)
            write(table, data, mode=mode, **more)
        started = time.perf_counter_ns()
        write(table, data, mode=mode, **more)
        answer({"ns": time.perf_counter_ns() - started})


def main() -> None:
    """Serve requests until standard input ends."""
    # At an interrupt in the terminal the requesting program closes our input, which ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Redirect prints of an engine to standard error, so that they are not read as answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(message: dict[str, object]) -> None:
        answers.write(json.dumps(message) + "\n")
        answers.flush()

    try:
        _serve(sys.stdin, answer)
    except Exception as error:  # noqa: BLE001 - the requesting process reports the error
        answer({"error": str(error) or type(error).__name__})
    finally:
        # Skip exit handlers: telemetry of a benchmark is not exported.
        os._exit(0)


if __name__ == "__main__":
    main()
