"""Find the Delta tables below a path, a prefix or a glob."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from deltawitness.commit.discovery import find_tables
from helpers.ledger_parts import one

TABLES = (
    "a/orders",
    "a/eu/items",
    "a/eu/it ems",
    "b/orders",
    "top",
)


@pytest.fixture(scope="module", params=["local", pytest.param("remote", marks=pytest.mark.slow)])
def lake(request, tmp_path_factory):
    """The prefix of some tables, and the storage options to read them."""
    if request.param == "local":
        folder, options = str(tmp_path_factory.mktemp("lake")), None
    else:
        folder, options = "s3://lake/find", request.getfixturevalue("server").options
    for name in TABLES:
        write_deltalake(f"{folder}/{name}", one(1), storage_options=options)
    write_deltalake(f"{folder}/.hidden/t", one(1), storage_options=options)
    write_deltalake(f"{folder}/c/cache_ledgers/t", one(1), storage_options=options)
    write_deltalake(f"{folder}/top/inner", one(1), storage_options=options)
    return folder, options


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("", TABLES),
        ("/", TABLES),
        ("/**", TABLES),
        ("/*", ("top",)),
        ("/top", ("top",)),
        ("/top/**", ("top",)),
        ("/a", ("a/orders", "a/eu/items", "a/eu/it ems")),
        ("/*/orders", ("a/orders", "b/orders")),
        ("/**/orders", ("a/orders", "b/orders")),
        ("/**/eu/*", ("a/eu/items", "a/eu/it ems")),
        ("/a/**/it*", ("a/eu/items", "a/eu/it ems")),
        ("/?/orders", ("a/orders", "b/orders")),
        ("/[b-z]/orders", ("b/orders",)),
        ("/**/**", TABLES),
        ("/top/**/**", ("top",)),
        ("/**/**/orders", ("a/orders", "b/orders")),
        ("/?/**", ("a/orders", "a/eu/items", "a/eu/it ems", "b/orders")),
        ("/T*", ()),
        ("/*/t", ()),
        ("/c/*/t", ()),
        ("/.h*/t", (".hidden/t",)),
        ("/.hidden/*", (".hidden/t",)),
        ("/c/cache_ledgers/*", ("c/cache_ledgers/t",)),
        ("/a/[e]u/it[ ]ems", ("a/eu/it ems",)),
        ("/none", ()),
        ("/none*", ()),
        ("/a/orders/*.parquet", ()),
    ],
)
@pytest.mark.one_case_in(4)
def test_tables_of_a_prefix_or_glob(lake, pattern, expected):
    """The tables are those whose location matches, sorted, and each can be opened."""
    folder, options = lake
    found = find_tables(folder + pattern, options)
    assert found.errors == ()
    assert list(found.tables) == sorted(found.tables)
    opened = {DeltaTable(uri, storage_options=options).table_uri for uri in found.tables}
    wanted = {
        DeltaTable(f"{folder}/{name}", storage_options=options).table_uri for name in expected
    }
    assert opened == wanted
    assert len(found.tables) == len(expected)


def test_data_folders_are_not_listed(server):
    """The search of an object store makes one LIST per folder, and none inside of a table."""
    rows = pa.table({"day": [1, 2], "x": [1, 2]})
    for name in ("x", "y"):
        write_deltalake(
            f"s3://lake/parts/{name}", rows, partition_by=["day"], storage_options=server.options
        )
    requests = server.requests(lambda: find_tables("s3://lake/parts/**", server.options))
    lists = sorted(line.partition("prefix=")[2].split()[0] for line in requests)
    assert lists == ["parts%2F", "parts%2Fx%2F", "parts%2Fy%2F"]


def test_a_folder_that_cannot_be_listed_is_reported(tmp_path):
    """The other folders are searched, and the error names the folder."""
    if os.geteuid() == 0:
        pytest.skip("root may list every folder")
    write_deltalake(f"{tmp_path}/a/t", one(1))
    closed = tmp_path / "b"
    closed.mkdir(mode=0)
    try:
        found = find_tables(str(tmp_path))
    finally:
        closed.chmod(0o700)
    assert found.tables == (f"{tmp_path}/a/t",)
    assert [error.location for error in found.errors] == [str(closed)]


@pytest.mark.slow
def test_names_and_query_of_a_uri_are_in_the_locations(server):
    """A location that is found has the query of the URI, and characters of names are percent-encoded."""
    folder = "s3://lake/encoded"
    write_deltalake(f"{folder}/day%231", one(1), storage_options=server.options)
    (uri,) = find_tables(f"{folder}/**", server.options).tables
    assert uri == f"{folder}/day%231"
    assert DeltaTable(uri, storage_options=server.options).version() == 0
    found = find_tables(f"{folder}/d*?sv=1", server.options)
    assert found.tables == (f"{folder}/day%231?sv=1",)
    assert find_tables(f"{folder}/d*1", server.options).tables == (uri,)


@pytest.mark.slow
def test_a_bucket_that_does_not_exist_is_reported(server):
    found = find_tables("s3://nothing/**", server.options)
    assert found.tables == ()
    (error,) = found.errors
    assert error.location == "s3://nothing"
    assert "404" in error.text


def test_links_are_followed_only_to_tables(tmp_path):
    """A link to a table is that table; `**` does not follow a link to a folder, which may be a circle."""
    write_deltalake(f"{tmp_path}/data/t", one(1))
    lake = tmp_path / "lake"
    lake.mkdir()
    (lake / "linked").symlink_to(tmp_path / "data" / "t")
    (lake / "circle").symlink_to(tmp_path)
    assert find_tables(str(lake)).tables == (f"{lake}/linked",)
    assert find_tables(f"{lake}/*/data/*").tables == (f"{lake}/circle/data/t",)


def test_a_folder_whose_name_has_wildcards_is_no_glob(tmp_path):
    """The folder itself is searched, and not the folders that its name matches."""
    for name in ("a", "b"):
        write_deltalake(f"{tmp_path}/{name}/t", one(1))
    (tmp_path / "b").rename(tmp_path / "[ab]")
    assert find_tables(f"{tmp_path}/[ab]").tables == (f"{tmp_path}/[ab]/t",)
    assert find_tables(f"{tmp_path}/[ab]/*").tables == (f"{tmp_path}/a/t",)


def test_a_file_with_the_name_of_a_log_makes_no_table(tmp_path):
    """The search continues in its folder."""
    write_deltalake(f"{tmp_path}/a/t", one(1))
    (tmp_path / "a/_delta_log").touch()
    assert find_tables(str(tmp_path)).tables == (f"{tmp_path}/a/t",)


def test_a_relative_path_is_made_absolute(tmp_path, monkeypatch):
    write_deltalake(f"{tmp_path}/a/t", one(1))
    monkeypatch.chdir(tmp_path / "a")
    assert find_tables("../*/t").tables == (str(Path(tmp_path, "a", "t")),)
