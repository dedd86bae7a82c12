"""The table of a distributed write: what it is before the write, and whether the write fits it."""

from __future__ import annotations

import json
import os
import tempfile
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from deltawitness.clones.redirect import redirected
from deltawitness.commit.log import LOG_DIRECTORY, LocalLog
from deltawitness.commit.private_api import storage_options_of
from deltawitness.distributed.request import Request
from deltawitness.exceptions import WriteRequestError
from deltawitness.locations import is_uri
from deltawitness.run import suppressed

if TYPE_CHECKING:
    from deltalake import DeltaTable

__all__ = [
    "Target",
    "describes_same_table",
    "open_table",
    "open_target",
    "schema_in",
    "table_actions",
]

FEATURES = frozenset(
    {
        "appendOnly",
        "changeDataFeed",
        "checkConstraints",
        "columnMapping",
        "deletionVectors",
        "generatedColumns",
        "invariants",
        "timestampNtz",
    }
)
"""The writer features with which files can be staged in one table and added to another."""

_COLUMN_MAPPING = "delta.columnMapping.mode"
_CONSTRAINT = "delta.constraints."
_GENERATED = "delta.generationExpression"
_IDENTITY = "delta.identity."


@dataclass(slots=True)
class Target:
    """The table that a distributed write goes to.

    Attributes:
        uri: its path or URI.
        storage_options: options of its storage.
        table: the table, opened before the parts are staged; None if it does not exist.
    """

    uri: str
    storage_options: dict[str, str] | None
    table: DeltaTable | None

    def check(self, request: Request) -> None:
        """Check that the write can be made, before anything is written.

        Raises:
            WriteRequestError: it cannot; the message says why.
        """
        request.partition_filters(self.partition_by(request))
        if self.table is None:
            return
        if request.mode == "error":
            _refuse("mode: the table exists, and the mode is 'error'")
        self._check_features(self.table)
        actual = self.table.metadata().partition_columns
        if request.partition_by is not None and list(request.partition_by) != actual:
            _refuse(
                f"partition_by: the table is partitioned by {actual or 'no column'}, which a"
                " distributed write cannot change"
            )
        if request.mode == "overwrite":
            self._check_overwrite(self.table, request)
        if request.schema_mode == "merge" and self._has_column_mapping():
            _refuse("schema_mode: 'merge' is not possible on a table with column mapping")

    def _check_features(self, table: DeltaTable) -> None:
        features = set(table.protocol().writer_features or ())
        unknown = sorted(features - FEATURES)
        if unknown:
            _refuse(
                f"table: it has the feature {unknown[0]}, which a distributed write does not support"
            )
        if _IDENTITY in table.schema().to_json():
            _refuse("table: it has an identity column, which a distributed write does not support")

    def _check_overwrite(self, table: DeltaTable, request: Request) -> None:
        configuration = table.metadata().configuration
        if configuration.get("delta.appendOnly") == "true":
            _refuse("mode: the table is append-only (delta.appendOnly)")
        if request.schema_mode == "overwrite":
            has_rules = any(name.startswith(_CONSTRAINT) for name in configuration)
            if has_rules or self._has_column_mapping() or _GENERATED in table.schema().to_json():
                _refuse(
                    "schema_mode: 'overwrite' is not possible on a table with constraints,"
                    " generated columns or column mapping"
                )

    def _has_column_mapping(self) -> bool:
        if self.table is None:
            return False
        return self.table.metadata().configuration.get(_COLUMN_MAPPING, "none") != "none"

    def partition_by(self, request: Request) -> list[str]:
        """Return the partition columns."""
        if self.table is not None:
            return self.table.metadata().partition_columns
        return list(request.partition_by or ())

    def first_commit(self, request: Request, of_parts: Any) -> str | None:
        """Return the first commit of a table like this one, without rows; None if its schema is not known.

        Args:
            request: the write.
            of_parts: the Arrow schema of all parts, if it is known.
        """
        if self.table is not None and request.schema_mode != "overwrite":
            return "\n".join(table_actions(self.table))
        schema = request.schema if request.schema is not None else of_parts
        if schema is None:
            return None
        return _first_commit_of(schema, self.partition_by(request), self.configuration(request))

    def configuration(self, request: Request) -> dict[str, str | None]:
        """Return the properties of the table."""
        if self.table is None:
            return dict(request.configuration or {})
        return dict(self.table.metadata().configuration)


