"""Programs under `deltawitness run`, with any first import and any OpenTelemetry setting."""

from __future__ import annotations

import json
import os
import pkgutil
import subprocess
import sys
import textwrap
import zipapp
from itertools import product
from pathlib import Path

import pytest

import deltawitness
from deltawitness import Ledger
from deltawitness.commit import history, read_commit_metadata
from deltawitness.semconv import Env
from helpers.sizes import cases
from helpers.terminal_commands import run_command

pytestmark = pytest.mark.slow

BIN = Path(sys.executable).parent
RUN = [str(BIN / "deltawitness"), "run", "--quiet", "--"]
LAUNCHERS = {"run": RUN, "opentelemetry-instrument": [str(BIN / "opentelemetry-instrument")]}


def execute(command, folder, **variables):
    """Run a command in a folder that is the root of its ledger, without telemetry unless requested."""
    environment = environment_of(folder, variables)
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def observe(launcher, folder, *program, **variables):
    """Execute a program under a launcher; `deltawitness` is forked from a process that has imported it."""
    command = [*LAUNCHERS[launcher], sys.executable, *program]
    if launcher != "run":
        return execute(command, folder, **variables)
    return run_command(*command[1:], folder=folder, environment=environment_of(folder, variables))


def environment_of(folder, variables):
    """Return the variables of a command."""
    quiet = dict.fromkeys(EXPORTERS, "none")
    return {**os.environ, **quiet, Env.CACHE_ROOT: str(folder / "root"), **variables}


def write_ids(folder):
    """Return the write ids in the ledger. Each must be in one commit of the tables next to it."""
    rows = Ledger(str(folder / "root")).inventory().to_pydict()["write_id"]
    commits = [
        commit.write_id
        for log in folder.rglob("_delta_log")
        if "root" not in log.relative_to(folder).parts
        for commit in history(log.parent)
    ]
    assert sorted(rows) == sorted(commits)
    return rows


IMPORTS = """
    import importlib, os, sys

    def check(name):
        module, _, attribute = name.partition(":")
        imported = importlib.import_module(module)
        if attribute:
            getattr(imported, attribute)
        import datafusion, deltalake
        import deltawitness.internal_errors
        from deltalake._internal import RawDeltaTable
        wrapped = RawDeltaTable.delete, datafusion.SessionContext.sql, datafusion.DataFrame.collect
        marks = [hasattr(function, "_deltawitness_replacement") for function in wrapped]
        twice = [hasattr(function.__wrapped__, "_deltawitness_replacement") for function in wrapped]
        assert all(marks) and not any(twice), (marks, twice)
        assert deltawitness.internal_errors.error_counts() == {}, deltawitness.internal_errors.error_counts()

    names = sys.argv[1].split()
    for start in range(0, len(names), 3):
        children = []
        for name in names[start : start + 3]:
            child = os.fork()
            if child == 0:
                try:
                    check(name)
                except BaseException as error:
                    print(name, type(error).__name__, error, flush=True)
                os._exit(0)
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
"""
"""Imports each name first, in a child of its own of a process that has imported no engine."""

NAMES = [f"deltawitness:{name}" for name in deltawitness.__all__]


def module_names():
    """Return the names of all modules that can be imported; imports the packages that they are in."""
    return [
        module.name
        for module in pkgutil.walk_packages(deltawitness.__path__, "deltawitness.")
        if not module.name.endswith(("__main__", "sitecustomize"))
    ]


