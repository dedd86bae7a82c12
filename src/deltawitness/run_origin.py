"""Where a run runs: its job, run, attempt, task, commit, image and link, from environment variables.

:data:`SYSTEMS` is the only table of the variables. They are read for the first run, and again if one of
them changes. All values that describe a run, such as its job, are from the first detected system that has
one of them, because values of two systems describe different runs. Each value about the program, such as
its commit or its image, is from the first detected system that has it.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from urllib.parse import unquote

from deltawitness.repository import git_commit, main_directory
from deltawitness.semconv import (
    CICD_PIPELINE_NAME,
    CICD_PIPELINE_RUN_ID,
    CICD_PIPELINE_RUN_URL_FULL,
    CICD_PIPELINE_TASK_NAME,
    CONTAINER_IMAGE_NAME,
    K8S_POD_NAME,
    RESOURCE_K8S_JOB_NAME,
    RESOURCE_SERVICE_VERSION,
    VCS_REF_HEAD_REVISION,
    Env,
    OtelEnv,
    parse_flag,
)

__all__ = [
    "NO_ORIGIN",
    "SYSTEMS",
    "OriginOptions",
    "RunOrigin",
    "System",
    "detect",
    "process_origin",
    "use_origin_options",
]

VALUE_LIMIT = 256
"""Maximum characters of a value; longer ones are truncated."""

_TEMPLATE_LIMIT = 1 << 16
"""Maximum characters of a JSON text that is parsed for a value."""


@dataclass(frozen=True, slots=True)
class RunOrigin:
    """Where a run runs. A value that is not known is None.

    Attributes:
        system: name of the system that describes the run, as in :data:`SYSTEMS`.
        job: name of the job: a DAG, a flow, a workflow, a pipeline.
        run_id: id of the run in the system.
        attempt: number of the attempt, as the system counts.
        task: name of the task in the run.
        link: URL of the run, without credentials and query.
        code_version: commit or version of the program.
        image: image of the container.
        pod: name of the Kubernetes pod.
        author: who the writes are made for. The name of a user only if `detect_author` is set.
    """

    system: str | None = None
    job: str | None = None
    run_id: str | None = None
    attempt: int | None = None
    task: str | None = None
    link: str | None = None
    code_version: str | None = None
    image: str | None = None
    pod: str | None = None
    author: str | None = None


NO_ORIGIN = RunOrigin()

Variables = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class System:
    """The environment variables of one system; of several, the first that is set is taken.

    Attributes:
        name: name of the system.
        detected_by: variables of which one is set wherever the system runs a program.
        job: name of the job.
        run_id: id of the run.
        attempt: number of the attempt.
        task: name of the task.
        link: templates of the run's URL, with variables in braces.
        code_version: commit or version of the program.
        image: image of the container.
        pod: name of the pod.
        author: name of a user.
    """

    name: str
    detected_by: Variables
    job: Variables = ()
    run_id: Variables = ()
    attempt: Variables = ()
    task: Variables = ()
    link: Variables = ()
    code_version: Variables = ()
    image: Variables = ()
    pod: Variables = ()
    author: Variables = ()


_OTEL = "otel:"
"""Prefix under which attributes of `OTEL_RESOURCE_ATTRIBUTES` are looked up like variables."""

SYSTEMS: tuple[System, ...] = (
    System(
        "airflow",
        ("AIRFLOW_CTX_DAG_ID",),
        job=("AIRFLOW_CTX_DAG_ID",),
        run_id=("AIRFLOW_CTX_DAG_RUN_ID",),
        attempt=("AIRFLOW_CTX_TRY_NUMBER",),
        task=("AIRFLOW_CTX_TASK_ID",),
        author=("AIRFLOW_CTX_DAG_OWNER",),
    ),
    System(
        "dagster",
        ("DAGSTER_RUN_JOB_NAME",),
        job=("DAGSTER_RUN_JOB_NAME",),
        run_id=("DAGSTER_RUN_ID",),
        task=("DAGSTER_RUN_STEP_KEY",),
        code_version=("DAGSTER_CLOUD_GIT_SHA",),
        image=("DAGSTER_CURRENT_IMAGE",),
    ),
    System(
        "prefect",
        ("PREFECT__FLOW_RUN_ID",),
        job=("PREFECT__FLOW_NAME", "PREFECT__DEPLOYMENT_NAME"),
        run_id=("PREFECT__FLOW_RUN_ID",),
        link=("{PREFECT_UI_URL}/runs/flow-run/{PREFECT__FLOW_RUN_ID}",),
    ),
    System(
        "databricks",
        ("DATABRICKS_RUNTIME_VERSION",),
        job=("DATABRICKS_JOB_NAME", "DATABRICKS_JOB_ID"),
        run_id=("DATABRICKS_JOB_RUN_ID",),
        attempt=("DATABRICKS_TASK_EXECUTION_COUNT",),
        task=("DATABRICKS_TASK_NAME",),
        link=("{DATABRICKS_HOST}/jobs/{DATABRICKS_JOB_ID}/runs/{DATABRICKS_JOB_RUN_ID}",),
    ),
    System(
        "github",
        ("GITHUB_ACTIONS",),
        job=("GITHUB_WORKFLOW",),
        run_id=("GITHUB_RUN_ID",),
        attempt=("GITHUB_RUN_ATTEMPT",),
        task=("GITHUB_JOB",),
        link=("{GITHUB_SERVER_URL}/{GITHUB_REPOSITORY}/actions/runs/{GITHUB_RUN_ID}",),
        code_version=("GITHUB_SHA",),
        author=("GITHUB_ACTOR",),
    ),
    System(
        "gitlab",
        ("GITLAB_CI",),
        job=("CI_PIPELINE_NAME", "CI_PROJECT_NAME"),
        run_id=("CI_PIPELINE_ID",),
        task=("CI_JOB_NAME",),
        link=("{CI_PIPELINE_URL}",),
        code_version=("CI_COMMIT_SHA",),
        image=("CI_JOB_IMAGE",),
        author=("GITLAB_USER_LOGIN",),
    ),
    System(
        "argo",
        ("ARGO_WORKFLOW_NAME", "ARGO_NODE_ID"),
        run_id=("ARGO_WORKFLOW_NAME",),
        task=("ARGO_TEMPLATE", "ARGO_NODE_ID"),
        pod=("ARGO_POD_NAME",),
    ),
    System(
        "kubernetes",
        ("KUBERNETES_SERVICE_HOST",),
        job=("K8S_JOB_NAME",),
        task=("JOB_COMPLETION_INDEX",),
        pod=("POD_NAME", "K8S_POD_NAME", "HOSTNAME"),
    ),
    System(
        "opentelemetry",
        (OtelEnv.RESOURCE_ATTRIBUTES,),
        job=(_OTEL + CICD_PIPELINE_NAME, _OTEL + RESOURCE_K8S_JOB_NAME),
        run_id=(_OTEL + CICD_PIPELINE_RUN_ID,),
        task=(_OTEL + CICD_PIPELINE_TASK_NAME,),
        link=(f"{{{_OTEL}{CICD_PIPELINE_RUN_URL_FULL}}}",),
        code_version=(_OTEL + VCS_REF_HEAD_REVISION, _OTEL + RESOURCE_SERVICE_VERSION),
        image=(_OTEL + CONTAINER_IMAGE_NAME,),
        pod=(_OTEL + K8S_POD_NAME,),
    ),
)
"""The systems and their variables, in the order of precedence.

