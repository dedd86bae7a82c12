"""Identifiers in OpenLineage events: the producer, and the schemas of events and facets."""

from __future__ import annotations

from typing import Final

from deltawitness.semconv import WITNESS_VERSION as VERSION

__all__ = [
    "COMMIT_REPORT_SCHEMA",
    "EVENT_SCHEMA",
    "PRODUCER",
    "TAG_SOURCE",
    "facet_schema",
]

PRODUCER: Final = f"urn:deltawitness:{VERSION}"
"""The URI of the producer of the events."""

EVENT_SCHEMA: Final = "https://openlineage.io/spec/2-0-2/OpenLineage.json#/$defs/RunEvent"

COMMIT_REPORT_SCHEMA: Final = (
    "urn:deltawitness:openlineage:1-0-0:DeltaCommitReportOutputDatasetFacet.json"
    "#/$defs/DeltaCommitReportOutputDatasetFacet"
)
"""The schema of the facet `deltaCommitReport`; its file is in this package."""

TAG_SOURCE: Final = "DELTAWITNESS"

_FACETS: Final = {
    "ColumnLineageDatasetFacet": "1-2-0/ColumnLineageDatasetFacet",
    "DatasetVersionDatasetFacet": "1-0-1/DatasetVersionDatasetFacet",
    "ErrorMessageRunFacet": "1-0-1/ErrorMessageRunFacet",
    "JobTypeJobFacet": "2-0-4/JobTypeJobFacet",
    "LifecycleStateChangeDatasetFacet": "1-0-1/LifecycleStateChangeDatasetFacet",
    "LineageJobFacet": "1-0-0/LineageFacet",
    "OutputStatisticsOutputDatasetFacet": "1-0-2/OutputStatisticsOutputDatasetFacet",
    "ParentRunFacet": "1-2-0/ParentRunFacet",
    "ProcessingEngineRunFacet": "1-1-1/ProcessingEngineRunFacet",
    "SchemaDatasetFacet": "1-2-0/SchemaDatasetFacet",
    "SourceCodeLocationJobFacet": "1-1-0/SourceCodeLocationJobFacet",
    "StorageDatasetFacet": "1-0-1/StorageDatasetFacet",
    "SymlinksDatasetFacet": "1-0-1/SymlinksDatasetFacet",
    "TagsDatasetFacet": "1-0-0/TagsDatasetFacet",
    "TagsRunFacet": "1-0-0/TagsRunFacet",
}
"""Version and file of the schema of each facet."""


def facet_schema(name: str) -> str:
    """Return the URL of the schema of a facet.

    >>> facet_schema("LineageJobFacet")
    'https://openlineage.io/spec/facets/1-0-0/LineageFacet.json#/$defs/LineageJobFacet'
    """
    return f"https://openlineage.io/spec/facets/{_FACETS[name]}.json#/$defs/{name}"
