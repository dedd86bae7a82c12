"""Write Delta tables with a Spark session in every way that PySpark has; print what happened as JSON.

python spark_calls.py FOLDER [PART ...]
"""

from __future__ import annotations

import json
import socket
import sys
import threading
import time
from pathlib import Path

import pyarrow as pa
from delta import DeltaTable
from deltalake import DeltaTable as RsTable
from deltalake import write_deltalake
from opentelemetry import trace
from opentelemetry.trace import NonRecordingSpan, SpanContext, TraceFlags
from pyspark.errors import AnalysisException
from spark_observed import SETTINGS, orders_of, spark_session

from deltawitness import DeltaLakeInstrumentor, Settings, cache_context, run, suppressed
from deltawitness.integrations.spark import observe
from deltawitness.ledger.tables.schema import INVENTORY

SETTING = "spark.databricks.delta.commitInfo.userMetadata"
FOLDER = Path(sys.argv[1]).absolute()
MERGE_ALL = " ON t.number = s.number WHEN MATCHED THEN UPDATE SET * WHEN NOT MATCHED THEN INSERT *"
TRACE_ID = 0x0AF7651916CD43DD8448EB211C80319C
SPAN_ID = 0xB7AD6B7169203331


def at(name: str) -> str:
    """Return the path of a table."""
    return str(FOLDER / name)


def frame_writes(spark) -> str:
    """Write with the two writers of a DataFrame and with a stream, in a span; return the id of the run."""
    span = NonRecordingSpan(
        SpanContext(TRACE_ID, SPAN_ID, is_remote=False, trace_flags=TraceFlags(1))
    )
    with observe(spark), run("frames") as opened, trace.use_span(span):
        write_frames(spark)
    return opened.run_id


def write_frames(spark) -> None:
    """Write with the two writers of a DataFrame, and with a stream that calls a function."""
    orders = orders_of(spark, range(4), 10)
    orders.write.format("delta").save(at("frames"))
    orders.write.format("delta").mode("append").save(at("frames"))
    orders.write.format("delta").mode("overwrite").save(at("frames"))
    orders.write.format("delta").option("userMetadata", "of the program").mode("append").save(
        at("frames")
    )
    orders.writeTo(f"delta.`{at('frames')}`").append()
    orders.write.mode("append").insertInto(f"delta.`{at('frames')}`")
    orders.write.format("delta").option("path", at("named")).saveAsTable("named")
    orders.write.format("parquet").save(at("source"))
    batches = spark.readStream.schema(orders.schema).parquet(at("source")).writeStream

    def append(batch, _) -> None:
        batch.write.format("delta").mode("append").save(at("frames"))

    started = batches.foreachBatch(append).option("checkpointLocation", at("checkpoint"))
    started.trigger(availableNow=True).start().awaitTermination()


def statements(spark) -> None:
    """Write with SQL."""
    context = cache_context(policy="daily", message="by SQL")
    with observe(spark), run("statements"), context:
        execute_statements(spark)


def execute_statements(spark) -> None:
    """Execute DML, DDL and maintenance."""
    table = f"delta.`{at('statements')}`"
    for statement in (
        f"CREATE TABLE {table} (number LONG, euros LONG) USING delta",
        f"INSERT INTO {table} VALUES (1, 10), (2, 20)",
        f"WITH more AS (SELECT 3L AS number, 30L AS euros) INSERT INTO {table} SELECT * FROM more",
        f"UPDATE {table} SET euros = 11 WHERE number = 1",
        f"DELETE FROM {table} WHERE number = 2",
        f"MERGE INTO {table} t USING (SELECT 3L AS number, 31L AS euros) s{MERGE_ALL}",
        f"ALTER TABLE {table} ADD COLUMNS (note STRING)",
        f"ALTER TABLE {table} SET TBLPROPERTIES ('delta.appendOnly' = 'false')",
        f"OPTIMIZE {table}",
        f"VACUUM {table}",
        f"RESTORE TABLE {table} TO VERSION AS OF 3",
        f"CREATE TABLE copied USING delta LOCATION '{at('copied')}' AS SELECT * FROM {table}",
    ):
        spark.sql(statement)


def table_calls(spark) -> None:
    """Write with the class `DeltaTable` of delta-spark."""
    with observe(spark), run("calls"):
        call_table(spark)


def call_table(spark) -> None:
    """Call the methods of a table and its builders."""
    orders_of(spark, range(4), 10).write.format("delta").save(at("calls"))
    table = DeltaTable.forPath(spark, at("calls"))
    table.update("number = 1", {"euros": "11"})
    table.delete("number = 2")
    table.optimize().executeCompaction()  # there is one file, so it makes no commit
    table.restoreToVersion(0)
    more = orders_of(spark, range(3, 6), 9).alias("s")
    merge = table.alias("t").merge(more, "t.number = s.number")
    merge.whenMatchedUpdateAll().whenNotMatchedInsertAll().execute()
    more.mergeInto(f"delta.`{at('calls')}`", more.number == -1).whenNotMatched().insertAll().merge()
    built = DeltaTable.createIfNotExists(spark).location(at("built"))
    built.addColumn("number", "LONG").execute()


