"""The OpenLineage events of a write: START, and COMPLETE or FAIL."""

from __future__ import annotations

import datetime as dt
import uuid
from dataclasses import dataclass
from typing import Any

from deltawitness.column_sources import WriteColumns
from deltawitness.commit.engine_version import engine_version
from deltawitness.distributions import installed_version
from deltawitness.events import Failed, InputVersion, WriteEvent
from deltawitness.locations import last_segment
from deltawitness.openlineage.column_facets import column_lineage_facet, lineage_entry
from deltawitness.openlineage.datasets import DatasetName, NamingOptions, dataset_name
from deltawitness.openlineage.facets import (
    facet,
    input_facets,
    output_facets,
    statistics_facets,
    tags,
)
from deltawitness.openlineage.names import EVENT_SCHEMA, PRODUCER
from deltawitness.semconv import WITNESS_VERSION as VERSION
from deltawitness.semconv import Operation

__all__ = ["EngineVersions", "RunEvent", "run_events", "run_uuid"]

RunEvent = dict[str, Any]
"""A run event of OpenLineage, as a JSON object."""

Facets = dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class EngineVersions:
    """The versions of the libraries that made a write; None for one that is not known.

    Attributes:
        deltalake: version of delta-rs.
        datafusion: version of DataFusion.
        deltawitness: version of this package.
        name: name of an engine that is neither of the two.
    """

    deltalake: str | None = None
    datafusion: str | None = None
    deltawitness: str | None = None
    name: str | None = None

    def engine_of(self, operation: Operation) -> tuple[str, str]:
        """Return name and version of the engine of an operation."""
        if self.name is not None:
            return self.name, "unknown"
        if operation is Operation.COPY:
            return "DataFusion", self.datafusion or "unknown"
        return "delta-rs", self.deltalake or "unknown"

    @classmethod
    def installed(cls) -> EngineVersions:
        """Return the versions in this process."""
        return cls(engine_version(), installed_version("datafusion"), VERSION)


def run_events(
    event: WriteEvent, options: NamingOptions, versions: EngineVersions
) -> tuple[RunEvent, RunEvent]:
    """Return the two events of a write: START, and COMPLETE or FAIL.

    Args:
        event: the write, redacted, with the locations of its tables.
        options: how jobs and tables are named.
        versions: the versions of the engines.
    """
    run_facets = _run_facets(event, options, versions)
    reads = _reads(event)
    names = [None if read.uri is None else dataset_name(read.uri) for read in reads]
    inputs = _inputs(event, reads, options)
    target = event.intent.table_uri
    output = None if target is None else dataset_name(target)
    columns = _columns(event)
    failed = event.outcome if isinstance(event.outcome, Failed) else None
    job = {"namespace": options.namespace, "name": _job_name(event), "facets": {}}
    job["facets"] = _job_facets(event, options, output, columns, names)
    started = _event("START", event.started_at, event, run_facets, job)
    started |= {"inputs": inputs, "outputs": _outputs(output, {}, {})}
    facets = output_facets(event, options) if output is not None else {}
    if columns is not None and (found := column_lineage_facet(columns, names)):
        facets["columnLineage"] = found
    ended_facets = run_facets if failed is None else {**run_facets, **_error_facet(failed)}
    ended = _event(
        "COMPLETE" if failed is None else "FAIL",
        event.started_at + event.duration_ns,
        event,
        ended_facets,
        job,
    )
    ended |= {"inputs": inputs, "outputs": _outputs(output, facets, statistics_facets(event))}
    return started, ended


def run_uuid(text: str) -> str:
    """Return the id of a run or a write as a UUID: itself if it is one, else one made from it.

    >>> run_uuid("nightly-7") == run_uuid("nightly-7")
    True
    """
    try:
        return str(uuid.UUID(text))
    except ValueError:
        return str(uuid.uuid5(uuid.NAMESPACE_URL, f"urn:deltawitness:run:{text}"))


def _event(
    kind: str, time_ns: int, event: WriteEvent, facets: Facets, job: dict[str, Any]
) -> RunEvent:
    return {
        "eventType": kind,
        "eventTime": _time_text(time_ns),
        "producer": PRODUCER,
        "schemaURL": EVENT_SCHEMA,
        "run": {"runId": run_uuid(event.write_id), "facets": facets},
        "job": job,
    }


