"""The settings of deltawitness: an immutable object, passed as an argument or read from the environment."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import Path
from typing import Any, Self, TypeVar

from deltawitness.exceptions import ConfigurationError
from deltawitness.locations import local_path
from deltawitness.semconv import Env, parse_flag

__all__ = [
    "DiagnosticsChoice",
    "LedgerMessages",
    "LedgerMode",
    "Requirement",
    "ReservedKeys",
    "Settings",
    "TableNames",
    "settings_in_use",
    "use_settings",
]

E = TypeVar("E", bound=StrEnum)

_logger = logging.getLogger(__name__)


class DiagnosticsChoice(StrEnum):
    """Destination of diagnostic artifacts and events."""

    OTEL = "otel"
    MEMORY = "memory"
    BOTH = "both"
    NONE = "none"


class ReservedKeys(StrEnum):
    """Handling of a caller's commit key that breaks readers of the Delta log."""

    WARN = "warn"
    """Continue the write, and warn once per key."""
    REFUSE = "refuse"
    """Raise before the engine is called."""
    IGNORE = "ignore"
    """Continue the write."""


class TableNames(StrEnum):
    """Source of a table's name in telemetry."""

    PATH = "path"
    """The name in the table's metadata, else the last segment of its location."""
    METADATA = "metadata"
    """The name in the table's metadata."""
    NONE = "none"
    """No name: telemetry has only the table's id."""


class Requirement(StrEnum):
    """A property that a write must have; a write without it is refused."""

    RUN = "run"
    """A run that the program, its scheduler or `deltawitness run` has opened."""
    JOB = "job"
    """A job name that was set, not one derived from the name of the program."""
    MESSAGE = "message"
    """A text with the reason for the write."""


class LedgerMessages(StrEnum):
    """Redaction of error texts in the ledger."""

    FULL = "full"
    """The full text without secrets. It may contain rows that the engine shows."""
    SAFE = "safe"
    """The text without rows, without values that could not be cast, and without secrets."""
    TYPE = "type"
    """No text; separate columns have the error's type and the exception's class."""


class LedgerMode(StrEnum):
    """Who commits the rows of a process to the ledger, and to which tables."""

    DIRECT = "direct"
    """The process, to the main tables."""
    SHARD = "shard"
    """The process, to the tables of its shard. `deltawitness ledger fold` moves the rows to the main tables."""
    FORWARD = "forward"
    """`deltawitness ledger serve` on the same host, to the main tables; the process commits nothing."""


def _one_of(choices: type[E]) -> Callable[[str], E]:
    def parse(text: str) -> E:
        try:
            return choices(text.strip().lower())
        except ValueError:
            msg = f"one of {', '.join(choices)}"
            raise ValueError(msg) from None

    return parse


def _requirements(text: str) -> tuple[str, ...]:
    words = [word.strip().lower() for word in text.replace("|", ",").split(",")]
    given = {word for word in words if word}
    if given <= set(Requirement):
        return tuple(each.value for each in Requirement if each in given)
    msg = f"one or several of {', '.join(Requirement)}, separated by commas"
    raise ValueError(msg)


def _short_text(text: str) -> str:
    if text.strip():
        return text.strip()
    msg = "a text that is not empty"
    raise ValueError(msg)


def _shard(text: str) -> str:
    name = text.strip()
    if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", name):
        return name
    msg = "up to 64 letters, digits, `-`, `_` and `.`, beginning with a letter or a digit"
    raise ValueError(msg)


def _flag(text: str) -> bool:
    value = parse_flag(text)
    if value is None:
        msg = "one of true, false"
        raise ValueError(msg)
    return value


def _seconds(text: str) -> float:
    msg = "a number of seconds greater than 0, at most 3600"
    try:
        number = float(text)
    except ValueError:
        raise ValueError(msg) from None
    if 0 < number <= 3600:  # noqa: PLR2004 - an hour
        return number
    raise ValueError(msg)


def _wait(text: str) -> float:
    msg = "a number of seconds from 0 to 3600"
    try:
        number = float(text)
    except ValueError:
        raise ValueError(msg) from None
    if 0 <= number <= 3600:  # noqa: PLR2004 - an hour
        return number
    raise ValueError(msg)


def _count(text: str) -> int:
    msg = "an integer from 1 to 10000000"
    try:
        number = int(text)
    except ValueError:
        raise ValueError(msg) from None
    if 1 <= number <= 10_000_000:  # noqa: PLR2004 - as the message says
        return number
    raise ValueError(msg)