def threads(spark) -> None:
    """Write in two threads with a run each, one after the other and at the same time."""
    ready = threading.Barrier(2, timeout=300)

    def write(name: str) -> None:
        with run(name):
            orders_of(spark, range(2), 1).write.format("delta").save(at(name))
            ready.wait()
            for _ in range(2):
                spark.sql(f"INSERT INTO delta.`{at(name)}` VALUES (7, 7)")

    writers = [threading.Thread(target=write, args=(f"thread-{number}",)) for number in range(2)]
    with observe(spark):
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(300)
    sessions = [spark.newSession() for _ in range(2)]

    def write_in(session, name: str) -> None:
        with run(name):
            frame = orders_of(session, range(2), 1)
            ready.wait()
            frame.write.format("delta").save(at(name))

    with observe(sessions[0]), observe(sessions[1]):
        writers = [
            threading.Thread(target=write_in, args=(session, f"session-{number}"))
            for number, session in enumerate(sessions)
        ]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(300)


def settings_of_the_program(spark) -> dict:
    """Set the setting inside and outside of the observation; return what it was each time."""
    orders_of(spark, range(2), 1).write.format("delta").save(at("unobserved"))
    seen = {"before": spark.conf.get(SETTING, None)}
    spark.conf.set(SETTING, "of the program")
    with observe(spark):
        seen["kept"] = spark.conf.get(SETTING, None)
        orders_of(spark, range(2), 1).write.format("delta").save(at("settings"))
    seen["after"] = spark.conf.get(SETTING, None)
    spark.conf.unset(SETTING)
    with observe(spark, run=None) as observation, run("idle", message="costs ${env:HOME}"):
        seen["idle"] = json.loads(spark.conf.get(SETTING))
        text = observation.user_metadata(ticket="OPS-7")
        with_option = orders_of(spark, range(2), 1).write.format("delta").mode("append")
        with_option.option("userMetadata", text).save(at("settings"))
        orders_of(spark, range(2), 1).write.format("delta").mode("append").save(at("settings"))
        with suppressed():
            orders_of(spark, range(2), 1).write.format("delta").mode("append").save(at("settings"))
        try:
            spark.sql("INSERT INTO no_such_table VALUES (1)")
        except AnalysisException as error:
            seen["error"] = type(error).__name__
        again = observe(spark)
        seen["is_replaced"] = [observation.is_active, again.is_active]
        again.stop()
        again.stop()
        seen["stopped"] = spark.conf.get(SETTING, None)
    return seen


def tables_of_delta_rs(spark) -> dict:
    """Return what Spark shows of a table that delta-rs has written, observed, and of its ledger."""
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=at("ledger-of-delta-rs")))
    with run("by-delta-rs", message='of the "shop"'):
        write_deltalake(at("rs"), pa.table({"number": [1, 2, 3]}))
        write_deltalake(at("rs"), pa.table({"number": [4]}), mode="append")
        RsTable(at("rs")).delete("number = 1")
        RsTable(at("rs")).update({"number": "9"}, predicate="number = 2")
        RsTable(at("rs")).optimize.compact()
    DeltaLakeInstrumentor().uninstrument()
    folder = next(Path(at("ledger-of-delta-rs")).rglob(INVENTORY.name))
    inventory = f"delta.`{folder}`"
    rows = spark.sql(f"SELECT operation, job, size(versions) FROM {inventory}").collect()
    with observe(spark), run("by-spark"):
        spark.sql(f"INSERT INTO delta.`{at('rs')}` VALUES (5)")
    shown = spark.sql(f"DESCRIBE HISTORY delta.`{at('rs')}`").collect()
    return {
        "history": [
            [each.version, each.operation, each.userMetadata, each.engineInfo] for each in shown
        ],
        "ledger": sorted([*map(list, rows)]),
    }


def over_spark_connect(port: int) -> None:
    """Write with a client of Spark Connect, whose server is in the JVM of this program."""
    from pyspark.sql.connect.session import SparkSession

    spark = SparkSession.builder.remote(f"sc://127.0.0.1:{port}").create()
    table = f"delta.`{at('connect')}`"
    with observe(spark), run("connect", message="by a client"):
        orders = orders_of(spark, range(4), 10)
        orders.write.format("delta").save(at("connect"))
        orders.write.format("delta").mode("append").save(at("connect"))
        mine = orders.write.format("delta").option("USERMETADATA", "of the program")
        mine.mode("append").save(at("connect"))
        orders.writeTo(table).append()
        spark.sql(f"UPDATE {table} SET euros = 11 WHERE number = 1")
        more = orders_of(spark, range(3, 6), 9)
        merge = more.mergeInto(table, more.number == -1)
        merge.whenNotMatched().insertAll().merge()
    spark.sql(f"DELETE FROM {table} WHERE number = 0")
    spark.stop()


def free_port() -> int:
    """Return a port of loopback that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        return found.getsockname()[1]


PARTS = {
    "frames": frame_writes,
    "statements": statements,
    "calls": table_calls,
    "threads": threads,
    "settings": settings_of_the_program,
    "delta-rs": tables_of_delta_rs,
    "connect": lambda _: None,
}
"""The kinds of writes."""


def main() -> None:
    """Make the kinds of writes that the arguments name, or all."""
    port = free_port()
    connect = {"spark.connect.grpc.binding.address": "127.0.0.1"}
    connect["spark.connect.grpc.binding.port"] = str(port)
    connect["spark.plugins"] = "org.apache.spark.sql.connect.SparkConnectPlugin"
    spark = spark_session(SETTINGS | connect)
    found = {}
    for part, write in PARTS.items():
        if part in sys.argv[2:] or len(sys.argv) == 2:
            start = time.monotonic()
            found[part] = write(spark)
            print(f"{part}: {time.monotonic() - start:.1f} s", file=sys.stderr, flush=True)
    if "connect" in found:
        over_spark_connect(port)
    print(json.dumps(found))
    spark.stop()


if __name__ == "__main__":
    main()