def _time_text(time_ns: int) -> str:
    seconds, rest = divmod(time_ns, 1_000_000_000)
    time = dt.datetime.fromtimestamp(seconds, tz=dt.UTC).replace(microsecond=rest // 1000)
    return time.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _job_name(event: WriteEvent) -> str:
    """Return the name of the job of writes like this: job of the run, operation, table."""
    intent = event.intent
    table = intent.table_name or (last_segment(intent.table_uri) if intent.table_uri else None)
    parts = event.run.job, intent.operation.value.lower().replace(" ", "_"), table
    return ".".join(part for part in parts if part)


def _reads(event: WriteEvent) -> tuple[InputVersion, ...]:
    return event.intent.inputs or event.intent.run_inputs


def _inputs(
    event: WriteEvent, reads: tuple[InputVersion, ...], options: NamingOptions
) -> list[dict[str, Any]]:
    is_inferred = not event.intent.inputs
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for read in reads:
        if read.uri is not None and (read.uri, read.version) not in found:
            facets = input_facets(read.uri, read.version, options, is_inferred=is_inferred)
            found[read.uri, read.version] = {**dataset_name(read.uri)._asdict(), "facets": facets}
    return list(found.values())


def _outputs(output: DatasetName | None, facets: Facets, statistics: Facets) -> list[Any]:
    if output is None:
        return []
    dataset: dict[str, Any] = dict(output._asdict())
    if facets:
        dataset["facets"] = facets
    if statistics:
        dataset["outputFacets"] = statistics
    return [dataset]


def _columns(event: WriteEvent) -> WriteColumns | None:
    text = event.intent.column_lineage
    return None if text is None else WriteColumns.parse(text)


def _run_facets(event: WriteEvent, options: NamingOptions, versions: EngineVersions) -> Facets:
    run, origin, site = event.run, event.run.origin, event.call_site
    name, version = versions.engine_of(event.intent.operation)
    values: dict[str, object] = {
        "message": event.message,
        "author": origin.author,
        "code_version": origin.code_version,
        "system": origin.system,
        "pipeline": origin.job,
        "pipeline_run_id": origin.run_id,
        "task": origin.task,
        "attempt": origin.attempt,
        "link": origin.link,
        "code_file": None if site is None else site.file,
        "code_line": None if site is None else site.line,
        "code_function": None if site is None else site.function,
        "trace_id": event.trace_id,
        **run.attributes,
    }
    return {
        "parent": facet(
            "ParentRunFacet",
            run={"runId": run_uuid(run.run_id)},
            job={"namespace": options.namespace, "name": run.job},
        ),
        "processing_engine": facet(
            "ProcessingEngineRunFacet",
            name=name,
            version=version,
            openlineageAdapterVersion=versions.deltawitness or VERSION,
        ),
        **tags("TagsRunFacet", values),
    }


def _error_facet(failed: Failed) -> Facets:
    text = f"{failed.exception_type}: {failed.message}" if failed.message else failed.exception_type
    return {
        "errorMessage": facet("ErrorMessageRunFacet", message=text, programmingLanguage="PYTHON")
    }


def _job_facets(
    event: WriteEvent,
    options: NamingOptions,
    output: DatasetName | None,
    columns: WriteColumns | None,
    inputs: list[DatasetName | None],
) -> Facets:
    facets = {
        "jobType": facet(
            "JobTypeJobFacet",
            processingType="BATCH",
            integration="DELTAWITNESS",
            jobType=event.intent.operation.value,
        )
    }
    if output is not None and any(event.intent.inputs):
        entry = lineage_entry(output, columns, inputs)
        facets["lineage"] = facet("LineageJobFacet", entries=[entry])
    if location := _source_code(event, options):
        facets["sourceCodeLocation"] = facet("SourceCodeLocationJobFacet", **location)
    return facets


def _source_code(event: WriteEvent, options: NamingOptions) -> dict[str, str] | None:
    site, repository = event.call_site, options.repository
    if repository is None or site is None or site.file.startswith("<"):
        return None
    base = repository.removesuffix("/").removesuffix(".git")
    version = event.run.origin.code_version
    location = {
        "type": "git",
        "url": f"{base}/blob/{version or 'HEAD'}/{site.file}#L{site.line}",
        "repoUrl": repository,
        "path": site.file,
    }
    return {**location, "version": version} if version else location