def _bytes(text: str) -> int:
    msg = "an integer number of bytes from 65536 to 1099511627776"
    try:
        number = int(text)
    except ValueError:
        raise ValueError(msg) from None
    if 1 << 16 <= number <= 1 << 40:
        return number
    raise ValueError(msg)


def _location(text: str) -> str:
    if text.strip():
        return text
    msg = "a path or a URI"
    raise ValueError(msg)


def _local_folder(text: str) -> str:
    if text.strip() and (path := local_path(text)) is not None:
        return path
    msg = "a path of a local folder"
    raise ValueError(msg)


def _local_file(text: str) -> str:
    if text.strip() and (path := local_path(text)) is not None:
        return path
    msg = "a path of a local file"
    raise ValueError(msg)


def _options(text: str) -> dict[str, str]:
    msg = "a JSON object of text to text"
    try:
        options = json.loads(text)
    except ValueError:
        raise ValueError(msg) from None
    if isinstance(options, dict) and all(isinstance(value, str) for value in options.values()):
        return options
    raise ValueError(msg)


_PLACEHOLDER = re.compile(r"\{[A-Za-z_]*\}")


def _trace_url(text: str) -> str:
    names = set(_PLACEHOLDER.findall(text))
    is_url = text.startswith(("http://", "https://")) and not any(map(str.isspace, text))
    if is_url and "{trace_id}" in names <= {"{trace_id}", "{span_id}"}:
        return text
    msg = (
        "a URL with {trace_id}, and at most {span_id} besides, such as"
        " https://tempo.example/trace/{trace_id}"
    )
    raise ValueError(msg)


def _http_url(text: str) -> str:
    url = text.strip()
    if url.startswith(("http://", "https://")) and not any(map(str.isspace, url)):
        return url
    msg = "an http or https URL"
    raise ValueError(msg)


def _lineage_destination(text: str) -> str:
    if text.strip().lower() == "client":
        return "client"
    try:
        return _http_url(text)
    except ValueError:
        msg = "an http or https URL, or client"
        raise ValueError(msg) from None


def _key(text: str) -> bytes:
    if text:
        return text.encode()
    msg = "a non-empty secret"
    raise ValueError(msg)


