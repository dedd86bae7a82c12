"""Where a run runs is read from the environment variables of each scheduler and CI system."""

from __future__ import annotations

import json
import sys

import pytest
from opentelemetry.trace import INVALID_SPAN

from deltawitness import DeltaLakeInstrumentor, RunContext, RunOrigin, Settings
from deltawitness.propagation.processes import run_as_values
from deltawitness.redaction import redacted_origin
from deltawitness.run import current_run, forget_process_run, run
from deltawitness.run_origin import (
    SYSTEMS,
    OriginOptions,
    detect,
    process_origin,
    use_origin_options,
)
from deltawitness.semconv import Env

SHA = "1f3a" * 10

ENVIRONMENTS = {
    "airflow": (
        {
            "AIRFLOW_CTX_DAG_ID": "nightly_load",
            "AIRFLOW_CTX_TASK_ID": "flights",
            "AIRFLOW_CTX_DAG_RUN_ID": "scheduled__2026-11-26T00:00:00+00:00",
            "AIRFLOW_CTX_TRY_NUMBER": "2",
            "AIRFLOW_CTX_EXECUTION_DATE": "2026-11-26T00:00:00+00:00",
            "AIRFLOW_CTX_DAG_OWNER": "ann",
        },
        RunOrigin(
            system="airflow",
            job="nightly_load",
            run_id="scheduled__2026-11-26T00:00:00+00:00",
            attempt=2,
            task="flights",
        ),
    ),
    "dagster": (
        {
            "DAGSTER_RUN_JOB_NAME": "load_job",
            "DAGSTER_RUN_STEP_KEY": "flights",
            "DAGSTER_RUN_ID": "f4b2cbb1-16c6-4d9f-9f35-0a6f3a7f5b10",
            "DAGSTER_CURRENT_IMAGE": "registry.example.com/user-code:1.2",
        },
        RunOrigin(
            system="dagster",
            job="load_job",
            run_id="f4b2cbb1-16c6-4d9f-9f35-0a6f3a7f5b10",
            task="flights",
            image="registry.example.com/user-code:1.2",
        ),
    ),
    "prefect": (
        {
            "PREFECT__FLOW_RUN_ID": "0b6a2f1e-0000-4d9f-9f35-0a6f3a7f5b10",
            "PREFECT__FLOW_NAME": "load-flow",
            "PREFECT_UI_URL": "https://prefect.example.com",
        },
        RunOrigin(
            system="prefect",
            job="load-flow",
            run_id="0b6a2f1e-0000-4d9f-9f35-0a6f3a7f5b10",
            link="https://prefect.example.com/runs/flow-run/0b6a2f1e-0000-4d9f-9f35-0a6f3a7f5b10",
        ),
    ),
    "databricks": (
        {
            "DATABRICKS_RUNTIME_VERSION": "16.4",
            "DATABRICKS_HOST": "https://dbc-1.cloud.databricks.com",
            "DATABRICKS_JOB_ID": "11",
            "DATABRICKS_JOB_NAME": "nightly",
            "DATABRICKS_JOB_RUN_ID": "455644833",
            "DATABRICKS_TASK_NAME": "load",
            "DATABRICKS_TASK_EXECUTION_COUNT": "1",
        },
        RunOrigin(
            system="databricks",
            job="nightly",
            run_id="455644833",
            attempt=1,
            task="load",
            link="https://dbc-1.cloud.databricks.com/jobs/11/runs/455644833",
        ),
    ),
    "github": (
        {
            "GITHUB_ACTIONS": "true",
            "GITHUB_WORKFLOW": "Nightly load",
            "GITHUB_RUN_ID": "1658821493",
            "GITHUB_RUN_ATTEMPT": "3",
            "GITHUB_JOB": "load",
            "GITHUB_SERVER_URL": "https://github.com",
            "GITHUB_REPOSITORY": "org/lake",
            "GITHUB_SHA": SHA,
            "GITHUB_ACTOR": "ann",
        },
        RunOrigin(
            system="github",
            job="Nightly load",
            run_id="1658821493",
            attempt=3,
            task="load",
            link="https://github.com/org/lake/actions/runs/1658821493",
            code_version=SHA,
        ),
    ),
    "gitlab": (
        {
            "GITLAB_CI": "true",
            "CI_PROJECT_NAME": "lake",
            "CI_PIPELINE_ID": "1000",
            "CI_JOB_NAME": "load",
            "CI_PIPELINE_URL": "https://gitlab.example.com/org/lake/-/pipelines/1000",
            "CI_COMMIT_SHA": SHA,
            "CI_JOB_IMAGE": "python:3.11",
            "GITLAB_USER_LOGIN": "ann",
        },
        RunOrigin(
            system="gitlab",
            job="lake",
            run_id="1000",
            task="load",
            link="https://gitlab.example.com/org/lake/-/pipelines/1000",
            code_version=SHA,
            image="python:3.11",
        ),
    ),
    "argo": (
        {
            "ARGO_WORKFLOW_NAME": "load-x7k2p",
            "ARGO_NODE_ID": "load-x7k2p-2950394061",
            "ARGO_TEMPLATE": json.dumps({"name": "flights", "container": {"image": "python"}}),
            "ARGO_POD_NAME": "load-x7k2p-flights-2950394061",
        },
        RunOrigin(
            system="argo",
            run_id="load-x7k2p",
            task="flights",
            pod="load-x7k2p-flights-2950394061",
        ),
    ),
    "kubernetes": (
        {
            "KUBERNETES_SERVICE_HOST": "10.0.0.1",
            "HOSTNAME": "load-7-x2k9d",
            "K8S_JOB_NAME": "load",
            "JOB_COMPLETION_INDEX": "4",
        },
        RunOrigin(system="kubernetes", job="load", task="4", pod="load-7-x2k9d"),
    ),
    "opentelemetry": (
        {
            "OTEL_RESOURCE_ATTRIBUTES": (
                "cicd.pipeline.name=load%20all,cicd.pipeline.run.id=7,"
                f"cicd.pipeline.task.name=flights,vcs.ref.head.revision={SHA},"
                "cicd.pipeline.run.url.full=https://ci.example.com/7,"
                "container.image.name=app,k8s.pod.name=load-7"
            )
        },
        RunOrigin(
            system="opentelemetry",
            job="load all",
            run_id="7",
            task="flights",
            link="https://ci.example.com/7",
            code_version=SHA,
            image="app",
            pod="load-7",
        ),
    ),
}


