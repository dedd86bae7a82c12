"""Apply a SQLMesh plan with a Python model that also writes a Delta table: overwrite, twice."""

import sys
from pathlib import Path

from deltalake import DeltaTable
from sqlmesh import Context
from sqlmesh.core.config import Config, DuckDBConnectionConfig, GatewayConfig, ModelDefaultsConfig

lake = Path(sys.argv[1]).absolute()
(lake / "project/models").mkdir(parents=True)
(lake / "project/models/sales.py").write_text(
    f"""
import pandas as pd
from deltalake import write_deltalake
from sqlmesh import model


@model("shop.sales", kind="FULL", columns={{"id": "int"}})
def execute(context, start, end, execution_time, **kwargs):
    sales = pd.DataFrame({{"id": [1, 2]}})
    write_deltalake("{lake}/sales", sales, mode="overwrite")
    return sales
"""
)
config = Config(
    gateways={"local": GatewayConfig(connection=DuckDBConnectionConfig())},
    model_defaults=ModelDefaultsConfig(dialect="duckdb"),
)
context = Context(paths=str(lake / "project"), config=config)
context.plan(auto_apply=True, no_prompts=True)
context.plan(auto_apply=True, no_prompts=True, restate_models=["shop.sales"])
print(DeltaTable(lake / "sales").version())