def _setting(variable: Env, parse: Callable[[str], Any], default: Any, **options: Any) -> Any:
    return field(default=default, metadata={"variable": variable, "parse": parse}, **options)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The settings of deltawitness; each field has an environment variable.

    Attributes:
        diagnostics_sink: destination of diagnostics (`DELTAWITNESS_DIAGNOSTICS_SINK`).
        table_id_key: secret that keys table ids in telemetry (`DELTAWITNESS_TABLE_ID_KEY`).
        user_metadata: copy our commit keys to `userMetadata` (`DELTAWITNESS_USER_METADATA`).
        reserved_keys: a caller's commit keys that break readers (`DELTAWITNESS_RESERVED_KEYS`).
        reuse_handles: reuse open handles for writes by URI (`DELTAWITNESS_REUSE_HANDLES`).
        delivery_interval: seconds to gather finished writes (`DELTAWITNESS_DELIVERY_INTERVAL`).
        queue_size: maximum number of queued finished writes (`DELTAWITNESS_QUEUE_SIZE`).
        sink_timeout: seconds until a hanging sink is skipped (`DELTAWITNESS_SINK_TIMEOUT`).
        landed_tail: versions searched for a failed write's commit (`DELTAWITNESS_LANDED_TAIL`).
        table_names: source of table names in telemetry (`DELTAWITNESS_TABLE_NAMES`).
        capture_queries: make a span per query (`DELTAWITNESS_CAPTURE_QUERIES`).
        capture_registrations: add a ledger row per registered table
            (`DELTAWITNESS_CAPTURE_REGISTRATIONS`).
        capture_plan_metrics: collect operator metrics of writes (`DELTAWITNESS_CAPTURE_PLAN_METRICS`).
        capture_phases: make child spans of the phases of writes (`DELTAWITNESS_CAPTURE_PHASES`).
        compaction_wait: seconds that a compaction waits for another one
            (`DELTAWITNESS_COMPACTION_WAIT`).
        cache_root: path or URI of the cache root, with the ledger (`DELTAWITNESS_ROOT` or
            `DELTAWITNESS_CACHE_ROOT`).
        ledger: write a ledger when there is a cache root (`DELTAWITNESS_LEDGER`).
        ledger_mode: who commits rows, and where (`DELTAWITNESS_LEDGER_MODE`).
        ledger_shard: shard of this process (`DELTAWITNESS_LEDGER_SHARD`).
        ledger_maintenance: compact and vacuum the ledger (`DELTAWITNESS_LEDGER_MAINTENANCE`).
        ledger_messages: redaction of error texts in the ledger (`DELTAWITNESS_LEDGER_MESSAGES`).
        storage_options: storage options of the cache root (`DELTAWITNESS_STORAGE_OPTIONS`).
        spool_dir: local folder of records not yet in the ledger (`DELTAWITNESS_SPOOL_DIR`).
        spool_limit: maximum bytes of a process's spool (`DELTAWITNESS_SPOOL_LIMIT`).
        drain_interval: seconds between two drains (`DELTAWITNESS_DRAIN_INTERVAL`).
        drain_events: number of events that start a drain early (`DELTAWITNESS_DRAIN_EVENTS`).
        keep_plans: store the plans of cache entries (`DELTAWITNESS_KEEP_PLANS`).
        keep_write_plans: store the plans of a session's writes, which need a cache root
            (`DELTAWITNESS_KEEP_WRITE_PLANS`).
        cache_copies: local folder for copies of remote entries; None: none (`DELTAWITNESS_CACHE_COPIES`).
        cache_copies_bytes: maximum bytes of the copies (`DELTAWITNESS_CACHE_COPIES_BYTES`).
        repr_runs_dml: run a DML frame on `repr()` (`DELTAWITNESS_REPR_RUNS_DML`).
        require: refuse writes without `run`, `job` or `message` (`DELTAWITNESS_REQUIRE`).
        expectations: local TOML file with expectations of writes (`DELTAWITNESS_EXPECTATIONS`).
        code_version: commit or version of the program (`DELTAWITNESS_CODE_VERSION`).
        author: who the writes are made for (`DELTAWITNESS_AUTHOR`).
        detect_environment: read where a run runs (`DELTAWITNESS_DETECT_ENVIRONMENT`).
        detect_author: take the author from there (`DELTAWITNESS_DETECT_AUTHOR`).
        detect_git: read the commit of the main script's repository (`DELTAWITNESS_DETECT_GIT`).
        call_site: record the program's line of each write (`DELTAWITNESS_CALL_SITE`).
        trace_url: template of the links to traces that commands print (`DELTAWITNESS_TRACE_URL`).
        openlineage: where to send OpenLineage events; None: nowhere (`DELTAWITNESS_OPENLINEAGE`).
        openlineage_namespace: namespace of their jobs (`DELTAWITNESS_OPENLINEAGE_NAMESPACE`).
        openlineage_tables: names of tables by location (`DELTAWITNESS_OPENLINEAGE_TABLES`).
        openlineage_repository: URL of the program's code (`DELTAWITNESS_OPENLINEAGE_REPOSITORY`).

    Raises:
        ConfigurationError: a value is invalid; the message has the variable and the valid values.

    >>> Settings(delivery_interval=0.05).delivery_interval
    0.05
    >>> Settings.from_env({"DELTAWITNESS_USER_METADATA": "maybe"})
    Traceback (most recent call last):
    ...
    deltawitness.exceptions.ConfigurationError: DELTAWITNESS_USER_METADATA: expected one of true, false
    """

    diagnostics_sink: DiagnosticsChoice = _setting(  # noqa: RUF009 - makes a field()
        Env.DIAGNOSTICS_SINK, _one_of(DiagnosticsChoice), DiagnosticsChoice.OTEL
    )
    table_id_key: bytes | None = _setting(Env.TABLE_ID_KEY, _key, None, repr=False)
    user_metadata: bool = _setting(Env.USER_METADATA, _flag, True)  # noqa: FBT003 - the default
    reserved_keys: ReservedKeys = _setting(  # noqa: RUF009 - makes a field()
        Env.RESERVED_KEYS, _one_of(ReservedKeys), ReservedKeys.WARN
    )
    reuse_handles: bool = _setting(Env.REUSE_HANDLES, _flag, False)  # noqa: FBT003 - the default
    delivery_interval: float = _setting(Env.DELIVERY_INTERVAL, _seconds, 0.2)
    queue_size: int = _setting(Env.QUEUE_SIZE, _count, 10_000)
    sink_timeout: float = _setting(Env.SINK_TIMEOUT, _seconds, 5.0)
    landed_tail: int = _setting(Env.LANDED_TAIL, _count, 64)
    table_names: TableNames = _setting(Env.TABLE_NAMES, _one_of(TableNames), TableNames.PATH)  # noqa: RUF009 - makes a field()
    capture_queries: bool = _setting(Env.CAPTURE_QUERIES, _flag, False)  # noqa: FBT003 - the default
    capture_registrations: bool = _setting(Env.CAPTURE_REGISTRATIONS, _flag, False)  # noqa: FBT003 - the default
    capture_plan_metrics: bool = _setting(Env.CAPTURE_PLAN_METRICS, _flag, False)  # noqa: FBT003 - the default
    capture_phases: bool = _setting(Env.CAPTURE_PHASES, _flag, False)  # noqa: FBT003 - the default
    compaction_wait: float = _setting(Env.COMPACTION_WAIT, _wait, 60.0)
    cache_root: str | None = _setting(Env.CACHE_ROOT, _location, None)
    ledger: bool = _setting(Env.LEDGER, _flag, True)  # noqa: FBT003 - the default
    ledger_mode: LedgerMode = _setting(Env.LEDGER_MODE, _one_of(LedgerMode), LedgerMode.DIRECT)  # noqa: RUF009 - makes a field()
    ledger_shard: str | None = _setting(Env.LEDGER_SHARD, _shard, None)
    ledger_maintenance: bool = _setting(Env.LEDGER_MAINTENANCE, _flag, True)  # noqa: FBT003 - the default
    ledger_messages: LedgerMessages = _setting(  # noqa: RUF009 - makes a field()
        Env.LEDGER_MESSAGES, _one_of(LedgerMessages), LedgerMessages.SAFE
    )
    storage_options: dict[str, str] | None = _setting(  # noqa: RUF009 - makes a field()
        Env.STORAGE_OPTIONS, _options, None, repr=False, hash=False
    )
    spool_dir: str | None = _setting(Env.SPOOL_DIR, _location, None)
    spool_limit: int = _setting(Env.SPOOL_LIMIT, _bytes, 256 << 20)
    drain_interval: float = _setting(Env.DRAIN_INTERVAL, _seconds, 5.0)
    drain_events: int = _setting(Env.DRAIN_EVENTS, _count, 1000)
    keep_plans: bool = _setting(Env.KEEP_PLANS, _flag, True)  # noqa: FBT003 - the default
    keep_write_plans: bool = _setting(Env.KEEP_WRITE_PLANS, _flag, False)  # noqa: FBT003 - the default
    cache_copies: str | None = _setting(Env.CACHE_COPIES, _local_folder, None)
    cache_copies_bytes: int = _setting(Env.CACHE_COPIES_BYTES, _bytes, 1 << 30)
    repr_runs_dml: bool = _setting(Env.REPR_RUNS_DML, _flag, False)  # noqa: FBT003 - the default
    require: tuple[str, ...] = _setting(Env.REQUIRE, _requirements, ())
    expectations: str | None = _setting(Env.EXPECTATIONS, _local_file, None)
    code_version: str | None = _setting(Env.CODE_VERSION, _short_text, None)
    author: str | None = _setting(Env.AUTHOR, _short_text, None)
    detect_environment: bool = _setting(Env.DETECT_ENVIRONMENT, _flag, True)  # noqa: FBT003 - the default
    detect_author: bool = _setting(Env.DETECT_AUTHOR, _flag, False)  # noqa: FBT003 - the default
    detect_git: bool = _setting(Env.DETECT_GIT, _flag, True)  # noqa: FBT003 - the default
    call_site: bool = _setting(Env.CALL_SITE, _flag, True)  # noqa: FBT003 - the default
    trace_url: str | None = _setting(Env.TRACE_URL, _trace_url, None)
    openlineage: str | None = _setting(Env.OPENLINEAGE, _lineage_destination, None)
    openlineage_namespace: str = _setting(Env.OPENLINEAGE_NAMESPACE, _short_text, "default")
    openlineage_tables: dict[str, str] | None = _setting(  # noqa: RUF009 - makes a field()
        Env.OPENLINEAGE_TABLES, _options, None, hash=False
    )
    openlineage_repository: str | None = _setting(Env.OPENLINEAGE_REPOSITORY, _http_url, None)

    def __post_init__(self) -> None:
        """Validate values given in code by the rules for environment variables."""
        for setting in fields(self):
            value = getattr(self, setting.name)
            # A string equals the enum member with that value but has another type: parse it.
            if value == setting.default and type(value) is type(setting.default):
                continue
            if isinstance(value, bytes) and value:
                continue  # a key given in code may be any bytes
            object.__setattr__(self, setting.name, _parsed(setting.metadata, _as_text(value)))

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> Self:
        """Return the settings from environment variables; a setting without a variable has its default.

        Args:
            environ: the variables to read; those of this process when None. An empty
                variable counts as not set.

        Raises:
            ConfigurationError: a value is invalid; the message has the variable and the valid values.
        """
        if environ is None:
            _warn_of_unknown_variables(os.environ)
        variables = _with_root_alias(os.environ if environ is None else environ)
        given = {
            setting.name: _parsed(setting.metadata, text)
            for setting in fields(cls)
            if (text := variables.get(setting.metadata["variable"]))
        }
        return cls(**given)

    def environment(self) -> dict[str, str]:
        """Return the environment variables by which another process gets these settings.

        A setting that has its default is left out. They may contain secrets.

        Raises:
            ConfigurationError: a value has no form as a variable, such as a key that is not text.

        >>> Settings(drain_interval=2.0, require=("run", "job")).environment()
        {'DELTAWITNESS_DRAIN_INTERVAL': '2.0', 'DELTAWITNESS_REQUIRE': 'run,job'}
        """
        variables = {}
        for setting in fields(self):
            value = getattr(self, setting.name)
            if value != setting.default:
                variable = setting.metadata["variable"]
                try:
                    variables[variable.value] = _as_text(value)
                except UnicodeDecodeError:
                    msg = f"{variable}: the value is not UTF-8 text, so no variable can have it"
                    raise ConfigurationError(msg) from None
        return variables

    @classmethod
    def or_from_env(cls, settings: Self | None) -> Self:
        """Return the settings of a caller, or those of the environment when there are none.

        Args:
            settings: the caller's argument of this name.

        Raises:
            ConfigurationError: it is of another type, or a variable has a value that is not allowed.
        """
        if settings is None:
            return cls.from_env()
        if isinstance(settings, cls):
            return settings
        msg = f"settings: expected deltawitness.Settings(...), not {type(settings).__name__}"
        raise ConfigurationError(msg)


_in_use: Settings | None = None


def use_settings(settings: Settings | None) -> None:
    """Set the settings that :func:`settings_in_use` returns; None when the process is no longer observed."""
    global _in_use  # noqa: PLW0603 - one observer per process
    _in_use = settings


def settings_in_use() -> Settings | None:
    """Return the settings of the process's observer; None if nothing is observed."""
    return _in_use