def test_each_system_has_an_environment():
    """A system that is added to the table gets a case here."""
    assert list(ENVIRONMENTS) == [
        *("airflow", "dagster", "prefect", "databricks", "github", "gitlab", "argo"),
        *("kubernetes", "opentelemetry"),
    ]
    assert {system.name for system in SYSTEMS} == set(ENVIRONMENTS)


@pytest.mark.parametrize("name", ENVIRONMENTS)
def test_a_run_is_described_by_the_variables_of_its_system(name):
    """All values of the system are read, except the name of a user; redaction leaves them unchanged."""
    environ, expected = ENVIRONMENTS[name]
    found = detect(environ, reads_git=False)
    assert found == expected
    assert redacted_origin(found) == expected


@pytest.mark.parametrize(
    ("name", "variable"),
    [
        ("airflow", "AIRFLOW_CTX_DAG_OWNER"),
        ("github", "GITHUB_ACTOR"),
        ("gitlab", "GITLAB_USER_LOGIN"),
    ],
)
def test_the_name_of_a_user_is_read_only_if_a_setting_asks_for_it(name, variable):
    """`DELTAWITNESS_DETECT_AUTHOR` makes it the author."""
    environ = {**ENVIRONMENTS[name][0], variable: "ann"}
    assert OriginOptions.from_environment(environ).origin(environ).author is None
    environ[Env.DETECT_AUTHOR] = "true"
    assert OriginOptions.from_environment(environ).origin(environ).author == "ann"


def test_an_author_that_is_set_takes_precedence_and_is_bounded():
    """It replaces the name of the user that a system gives, and has at most 256 characters."""
    environ = {**ENVIRONMENTS["github"][0], "GITHUB_ACTOR": "ann", Env.DETECT_AUTHOR: "true"}
    environ[Env.AUTHOR] = "team " * 100
    author = OriginOptions.from_environment(environ).origin(environ).author
    assert author == environ[Env.AUTHOR][:256]


