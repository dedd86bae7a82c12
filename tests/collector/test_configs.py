"""The shipped configurations are valid with their defaults and with each variable set."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from deltawitness import semconv
from helpers.collector_parts import CONFIGS, OTELCOL, PREFIX

CONFIG_FILES = ("config.yaml", "agent-tier.yaml", "gateway-tier.yaml")
VARIABLE = re.compile(rf"\$\{{env:({PREFIX}[A-Z_]+):-([^}}]*)\}}")

OTHER = {
    "true": "false", "false": "true", "silent": "info", "info": "debug",
    "traces.span.metrics": "spans", "baseline": "salted",
}  # fmt: skip
"""Another value for one that is no number, no duration and no address."""


def other(default):
    """Return a valid value that differs from the default."""
    if default in OTHER:
        return OTHER[default]
    if re.fullmatch(r"\d+", default):
        return str(int(default) + 1)
    if re.fullmatch(r"\d+[smh]", default):
        return f"1{default}"
    return "localhost:40404" if ":" in default else f"{default}0"


def validate(config, **variables):
    return subprocess.run(
        [OTELCOL, "validate", "--config", str(CONFIGS / config)],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )


def cases():
    for config in CONFIG_FILES:
        found = dict(VARIABLE.findall((CONFIGS / config).read_text()))
        for name, default in sorted(found.items()):
            yield pytest.param(config, name, default, id=f"{config}-{name.removeprefix(PREFIX)}")


@pytest.mark.parametrize("config", CONFIG_FILES)
def test_a_configuration_is_valid_with_its_defaults(config, tmp_path):
    """Only the variable for the queue's folder is set."""
    done = validate(config, **{f"{PREFIX}QUEUE_DIR": str(tmp_path)})
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("config", "name", "default"), list(cases()))
def test_a_configuration_is_valid_with_each_variable_set(config, name, default, tmp_path):
    """Each variable has a value other than its default."""
    value = other(default)
    assert value != default
    if name.endswith(("_DIR", "CA_FILE")):
        value = str(tmp_path)
    done = validate(config, **{f"{PREFIX}QUEUE_DIR": str(tmp_path), name: value})
    assert done.returncode == 0, done.stderr


def test_a_wrong_value_is_refused(tmp_path):
    """The validation can fail."""
    done = validate(
        "config.yaml", **{f"{PREFIX}QUEUE_DIR": str(tmp_path), f"{PREFIX}SLOW_MS": "soon"}
    )
    assert done.returncode != 0


@pytest.mark.parametrize("config", CONFIG_FILES)
def test_a_configuration_listens_on_this_machine_alone(config):
    """By default each receiver listens on loopback only."""
    for name, default in VARIABLE.findall((CONFIGS / config).read_text()):
        if name.endswith(("ENDPOINT", "SELF_HOST")):
            assert default.split(":")[0] == "localhost", name


@pytest.mark.parametrize("config", CONFIG_FILES)
def test_every_pipeline_limits_memory_and_redacts_before_anything_else(config):
    """External input is limited, then redacted; the output of span metrics is redacted again."""
    read = yaml.safe_load((CONFIGS / config).read_text())
    assert not [name for name in read["processors"] if name.startswith("batch")]
    first = [
        "memory_limiter",
        "transform/stash",
        "redaction/keys",
        "redaction",
        "transform/unstash",
    ]
    behind = {
        # Data from another pipeline were redacted where they were received.
        "forward/sampling": ["tail_sampling", "filter/rest"],
        "forward/matters": ["filter/matters"],
        "forward/cumulative": ["filter/cumulative"],
        "forward/deltas": ["filter/deltas", "transform/one_series"],
        "forward/tables": ["filter/tables", "transform/tables"],
    }
    of_spans = ["redaction", "transform/table_rows", "filter/table_rows", "transform/series_start"]
    for pipeline in read["service"]["pipelines"].values():
        for receiver in pipeline["receivers"]:
            if receiver.startswith("otlp"):
                assert pipeline["processors"][: len(first)] == first
            elif receiver.startswith("span_metrics"):
                assert pipeline["processors"] == of_spans
            else:
                assert pipeline["processors"] == behind[receiver]


