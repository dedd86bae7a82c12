"""The panels show the right sums for short jobs, for a long one, and across restarts of the Collector.

Time is compressed 15 times: jobs of 5 s are of a third of a second, a scrape each 15 s is one each second,
an export each minute is one each 4 s.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from helpers.collector_parts import PROMETHEUS, ROOT, until
from helpers.prometheus_parts import DASHBOARDS, Prometheus, filled

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        PROMETHEUS is None,
        reason="needs Prometheus: set PROMETHEUS_BIN, or run `make collector` (Debian package)",
    ),
]

PROGRAM = Path(__file__).parents[1] / "programs/batch_jobs.py"
WITHIN = 0.01


def panels():
    """Return the first query of each panel, by title."""
    return {
        panel["title"]: panel["targets"][0]["expr"]
        for path in DASHBOARDS
        for panel in json.loads(path.read_text())["panels"]
    }


class Jobs:
    """Runs the program, and adds up the counters of its jobs."""

    def __init__(self, one, folder, temporality):
        self._command = [sys.executable, PROGRAM, f"http://127.0.0.1:{one.ports['HTTP']}", folder]
        self._environ = {
            **os.environ,
            "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE": temporality,
        }
        self.counters, self._started = [], []

    def start(self, *options):
        """Start the program in a process group."""
        process = subprocess.Popen(
            [*self._command, *map(str, options)],
            env=self._environ,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            start_new_session=True,
        )
        self._started.append(process)
        return process

    def kill(self):
        """End what still runs after a failed test."""
        for process in self._started:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.stdout.close()
            process.wait()

    def end(self, process):
        """Wait for its end, and add its counters."""
        out, _ = process.communicate()
        assert process.returncode == 0
        self.counters += [json.loads(line) for line in out.splitlines()]

    def sums(self, name, label=None, **selected):
        """Return the sum of a counter over all jobs, by one attribute or by service."""
        found = Counter()
        for job in self.counters:
            for key, value in job["counters"].items():
                metric, attributes = json.loads(key)
                if metric == name and selected.items() <= attributes.items():
                    found[attributes[label] if label else job["service"]] += value
        return dict(found)


def scraped_all(server, jobs):
    """Return whether every row and operation of the jobs that have ended is in Prometheus."""
    shown, wanted = panels(), jobs.sums("delta.commit.rows", "delta.change")
    operations = jobs.sums("db.client.operation.duration", "db.operation.name")
    now = {name: server.values(filled(shown[name], "1h"), label) for name, label in (
        ("Rows", "delta_change"), ("Operations", "db_operation_name"),
    )}  # fmt: skip
    return all(now["Rows"].get(key, 0) >= value for key, value in wanted.items()) and all(
        now["Operations"].get(key, 0) >= value for key, value in operations.items()
    )


def bars(server, expression, label, seconds):
    """Return the sum of the bars of a panel, as Grafana draws them over the time of the test."""
    end = float(server.query("time()")[1])
    steps = server.get(
        "query_range",
        query=filled(expression, f"{seconds}s"),
        start=end - seconds * (900 // seconds),
        end=end,
        step=f"{seconds}s",
    )["result"]
    return {
        one["metric"].get(label, ""): sum(float(value) for _, value in one["values"])
        for one in steps
    }


@pytest.mark.timeout(900)
@pytest.mark.parametrize("temporality", ["delta", "cumulative"])
def test_sums_of_jobs_are_right(temporality, collector, backend, tmp_path, size, say):
    """Rows, bytes, operations and the hit ratio are those that the jobs counted, within 1 %.

    The Collector restarts in the middle, after a scrape. A long job runs beside the short ones; it is
    stopped for the restart, so that no export is under way.
    """
    count = size(40, 200, 8) if temporality == "delta" else size(8, 200, 4)
    one = collector(
        "config.yaml", BACKEND_ENDPOINT=f"127.0.0.1:{backend.port}", SPANMETRICS_FLUSH="1s"
    )
    server = Prometheus(tmp_path, one)
    jobs = Jobs(one, tmp_path / "tables", temporality)
    try:
        long_job = jobs.start("--jobs", 0, "--long-seconds", size(12, 240, 4))
        jobs.end(jobs.start("--jobs", count // 2))
        os.killpg(long_job.pid, signal.SIGSTOP)
        until(lambda: scraped_all(server, jobs), "the first half of the jobs")
        until(
            lambda: not any(value for _, value in one.own("otelcol_exporter_queue_size")),
            "no queue",
        )
        settled(server)
        one.stop()
        one.start()
        os.killpg(long_job.pid, signal.SIGCONT)
        jobs.end(jobs.start("--jobs", count - count // 2, "--first", count // 2))
        jobs.end(long_job)
        until(lambda: scraped_all(server, jobs), "all jobs")
        compare(server, jobs, f"{temporality}, {count} jobs", say)
    finally:
        jobs.kill()
        server.stop()


def settled(server):
    """Wait until two scrapes have had the same values."""
    same = " and ".join(
        f"sum({name}) == sum({name} offset 2s)"
        for name in ("delta_commit_rows_total", "traces_span_metrics_calls_total")
    )
    until(lambda: server.query(same), "two equal scrapes")


def compare(server, jobs, what, say):
    """Compare the panels with the counters of the jobs, and print both."""
    shown = panels()
    cases = (
        ("Rows", "delta_change", jobs.sums("delta.commit.rows", "delta.change")),
        ("Bytes", "delta_change", jobs.sums("delta.commit.size", "delta.change")),
        (
            "Operations",
            "db_operation_name",
            jobs.sums("db.client.operation.duration", "db.operation.name"),
        ),
        (
            "Jobs with the most rows",
            "job",
            jobs.sums("delta.commit.rows", **{"delta.change": "added"}),
        ),
        (
            "Policies with the most operations",
            "cache_policy",
            jobs.sums("cache.operation.count", "cache.policy"),
        ),
    )
    for title, label, wanted in cases:
        total = server.values(filled(shown[title], "1h"), label)
        assert total == pytest.approx(wanted, rel=WITHIN), title
        say(f"{what}: {title}: {printed(total)}, counted {printed(wanted)}")
    rows = jobs.sums("delta.commit.rows", "delta.change")
    assert bars(server, shown["Rows"], "delta_change", 10) == pytest.approx(rows, rel=WITHIN)
    (ratio,) = server.values(filled(shown["Hit ratio of the cache"], "1h"), "cache_policy").values()
    assert ratio == pytest.approx(0.75, rel=WITHIN)
    operations = sum(jobs.sums("db.client.operation.duration", "db.operation.name").values())
    for title, wanted in (("operations", operations), ("rows", rows["added"])):
        by_table = filled(shown[f"Tables with the most {title}"])

        def tables(by_table=by_table, wanted=wanted):
            found = server.values(by_table, "db_collection_name")
            assert len(found) <= 11
            return sum(found.values()) == pytest.approx(wanted, rel=WITHIN)

        until(tables, f"{wanted} {title} by table")
    plain = server.values(
        "sum by (delta_change) (increase(delta_commit_rows_total[1h]))", "delta_change"
    )
    say(f"{what}: hit ratio {ratio:.3f}; increase() would show rows {printed(plain)}")


def printed(values):
    """Return sums in the order of their names."""
    return ", ".join(f"{name} {value:,.0f}" for name, value in sorted(values.items()))