def _with_root_alias(variables: Mapping[str, str]) -> Mapping[str, str]:
    """Return the variables with the value of `DELTAWITNESS_ROOT` under its older name as well.

    A value under the older name that `deltawitness run` has chosen is no conflict: the program, or the
    command line that starts it, has set the other.
    """
    root, cache_root = variables.get(Env.ROOT), variables.get(Env.CACHE_ROOT)
    if not root or root == cache_root:
        return variables
    if cache_root and cache_root != variables.get(Env.CHOSEN_ROOT):
        msg = f"{Env.ROOT} and {Env.CACHE_ROOT} name different locations: unset one of them"
        raise ConfigurationError(msg)
    return {**variables, Env.CACHE_ROOT: root}


_PREFIX = "DELTAWITNESS_"
_COLLECTOR = "DELTAWITNESS_COLLECTOR_"
"""Prefix of the variables of the Collector's configurations, which no setting has."""

_named: set[str] = set()
"""Unknown variables that a warning of this process has named."""


def _warn_of_unknown_variables(variables: Mapping[str, str]) -> None:
    """Log one line for each variable with our prefix that no setting has.

    Processes that `deltawitness run` starts log nothing: the command has done it.
    """
    known = {name.value for name in Env}
    ours = {name for name in variables if name.startswith(_PREFIX)}
    unknown = {name for name in ours if not name.startswith(_COLLECTOR)} - known - _named
    if not unknown or variables.get(Env.ACTIVATE):
        return
    from difflib import get_close_matches  # noqa: PLC0415 - for this case alone

    for name in sorted(unknown):
        similar = get_close_matches(name, known, n=1, cutoff=0.8)
        hint = f": did you mean {similar[0]}?" if similar else ""
        _logger.warning("unknown environment variable %s is ignored%s", name, hint)
    _named.update(unknown)


def state_folder() -> Path:
    """Return the user's folder for persistent state (XDG Base Directory 0.8, `XDG_STATE_HOME`)."""
    given = os.environ.get("XDG_STATE_HOME")
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.home() raises where there is none
    return Path(given) if given else Path(home, ".local", "state")


def _as_text(value: object) -> str:
    """Return a value given in code as the text of its environment variable."""
    match value:
        case bytes():
            return value.decode()
        case Mapping():
            return json.dumps(value, default=repr)
        case tuple() | list() | set() | frozenset():
            return ",".join(str(member) for member in value)
        case _:
            return str(value)


def _parsed(metadata: Mapping[str, Any], text: str) -> Any:
    try:
        return metadata["parse"](text)
    except ValueError as error:
        msg = f"{metadata['variable']}: expected {error}"
        raise ConfigurationError(msg) from None