@pytest.mark.parametrize("config", ["config.yaml", "gateway-tier.yaml"])
def test_a_span_is_exported_beside_the_sampler_or_behind_it(config):
    """What the one filter drops, the other one passes."""
    read = yaml.safe_load((CONFIGS / config).read_text())["processors"]
    (matters,) = read["filter/matters"]["trace_conditions"]
    assert matters == f"not ({' or '.join(read['filter/rest']['trace_conditions'])})"


@pytest.mark.parametrize("config", ["config.yaml", "gateway-tier.yaml"])
def test_increments_are_added_up_in_order(config):
    """One consumer sends them to the pipeline that gives them their time, and series outlive the gaps."""
    read = yaml.safe_load((CONFIGS / config).read_text())
    assert read["exporters"]["otlp_grpc/deltas"]["sending_queue"]["num_consumers"] == 1
    adding = read["service"]["pipelines"]["metrics/sums"]["processors"][-3:]
    assert adding == ["transform/time_of_addition", "delta_to_cumulative", "transform/series_start"]
    hours = {
        name: int(default.removesuffix("h"))
        for name, default in VARIABLE.findall((CONFIGS / config).read_text())
        if default.endswith("h") and "SUMS" in name
    }
    # A stream that is forgotten while its series is shown would begin again below it.
    assert hours[f"{PREFIX}SUMS_EXPIRATION"] < hours[f"{PREFIX}SUMS_MAX_STALE"]


def test_a_backend_for_traces_gets_no_metrics_and_no_logs(tmp_path):
    """The file that compose.yaml lays over the configuration is valid with it."""
    overlay = CONFIGS / "traces-backend.yaml"
    done = subprocess.run(
        [OTELCOL, "validate", "--config", str(CONFIGS / "config.yaml"), "--config", str(overlay)],
        env={**os.environ, f"{PREFIX}QUEUE_DIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    full = yaml.safe_load((CONFIGS / "config.yaml").read_text())["service"]["pipelines"]
    laid = yaml.safe_load(overlay.read_text())["service"]["pipelines"]
    for name, pipeline in full.items():
        exporters = laid.get(name, pipeline)["exporters"]
        if not name.startswith("traces"):
            assert "otlp_grpc/backend" not in exporters
            without = [one for one in pipeline["exporters"] if one != "otlp_grpc/backend"]
            assert exporters == (without or ["debug"])


def test_the_strict_list_names_every_attribute_of_the_library():
    """An attribute that is added to the library has to be added to the list."""
    read = yaml.safe_load((CONFIGS / "config.yaml").read_text())
    allowed = set(read["processors"]["redaction/strict"]["allowed_keys"])
    source = Path(semconv.__file__).read_text().split("# --- span and log attributes")[1]
    named = set(
        re.findall(r'Final = "([a-z_]+(?:\.[a-z_]+)+)"\n', source.split("# --- instruments")[0])
    )
    assert len(named) > 40
    assert named <= allowed


def test_the_builder_lists_exactly_the_components_that_are_used():
    """The binary has no component beyond those of the configurations and their tests."""
    built = yaml.safe_load((CONFIGS / "builder-config.yaml").read_text())
    of = {
        kind: {entry["gomod"].split()[0].rsplit("/", 1)[1] for entry in built[kind]}
        for kind in ("receivers", "processors", "connectors", "exporters", "extensions")
    }
    used = {kind: set() for kind in of}
    for config in (*CONFIG_FILES, "traces-backend.yaml"):
        read = yaml.safe_load((CONFIGS / config).read_text())
        for kind, names in used.items():
            names |= {name.split("/")[0].replace("_", "") for name in read.get(kind, {})}
    module = {
        "otlp": {"receivers": "otlpreceiver"},
        "otlpgrpc": {"exporters": "otlpexporter"},
        "forward": {"connectors": "forwardconnector"},
        "healthcheck": {"extensions": "healthcheckextension"},
        "filestorage": {"extensions": "filestorage"},
    }
    for kind, names in used.items():
        wanted = {module.get(name, {}).get(kind, f"{name}{kind[:-1]}") for name in names}
        assert of[kind] == wanted, kind