@pytest.mark.timeout(600)
@pytest.mark.parametrize("role", ["top", "child", "opentelemetry-instrument"])
def test_any_import_may_be_the_first(role, tmp_path, size):
    """Importing any public name first, at full size any module, leaves both engines patched once."""
    # A name imports the same modules under any launcher, so only one launcher gets all names.
    step = 1 if role == "top" else 6
    names = size(NAMES[::step], None, NAMES[:: 36 * step]) or NAMES + module_names()
    program = [sys.executable, "-c", textwrap.dedent(IMPORTS), " ".join(names)]
    variables = {}
    if role == "child":
        site = Path(deltawitness.__file__).parent / "activation" / "site"
        paths = os.pathsep.join([str(site), os.environ["PYTHONPATH"]])
        variables = {"PYTHONPATH": paths, Env.ACTIVATE: "child"}
        command = program
    else:
        command = [*LAUNCHERS["run" if role == "top" else role], *program]
    done = execute(command, tmp_path, **variables)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_the_modules_that_patch_an_engine_do_not_import_it():
    """The modules run in an import hook, in the middle of an import of the engine."""
    program = """
        import sys
        import deltawitness.instrumentation, deltawitness.session.patches
        print(sorted({"datafusion", "deltalake"} & set(sys.modules)))
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    assert subprocess.run(command, capture_output=True, text=True).stdout == "[]\n"


WRITES = """
    import sys, pyarrow as pa
    from deltalake import write_deltalake
    write_deltalake(sys.argv[1], pa.table({"x": [1]}), mode="append")
"""

EXPORTERS = "OTEL_TRACES_EXPORTER", "OTEL_METRICS_EXPORTER", "OTEL_LOGS_EXPORTER"
WITHOUT_SDK = dict.fromkeys(EXPORTERS, "")
WRONG = {
    "OTEL_TRACES_EXPORTER": {"OTEL_TRACES_EXPORTER": "nosuch"},
    "OTEL_METRICS_EXPORTER": {"OTEL_METRICS_EXPORTER": "nosuch"},
    "OTEL_EXPORTER_OTLP_PROTOCOL": {
        "OTEL_TRACES_EXPORTER": "otlp",
        "OTEL_EXPORTER_OTLP_PROTOCOL": "nosuch",
    },
    "OTEL_PYTHON_TRACER_PROVIDER": {**WITHOUT_SDK, "OTEL_PYTHON_TRACER_PROVIDER": "nosuch"},
    "OTEL_PYTHON_METER_PROVIDER": {**WITHOUT_SDK, "OTEL_PYTHON_METER_PROVIDER": "nosuch"},
}


@pytest.mark.parametrize("variable", cases(WRONG, list(WRONG)[1::2]))
def test_a_wrong_setting_of_opentelemetry_does_not_change_commits_and_ledger(variable, tmp_path):
    """The program prints one line that names the setting."""
    done = observe("run", tmp_path, "-c", textwrap.dedent(WRITES), "t", **WRONG[variable])
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"deltawitness: OpenTelemetry cannot be set up: {variable}: ")
    assert "nosuch" in line
    assert len(write_ids(tmp_path)) == 1


@pytest.mark.parametrize("is_collecting", [True, False])
def test_activation_leaves_its_modules_out_of_garbage_collections(is_collecting, tmp_path):
    """They are frozen, and the collections are as the program's own `sitecustomize` has set them."""
    (tmp_path / "sitecustomize.py").write_text(
        "import gc\n" + "gc.disable()\n" * (not is_collecting)
    )
    program = """
        import gc, sys
        names = vars(sys.modules["deltawitness.run"])
        print(gc.isenabled(), any(each is names for each in gc.get_objects()))
    """
    paths = os.pathsep.join([str(tmp_path), os.environ["PYTHONPATH"]])
    done = observe("run", tmp_path, "-c", textwrap.dedent(program), PYTHONPATH=paths)
    assert (done.returncode, done.stdout) == (0, f"{is_collecting} False\n"), done.stderr


def test_a_list_of_disabled_instrumentations_may_have_spaces_and_a_star(tmp_path):
    """The variable is parsed as OpenTelemetry's own command parses it."""
    for word in ("requests , deltalake", "*"):
        disabled = {"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": word}
        observe("run", tmp_path, "-c", textwrap.dedent(WRITES), "t", **disabled)
        assert read_commit_metadata(tmp_path / "t").metadata == {}


SUITE = """
    import pyarrow as pa, pytest
    from deltalake import write_deltalake
    D = pa.table({"x": [1]})
    def test_1(): write_deltalake("first", D)
    def test_2(delta_telemetry):
        write_deltalake("second", D)
        assert [span.name for span in delta_telemetry.spans()] == ["WRITE second"]
        assert len(delta_telemetry.log_records()) == 1
        assert "db.client.operation.duration" in delta_telemetry.metric_points()
    def test_3(captured_writes, delta_telemetry):
        write_deltalake("third", D)
        assert len(captured_writes) == len(delta_telemetry.spans()) == 1
    def test_4(): write_deltalake("fourth", D)
"""


