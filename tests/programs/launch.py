"""Write tables in threads, tasks and children of every start method, one table each.

Usage: launch.py FOLDER [NAME]: all of them; or only the table NAME, in this process.

LAUNCH is what the program does itself: `plain` nothing; `main` instruments the main process; `each`
instruments each process that imports it; any public name imports that name first. With FEW, tables other
than that of the main thread are only created and inserted into.
"""

import importlib
import os
import sys

LAUNCH = os.environ["LAUNCH"]
if LAUNCH not in {"plain", "main", "each"}:
    getattr(importlib.import_module("deltawitness"), LAUNCH)


def set_up_the_sdk():
    """Export spans and metrics to the endpoint of OpenTelemetry's variables."""
    from opentelemetry import metrics, trace
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.metrics import MeterProvider
    from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    metrics.set_meter_provider(MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())]))


if "SDK" in os.environ:
    set_up_the_sdk()


def instrument():
    """Instrument both engines."""
    from deltawitness import DataFusionInstrumentor, DeltaLakeInstrumentor

    DeltaLakeInstrumentor().instrument()
    DataFusionInstrumentor().instrument()


if LAUNCH == "each" or (LAUNCH == "main" and __name__ == "__main__"):
    instrument()


def write(folder, name):
    """Write a table in every way."""
    import pyarrow as pa
    from datafusion import SessionContext
    from deltalake import DeltaTable, write_deltalake

    place = os.path.join(folder, name)
    rows = pa.table({"x": pa.array([1, 2], pa.int64())})
    write_deltalake(place, rows)
    if name == "main" or "FEW" not in os.environ:
        change(place, rows)
    ctx = SessionContext()
    ctx.register_table("t", DeltaTable(place))
    ctx.sql("INSERT INTO t VALUES (7)").collect()


def change(place, rows):
    """Change a table by each operation of delta-rs."""
    from deltalake import DeltaTable, write_deltalake

    write_deltalake(place, rows, mode="append")
    table = DeltaTable(place)
    table.update({"x": "x + 10"}, predicate="x = 1")
    table.delete("x = 2")
    table.merge(
        rows, "s.x = t.x", source_alias="s", target_alias="t"
    ).when_not_matched_insert_all().execute()
    table.alter.set_table_description("launched")


def main():
    """Write a table by each start method; fork first, while this process has not used delta-rs."""
    import asyncio
    import multiprocessing
    import subprocess
    import threading
    from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

    folder = sys.argv[1]
    for method in ("fork", "spawn", "forkserver"):
        child = multiprocessing.get_context(method).Process(target=write, args=(folder, method))
        child.start()
        child.join()
        assert child.exitcode == 0, method
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        pool.apply(write, (folder, "pool"))
        pool.close()
        pool.join()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
        executor.submit(write, folder, "executor").result()
    command = [sys.executable, __file__, folder]
    subprocess.run([*command, "subprocess"], check=True)
    subprocess.run([*command, "copied"], check=True, env=dict(os.environ))
    thread = threading.Thread(target=write, args=(folder, "thread"))
    thread.start()
    thread.join()
    with ThreadPoolExecutor(1) as executor:
        executor.submit(write, folder, "thread_pool").result()
    asyncio.run(asyncio.to_thread(write, folder, "asyncio"))
    write(folder, "main")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        write(*sys.argv[1:])
    else:
        main()
