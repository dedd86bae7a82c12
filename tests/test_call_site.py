"""The line of the program that makes a write, by each way of writing."""

from __future__ import annotations

import asyncio
import inspect
import os
import subprocess
import sys
import textwrap
from concurrent.futures import ThreadPoolExecutor
from types import FunctionType

import polars as pl
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness import (
    DeltaLakeInstrumentor,
    ObservedSessionContext,
    ObservedWritePipeline,
    Settings,
    WritePipeline,
    WriteRequest,
    call_site,
)
from deltawitness.call_site import call_site_of_program
from deltawitness.testing import capture_writes

DATA = pa.table({"id": [1]})
FILE = "tests/test_call_site.py"

ON_POSIX = pytest.mark.skipif(os.name == "nt", reason="a path of the machine itself there")
"""Functions that were pickled on Windows have such a path on the machine that runs them."""


@pytest.fixture
def uri(tmp_path):
    """A Delta table of one row, written before the instrumentation."""
    write_deltalake(tmp_path / "t", DATA)
    return str(tmp_path / "t")


def by_uri(uri):
    write_deltalake(uri, DATA, mode="append")


def by_handle(uri):
    DeltaTable(uri).delete("id = 7")


def by_merge(uri):
    merger = DeltaTable(uri).merge(DATA, "s.id = t.id", source_alias="s", target_alias="t")
    merger.when_matched_update_all().execute()


def by_polars(uri):
    pl.DataFrame({"id": [2]}).write_delta(uri, mode="append")


def by_sql(uri):
    ctx = ObservedSessionContext()
    ctx.register_delta("t", uri)
    ctx.sql("INSERT INTO t VALUES (3)").collect()


def by_frame(uri):
    ObservedSessionContext().from_pydict({"id": [3]}).write_delta(uri, mode="append")


def by_copy(uri):
    ctx = ObservedSessionContext()
    ctx.from_pydict({"id": [3]}).write_parquet(f"{uri}.files")


def by_pipeline(uri):
    pipeline = ObservedWritePipeline(WritePipeline())
    pipeline.write(WriteRequest(source=DATA, destination=uri, mode="append"))


def by_coroutine(uri):
    async def write():
        write_deltalake(uri, DATA, mode="append")

    asyncio.run(write())


def by_function_in_a_pool(uri):
    def write():
        write_deltalake(uri, DATA, mode="append")

    with ThreadPoolExecutor() as pool:
        pool.submit(write).result()


WAYS = [
    by_uri, by_handle, by_merge, by_polars, by_sql, by_frame, by_copy, by_pipeline, by_coroutine,
    by_function_in_a_pool,
]  # fmt: skip


@pytest.mark.parametrize("write", WAYS, ids=lambda write: write.__name__)
def test_a_write_has_the_line_of_the_program(uri, write):
    """It is a line of the function that writes, and its file is relative to the repository."""
    DeltaLakeInstrumentor().instrument()
    with capture_writes() as writes:
        write(uri)
    site = writes.last.call_site
    lines, first = inspect.getsourcelines(write)
    assert site.file == FILE
    assert first < site.line < first + len(lines)
    assert site.function.startswith(f"{__name__}.{write.__name__}")


def test_a_library_on_a_thread_has_no_line_of_the_program(uri):
    """A pool that calls the engine's function itself has only lines of libraries on its stack."""
    DeltaLakeInstrumentor().instrument()
    with capture_writes() as writes, ThreadPoolExecutor() as pool:
        pool.submit(write_deltalake, uri, DATA, mode="append").result()
    assert writes.last.call_site is None


def test_the_line_is_not_recorded_if_it_is_switched_off(uri):
    """`DELTAWITNESS_CALL_SITE=false`."""
    DeltaLakeInstrumentor().instrument(settings=Settings(call_site=False))
    with capture_writes() as writes:
        by_uri(uri)
    assert writes.last.call_site is None


def function_in(path, text="def f(site):\n    return site(1)\n"):
    """Return the function of a source file at a path, which need not exist."""
    (code,) = (
        each for each in compile(text, str(path), "exec").co_consts if hasattr(each, "co_code")
    )
    return FunctionType(code, {"__name__": "module"})


