"""The commit: what we write into it, how it is read again, and what it says of a write's outcome."""

from deltawitness.commit.metadata import CacheCommitMetadataRequest, cache_commit_metadata
from deltawitness.commit.reader import CommitMetadata, history, read_commit_metadata

__all__ = [
    "CacheCommitMetadataRequest",
    "CommitMetadata",
    "cache_commit_metadata",
    "history",
    "read_commit_metadata",
]