@pytest.fixture
def commit(tmp_path, monkeypatch):
    """The commit of a repository with the main script."""
    (tmp_path / ".git/refs/heads").mkdir(parents=True)
    (tmp_path / ".git/HEAD").write_text("ref: refs/heads/main")
    (tmp_path / ".git/refs/heads/main").write_text("ab" * 20)
    (tmp_path / "main.py").touch()
    monkeypatch.setattr(
        sys.modules["__main__"], "__file__", str(tmp_path / "main.py"), raising=False
    )
    return "ab" * 20


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "of the repository"),
        ({Env.DETECT_GIT: "false"}, None),
        ({Env.DETECT_ENVIRONMENT: "false"}, None),
        ({Env.CODE_VERSION: "v7"}, "v7"),
        (ENVIRONMENTS["github"][0], SHA),
        ({"OTEL_RESOURCE_ATTRIBUTES": "service.version=1.2"}, "1.2"),
    ],
    ids=str,
)
def test_the_commit_of_the_repository_is_the_last_resort(commit, given, expected):
    """A setting and the values of systems take precedence over it, and a setting switches it off."""
    found = OriginOptions.from_environment(given).origin(given).code_version
    assert found == (commit if expected == "of the repository" else expected)


def test_a_link_has_all_its_variables():
    """A URL with an empty part would lead to another page."""
    for missing in ("GITHUB_SERVER_URL", "GITHUB_REPOSITORY", "GITHUB_RUN_ID"):
        environ = {**ENVIRONMENTS["github"][0], missing: " "}
        assert detect(environ, reads_git=False).link is None


def test_a_host_without_a_scheme_is_linked_with_https():
    """Databricks gives the host of the workspace with or without a scheme."""
    environ = {**ENVIRONMENTS["databricks"][0], "DATABRICKS_HOST": "adb-7.example.com"}
    assert detect(environ, reads_git=False).link.startswith("https://adb-7.example.com/jobs/")


@pytest.mark.parametrize("value", ["first", "-1", "1.5", "\u00b2", "\u0662"])
def test_an_attempt_is_a_number(value):
    """Any other text is as if it were not set; the rest of the run is read."""
    environ = {**ENVIRONMENTS["github"][0], "GITHUB_RUN_ATTEMPT": value}
    found = detect(environ, reads_git=False)
    assert (found.attempt, found.job) == (None, "Nightly load")


def test_the_variable_also_switches_detection_off_for_settings_in_code(monkeypatch):
    """A program that passes its own settings can be switched off from outside."""
    for name, value in ENVIRONMENTS["github"][0].items():
        monkeypatch.setenv(name, value)
    for word, system in (("false", None), ("true", "github")):
        monkeypatch.setenv(Env.DETECT_ENVIRONMENT, word)
        DeltaLakeInstrumentor().instrument(settings=Settings(detect_environment=True))
        forget_process_run()
        assert current_run().origin.system == system
        DeltaLakeInstrumentor().uninstrument()


def test_the_values_of_a_run_come_from_one_system():
    """A task of Airflow in a pod of a CI job has run, attempt and link of Airflow alone."""
    environ = ENVIRONMENTS["airflow"][0] | ENVIRONMENTS["github"][0]
    environ |= {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "POD_NAME": "worker-1"}
    found = detect(environ, reads_git=False)
    assert (found.system, found.job, found.attempt, found.link) == (
        "airflow",
        "nightly_load",
        2,
        None,
    )
    assert (found.code_version, found.pod) == (SHA, "worker-1")


def test_a_cluster_alone_opens_no_run():
    """A pod, or the runtime of Databricks, says nothing about a job: the job stays the program's."""
    for environ in ({"KUBERNETES_SERVICE_HOST": "x"}, {"DATABRICKS_RUNTIME_VERSION": "16.4"}):
        found = detect(environ, reads_git=False)
        assert found.system in {"kubernetes", "databricks"}
        assert (found.job, found.run_id, found.task) == (None, None, None)


