"""The description for a bug report has versions, seams, settings and the ledger, and no secret."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import asdict, fields
from importlib.metadata import version

import pyarrow as pa
import pytest
from deltalake import write_deltalake

from deltawitness import (
    DeltaLakeInstrumentor,
    InfoResult,
    SeamState,
    SeamStatus,
    Settings,
    SettingSource,
    info,
)
from deltawitness.delta_rs.seam_states import seam_states
from deltawitness.distributions import installed_version
from deltawitness.semconv import WITNESS_VERSION, Env

CANARY = "cAnArY-7f3b"
SECRETS = {
    "DELTAWITNESS_ROOT": f"s3://{CANARY}-key:{CANARY}@{CANARY}-bucket/lake?sig={CANARY}",
    "DELTAWITNESS_TABLE_ID_KEY": CANARY,
    "DELTAWITNESS_STORAGE_OPTIONS": f'{{"aws_secret_access_key": "{CANARY}"}}',
    "DELTAWITNESS_SPOOL_DIR": f"/tmp/{CANARY}/spool",
    "DELTAWITNESS_JOB": f"job {CANARY}",
    "DELTAWITNESS_AUTHOR": CANARY,
    "DELTAWITNESS_MESSAGE": CANARY,
    "DELTAWITNESS_CACHE_KEY": CANARY,
    "DELTAWITNESS_MISSPELT": CANARY,
    "OTEL_EXPORTER_OTLP_ENDPOINT": f"https://{CANARY}:{CANARY}@otel.example:4318/v1?token={CANARY}",
    "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{CANARY}@otel.example:4317",
    "OTEL_EXPORTER_OTLP_HEADERS": f"authorization=Bearer {CANARY},{CANARY}",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS": f"api-key={CANARY}",
    "OTEL_EXPORTER_OTLP_CERTIFICATE": f"/etc/{CANARY}.pem",
    "OTEL_RESOURCE_ATTRIBUTES": f"service.name={CANARY},team={CANARY}",
    "OTEL_TRACES_EXPORTER": f"secret={CANARY}",
    "OTEL_SOMETHING_NEW": CANARY,
    "TRACEPARENT": f"00-{CANARY}",
}


def setting(result, variable):
    """Return the state of one setting."""
    (found,) = [each for each in result.settings if each.variable == variable]
    return found


def test_the_versions_are_those_of_the_installed_packages():
    """A requirement, an extra's package and the interpreter are in the list."""
    found = info().versions
    assert found["deltawitness"] == WITNESS_VERSION
    assert found["Python"] == ".".join(map(str, sys.version_info[:3]))
    for name in ("deltalake", "datafusion", "pyarrow", "opentelemetry-sdk", "wrapt", "rich"):
        assert found[name] == version(name), name


def test_a_package_that_is_not_installed_has_no_version():
    """A missing package gives None, so that the page can name it."""
    assert installed_version("no-such-package-at-all") is None


def test_each_extra_lists_its_packages():
    """The metadata of the installed distribution name them."""
    found = info().extras
    assert found["cli"] == {name: version(name) for name in ("rich", "typer")}
    assert "opentelemetry-sdk" in found["otel"]
    assert "deltawitness" not in {name for extra in found.values() for name in extra}


def test_each_seam_of_the_installed_engine_is_listed():
    """The list is that of the instrumentation, and every seam is on in the newest release."""
    found = info().seams
    assert found == seam_states()
    assert f"seams:\n  {len(found)} of {len(found)} on\n" in str(info())


def test_a_seam_that_is_not_on_has_its_reason_on_the_page():
    """The other seams are only counted."""
    absent = SeamStatus("deltalake.nothing", SeamState.ABSENT, "not in deltalake 1.0.2", "1.3.0")
    page = str(InfoResult(seams=(absent, SeamStatus("deltalake.write", SeamState.ON))))
    assert "1 of 2 on\n  deltalake.nothing  absent: not in deltalake 1.0.2\n" in page


def test_the_state_of_each_instrumentor_is_shown(monkeypatch):
    """An active, an available and a disabled one are told apart."""
    assert info().instrumentation == {"deltalake": "available", "datafusion": "available"}
    monkeypatch.setenv("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS", "datafusion")
    DeltaLakeInstrumentor().instrument()
    assert info().instrumentation == {
        "deltalake": "active",
        "datafusion": "off: OTEL_PYTHON_DISABLED_INSTRUMENTATIONS",
    }


def test_an_engine_outside_the_range_is_named(monkeypatch):
    """The reason has the requirement and the installed version."""
    monkeypatch.setattr(
        DeltaLakeInstrumentor, "instrumentation_dependencies", lambda _: ("deltalake >= 99",)
    )
    found = info().instrumentation["deltalake"]
    assert found.startswith("off: needs deltalake >= 99, found deltalake ")


# --- settings and variables --------------------------------------------------------------------------


def test_every_setting_has_its_value_and_source(monkeypatch):
    """Defaults, the environment and code are told apart."""
    monkeypatch.setenv(Env.QUEUE_SIZE, "77")
    result = info()
    assert [each.variable for each in result.settings] == [
        each.metadata["variable"].value for each in fields(Settings)
    ]
    queue = setting(result, "DELTAWITNESS_QUEUE_SIZE")
    assert (queue.value, queue.source) == ("77", SettingSource.ENVIRONMENT)
    tail = setting(result, "DELTAWITNESS_LANDED_TAIL")
    assert (tail.value, tail.source) == ("64", SettingSource.DEFAULT)
    DeltaLakeInstrumentor().instrument(settings=Settings(queue_size=78, user_metadata=False))
    result = info()
    queue = setting(result, "DELTAWITNESS_QUEUE_SIZE")
    assert (queue.value, queue.source) == ("78", SettingSource.CODE)
    metadata = setting(result, "DELTAWITNESS_USER_METADATA")
    assert (metadata.value, metadata.source) == ("false", SettingSource.CODE)


