"""Send writes as OpenLineage events, with the transports and the configuration of its Python client."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol, Self

from opentelemetry.instrumentation.utils import suppress_instrumentation

from deltawitness.events import WriteEvent
from deltawitness.extras import require
from deltawitness.observe.queued_sink import QueuedSink
from deltawitness.openlineage.datasets import NamingOptions
from deltawitness.openlineage.run_events import EngineVersions, RunEvent, run_events
from deltawitness.settings import Settings

if TYPE_CHECKING:
    from openlineage.client import OpenLineageClient

__all__ = ["CLIENT", "EventSender", "OpenLineageSink", "open_client", "to_client_event"]

CLIENT = "client"
"""Destination: where the configuration of the OpenLineage client says."""


class EventSender(Protocol):
    """An `openlineage.client.OpenLineageClient`, or another object with its method `emit`."""

    def emit(self, event: Any) -> Any:
        """Send an event of the client's class."""


class OpenLineageSink(QueuedSink):
    """Sends START, and COMPLETE or FAIL, for each write, after the write has ended.

    Give it to `DeltaLakeInstrumentor().instrument(sinks=[...])`; or set `DELTAWITNESS_OPENLINEAGE`. The
    events have the locations of tables and the names of columns. Error texts and all labels are redacted.

    Args:
        destination: an `http` or `https` URL of an OpenLineage server; or `client`, for the configuration
            of the OpenLineage client (`OPENLINEAGE_URL`, `OPENLINEAGE_CONFIG`, ...).
        namespace: namespace of the jobs.
        tables: names of tables in a catalog by location, as :class:`NamingOptions` describes.
        repository: URL of the repository with the program's code.
        capacity: maximum number of queued writes; further ones are dropped and counted.

    Raises:
        MissingExtraError: the OpenLineage client is not installed (extra `openlineage`).
    """

    component = "openlineage"
    receives_locations = True

    def __init__(
        self,
        destination: str = CLIENT,
        *,
        namespace: str = "default",
        tables: Mapping[str, str] | None = None,
        repository: str | None = None,
        capacity: int = 10_000,
    ) -> None:
        require("OpenLineageSink", "openlineage.client")
        super().__init__(capacity=capacity)
        self._destination = destination
        self._options = NamingOptions(namespace, dict(tables or {}), repository)
        self._client: OpenLineageClient | None = None
        self._versions: EngineVersions | None = None

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the sink that settings describe.

        Raises:
            MissingExtraError: the OpenLineage client is not installed (extra `openlineage`).
        """
        return cls(
            settings.openlineage or CLIENT,
            namespace=settings.openlineage_namespace,
            tables=settings.openlineage_tables,
            repository=settings.openlineage_repository,
            capacity=settings.queue_size,
        )

    def send(self, event: WriteEvent) -> None:
        """Send the events of a write; the client is created for the first one."""
        if self._versions is None:
            self._versions = EngineVersions.installed()
        with suppress_instrumentation():
            if self._client is None:
                self._client = open_client(self._destination)
            for each in run_events(event, self._options, self._versions):
                self._client.emit(to_client_event(each))

    def reset_after_fork(self) -> None:
        """Open new connections in a forked child."""
        self._client = None

    def close(self, timeout: float) -> None:
        """Send the queued writes for at most `timeout` seconds, drop the others, and close connections."""
        super().close(timeout)
        client, self._client = self._client, None
        if client is not None:
            with suppress(Exception):  # what was sent is sent
                client.close(timeout)


_RETRIES = {"total": 2, "connect": 0}
"""A server that is gone is tried again with a later write: urllib3 logs a line for each retry."""


def open_client(destination: str) -> OpenLineageClient:
    """Return a client that sends to a destination.

    Args:
        destination: as for :class:`OpenLineageSink`.

    Raises:
        ValueError: the configuration of the client is not valid.
    """
    from openlineage.client import OpenLineageClient  # noqa: PLC0415 - optional and heavy
    from openlineage.client.transport.http import HttpConfig, HttpTransport  # noqa: PLC0415 - as above

    # The client would run git in the working directory; the events name their code themselves.
    config = {"facets": {"source_code_location": {"disabled": True}}}
    if destination == CLIENT:
        return OpenLineageClient(config=config)
    options: dict[str, Any] = {"url": destination, "retry": _RETRIES}
    if endpoint := os.environ.get("OPENLINEAGE_ENDPOINT"):
        options["endpoint"] = endpoint
    if key := os.environ.get("OPENLINEAGE_API_KEY"):
        options["auth"] = {"type": "api_key", "apiKey": key}
    transport = HttpTransport(HttpConfig.from_dict(options))
    return OpenLineageClient(transport=transport, config=config)


def to_client_event(event: RunEvent) -> Any:
    """Return an event as an object of the client's class, which adds tags to it and serializes it."""
    from openlineage.client import event_v2  # noqa: PLC0415 - optional and heavy
    from openlineage.client.facet_v2 import tags_run  # noqa: PLC0415 - as above

    run = event["run"]
    facets = dict(run["facets"])
    if "tags" in facets:
        fields = [tags_run.TagsRunFacetFields(**tag) for tag in facets["tags"]["tags"]]
        facets["tags"] = tags_run.TagsRunFacet(tags=fields, producer=event["producer"])
    return event_v2.RunEvent(
        eventType=event_v2.RunState[event["eventType"]],
        eventTime=event["eventTime"],
        producer=event["producer"],
        run=event_v2.Run(runId=run["runId"], facets=facets),
        job=event_v2.Job(**{**event["job"], "facets": dict(event["job"]["facets"])}),
        inputs=[event_v2.InputDataset(**each) for each in event["inputs"]],
        outputs=[event_v2.OutputDataset(**each) for each in event["outputs"]],
    )