Schedulers come first: they run inside of a CI system or a cluster more often than the reverse.
Databricks sets only `DATABRICKS_RUNTIME_VERSION`, and Kubernetes only `KUBERNETES_SERVICE_HOST`,
`HOSTNAME` and, in an indexed job, `JOB_COMPLETION_INDEX`: the other variables are conventions, to be set
from dynamic value references and from the Downward API.
"""

_OF_RUN = ("job", "run_id", "task")
"""Fields that describe a run: one system gives all of them, and the attempt and the link."""

_OF_PROGRAM = ("code_version", "image", "pod")
"""Fields that describe the program: each from the first system that has it."""


def detect(
    environ: Mapping[str, str], *, reads_author: bool = False, reads_git: bool = True
) -> RunOrigin:
    """Return where this process runs, from environment variables.

    Args:
        environ: the variables.
        reads_author: also read the name of the user that a system gives.
        reads_git: where no system gives a commit, read it from the repository of the main script.
    """
    variables = {**environ, **_resource(environ.get(OtelEnv.RESOURCE_ATTRIBUTES, ""))}
    found = [system for system in SYSTEMS if any(map(environ.get, system.detected_by))]
    values: dict[str, str | int | None] = {
        name: next(filter(None, (_first(variables, getattr(each, name)) for each in found)), None)
        for name in (*_OF_PROGRAM, *(("author",) if reads_author else ()))
    }
    for system in found:
        of_run = {name: _first(variables, getattr(system, name)) for name in _OF_RUN}
        if any(of_run.values()):
            link = _link(variables, system.link)
            attempt = _attempt(_first(variables, system.attempt))
            values |= {"system": system.name, **of_run, "attempt": attempt, "link": link}
            break
    else:
        values["system"] = found[0].name if found else None
    if reads_git and values["code_version"] is None:
        values["code_version"] = _commit_of_program()
    return RunOrigin(**values)  # type: ignore[arg-type]  # the names are those of the fields


def _commit_of_program() -> str | None:
    try:
        return git_commit(main_directory())
    except OSError:
        return None  # the working directory was deleted


def _first(variables: Mapping[str, str], names: Variables) -> str | None:
    for name in names:
        value = variables.get(name, "").strip()
        parse = _PARSERS.get(name)
        if value and parse is not None:
            value = parse(value)
        if value:
            return value[:VALUE_LIMIT]
    return None


def _workflow_name(value: str) -> str:
    """Return the name of a workflow of GitHub; a workflow without a name has the path of its file.

    >>> _workflow_name(".github/workflows/nightly.yml"), _workflow_name("Build and test")
    ('nightly', 'Build and test')
    """
    is_path = value.startswith(".github/")
    return value.rpartition("/")[2].partition(".")[0] if is_path else value


def _template_name(value: str) -> str:
    """Return the name of an Argo template, which the variable has as JSON; empty if it has none."""
    try:
        template = json.loads(value) if len(value) <= _TEMPLATE_LIMIT else None
    except ValueError:
        return ""
    name = template.get("name") if isinstance(template, dict) else None
    return name if isinstance(name, str) else ""


_PARSERS: Mapping[str, Callable[[str], str]] = {
    "GITHUB_WORKFLOW": _workflow_name,
    "ARGO_TEMPLATE": _template_name,
}


def _attempt(value: str | None) -> int | None:
    return int(value) if value is not None and value.isascii() and value.isdigit() else None


def _link(variables: Mapping[str, str], templates: Variables) -> str | None:
    """Return the first template whose variables are all set, with their values."""
    for template in templates:
        parts = template.split("{")
        names = [part.partition("}") for part in parts[1:]]
        values = [variables.get(name, "").strip() for name, _, _ in names]
        if all(values):
            rest = (value + text for value, (_, _, text) in zip(values, names, strict=True))
            url = parts[0] + "".join(rest)
            return url if "://" in url else f"https://{url}"
    return None


def _resource(text: str) -> dict[str, str]:
    """Return the attributes of `OTEL_RESOURCE_ATTRIBUTES` under names that the table uses.

    >>> _resource("service.version=1.2, k8s.pod.name=load%2D7")
    {'otel:service.version': '1.2', 'otel:k8s.pod.name': 'load-7'}
    """
    pairs = (pair.partition("=") for pair in text.split(",") if "=" in pair)
    return {f"{_OTEL}{name.strip()}": unquote(value.strip()) for name, _, value in pairs}


# --- the origin of this process ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class OriginOptions:
    """What is read of the environment, and the values that settings give.

    Attributes:
        is_detected: read the variables of schedulers and CI systems, and the commit of Git.
        reads_author: also read the name of the user that a system gives.
        reads_git: read the commit of the main script's repository.
        code_version: the version that a setting gives.
        author: the author that a setting gives.
    """

    is_detected: bool = True
    reads_author: bool = False
    reads_git: bool = True
    code_version: str | None = None
    author: str | None = None

    @classmethod
    def from_environment(cls, environ: Mapping[str, str]) -> OriginOptions:
        """Return the options that the environment sets; an invalid flag counts as unset.

        `Settings.from_env` raises for an invalid flag.
        """
        return cls(
            is_detected=_flag(environ, Env.DETECT_ENVIRONMENT, default=True),
            reads_author=_flag(environ, Env.DETECT_AUTHOR, default=False),
            reads_git=_flag(environ, Env.DETECT_GIT, default=True),
            code_version=environ.get(Env.CODE_VERSION) or None,
            author=environ.get(Env.AUTHOR) or None,
        )

    def origin(self, environ: Mapping[str, str]) -> RunOrigin:
        """Return where this process runs. Values of settings take precedence over detected ones."""
        origin = NO_ORIGIN
        if self.is_detected:
            reads_git = self.reads_git and self.code_version is None
            origin = detect(environ, reads_author=self.reads_author, reads_git=reads_git)
        return replace(
            origin,
            code_version=(self.code_version or origin.code_version or "")[:VALUE_LIMIT] or None,
            author=(self.author or origin.author or "")[:VALUE_LIMIT] or None,
        )


def _names_in(names: Variables) -> list[str]:
    """Return the environment variables of a cell of the table.

    >>> _names_in(("{PREFECT_UI_URL}/runs/flow-run/{PREFECT__FLOW_RUN_ID}", "otel:k8s.pod.name"))
    ['PREFECT_UI_URL', 'PREFECT__FLOW_RUN_ID']
    """
    found = [re.findall(r"{([^}]*)}", name) if "{" in name else [name] for name in names]
    return [name for each in found for name in each if not name.startswith(_OTEL)]


def _flag(environ: Mapping[str, str], name: Env, *, default: bool) -> bool:
    value = parse_flag(environ.get(name, ""))
    return default if value is None else value


_VARIABLES = tuple(
    dict.fromkeys(
        name
        for system in SYSTEMS
        for each in fields(System)[1:]
        for name in _names_in(getattr(system, each.name))
    )
)
"""Every variable of the table."""

_origin: tuple[tuple[str | None, ...], RunOrigin] | None = None
_options: OriginOptions | None = None


def process_origin() -> RunOrigin:
    """Return where this process runs.

    The result is cached while no variable of the table changes: Airflow sets its variables in the
    process when a task begins, and a process may run several tasks.
    """
    global _origin  # noqa: PLW0603 - a cache of the process
    values = tuple(map(os.environ.get, _VARIABLES))
    if _origin is None or _origin[0] != values:
        options = _options or OriginOptions.from_environment(os.environ)
        _origin = values, options.origin(os.environ)
    return _origin[1]


def use_origin_options(options: OriginOptions | None) -> None:
    """Read the origin of later runs with other options; with None, with those of the environment."""
    global _origin, _options
    _origin, _options = None, options
