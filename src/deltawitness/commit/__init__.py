"""Commits of Delta tables: write our metadata into them, read them, find a write's result in them."""

from deltawitness.commit.metadata import CacheCommitMetadataRequest, cache_commit_metadata
from deltawitness.commit.reader import CommitMetadata, history, read_commit_metadata

__all__ = [
    "CacheCommitMetadataRequest",
    "CommitMetadata",
    "cache_commit_metadata",
    "history",
    "read_commit_metadata",
]
