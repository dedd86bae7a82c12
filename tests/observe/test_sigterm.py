"""On SIGTERM, a process flushes everything, and is ended by the signal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest
from deltalake import DeltaTable

from deltawitness import DeltaLakeInstrumentor, Ledger, Settings
from deltawitness.observe.sigterm import SigtermHandler
from helpers.places import PROGRAMS

pytestmark = pytest.mark.slow

PROGRAM = PROGRAMS / "writes_until_told.py"


@pytest.mark.parametrize("how", ["", "slow"])
def test_a_terminated_program_is_recorded_completely(tmp_path, how):
    """Every write and the run are recorded, also when SIGTERM comes during a write that does not end."""
    program = subprocess.Popen(
        [sys.executable, PROGRAM, tmp_path, how],
        env={**os.environ, "DELTAWITNESS_CACHE_ROOT": str(tmp_path / "cache")},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout.readline() == "begun\n"
    program.send_signal(signal.SIGTERM)
    assert program.wait(30) == -signal.SIGTERM
    # Nothing is drained here: the rows were drained by the program itself.
    inventory = DeltaTable(tmp_path / "cache/cache_ledgers/cache_inventory_v1")
    runs = DeltaTable(tmp_path / "cache/cache_ledgers/cache_run_summary_v1").to_pyarrow_table()
    assert runs.select(["job", "status", "error_type"]).to_pylist() == [
        {"job": "told", "status": "error", "error_type": "Terminated"}
    ]
    versions = inventory.to_pyarrow_table()["version"].to_pylist()
    known = DeltaTable(tmp_path / "t").version() + 1
    assert sorted(versions) == list(range(len(versions)))
    # The program continued during the flush: its later writes are still in the spool.
    Ledger(tmp_path / "cache").drain()
    plan = Ledger(tmp_path / "cache").reconcile([tmp_path / "t"])
    assert Ledger(tmp_path / "cache").inventory().count() + len(plan.missing) == known


def test_a_program_that_reaches_its_end_is_ended_by_the_signal(tmp_path):
    """A program that runs its last statement during the flush waits for it at its end."""
    text = """if True:
        import os, signal, sys, pyarrow as pa
        from deltalake import write_deltalake
        from deltawitness import DeltaLakeInstrumentor
        DeltaLakeInstrumentor().instrument()
        write_deltalake(sys.argv[1], pa.table({"x": [1]}))
        os.kill(os.getpid(), signal.SIGTERM)
    """
    variables = {**os.environ, "DELTAWITNESS_CACHE_ROOT": str(tmp_path / "cache")}
    programs = [
        subprocess.Popen([sys.executable, "-c", text, tmp_path / name], env=variables)
        for name in "abcd"
    ]
    assert [program.wait(60) for program in programs] == [-signal.SIGTERM] * 4
    ledger = Ledger(tmp_path / "cache")
    assert ledger.inventory().count() == 4
    assert ledger.runs().select("status").to_pylist() == [{"status": "error"}] * 4


def test_a_handler_of_the_program_stays(tmp_path):
    """A signal handler of the program is not replaced."""

    def handler(*_):
        """Handle the signal."""

    before = signal.signal(signal.SIGTERM, handler)
    try:
        DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(tmp_path)))
        assert signal.getsignal(signal.SIGTERM) is handler
        DeltaLakeInstrumentor().uninstrument()
        assert signal.getsignal(signal.SIGTERM) is handler
    finally:
        signal.signal(signal.SIGTERM, before)


def test_the_default_action_is_restored(tmp_path):
    """`uninstrument()` restores the signal's default and the wakeup descriptor."""
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(tmp_path)))
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
    DeltaLakeInstrumentor().uninstrument()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    assert signal.set_wakeup_fd(-1) == -1


def test_without_a_ledger_the_signal_is_left_alone():
    """Without a ledger, no handler is installed."""
    DeltaLakeInstrumentor().instrument()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_off_the_main_thread_the_signal_is_left_alone():
    """Python sets signal handlers only on the main thread."""
    thread = threading.Thread(target=SigtermHandler(bool).install)
    thread.start()
    thread.join()
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


def test_a_forked_child_dies_alone(tmp_path):
    """SIGTERM to a forked child does not end its parent."""
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(tmp_path)))
    child = os.fork()
    if child == 0:
        signal.pause()
    os.kill(child, signal.SIGTERM)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL


def test_an_event_loop_keeps_its_descriptor(tmp_path):
    """An event loop's wakeup descriptor still gets its signals; the Python handler alone flushes."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    signal.set_wakeup_fd(writing)
    try:
        DeltaLakeInstrumentor().instrument(settings=Settings(cache_root=str(tmp_path)))
        assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
        DeltaLakeInstrumentor().uninstrument()
    finally:
        assert signal.set_wakeup_fd(-1) == writing
        os.close(reading)
        os.close(writing)


EXPORTS = """if True:
    import os, signal, sys, threading, time
    import pyarrow as pa
    from deltalake import write_deltalake
    from opentelemetry import trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
    from deltawitness import DeltaLakeInstrumentor, run

    class Exporter(SpanExporter):
        def export(self, spans):
            if sys.argv[2] == "silent":
                threading.Event().wait()
            for span in spans:
                line = f"{span.name} {span.status.status_code.name} {span.attributes.get('error.type')}\\n"
                os.write(1, line.encode())
            return SpanExportResult.SUCCESS

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(Exporter(), schedule_delay_millis=3_600_000))
    trace.set_tracer_provider(provider)
    DeltaLakeInstrumentor().instrument()
    with run("nightly"):
        write_deltalake(os.path.join(sys.argv[1], "t"), pa.table({"x": [1]}))
        os.write(1, b"begun\\n")
        while True:
            signal.pause()
"""


@pytest.mark.parametrize("how", ["answers", "silent"])
def test_a_terminated_program_exports_what_it_has(tmp_path, how):
    """The SDK's batch is flushed, with the run's span as an error; a silent server delays nothing else."""
    with subprocess.Popen(
        [sys.executable, "-c", EXPORTS, tmp_path, how],
        env={**os.environ, "DELTAWITNESS_CACHE_ROOT": str(tmp_path / "cache")},
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdout.readline() == "begun\n"
        program.send_signal(signal.SIGTERM)
        assert program.wait(60) == -signal.SIGTERM
        exported = program.stdout.read().splitlines()
    assert exported == (
        ["WRITE t UNSET None", "nightly ERROR Terminated"] if how == "answers" else []
    )
    runs = DeltaTable(tmp_path / "cache/cache_ledgers/cache_run_summary_v1").to_pyarrow_table()
    assert runs.select(["status", "exit_code"]).to_pylist() == [
        {"status": "error", "exit_code": -signal.SIGTERM}
    ]