def test_values_are_bounded_and_safe_to_export():
    """Values have at most 256 characters; links lose credentials and query; paths and secrets go."""
    environ = {
        "GITLAB_CI": "true",
        "CI_PIPELINE_NAME": "x" * 1000,
        "CI_PIPELINE_ID": "/home/ann/runs/7",
        "CI_JOB_NAME": "glpat-0123456789abcdefghij",
        "CI_PIPELINE_URL": "https://ann:pw@gitlab.example.com/o/r/7?private_token=s3cret#x",
        "CI_JOB_IMAGE": "ann:pw@registry/app",
        "CI_COMMIT_SHA": "/home/ann/x",
    }
    found = detect(environ, reads_git=False)
    assert len(found.job) == 256
    exported = redacted_origin(found)
    assert exported.link == "https://gitlab.example.com/o/r/7"
    assert (exported.run_id, exported.task, exported.image) == ("[path]", "[secret]", None)
    rest = RunOrigin(job="/home/ann/x", pod="glpat-0123456789abcdefghij", author="pw=/home/ann/x")
    assert redacted_origin(rest).job == "[path]"
    assert redacted_origin(rest).pod == "[secret]"
    assert "ann" not in redacted_origin(rest).author
    assert "ann" not in repr(exported)


@pytest.mark.parametrize(
    ("variable", "value"),
    [("ARGO_TEMPLATE", "{not json"), ("ARGO_TEMPLATE", "[1]"), ("ARGO_TEMPLATE", '{"name": 7}')],
)
def test_an_unreadable_value_is_as_if_it_were_not_set(variable, value):
    """The next variable counts."""
    found = detect({"ARGO_NODE_ID": "n-1", variable: value}, reads_git=False)
    assert found.task == "n-1"


def test_a_workflow_without_a_name_has_that_of_its_file():
    """GitHub gives the path of the file as the name of such a workflow."""
    environ = {"GITHUB_ACTIONS": "true", "GITHUB_WORKFLOW": ".github/workflows/nightly.yml"}
    assert detect(environ, reads_git=False).job == "nightly"


def test_explicit_values_take_precedence(monkeypatch):
    """A job, a version and an author that are set are not overridden by detected ones."""
    for name, value in ENVIRONMENTS["github"][0].items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(Env.DETECT_ENVIRONMENT)
    use_origin_options(None)
    assert current_run().job == "Nightly load"
    with run("chosen") as chosen:
        assert (chosen.job, chosen.origin.job) == ("chosen", "Nightly load")
    forget_process_run()
    monkeypatch.setenv(Env.JOB, "load")
    monkeypatch.setenv(Env.CODE_VERSION, "v7")
    monkeypatch.setenv(Env.AUTHOR, "team lake")
    use_origin_options(None)
    found = current_run()
    assert (found.job, found.origin.code_version, found.origin.author) == (
        "load",
        "v7",
        "team lake",
    )


def test_nothing_is_read_if_it_is_switched_off(monkeypatch):
    """`DELTAWITNESS_DETECT_ENVIRONMENT=false` leaves only what is set explicitly."""
    for name, value in ENVIRONMENTS["github"][0].items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(Env.DETECT_ENVIRONMENT, "false")
    monkeypatch.setenv(Env.CODE_VERSION, "v7")
    use_origin_options(None)
    assert process_origin() == RunOrigin(code_version="v7")


def test_each_task_of_a_process_has_its_own_values(monkeypatch):
    """Airflow sets its variables when a task begins, and may run several tasks in one process."""
    monkeypatch.delenv(Env.DETECT_ENVIRONMENT)
    use_origin_options(None)
    assert current_run().origin.task is None
    for name, value in ENVIRONMENTS["airflow"][0].items():
        monkeypatch.setenv(name, value)
    for task in ("first", "second"):
        monkeypatch.setenv("AIRFLOW_CTX_TASK_ID", task)
        with run("load") as outer, run("part") as inner:
            assert (outer.origin.task, inner.origin.task) == (task, task)


def test_a_run_is_sent_to_other_processes_with_its_origin():
    """Schedulers of workers pass on plain values only."""
    origin = ENVIRONMENTS["github"][1]
    context = RunContext("r-1", "load", origin=origin, message="why")
    values = run_as_values(context, INVALID_SPAN)
    assert json.loads(json.dumps(values)) == values
    assert RunContext(**values) == context