def site_in(path):
    """Return the call site of a function in a file."""
    return function_in(path)(call_site_of_program)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/x/lib/python3.11/site-packages/jobs/load.py", "jobs/load.py"),
        ("/usr/lib/python3/dist-packages/load.py", "load.py"),
        ("<string>", "<string>"),
        ("<ipython-input-3-0011>", "<notebook>"),
        ("/tmp/ipykernel_77/123.py", "<notebook>"),
        ("/somewhere/else/load.py", "load.py"),
        pytest.param(r"C:\Users\ann\load.py", "load.py", marks=ON_POSIX),
        pytest.param(r"\\host\share\ann\load.py", "load.py", marks=ON_POSIX),
        pytest.param(
            r"C:\Users\ann\Lib\site-packages\jobs\load.py", "jobs/load.py", marks=ON_POSIX
        ),
    ],
)
def test_a_file_is_never_an_absolute_path(path, expected):
    """A file is relative to its packages, or has only its name."""
    assert site_in(path) == (expected, 2, "module.f")


@pytest.mark.parametrize(
    "path",
    [
        "/x/lib/python3.11/site-packages/polars/dataframe/frame.py",
        "<frozen runpy>",
        "<attrs generated init>",
        "",
        os.__file__,
    ],
)
def test_frames_of_libraries_are_skipped(path):
    """The line is that of their caller."""
    assert site_in(path).file == FILE


def test_a_file_of_a_project_is_relative_to_it(tmp_path):
    """A project without a repository begins at its `pyproject.toml`."""
    (tmp_path / "app/src").mkdir(parents=True)
    (tmp_path / "app/pyproject.toml").touch()
    assert site_in(tmp_path / "app/src/load.py").file == "src/load.py"


@pytest.fixture
def main_folder(tmp_path, monkeypatch):
    """The folder of the main script, in no project."""
    folder = tmp_path / "jobs"
    folder.mkdir()
    (folder / "main.py").touch()
    monkeypatch.setattr(sys.modules["__main__"], "__file__", str(folder / "main.py"), raising=False)
    return folder


def test_the_project_of_a_file_takes_precedence_over_the_script(main_folder):
    """The same file has the same name in each program that imports it."""
    (main_folder / "shared").mkdir()
    (main_folder / "shared/pyproject.toml").touch()
    assert site_in(main_folder / "shared/load.py").file == "load.py"
    assert site_in(main_folder / "own/load.py").file == "own/load.py"


def test_a_folder_whose_name_only_begins_like_that_of_the_script_is_another(main_folder):
    """The file has its name alone."""
    assert site_in(f"{main_folder}-old/load.py").file == "load.py"


def untraced(call, *arguments):
    """Call a function without the trace function of coverage, which fails in a deleted folder."""
    trace = sys.gettrace()
    sys.settrace(None)
    try:
        return call(*arguments)
    finally:
        sys.settrace(trace)


@pytest.mark.parametrize("path", ["/somewhere/deleted/first.py", "second.py"])
def test_a_program_in_a_deleted_folder_has_the_names_of_its_files(tmp_path, monkeypatch, path):
    """Without a script, the working directory would be the root."""
    monkeypatch.delattr(sys.modules["__main__"], "__file__", raising=False)
    monkeypatch.setattr(sys, "argv", ["-c"])
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert untraced(site_in, path).file == path.rpartition("/")[2]


def test_the_names_of_a_bounded_number_of_files_are_cached(monkeypatch):
    """A program that generates files without end does not fill the memory."""
    monkeypatch.setattr(call_site, "_CAPACITY", 3)
    for number in range(7):
        assert site_in(f"/generated/{number}.py").file == f"{number}.py"
    assert len(call_site._names) <= 3


def test_a_script_without_a_project_is_relative_to_itself(tmp_path):
    """The folder of the main script is the root."""
    (tmp_path / "jobs").mkdir()
    (tmp_path / "jobs/load.py").write_text(
        "from deltawitness.call_site import call_site_of_program\n"
        "def f():\n    return call_site_of_program()\n"
    )
    (tmp_path / "main.py").write_text(
        textwrap.dedent("""
            from jobs import load
            print(load.f())
        """)
    )
    done = subprocess.run(
        [sys.executable, str(tmp_path / "main.py")], capture_output=True, text=True, check=True
    )
    assert done.stdout == "CallSite(file='jobs/load.py', line=3, function='jobs.load.f')\n"
