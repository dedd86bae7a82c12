"""Names of tables as OpenLineage datasets, by the naming rules of its specification."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple
from urllib.parse import unquote, urlsplit

from deltawitness.locations import canonical_uri
from deltawitness.settings import Settings

__all__ = ["DatasetName", "NamingOptions", "dataset_name", "table_symlink"]

_SCHEMES = {"abfs": "abfss", "wasb": "wasbs"}
"""Schemes whose secure spelling the specification uses."""

_DRIVE = re.compile(r"/[A-Za-z]:")


class DatasetName(NamedTuple):
    """A dataset: the namespace of its storage, and its name there."""

    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class NamingOptions:
    """How jobs and tables are named in events.

    Attributes:
        namespace: namespace of the jobs.
        tables: names of tables by their locations, in a catalog: `NAMESPACE/NAME`, such as
            `unitycatalog://host/main.sales.orders`, or a name in the namespace of the jobs.
        repository: URL of the repository with the program's code; None if it is not known.
    """

    namespace: str = "default"
    tables: Mapping[str, str] = field(default_factory=dict)
    repository: str | None = None

    @classmethod
    def of(cls, settings: Settings) -> NamingOptions:
        """Return the options in settings."""
        return cls(
            settings.openlineage_namespace,
            settings.openlineage_tables or {},
            settings.openlineage_repository,
        )


def dataset_name(location: str) -> DatasetName:
    """Return the dataset of a location.

    Args:
        location: location of a table, in any spelling.

    >>> tuple(dataset_name("s3a://lake/sales/orders/"))
    ('s3://lake', 'sales/orders')
    >>> tuple(dataset_name("/data/a b")), tuple(dataset_name("gs://lake"))
    (('file', '/data/a b'), ('gs://lake', '/'))
    >>> tuple(dataset_name("abfs://raw@account.dfs.core.windows.net/orders"))
    ('abfss://raw@account.dfs.core.windows.net', 'orders')
    """
    parts = urlsplit(canonical_uri(location))
    path = unquote(parts.path)
    if parts.scheme == "file":
        return DatasetName("file", path[1:] if _DRIVE.match(path) else path)
    scheme = _SCHEMES.get(parts.scheme, parts.scheme)
    return DatasetName(f"{scheme}://{parts.netloc}", path.strip("/") or "/")


def table_symlink(location: str, options: NamingOptions) -> DatasetName | None:
    """Return the name of a table in a catalog; None if the options have none for its location.

    >>> options = NamingOptions(
    ...     tables={"/data/orders": "unitycatalog://uc.example/main.sales.orders"}
    ... )
    >>> tuple(table_symlink("file:///data/orders/", options))
    ('unitycatalog://uc.example', 'main.sales.orders')
    """
    wanted = canonical_uri(location)
    for known, name in options.tables.items():
        if canonical_uri(known) == wanted:
            namespace, _, last = name.rpartition("/")
            is_qualified = "://" in name and namespace.rstrip("/").partition("://")[2]
            return (
                DatasetName(namespace, last)
                if is_qualified
                else DatasetName(options.namespace, name)
            )
    return None
