"""Distributed writes as a type checker sees them. This file is checked, and never run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import assert_type

from deltawitness import (
    DistributedWriteResult,
    Landed,
    ObservedSessionContext,
    write_distributed,
)

result = write_distributed(["a.parquet"], "lake/t", mode="overwrite", key="load", engine="ray")
assert_type(result, DistributedWriteResult)
assert_type(result.version, int | None)
assert_type(result.landed, Landed)
assert_type(result.is_new, bool)
write_distributed(iter(()), "lake/t", engine=ThreadPoolExecutor(), partition_by="day")
assert_type(
    ObservedSessionContext().write_distributed("SELECT 1", "lake/t", split="auto"),
    DistributedWriteResult,
)

write_distributed([], "lake/t", mode="upsert")  # type: ignore[arg-type]  # must be an error
write_distributed([])  # type: ignore[call-arg]  # must be an error
