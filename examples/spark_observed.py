"""Write a Delta table with Apache Spark: each commit carries the run, and becomes a row of the ledger.

    python examples/spark_observed.py FOLDER

Needs Java 17, `pyspark` and `delta-spark`. FOLDER gets the table `orders` and the source of a stream.
"""

from __future__ import annotations

import sys
from pathlib import Path

from delta import DeltaTable, configure_spark_with_delta_pip
from pyspark.sql import DataFrame, SparkSession

from deltawitness import cache_context, history, run
from deltawitness.integrations.spark import observe

SETTINGS = {
    "spark.driver.bindAddress": "127.0.0.1",
    "spark.driver.host": "127.0.0.1",
    "spark.driver.memory": "1g",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.shuffle.partitions": "2",
    "spark.ui.enabled": "false",
}


def spark_session(settings: dict[str, str] = SETTINGS) -> SparkSession:
    builder = SparkSession.builder.master("local[2]").appName("orders").config(map=settings)
    return configure_spark_with_delta_pip(builder).getOrCreate()


def orders_of(spark: SparkSession, numbers: range, euros: int) -> DataFrame:
    rows = [(number, euros) for number in numbers]
    return spark.createDataFrame(rows, "number long, euros long").coalesce(1)


def write(spark: SparkSession, folder: Path) -> None:
    table = str(folder / "orders")
    with run("nightly-orders", message="load of March"):
        orders_of(spark, range(6), 10).write.format("delta").save(table)
        spark.sql(f"UPDATE delta.`{table}` SET euros = 12 WHERE number = 3")
        with cache_context(message="corrections of the shop"):
            orders = DeltaTable.forPath(spark, table).alias("orders")
            (
                orders.merge(
                    orders_of(spark, range(5, 8), 20).alias("new"), "orders.number = new.number"
                )
                .whenMatchedUpdateAll()
                .whenNotMatchedInsertAll()
                .execute()
            )
    with run("clean-up"):
        spark.sql(f"DELETE FROM delta.`{table}` WHERE number = 0")


def stream(spark: SparkSession, folder: Path) -> None:
    source = str(folder / "arriving")
    for start in (100, 200):
        arriving = orders_of(spark, range(start, start + 2), 30)
        arriving.write.mode("append").parquet(source)
    with run("arriving-orders"):
        reader = spark.readStream.schema("number long, euros long")
        query = (
            reader.option("maxFilesPerTrigger", 1)
            .parquet(source)
            .writeStream.format("delta")
            .option("checkpointLocation", str(folder / "checkpoint"))
            .trigger(availableNow=True)
            .start(str(folder / "orders"))
        )
        query.awaitTermination()


def main() -> None:
    folder = Path(sys.argv[1]).absolute()
    spark = spark_session()
    with observe(spark):
        write(spark, folder)
        stream(spark, folder)
    for commit in reversed([*history(folder / "orders")]):
        keys = commit.witness
        print(commit.version, commit.operation, keys["job_name"], keys.get("message"), sep=" | ")
    spark.stop()


if __name__ == "__main__":
    main()
