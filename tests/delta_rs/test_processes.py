"""Writes of forked, spawned and ending processes are observed in their run."""

from __future__ import annotations

import multiprocessing
import subprocess
import sys
import textwrap

import pytest
from deltalake import write_deltalake

from deltawitness import run
from deltawitness.commit import read_commit_metadata
from deltawitness.semconv import Env
from helpers.delta_rs_writes import rows


@pytest.mark.slow
def test_forked_children_and_their_parent_each_deliver_their_own_writes(tmp_path):
    """Each write is delivered once, in the parent's run. The engine must not be used before the fork."""
    program = textwrap.dedent(
        """
        import os, sys, pyarrow as pa
        from deltalake import write_deltalake
        from deltawitness import DeltaLakeInstrumentor, flush, run
        delivered = []
        DeltaLakeInstrumentor().instrument(sinks=[delivered.append])
        def write(name):
            write_deltalake(os.path.join(sys.argv[1], name), pa.table({"x": [1]}))
            flush()
            names = ",".join(event.intent.table_name for event in delivered)
            os.write(1, f"{name}:{names}:{delivered[0].run.run_id == context.run_id}\\n".encode())
        with run("nightly") as context:
            for name in ("a", "b"):
                child = os.fork()
                if child == 0:
                    write(name)
                    os._exit(0)
                os.waitpid(child, 0)
            write("parent")
        """
    )
    out = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert out.stdout.splitlines() == ["a:a:True", "b:b:True", "parent:parent:True"]


def _append(uri):
    write_deltalake(uri, rows(4), mode="append")


@pytest.mark.slow
def test_a_spawned_child_is_activated_in_the_parents_run(table, captured_writes):
    """A spawned child inherits neither memory nor patches, and is observed in the parent's run."""
    with run("nightly") as context:
        child = multiprocessing.get_context("spawn").Process(target=_append, args=(table,))
        child.start()
        child.join()
    assert child.exitcode == 0
    assert read_commit_metadata(table).run_id == context.run_id


def test_a_subprocess_inherits_the_run(captured_writes):
    """An inherited environment gets the run; an environment that the caller passes is unchanged."""
    show = [sys.executable, "-c", f"import os; print(os.environ.get({Env.RUN_ID.value!r}))"]
    with run("nightly") as context:
        inherited = subprocess.run(show, capture_output=True, text=True, check=True).stdout
        chosen = subprocess.run(show, capture_output=True, text=True, check=True, env={}).stdout
    assert (inherited.strip(), chosen.strip()) == (context.run_id, "None")


@pytest.mark.slow
def test_writes_at_the_end_of_a_program_are_delivered(tmp_path):
    """The span of a write right before the interpreter exits is exported."""
    program = textwrap.dedent(
        """
        import sys, pyarrow as pa
        from deltalake import write_deltalake
        from opentelemetry import trace
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter
        from deltawitness import DeltaLakeInstrumentor
        DeltaLakeInstrumentor().instrument()
        provider = TracerProvider()
        provider.add_span_processor(
            BatchSpanProcessor(ConsoleSpanExporter(formatter=lambda s: s.name + "\\n"))
        )
        trace.set_tracer_provider(provider)
        write_deltalake(sys.argv[1], pa.table({"x": [1]}))
        """
    )
    out = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "t")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert out.stdout == "WRITE t\n"


@pytest.mark.slow
def test_a_write_in_an_exit_handler_is_delivered_whenever_it_was_registered(tmp_path):
    """A write in an exit handler is delivered, also after our handler has run."""
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            textwrap.dedent(
                """
                import atexit, sys, pyarrow as pa
                from deltalake import write_deltalake
                from deltawitness import DeltaLakeInstrumentor

                def write(name):
                    write_deltalake(sys.argv[1] + "/" + name, pa.table({"x": [1]}))

                atexit.register(write, "before")
                DeltaLakeInstrumentor().instrument(
                    sinks=[lambda event: print(event.intent.table_name, flush=True)]
                )
                atexit.register(write, "after")
                write("now")
                """
            ),
            str(tmp_path),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["now", "after", "before"]
