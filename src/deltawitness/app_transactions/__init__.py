"""Exactly-once writes: each write of a block commits once per key, by an application transaction.

Delta's `txn` action records in a commit that an application has reached a version. A write of a block
has the application id of the block's key and its number among the writes of the block to that table.
"""

from deltawitness.app_transactions.block import (
    BlockState,
    OnceBlock,
    active_block,
    innermost_block,
    outside_block,
    take_skipped,
    use_block,
)
from deltawitness.app_transactions.guard import ALWAYS_GUARDED, WriteGuards, set_guarded
from deltawitness.app_transactions.once import exactly_once, once
from deltawitness.app_transactions.whole_writes import guard_whole_write

__all__ = [
    "ALWAYS_GUARDED",
    "BlockState",
    "OnceBlock",
    "WriteGuards",
    "active_block",
    "exactly_once",
    "guard_whole_write",
    "innermost_block",
    "once",
    "outside_block",
    "set_guarded",
    "take_skipped",
    "use_block",
]
