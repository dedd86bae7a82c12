"""The public API as a type checker sees it. This file is checked, and never run."""

from __future__ import annotations

from typing import assert_type

from datafusion import SessionContext

from deltawitness import (
    DataFusionInstrumentor,
    ObservedDataFrame,
    ObservedSessionContext,
    Receipt,
    WriteResult,
    exactly_once,
    once,
)

ctx = ObservedSessionContext()
also: SessionContext = ObservedSessionContext(SessionContext())
assert_type(ctx.sql("SELECT 1"), ObservedDataFrame)
assert_type(ctx.table("t").filter("id > 1").select("id"), ObservedDataFrame)
assert_type(ctx.sql("SELECT 1").write_delta("t", mode="append"), WriteResult)
ctx.register_delta("t", "lake/t", version=3, storage_options={"timeout": "30s"})
ctx.refresh()
ctx.refresh("t")
assert_type(ObservedSessionContext.global_ctx(), ObservedSessionContext)
DataFusionInstrumentor().instrument()

with once("load", deadline=5) as block:
    assert_type(block.receipts, tuple[Receipt, ...])


@exactly_once(key=lambda day: f"load-{day}")
def load(day: str) -> int:
    return len(day)


@exactly_once(key="load")
async def load_async() -> int:
    return 1


assert_type(load("monday"), int)


async def awaits() -> None:
    assert_type(await load_async(), int)


once(3)  # type: ignore[arg-type]  # must be an error
load(3)  # type: ignore[arg-type]  # must be an error

ctx.register_delta(3, nonsense=True)  # type: ignore[call-arg, arg-type]  # must be an error
