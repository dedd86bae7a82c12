"""The runtime environment for Ray's workers, without Ray; `test_workers.py` runs it in clusters."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from deltawitness import DeltaLakeInstrumentor, Settings, cache_context, run
from deltawitness.exceptions import ConfigurationError
from deltawitness.integrations.ray import runtime_env
from deltawitness.semconv import Env

cloudpickle = pytest.importorskip("cloudpickle")

WRITE = """\
import os, pickle, sys
hook = pickle.loads(bytes.fromhex(sys.argv[1]))
hook()
import pyarrow as pa
from deltalake import write_deltalake
write_deltalake(sys.argv[2], pa.table({"x": [1]}))
from deltawitness import read_commit_metadata
commit = read_commit_metadata(sys.argv[2])
import json
print(json.dumps([commit.run_id, commit.metadata.get("cache_policy"), os.environ.get("CALLED")]))
"""


def called_after(made, folder, **more):
    """Return the run and the policy of a write in a new process with the environment and its hook."""
    hook = cloudpickle.dumps(made["worker_process_setup_hook"]).hex()
    done = subprocess.run(
        [sys.executable, "-c", WRITE, hook, str(folder / "t")],
        env={"PATH": os.environ["PATH"], "HOME": str(folder), **made["env_vars"], **more},
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@pytest.mark.slow
def test_a_worker_writes_in_the_run_with_the_settings_of_the_driver(tmp_path, monkeypatch):
    """Settings that were given in code are carried too, with an absolute path of the ledger."""
    monkeypatch.chdir(tmp_path)
    DeltaLakeInstrumentor().instrument(settings=Settings(cache_root="ledger", user_metadata=False))
    with run("nightly") as context, cache_context(policy="p"):
        made = runtime_env()
    (run_id, policy, _), _ = called_after(made, tmp_path)
    assert (run_id, policy) == (context.run_id, "p")
    assert (tmp_path / "ledger/cache_spool").is_dir()
    assert made["env_vars"][Env.USER_METADATA] == "False"
    assert Env.RUN_ID not in os.environ


@pytest.mark.slow
def test_the_programs_own_runtime_environment_stays(tmp_path):
    """Its variables win, its other fields stay, and its hook is called last, as a function or as a name."""

    def own_hook():
        import os

        os.environ["CALLED"] = "yes"

    base = {"working_dir": "w", "env_vars": {"DELTAWITNESS_MESSAGE": "own"}}
    made = runtime_env({**base, "worker_process_setup_hook": own_hook})
    assert (made["working_dir"], made["env_vars"]["DELTAWITNESS_MESSAGE"]) == ("w", "own")
    assert called_after(made, tmp_path)[0][2] == "yes"
    (tmp_path / "hooks.py").write_text("import os\ndef own(): os.environ['CALLED'] = 'by name'\n")
    made = runtime_env({"worker_process_setup_hook": "hooks.own"})
    folder = tmp_path / "second"
    folder.mkdir()
    assert called_after(made, folder, PYTHONPATH=str(tmp_path))[0][2] == "by name"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["DELTAWITNESS_QUEUE_SIZE", "DELTAWITNESS_CACHE_SCOPE"])
def test_a_worker_with_an_invalid_variable_works_unobserved(name, tmp_path):
    """Ray would start a worker that ends at its start again and again."""
    (run_id, _, _), stderr = called_after(runtime_env(), tmp_path, **{name: "many"})
    assert run_id is None
    assert name in stderr


def test_a_worker_has_its_own_search_path(monkeypatch):
    """The variables of this machine's command are not sent."""
    monkeypatch.setenv("PYTHONPATH", "/folder/site")
    monkeypatch.setenv(Env.ACTIVATE, "child")
    monkeypatch.setenv(Env.SUPERVISOR, "1:/lock")
    made = runtime_env()["env_vars"]
    assert {"PYTHONPATH", Env.SUPERVISOR.value} & made.keys() == set()


def test_a_worker_without_the_package_runs_the_hook_of_the_program(monkeypatch):
    """The hook is pickled by value."""
    called = []
    hook = runtime_env({"worker_process_setup_hook": lambda: called.append(1)})[
        "worker_process_setup_hook"
    ]
    text = cloudpickle.dumps(hook)
    assert b"deltawitness.integrations.ray" not in text.split(b"co_names")[0][:200]
    monkeypatch.setitem(sys.modules, "deltawitness.integrations.ray", None)
    hook()
    assert called == [1]


def test_a_key_that_is_not_text_cannot_be_sent():
    """Without the key, the ids of tables in telemetry would differ from those of the driver."""
    DeltaLakeInstrumentor().instrument(settings=Settings(table_id_key=b"\xff"))
    with pytest.raises(ConfigurationError, match="DELTAWITNESS_TABLE_ID_KEY"):
        runtime_env()


def test_an_events_file_of_another_machine_is_not_used(tmp_path, monkeypatch):
    """A worker appends to the events file of `deltawitness run` only if its folder exists."""
    from deltawitness.integrations._workers import drop_events_file

    variables = {Env.EVENTS_FILE.value: str(tmp_path / "gone/events")}
    drop_events_file(variables)
    assert variables == {}
    variables = {Env.EVENTS_FILE.value: str(tmp_path / "events")}
    drop_events_file(variables)
    assert variables
