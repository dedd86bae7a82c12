"""Our keys are added to the caller's commit properties, and the caller's values are preserved."""

from __future__ import annotations

import json

import pytest
from deltalake import CommitProperties
from deltalake.transaction import Transaction

from deltawitness import CacheCommitMetadataRequest, cache_commit_metadata
from deltawitness.commit.metadata import Stamp
from deltawitness.commit.reader import CommitMetadata
from deltawitness.events import InputVersion, WriteIntent
from deltawitness.exceptions import ConfigurationError, MetadataKeyError
from deltawitness.redaction import key_hash
from deltawitness.semconv import (
    RESERVED_COMMIT_KEYS,
    WITNESS_VERSION,
    CacheOperation,
    CacheScope,
    CommitKey,
    Operation,
)

TRACEPARENT = "00-" + "a" * 32 + "-" + "b" * 16 + "-01"


def intent(**arguments):
    return WriteIntent(Operation.WRITE, CacheOperation.WRITE, **arguments)


def stamped(what, callers=None, *, traceparent=TRACEPARENT, mirror=False):
    stamp = Stamp.of(what)
    properties = stamp.apply(
        callers, run_id="r-1", write_id="w-1", traceparent=traceparent, mirror=mirror
    )
    return properties.custom_metadata if callers is None else properties


def test_a_plain_write_carries_the_standard_keys():
    """A commit has run, write, trace, policy, scope, operation and version; unknown values are left out."""
    assert stamped(intent()) == {
        "run_id": "r-1",
        "write_id": "w-1",
        "traceparent": TRACEPARENT,
        "cache_policy": "unmanaged",
        "cache_scope": "dataset",
        "cache_operation": "write",
        "cache_result": "write",
        "witness_version": WITNESS_VERSION,
    }


@pytest.mark.parametrize("takes_any", [True, False])
def test_plan_and_inputs_are_in_the_commit(takes_any, monkeypatch):
    """Plan hashes, the cache key's hash and input versions are in the commit; URIs are not.

    An engine that takes text alone gets the list of inputs as JSON text; a reader returns the list.
    """
    monkeypatch.setattr("deltawitness.commit.metadata.takes_any_metadata", lambda: takes_any)
    keys = stamped(
        intent(
            cache_key="secret key",
            schema_hash="s",
            plan_hash="p",
            scope=CacheScope.VIEW,
            policy="nightly_views",
            inputs=(InputVersion("t1", 7, "file:///home/x"),),
        ),
        traceparent=None,
    )
    assert isinstance(keys["inputs"], list if takes_any else str)
    read = CommitMetadata(0, metadata=keys).witness
    assert read["inputs"] == [{"table_id": "t1", "version": 7}]
    assert (keys["schema_hash"], keys["plan_hash"], keys["cache_scope"]) == ("s", "p", "view")
    assert keys["cache_key"].startswith("key:")
    assert "secret" not in json.dumps(keys)
    assert "traceparent" not in keys


def test_the_callers_properties_are_not_modified():
    """Colliding keys, retries and transactions have the caller's values; the stamp is applied to a copy."""
    transaction = Transaction("app", 3)
    callers = CommitProperties({"team": "ops", "run_id": "mine"}, 7, [transaction])
    properties = stamped(intent(), callers)
    assert properties is not callers
    metadata = properties.custom_metadata
    assert (metadata["team"], metadata["run_id"], metadata["write_id"]) == ("ops", "mine", "w-1")
    assert properties.max_commit_retries == 7
    assert properties.app_transactions == [transaction]
    assert callers.custom_metadata == {"team": "ops", "run_id": "mine"}


def test_user_metadata_mirrors_our_keys_as_compact_json():
    """`userMetadata` has our keys as JSON: DESCRIBE HISTORY of Spark, Databricks and Trino shows only it."""
    for traceparent in (TRACEPARENT, None):
        metadata = stamped(intent(plan_hash="p"), traceparent=traceparent, mirror=True)
        mirrored = metadata.pop("userMetadata")
        assert json.loads(mirrored) == metadata
        assert ": " not in mirrored


def test_the_callers_user_metadata_stays():
    """A caller's `userMetadata` is not replaced by the mirror."""
    callers = CommitProperties({"userMetadata": "mine"})
    metadata = stamped(intent(), callers, mirror=True).custom_metadata
    assert (metadata["run_id"], metadata["userMetadata"]) == ("r-1", "mine")


def test_metadata_that_is_no_mapping_is_left_to_the_engine():
    """The caller gets the engine's error for metadata that is not a mapping."""
    callers = CommitProperties("not a mapping")
    assert stamped(intent(), callers, mirror=True) is callers


def test_the_public_helper_leaves_out_what_is_not_given():
    """The result maps text to text, with closed sets checked and extras appended."""
    assert cache_commit_metadata(
        CacheCommitMetadataRequest(
            operation="merge",
            cache_policy="p of /home/ann",
            cache_scope="artifact",
            schema_hash="s",
            plan_hash="h",
            cache_key="k",
            result="write",
            extra={"rows": 3, "nothing": None},
        )
    ) == {
        "cache_operation": "merge",
        "cache_policy": "p of [path]",
        "cache_scope": "artifact",
        "schema_hash": "s",
        "plan_hash": "h",
        "cache_key": key_hash("k"),
        "cache_result": "write",
        "rows": "3",
    }


@pytest.mark.parametrize("key", sorted(RESERVED_COMMIT_KEYS))
def test_the_public_helper_refuses_keys_that_break_readers(key):
    """The error for a reserved key names the key."""
    request = CacheCommitMetadataRequest(operation="write", extra={key: "x"})
    with pytest.raises(MetadataKeyError, match=key):
        cache_commit_metadata(request)


def test_the_public_helper_refuses_keys_of_the_library_as_extras():
    """A key of ours is set only by its own argument."""
    request = CacheCommitMetadataRequest(operation="write", extra={CommitKey.PLAN_HASH: "x"})
    with pytest.raises(MetadataKeyError, match="plan_hash"):
        cache_commit_metadata(request)


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"operation": "truncate"}, MetadataKeyError),
        ({"operation": "write", "result": "maybe"}, MetadataKeyError),
        ({"operation": "write", "cache_scope": "table"}, ConfigurationError),
    ],
)
def test_the_public_helper_checks_closed_sets(arguments, error):
    """The error for a value outside a closed set lists the allowed values."""
    with pytest.raises(error, match="expected one of"):
        cache_commit_metadata(CacheCommitMetadataRequest(**arguments))