def open_target(
    table: str | os.PathLike[str] | DeltaTable, storage_options: dict[str, str] | None
) -> Target:
    """Return the target of a write, opened at its newest version.

    Args:
        table: path or URI of a table, or an open table.
        storage_options: as for `DeltaTable`; those of an open table when None.
    """
    if isinstance(table, str | os.PathLike):
        uri = os.fspath(redirected(table))
        uri = uri if is_uri(uri) else str(Path(uri).absolute())
        return Target(uri, storage_options, open_table(uri, storage_options))
    options = storage_options or storage_options_of(table)
    return Target(table.table_uri, options, open_table(table.table_uri, options))


def open_table(uri: str, storage_options: dict[str, str] | None) -> DeltaTable | None:
    """Return the table at a location; None if there is none."""
    from deltalake import DeltaTable  # noqa: PLC0415 - heavy
    from deltalake.exceptions import TableNotFoundError  # noqa: PLC0415 - as above

    try:
        return DeltaTable(uri, storage_options=storage_options)
    except TableNotFoundError:
        return None


def schema_in(first_commit: str | None) -> str | None:
    """Return the schema in a first commit as Delta JSON."""
    if first_commit is None:
        return None
    actions = [json.loads(line) for line in first_commit.split("\n")]
    schema: str = next(each["metaData"]["schemaString"] for each in actions if "metaData" in each)
    return schema


def _first_commit_of(
    schema: Any, partition_by: list[str], configuration: dict[str, str | None]
) -> str:
    """Return the commit with which delta-rs creates a table: made in a temporary folder."""
    from deltalake import DeltaTable  # noqa: PLC0415 - heavy

    with suppressed(), tempfile.TemporaryDirectory() as folder:
        DeltaTable.create(
            folder, schema, partition_by=partition_by or None, configuration=configuration
        )
        content = LocalLog(f"{redirected(folder)}/{LOG_DIRECTORY}/").read(0) or b""
    # Not `str.splitlines`, for which more characters end a line, such as U+2028: JSON may have them in texts.
    lines = content.decode().split("\n")
    return "\n".join(line for line in lines if line.startswith(('{"protocol"', '{"metaData"')))


def table_actions(table: DeltaTable) -> list[str]:
    """Return the protocol and the metadata action of a table like an open one, as JSON."""
    protocol, metadata = table.protocol(), table.metadata()
    features = {
        "readerFeatures": protocol.reader_features,
        "writerFeatures": protocol.writer_features,
    }
    requirements = {
        "minReaderVersion": protocol.min_reader_version,
        "minWriterVersion": protocol.min_writer_version,
        **{key: names for key, names in features.items() if names is not None},
    }
    description = {
        "id": str(uuid.uuid4()),
        "format": {"provider": "parquet", "options": {}},
        "schemaString": table.schema().to_json(),
        "partitionColumns": metadata.partition_columns,
        "configuration": metadata.configuration,
    }
    return [json.dumps({"protocol": requirements}), json.dumps({"metaData": description})]


def describes_same_table(first: DeltaTable, second: DeltaTable) -> bool:
    """Return whether two open tables have the same identity, schema, properties and protocol."""
    return _description(first) == _description(second)


def _description(table: DeltaTable) -> tuple[Any, ...]:
    metadata = table.metadata()
    return (
        metadata.id,
        json.loads(table.schema().to_json()),  # the order of keys in the text varies
        metadata.partition_columns,
        metadata.configuration,
        table.protocol(),
    )


def _refuse(msg: str) -> NoReturn:
    raise WriteRequestError(msg)