def test_an_invalid_setting_hides_no_other(monkeypatch):
    """The problem names the valid values; the other settings and the ledger are shown."""
    monkeypatch.setenv(Env.QUEUE_SIZE, "many")
    monkeypatch.setenv(Env.LANDED_TAIL, "5")
    result = info()
    queue = setting(result, "DELTAWITNESS_QUEUE_SIZE")
    assert queue.value is None
    assert queue.problem == "DELTAWITNESS_QUEUE_SIZE: expected an integer from 1 to 10000000"
    assert setting(result, "DELTAWITNESS_LANDED_TAIL").value == "5"
    assert result.ledger is not None
    assert result.problems == {}


def test_two_different_roots_are_a_problem_of_the_setting(monkeypatch):
    """Both names of the cache root are in the message."""
    monkeypatch.setenv(Env.ROOT, "a")
    monkeypatch.setenv(Env.CACHE_ROOT, "b")
    problem = setting(info(), "DELTAWITNESS_CACHE_ROOT").problem
    assert Env.ROOT in problem
    assert Env.CACHE_ROOT in problem


@pytest.mark.parametrize("paths", [False, True])
def test_no_secret_is_shown(monkeypatch, paths):
    """Credentials, headers, keys and values of unknown variables are masked, in the page and in the values."""
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    result = info(paths=paths)
    shown = f"{result}\n{asdict(result)}"
    if paths:  # locations are shown, and only they
        shown = shown.replace(f"{CANARY}-bucket", "").replace(f"/tmp/{CANARY}/spool", "")
    assert CANARY not in shown
    named = {*result.variables, *(each.variable for each in result.settings)}
    assert set(SECRETS) - named == {"DELTAWITNESS_ROOT"}, "it is shown under its older name"
    assert result.variables["OTEL_EXPORTER_OTLP_ENDPOINT"] == "https://otel.example:4318/v1"
    assert result.variables["OTEL_EXPORTER_OTLP_TRACES_HEADERS"] == "api-key=[secret]"
    assert result.problems == {}


def test_the_chosen_exporters_are_marked(monkeypatch):
    """A chosen exporter that is not installed is missing."""
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "console,nosuch")
    found = info().exporters["traces"]
    assert (found["console"], found["nosuch"]) == ("chosen", "missing")
    assert "nosuch (missing)" in str(info())


# --- the ledger --------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_ledger_has_its_kind_tables_and_segments(tmp_path, monkeypatch):
    """While a process has not drained, its spool has a segment; afterwards the tables exist."""
    monkeypatch.setenv(Env.CACHE_ROOT, str(tmp_path / "root"))
    nothing = info().ledger
    assert (nothing.kind, nothing.is_enabled, nothing.tables) == ("local", True, ())
    assert (nothing.spools, nothing.segments, nothing.spool_bytes, nothing.oldest) == (
        0,
        0,
        0,
        None,
    )
    DeltaLakeInstrumentor().instrument(
        settings=Settings(cache_root=str(tmp_path / "root"), drain_interval=3600)
    )
    write_deltalake(str(tmp_path / "t"), pa.table({"x": [1]}))
    waiting = info().ledger
    assert (waiting.spools, waiting.segments) == (1, 1)
    assert waiting.spool_bytes > 0
    assert waiting.oldest is not None
    DeltaLakeInstrumentor().uninstrument()
    drained = info().ledger
    assert "cache_inventory_v1" in drained.tables
    assert drained.segments == 0


@pytest.mark.slow
def test_paths_are_shown_on_request(tmp_path, monkeypatch):
    """Without `paths` only the kind of the root is shown."""
    monkeypatch.setenv(Env.CACHE_ROOT, str(tmp_path))
    assert str(tmp_path) not in f"{info()}{asdict(info())}"
    assert info(paths=True).ledger.root == str(tmp_path)
    assert setting(info(paths=True), "DELTAWITNESS_CACHE_ROOT").value == str(tmp_path)


def test_a_remote_ledger_is_not_contacted(monkeypatch):
    """Its tables are unknown, and nothing waits for the network."""
    found = info(root="s3://no-such-bucket/lake").ledger
    assert (found.kind, found.tables, found.root) == ("s3", None, None)


def test_a_part_that_cannot_be_read_does_not_hide_the_others(tmp_path, monkeypatch):
    """Its reason is in `problems` and on the page, without the path."""
    spool = tmp_path / "root" / "cache_spool"
    spool.mkdir(parents=True)
    (spool / "v1-broken").write_text("a file where a folder belongs")
    monkeypatch.setenv(Env.CACHE_ROOT, str(tmp_path / "root"))
    result = info()
    assert result.ledger is None
    assert result.problems.keys() == {"ledger"}
    assert str(tmp_path) not in result.problems["ledger"]
    assert "ledger:\n  cannot be read: NotADirectoryError" in str(result)
    assert result.versions["deltalake"]


@pytest.mark.slow
def test_a_package_that_cannot_be_imported_is_a_problem_of_its_part():
    """The page of a broken environment says so, and shows the versions."""
    program = (
        "import sys; sys.modules['opentelemetry.instrumentation.dependencies'] = None\n"
        "import deltawitness; r = deltawitness.info(); print(sorted(r.problems), bool(r.versions))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, env=os.environ
    )
    assert done.stdout == "['instrumentation'] True\n", done.stderr
