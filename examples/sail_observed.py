"""Write a Delta table with LakeSail: its server of Spark Connect gets the run of each DataFrame write.

    python examples/sail_observed.py FOLDER

Needs `pysail` and `pyspark-client`. FOLDER gets the table `orders`. The server listens on loopback.
"""

from __future__ import annotations

import sys
from pathlib import Path

from pysail.spark import SparkConnectServer
from pyspark.sql import SparkSession

from deltawitness import history, run
from deltawitness.integrations.spark import observe


def write(spark: SparkSession, table: str) -> None:
    with run("nightly-orders", message="load of March"):
        orders = spark.createDataFrame([(1, 10), (2, 20)], "number long, euros long")
        orders.write.format("delta").save(table)
        orders.write.format("delta").mode("append").save(table)


def main() -> None:
    table = str(Path(sys.argv[1]).absolute() / "orders")
    server = SparkConnectServer(ip="127.0.0.1", port=0)
    server.start()
    host, port = server.listening_address
    spark = SparkSession.builder.remote(f"sc://{host}:{port}").getOrCreate()
    with observe(spark):
        write(spark, table)
    spark.stop()
    server.stop()
    for commit in reversed([*history(table)]):
        keys = commit.witness
        print(commit.version, commit.operation, keys["job_name"], keys.get("message"), sep=" | ")


if __name__ == "__main__":
    main()
