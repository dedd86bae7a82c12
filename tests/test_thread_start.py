"""What needs a thread also works in exit handlers, where Python starts no thread since 3.12."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from deltawitness import Ledger
from deltawitness.delivery import Delivery, Step
from deltawitness.scan.read_ahead import read_ahead
from deltawitness.thread_start import start_thread


@pytest.fixture
def shutdown(monkeypatch):
    """Refuse to start threads, as the interpreter does while it shuts down."""

    def start(self):
        raise RuntimeError("can't create new thread at interpreter shutdown")

    monkeypatch.setattr(threading.Thread, "start", start)


@pytest.mark.usefixtures("shutdown")
def test_a_refused_start_is_no_error():
    """The caller does the work itself."""
    assert not start_thread(threading.Thread(target=print))


def test_another_reason_is_an_error(monkeypatch):
    """A system without further threads is not one that shuts down."""

    def start(self):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(RuntimeError, match="can't start"):
        start_thread(threading.Thread(target=print))


@pytest.mark.usefixtures("shutdown")
def test_a_flush_delivers_without_a_thread():
    """Each item reaches each step, and no error is reported."""
    seen, errors = [], []
    delivery = Delivery(
        [Step("a", seen.append)],
        interval=0.001,
        capacity=10,
        step_timeout=5,
        is_busy=lambda: True,
        on_error=lambda *error: errors.append(error),
        on_drop=errors.append,
    )
    delivery.submit(1)
    delivery.submit(2)
    assert delivery.flush(10)
    assert delivery.close(10)
    assert (seen, errors) == ([1, 2], [])


@pytest.mark.usefixtures("shutdown")
def test_a_stream_is_read_without_a_thread():
    """The consumer reads the stream itself."""
    assert list(read_ahead(lambda: range(9))) == list(range(9))


PROGRAM = """
import atexit, sys
import pyarrow as pa
from datafusion import SessionContext
from deltalake import DeltaTable, write_deltalake
from deltawitness import DataFusionInstrumentor, DeltaLakeInstrumentor, Settings

root, table = sys.argv[1:]

@atexit.register
def write_before_the_flush_is_over():
    ctx = SessionContext()
    ctx.register_table("t", DeltaTable(table))
    ctx.sql("INSERT INTO t SELECT x + 1 FROM t ORDER BY x").collect()

settings = Settings(cache_root=root)
DeltaLakeInstrumentor().instrument(settings=settings)
DataFusionInstrumentor().instrument(settings=settings)

@atexit.register
def write_before_the_flush():
    write_deltalake(table, pa.table({"x": [1]}))
"""


@pytest.mark.slow
def test_writes_in_exit_handlers_are_recorded(tmp_path):
    """Exit handlers before and after the library's own write, without a message and with ledger rows."""
    arguments = [str(tmp_path / "root"), str(tmp_path / "t")]
    program = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, timeout=100
    )
    assert (program.returncode, program.stderr) == (0, "")
    ledger = Ledger(arguments[0])
    ledger.drain()
    assert ledger.inventory().count() == 2
