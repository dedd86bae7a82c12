"""Settings are validated before anything is written, and errors name the valid values."""

from __future__ import annotations

import pytest

from deltawitness import Settings
from deltawitness.exceptions import ConfigurationError
from deltawitness.semconv import Env
from deltawitness.settings import DiagnosticsChoice, TableNames

VALID = {
    Env.DIAGNOSTICS_SINK: ("both", "diagnostics_sink", DiagnosticsChoice.BOTH),
    Env.TABLE_ID_KEY: ("k", "table_id_key", b"k"),
    Env.USER_METADATA: ("off", "user_metadata", False),
    Env.DELIVERY_INTERVAL: ("0.5", "delivery_interval", 0.5),
    Env.QUEUE_SIZE: ("7", "queue_size", 7),
    Env.SINK_TIMEOUT: ("2", "sink_timeout", 2.0),
    Env.COMPACTION_WAIT: ("0", "compaction_wait", 0.0),
    Env.CAPTURE_PHASES: ("on", "capture_phases", True),
    Env.LANDED_TAIL: ("9", "landed_tail", 9),
    Env.TABLE_NAMES: ("metadata", "table_names", TableNames.METADATA),
    Env.EXPECTATIONS: ("/rules.toml", "expectations", "/rules.toml"),
}

INVALID = {
    Env.DIAGNOSTICS_SINK: ("file", "otel, memory, both, none"),
    Env.USER_METADATA: ("maybe", "true, false"),
    Env.DELIVERY_INTERVAL: ("0", "greater than 0"),
    Env.QUEUE_SIZE: ("many", "integer"),
    Env.SINK_TIMEOUT: ("4e3", "at most 3600"),
    Env.COMPACTION_WAIT: ("-1", "from 0 to 3600"),
    Env.CAPTURE_PHASES: ("maybe", "true, false"),
    Env.LANDED_TAIL: ("0", "from 1 to"),
    Env.TABLE_NAMES: ("full", "path, metadata, none"),
    Env.EXPECTATIONS: ("s3://lake/rules.toml", "a local file"),
}


@pytest.mark.parametrize("variable", VALID)
def test_each_variable_sets_its_field(variable):
    """The text of a variable is converted to the field's type."""
    text, name, expected = VALID[variable]
    assert getattr(Settings.from_env({variable: text}), name) == expected


@pytest.mark.parametrize("variable", INVALID)
def test_each_invalid_value_is_an_error_that_names_variable_and_values(variable):
    """The message does not contain the invalid value, which may be a secret."""
    text, allowed = INVALID[variable]
    with pytest.raises(ConfigurationError, match=f"{variable}: expected.*{allowed}"):
        Settings.from_env({variable: text})


def test_values_given_in_code_follow_the_same_rules():
    """An argument is validated as a variable is."""
    assert Settings(table_id_key=b"k").table_id_key == b"k"
    with pytest.raises(ConfigurationError, match="DELTAWITNESS_QUEUE_SIZE"):
        Settings(queue_size=0)
    with pytest.raises(ConfigurationError, match="DELTAWITNESS_DELIVERY_INTERVAL"):
        Settings.from_env({Env.DELIVERY_INTERVAL: "soon"})


def test_without_variables_the_defaults_hold():
    """The defaults apply, and `repr()` does not show the table id key."""
    assert Settings.from_env({}) == Settings()
    assert "secret" not in repr(Settings(table_id_key=b"secret"))


def test_the_variables_of_settings_give_the_same_settings():
    """Another process gets the settings by them; those with their default have no variable."""
    settings = Settings(
        cache_root="/lake",
        drain_interval=0.5,
        ledger=False,
        queue_size=7,
        require=("run", "message"),
        storage_options={"AWS_REGION": "north"},
        table_id_key=b"secret",
        table_names="none",
    )
    assert Settings.from_env(settings.environment()) == settings
    assert len(settings.environment()) == 8
    assert Settings().environment() == {}
    with pytest.raises(ConfigurationError, match="DELTAWITNESS_TABLE_ID_KEY"):
        Settings(table_id_key=b"\xff").environment()
