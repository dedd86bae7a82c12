"""The reads of runs, from which the inputs of writes without a plan are inferred, take bounded memory."""

from __future__ import annotations

from deltawitness import run
from deltawitness.events import InputVersion
from deltawitness.observe import run_reads


def test_the_reads_of_the_last_runs_are_recorded():
    """A service opens a run for each request, for months."""
    opened = []
    for number in range(run_reads.MAX_RUNS + 5):
        with run("request") as context:
            run_reads.record_reads(InputVersion("t", number, None))
        opened.append(context)
    found = [[read.version for read in run_reads.reads_of_run(each)] for each in opened]
    assert found[-1] == [run_reads.MAX_RUNS + 4]
    assert sum(map(len, found)) <= run_reads.MAX_RUNS
