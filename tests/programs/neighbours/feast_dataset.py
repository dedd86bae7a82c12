"""Persist historical features of feast as a Delta table, with the DuckDB offline store: create, overwrite."""

import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
from deltalake import DeltaTable
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig
from feast.data_format import DeltaFormat
from feast.infra.offline_stores.file_source import SavedDatasetFileStorage
from feast.types import Float64
from feast.value_type import ValueType

lake = Path(sys.argv[1])
lake.mkdir(parents=True, exist_ok=True)
noon = datetime(2026, 11, 1, 12, tzinfo=UTC)
pd.DataFrame({"shop": [1, 2], "revenue": [10.0, 20.0], "at": [noon, noon]}).to_parquet(
    lake / "revenue.parquet"
)
store = FeatureStore(
    config=RepoConfig(
        project="shop",
        provider="local",
        registry=str(lake / "registry.db"),
        offline_store={"type": "duckdb"},
        online_store={"type": "sqlite", "path": str(lake / "online.db")},
        entity_key_serialization_version=3,
    )
)
shop = Entity(name="shop", join_keys=["shop"], value_type=ValueType.INT64)
revenue = FeatureView(
    name="revenue",
    entities=[shop],
    ttl=timedelta(days=3),
    schema=[Field(name="revenue", dtype=Float64)],
    source=FileSource(path=str(lake / "revenue.parquet"), timestamp_field="at"),
)
store.apply([shop, revenue])
for overwrite in (False, True):
    features = store.get_historical_features(
        entity_df=pd.DataFrame({"shop": [1, 2], "event_timestamp": [noon, noon]}),
        features=["revenue:revenue"],
    )
    features.persist(
        SavedDatasetFileStorage(path=str(lake / "training"), file_format=DeltaFormat()),
        allow_overwrite=overwrite,
    )
print(DeltaTable(lake / "training").to_pyarrow_table().sort_by("shop")["revenue"].to_pylist())
