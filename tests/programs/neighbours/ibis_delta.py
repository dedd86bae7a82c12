"""Write the result of an ibis expression: create, append, overwrite."""

import sys

import ibis
import polars as pl

table = f"{sys.argv[1]}/sales"
connection = ibis.polars.connect()
sales = connection.create_table("sales", pl.DataFrame({"id": [1, 2, 3], "amount": [10, 20, 30]}))

connection.to_delta(sales.filter(sales.amount > 10), table)
connection.to_delta(sales.mutate(id=sales.id + 10), table, mode="append")
print(connection.read_delta(table, table_name="lake").count().execute())
connection.to_delta(sales.filter(sales.id == 1), table, mode="overwrite")
print(connection.read_delta(table, table_name="lake").to_polars().rows())
