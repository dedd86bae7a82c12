"""A real Prometheus process that scrapes a Collector, and the queries of the dashboards."""

from __future__ import annotations

import json
import subprocess
import urllib.parse
from pathlib import Path

import yaml

from helpers.collector_parts import CONFIGS, PROMETHEUS, fetch, free_ports, until

ALERTS = CONFIGS / "alerts"
DASHBOARDS = sorted((CONFIGS / "dashboards").glob("*.json"))
SCRAPED = ("PROMETHEUS", "SUMS", "SELF")
"""The ports of a Collector that Prometheus scrapes."""


def of_dashboards():
    """Return every query of the panels."""
    for path in DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            yield from (target["expr"] for target in panel["targets"])


def filled(expression, interval="1m", range_="1h"):
    """Return a panel's query with the variables that Grafana replaces."""
    return (
        expression.replace("$__rate_interval", "1m")
        .replace("$__interval", interval)
        .replace("$__range", range_)
        .replace("$service", ".*")
    )


class Prometheus:
    """A Prometheus process with the rules of the project, which scrapes Collectors each second.

    Args:
        folder: folder of its data.
        collectors: what it scrapes.
    """

    def __init__(self, folder, *collectors):
        (self.port,) = free_ports(1)
        targets = [f"127.0.0.1:{one.ports[name]}" for one in collectors for name in SCRAPED]
        config = {
            "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
            "rule_files": [str(ALERTS / "deltawitness.rules.yaml")],
            "scrape_configs": [
                {
                    "job_name": "collector",
                    "honor_labels": True,
                    "static_configs": [{"targets": targets}],
                }
            ],
        }
        self.folder = Path(folder)
        place = self.folder / "prometheus.yaml"
        place.write_text(yaml.safe_dump(config))
        with (self.folder / "prometheus.log").open("w") as log:
            self._process = subprocess.Popen(
                [
                    PROMETHEUS,
                    f"--config.file={place}",
                    f"--storage.tsdb.path={self.folder / 'tsdb'}",
                    f"--web.listen-address=127.0.0.1:{self.port}",
                ],
                stdout=log,
                stderr=log,
            )
        until(lambda: "Ready" in fetch(self.port, "/-/ready"), "Prometheus")

    def stop(self):
        """End the process."""
        self._process.terminate()
        self._process.wait(30)

    def get(self, path, **parameters):
        """Return the data of a response of the API."""
        answer = fetch(self.port, f"/api/v1/{path}?{urllib.parse.urlencode(parameters)}")
        return json.loads(answer)["data"] if answer else {}

    def query(self, expression, **parameters):
        """Return the result of a query: an instant vector."""
        return self.get("query", query=expression, **parameters).get("result")

    def values(self, expression, label, **parameters):
        """Return the value of each series of a query, by one label."""
        return {
            one["metric"].get(label, ""): float(one["value"][1])
            for one in self.query(expression, **parameters) or ()
        }

    def labels_of(self, name):
        """Return all labels of the series of a metric."""
        return {label for found in self.get("series", **{"match[]": name}) for label in found}
