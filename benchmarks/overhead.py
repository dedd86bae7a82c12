"""What observing a write costs: pairs in one run, interleaved, ratios of medians, with an A/A control.

    python benchmarks/overhead.py [--rounds N] [--json FILE] [--case NAME]

Every variant runs in a process of its own kind (not instrumented, instrumented without an SDK, and
so on cannot share one), all processes run at the same time and take turns write by write, so that
what the machine does meanwhile hits all alike. A ratio compares the two writes of the same round.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import random
import shutil
import statistics
import sys
import tempfile
import time
from importlib.metadata import version
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pyarrow as pa
from deltalake import CommitProperties, DeltaTable, write_deltalake

TEN = pa.table({"id": list(range(10)), "name": [f"row {i}" for i in range(10)]})
REOPEN_EVERY = 20
"""Writes after which a table is laid anew and opened again, so that its log keeps its length."""


# --- variants: each prepares its process and returns what a round calls ---------------------------------


def sdk() -> dict[str, Any]:
    """Providers that batch, as in production, and export to nowhere."""
    from opentelemetry.sdk._logs import LoggerProvider
    from opentelemetry.sdk._logs.export import BatchLogRecordProcessor, InMemoryLogRecordExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import InMemoryMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult

    class Nowhere(SpanExporter):
        def export(self, spans: object) -> SpanExportResult:  # noqa: ARG002 - the exporter's signature
            return SpanExportResult.SUCCESS

    class NoLogs(InMemoryLogRecordExporter):
        def export(self, batch: Any) -> Any:
            result = super().export(batch)
            self.clear()
            return result

    tracers, loggers = TracerProvider(), LoggerProvider()
    tracers.add_span_processor(BatchSpanProcessor(Nowhere()))
    loggers.add_log_record_processor(BatchLogRecordProcessor(NoLogs()))
    meters = MeterProvider([InMemoryMetricReader()])
    return {"tracer_provider": tracers, "logger_provider": loggers, "meter_provider": meters}


def bare() -> Any:
    return write_deltalake


def imported() -> Any:
    import deltawitness  # noqa: F401 - that is the variant

    return write_deltalake


def without_sdk() -> Any:
    from deltawitness import DeltaLakeInstrumentor

    DeltaLakeInstrumentor().instrument()
    return write_deltalake


def all_signals() -> Any:
    from deltawitness import DeltaLakeInstrumentor

    DeltaLakeInstrumentor().instrument(**sdk())
    return write_deltalake


def hand_written() -> Any:
    """What a careful person writes at the call site: a span, a counter, a histogram, metadata."""
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
            write_deltalake(
                table, data, commit_properties=CommitProperties(custom_metadata=metadata), **options
            )
            counter.add(1, attributes)
            histogram.record(time.perf_counter() - started, attributes)

    return write


def pipeline() -> Any:
    """The observed pipeline with kept handles."""
    from deltawitness import (
        DeltaLakeInstrumentor,
        ObservedWritePipeline,
        WritePipeline,
        WriteRequest,
    )

    DeltaLakeInstrumentor().instrument(**sdk())
    observed = ObservedWritePipeline(WritePipeline(), policy="bench")

    def write(table: Any, data: Any, *, mode: str) -> None:
        observed.write(WriteRequest(source=data, destination=table, mode=mode))

    return write


VARIANTS = {
    "bare": bare,
    "bare again": bare,
    "imported": imported,
    "no SDK": without_sdk,
    "all signals": all_signals,
    "hand-written": hand_written,
    "pipeline": pipeline,
}


# --- cases ---------------------------------------------------------------------------------------------


class Case:
    """One kind of write: how many rows, how, and on a log of which length."""

    def __init__(
        self, name: str, *, rows: int, mode: str, by: str, log: int, variants: str
    ) -> None:
        self.name, self.rows, self.mode, self.by, self.log = name, rows, mode, by, log
        self.variants = variants.split(", ")

    def data(self) -> pa.Table:
        if self.rows == TEN.num_rows:
            return TEN
        numbers = list(range(self.rows))
        return pa.table({"id": numbers, "value": [n * 0.5 for n in numbers]})


SHORT = "bare, bare again, imported, no SDK, all signals, hand-written"
CASES = [
    Case("10 rows, append, handle, log 10", rows=10, mode="append", by="handle", log=10, variants=SHORT),
    Case("10 rows, overwrite, handle, log 10", rows=10, mode="overwrite", by="handle", log=10, variants=SHORT),
    Case("10 rows, append, URI, log 10", rows=10, mode="append", by="uri", log=10, variants=SHORT + ", pipeline"),
    Case("10 rows, overwrite, URI, log 10", rows=10, mode="overwrite", by="uri", log=10, variants=SHORT + ", pipeline"),
    Case("10 rows, append, handle, log 1000", rows=10, mode="append", by="handle", log=1000, variants=SHORT),
    Case("10 rows, append, URI, log 1000", rows=10, mode="append", by="uri", log=1000, variants=SHORT + ", pipeline"),
    Case("10 rows, overwrite, handle, log 1000", rows=10, mode="overwrite", by="handle", log=1000, variants=SHORT),
    Case("10 rows, overwrite, URI, log 1000", rows=10, mode="overwrite", by="uri", log=1000, variants=SHORT + ", pipeline"),
    Case("1 M rows, append, handle, log 10", rows=1_000_000, mode="append", by="handle", log=10, variants="bare, bare again, all signals, hand-written"),
    Case("1 M rows, append, URI, log 10", rows=1_000_000, mode="append", by="uri", log=10, variants="bare, bare again, all signals, hand-written"),
    Case("1 M rows, overwrite, handle, log 10", rows=1_000_000, mode="overwrite", by="handle", log=10, variants="bare, bare again, all signals, hand-written"),
    Case("1 M rows, overwrite, URI, log 10", rows=1_000_000, mode="overwrite", by="uri", log=10, variants="bare, bare again, all signals, hand-written"),
]  # fmt: skip


def template(case: Case, folder: Path) -> Path:
    """A table with a log of the case's length, made once and copied."""
    place = folder / "template"
    write_deltalake(place, case.data().slice(0, 10))
    table = DeltaTable(place)
    for _ in range(case.log - 1):
        write_deltalake(table, case.data().slice(0, 10), mode="append")
    return place


