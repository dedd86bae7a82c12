"""The attributes of a write, from its redacted event: the span and the log record have the same."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from functools import lru_cache
from typing import NewType, TypeAlias

from deltawitness.error_types import error_text_of, is_programs_own
from deltawitness.events import (
    CommitMetrics,
    Committed,
    ExpectationReport,
    Exported,
    Failed,
    InputVersion,
    WriteEvent,
)
from deltawitness.redaction import redact_text, without_source_words
from deltawitness.run_origin import RunOrigin
from deltawitness.semconv import (
    CACHE_KEY,
    CACHE_OPERATION,
    CACHE_PLAN_HASH,
    CACHE_PLAN_SHAPE_HASH,
    CACHE_POLICY,
    CACHE_RESULT,
    CACHE_SCHEMA_HASH,
    CACHE_SCOPE,
    CICD_PIPELINE_NAME,
    CICD_PIPELINE_RUN_ID,
    CICD_PIPELINE_RUN_URL_FULL,
    CICD_PIPELINE_TASK_NAME,
    CODE_FILE_PATH,
    CODE_FUNCTION_NAME,
    CODE_LINE_NUMBER,
    CONTAINER_IMAGE_NAME,
    CONTAINER_IMAGE_TAGS,
    DB_COLLECTION_NAME,
    DB_OPERATION_NAME,
    DB_SYSTEM_NAME,
    DELTA_COMMIT_BYTES_ADDED,
    DELTA_COMMIT_BYTES_DELETED,
    DELTA_COMMIT_BYTES_REMOVED,
    DELTA_COMMIT_FILES_ADDED,
    DELTA_COMMIT_FILES_DELETED,
    DELTA_COMMIT_FILES_REMOVED,
    DELTA_COMMIT_RETRIES,
    DELTA_COMMIT_ROWS_ADDED,
    DELTA_COMMIT_ROWS_COPIED,
    DELTA_COMMIT_ROWS_DELETED,
    DELTA_COMMIT_ROWS_UPDATED,
    DELTA_INPUTS,
    DELTA_RUN_INPUTS,
    DELTA_TABLE_ID,
    DELTA_TABLE_VERSION,
    DELTA_WRITE_MODE,
    ERROR_TYPE,
    EXPECTATION_RESULT,
    EXPECTATIONS_UNMET,
    EXPORT_FILES,
    EXPORT_ROWS,
    EXPORT_SIZE,
    FORCE_SAMPLE,
    K8S_POD_NAME,
    LANDED,
    MESSAGE,
    RUN_ATTEMPT,
    RUN_ATTRIBUTE_PREFIX,
    RUN_ID,
    RUN_PARENT_ID,
    RUN_SYSTEM,
    VCS_REF_HEAD_REVISION,
    WRITE_ID,
    WRITE_PARTS,
    system_of,
)

__all__ = [
    "AttributeValue",
    "DetailAttributes",
    "error_text",
    "event_attributes",
    "origin_attributes",
]

AttributeValue: TypeAlias = str | int | float | bool | list[str]

DetailAttributes = NewType("DetailAttributes", dict[str, AttributeValue])
"""Attributes of spans and log records. Metrics take another type, so that ids and names, which have an
unbounded number of values, cannot become attributes of a metric."""

_METRIC_NAMES = {
    "rows_added": DELTA_COMMIT_ROWS_ADDED,
    "rows_updated": DELTA_COMMIT_ROWS_UPDATED,
    "rows_deleted": DELTA_COMMIT_ROWS_DELETED,
    "rows_copied": DELTA_COMMIT_ROWS_COPIED,
    "files_added": DELTA_COMMIT_FILES_ADDED,
    "files_removed": DELTA_COMMIT_FILES_REMOVED,
    "bytes_added": DELTA_COMMIT_BYTES_ADDED,
    "bytes_removed": DELTA_COMMIT_BYTES_REMOVED,
    "files_deleted": DELTA_COMMIT_FILES_DELETED,
    "bytes_deleted": DELTA_COMMIT_BYTES_DELETED,
    "retries": DELTA_COMMIT_RETRIES,
}

_SELDOM = frozenset(
    {"rows_updated", "rows_deleted", "rows_copied", "files_deleted", "bytes_deleted"}
)
"""Counts that are 0 for most commits; a 0 is left out."""

_EXPORT_NAMES = {
    "rows_added": EXPORT_ROWS,
    "files_added": EXPORT_FILES,
    "bytes_added": EXPORT_SIZE,
}


def event_attributes(event: WriteEvent) -> DetailAttributes:
    """Return the attributes of a write's span and log record, without those that are not known.

    Args:
        event: the redacted event.
    """
    intent, report = event.intent, event.expectations
    optional: dict[str, AttributeValue | None] = {
        DB_COLLECTION_NAME: intent.table_name,
        DELTA_TABLE_ID: event.table_id,
        DELTA_WRITE_MODE: intent.mode,
        CACHE_KEY: intent.cache_key,
        CACHE_SCHEMA_HASH: intent.schema_hash,
        CACHE_PLAN_HASH: intent.plan_hash,
        CACHE_PLAN_SHAPE_HASH: intent.plan_shape_hash,
        DELTA_INPUTS: _versions(intent.inputs),
        DELTA_RUN_INPUTS: _versions(intent.run_inputs),
        WRITE_PARTS: intent.parts,
        EXPECTATION_RESULT: None if report is None else report.result.value,
        EXPECTATIONS_UNMET: _unmet_rules(report),
        RUN_PARENT_ID: event.run.parent_run_id,
        FORCE_SAMPLE: event.run.force_sample or None,
        MESSAGE: event.message,
    }
    site = event.call_site
    if site is not None:
        optional |= {
            CODE_FILE_PATH: site.file,
            CODE_LINE_NUMBER: site.line,
            CODE_FUNCTION_NAME: site.function,
        }
    # Beyond its limit, the SDK drops the oldest attributes: put the run's, which may be many, first.
    return DetailAttributes(
        {f"{RUN_ATTRIBUTE_PREFIX}{name}": value for name, value in event.run.attributes.items()}
        | {
            DB_SYSTEM_NAME: system_of(intent.operation),
            DB_OPERATION_NAME: intent.operation.value,
            CACHE_POLICY: intent.policy,
            CACHE_SCOPE: intent.scope.value,
            CACHE_OPERATION: intent.cache_operation.value,
            CACHE_RESULT: event.result.value,
            RUN_ID: event.run.run_id,
            WRITE_ID: event.write_id,
            CICD_PIPELINE_NAME: event.run.job,
            CICD_PIPELINE_RUN_ID: event.run.origin.run_id or event.run.run_id,
        }
        | _origin_attributes(event.run.origin)
        | {name: value for name, value in optional.items() if value is not None}
        | _outcome_attributes(event)
    )


def origin_attributes(origin: RunOrigin) -> dict[str, AttributeValue]:
    """Return the attributes of where a run runs, without those that are not known.

    Args:
        origin: the redacted origin.
    """
    name, tag = _image_parts(origin.image or "")
    values: dict[str, AttributeValue | None] = {
        RUN_SYSTEM: origin.system,
        RUN_ATTEMPT: origin.attempt,
        CICD_PIPELINE_TASK_NAME: origin.task,
        CICD_PIPELINE_RUN_URL_FULL: origin.link,
        VCS_REF_HEAD_REVISION: origin.code_version,
        CONTAINER_IMAGE_NAME: name or None,
        CONTAINER_IMAGE_TAGS: [tag] if tag else None,
        K8S_POD_NAME: origin.pod,
    }
    return {name: value for name, value in values.items() if value is not None}


_origin_attributes = lru_cache(maxsize=64)(origin_attributes)
"""The attributes of an origin, not to be changed: each write of a run has the same."""


def _image_parts(image: str) -> tuple[str, str]:
    """Return the name and the tag of a container image, without its digest.

    >>> _image_parts("localhost:5000/app:1.2@sha256:00"), _image_parts("localhost:5000/app")
    (('localhost:5000/app', '1.2'), ('localhost:5000/app', ''))
    """
    name = image.partition("@")[0]
    path, slash, last = name.rpartition("/")
    last, _, tag = last.partition(":")
    return f"{path}{slash}{last}", tag


def _unmet_rules(report: ExpectationReport | None) -> list[str] | None:
    """Return the kinds of rules that are not met, without names of columns."""
    unmet = () if report is None else report.unmet
    return list(dict.fromkeys(check.rule.value for check in unmet)) or None


def _versions(reads: tuple[InputVersion, ...]) -> list[str] | None:
    return [f"{read.table_id}@{read.version}" for read in reads] or None


def error_text(error: BaseException) -> str | None:
    """Return an error's redacted text for the status of a span; None for an exception of the program."""
    if is_programs_own(error):
        return None
    return redact_text(without_source_words(error_text_of(error)))


def _outcome_attributes(event: WriteEvent) -> dict[str, AttributeValue]:
    match event.outcome:
        case Committed() as committed:
            return {DELTA_TABLE_VERSION: committed.version} | _commit_attributes(committed.metrics)
        case Failed() as failed:
            attributes: dict[str, AttributeValue] = {
                ERROR_TYPE: failed.error_type.value,
                LANDED: failed.landed.value,
            }
            if failed.version is None:
                return attributes
            landed = {DELTA_TABLE_VERSION: failed.version, **_commit_attributes(failed.metrics)}
            return attributes | landed
        case Exported() as exported:
            return _metric_attributes(exported.metrics, _EXPORT_NAMES)
        case nothing:
            return _metric_attributes(nothing.metrics)


def _commit_attributes(metrics: CommitMetrics) -> dict[str, AttributeValue]:
    return _metric_attributes(metrics, left_out=_SELDOM)


def _metric_attributes(
    metrics: CommitMetrics,
    names: Mapping[str, str] = _METRIC_NAMES,
    left_out: AbstractSet[str] = frozenset(),
) -> dict[str, AttributeValue]:
    return {
        names[name]: value
        for name, value in metrics.known().items()
        if name in names and (value or name not in left_out)
    }