@pytest.mark.parametrize("launcher", cases(LAUNCHERS, ["run"]))
def test_a_suite_in_an_observed_process_uses_our_fixtures(launcher, tmp_path):
    """The fixtures work with warnings as errors, and observation continues outside them."""
    (tmp_path / "test_suite.py").write_text(textwrap.dedent(SUITE))
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    done = observe(launcher, tmp_path, "-m", "pytest", "-q", "-p", "no:cacheprovider")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
    assert len(write_ids(tmp_path)) == 4


def test_a_program_after_exec_continues_the_run(tmp_path):
    """Writes before `os.exec*` are delivered, and writes of the new program belong to the same run."""
    other = textwrap.dedent(WRITES)
    program = textwrap.dedent(WRITES) + textwrap.dedent(
        f"""
        import os
        os.execv(sys.executable, [sys.executable, "-c", {other!r}, "u"])
        """
    )
    summary = [*RUN[:2], "--quiet", "--json", "summary.json", "--"]
    done = execute([*summary, sys.executable, "-c", program, "t"], tmp_path)
    assert done.returncode == 0, done.stderr
    # The command waits for its drain for a limited time, which may not suffice where other programs use the CPU.
    Ledger(str(tmp_path / "root")).drain()
    assert len(write_ids(tmp_path)) == 2
    assert json.loads((tmp_path / "summary.json").read_text())["total"]["operations"] == 2
    assert len(set(Ledger(str(tmp_path / "root")).inventory().to_pydict()["run_id"])) == 1


NESTED = """
    import multiprocessing, sys
    import pyarrow as pa
    from deltalake import write_deltalake

    def write(place):
        write_deltalake(place, pa.table({"x": [1]}))

    def pool(place):
        context = multiprocessing.get_context("spawn")
        child = context.Process(target=write, args=(place,))
        child.start()
        child.join()

    if __name__ == "__main__":
        from concurrent.futures import ProcessPoolExecutor
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as executor:
            executor.submit(pool, "nested").result()
        write("own")
"""

FORMS = {
    "-m": ["-m", "program"],
    "a file": ["program.py"],
    "a zipapp": ["program.pyz"],
}
SMALL = [("run", "a zipapp"), ("opentelemetry-instrument", "-m")]


@pytest.mark.parametrize(("launcher", "form"), cases(list(product(LAUNCHERS, FORMS)), SMALL))
def test_children_of_children_are_observed_in_every_form_of_a_program(launcher, form, tmp_path):
    """Grandchildren of a module, a file and an archive are observed."""
    text = textwrap.dedent(NESTED)
    (tmp_path / "program.py").write_text(text)
    if form == "a zipapp":
        (tmp_path / "app").mkdir()
        (tmp_path / "program.py").rename(tmp_path / "app" / "nested.py")
        (tmp_path / "app" / "__main__.py").write_text(
            'if __name__ == "__main__":\n'
            "    import multiprocessing\n"
            "    from nested import pool, write\n"
            '    pool("nested")\n'
            '    write("own")\n'
        )
        zipapp.create_archive(tmp_path / "app", tmp_path / "program.pyz")
    done = observe(launcher, tmp_path, *FORMS[form])
    assert done.returncode == 0, done.stderr
    assert len(write_ids(tmp_path)) == 2


def test_a_reloaded_module_observes_once(tmp_path):
    """After a reload or a second import, each write is observed once."""
    program = """
        import importlib, sys
        import deltawitness.instrumentation as instrumentation
        instrumentation.DeltaLakeInstrumentor().instrument()
        importlib.reload(instrumentation)
        instrumentation.DeltaLakeInstrumentor().instrument()
        for name in [name for name in sys.modules if name.split(".")[0] == "deltawitness"]:
            del sys.modules[name]
        import deltawitness.instrumentation
        deltawitness.instrumentation.DeltaLakeInstrumentor().instrument()
    """
    text = textwrap.dedent(program) + textwrap.dedent(WRITES)
    done = execute([sys.executable, "-c", text, "t"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(write_ids(tmp_path)) == 1