def work(variant: str, case: Case, original: Path, place: Path, pipe: Connection) -> None:
    """One variant's process: writes when it is told to, and says how long it took."""
    write = VARIANTS[variant]()
    data = case.data()
    target: Any = None
    count = 0
    while pipe.recv():
        if count % REOPEN_EVERY == 0:
            shutil.rmtree(place, ignore_errors=True)
            shutil.copytree(original, place)
            target = DeltaTable(place) if case.by == "handle" else str(place)
            write(target, data, mode=case.mode)
        count += 1
        started = time.perf_counter_ns()
        write(target, data, mode=case.mode)
        pipe.send(time.perf_counter_ns() - started)
    pipe.close()
    os._exit(0)


def run_case(case: Case, rounds: int, folder: Path) -> dict[str, list[int]]:
    original = template(case, folder)
    context = multiprocessing.get_context("spawn")
    pipes: dict[str, Connection] = {}
    processes = []
    for number, variant in enumerate(case.variants):
        ours, theirs = context.Pipe()
        process = context.Process(
            target=work, args=(variant, case, original, folder / str(number), theirs)
        )
        process.start()
        processes.append(process)
        pipes[variant] = ours
    times: dict[str, list[int]] = {variant: [] for variant in case.variants}
    for number in range(rounds + 3):
        for variant in random.sample(case.variants, len(case.variants)):
            pipes[variant].send(True)  # noqa: FBT003 - "go on"
            taken = pipes[variant].recv()
            if number >= 3:  # the first rounds warm up
                times[variant].append(taken)
    for pipe in pipes.values():
        pipe.send(False)  # noqa: FBT003 - "that was all"
    for process in processes:
        process.join()
    return times


def summary(case: Case, times: dict[str, list[int]]) -> list[dict[str, Any]]:
    base = times["bare"]
    return [
        {
            "case": case.name,
            "variant": variant,
            "median_us": statistics.median(taken) / 1e3,
            "ratio_of_medians": statistics.median(taken) / statistics.median(base),
            "median_of_ratios": statistics.median(
                mine / theirs for mine, theirs in zip(taken, base, strict=True)
            ),
            "ratio_of_means": statistics.fmean(taken) / statistics.fmean(base),
            "added_us": (statistics.median(taken) - statistics.median(base)) / 1e3,
        }
        for variant, taken in times.items()
    ]


def machine() -> dict[str, str]:
    return {
        "python": platform.python_version(),
        "cpus": str(os.cpu_count()),
        "deltalake": version("deltalake"),
        "opentelemetry-sdk": version("opentelemetry-sdk"),
        "deltawitness": version("deltawitness"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=200, help="rounds per case")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--case", help="only the cases whose name has this text in it")
    arguments = parser.parse_args()
    results = []
    print("| case | variant | median | ratio of medians | median of ratios | ratio of means |")
    print("|---|---|---|---|---|---|")
    for case in CASES:
        if arguments.case and arguments.case not in case.name:
            continue
        rounds = max(20, arguments.rounds // (10 if case.rows > 10 or case.log > 100 else 1))
        with tempfile.TemporaryDirectory() as folder:
            lines = summary(case, run_case(case, rounds, Path(folder)))
        results += lines
        for line in lines:
            print(
                f"| {line['case']} | {line['variant']} | {line['median_us']:.0f} us "
                f"| {line['ratio_of_medians']:.3f} | {line['median_of_ratios']:.3f} "
                f"| {line['ratio_of_means']:.3f} |",
                flush=True,
            )
    print(f"\n{machine()}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine(), "results": results}, indent=2))


if __name__ == "__main__":
    sys.exit(main())
