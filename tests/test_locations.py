"""The spellings of one location give one id, and a location shows no credentials."""

from __future__ import annotations

import ntpath
from pathlib import Path

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake
from hypothesis import given
from hypothesis import strategies as st

from deltawitness import locations, table_id
from deltawitness.locations import canonical_uri, is_uri, local_path, strip_credentials


def test_the_spelling_of_a_local_table_makes_no_difference(tmp_path, monkeypatch):
    """A `Path`, text, a URI, a relative path, doubled slashes and the engine's spelling give one id."""
    place = tmp_path / "a b" / "tête"
    write_deltalake(place, pa.table({"x": [1]}))
    monkeypatch.chdir(tmp_path / "a b")
    spellings = [
        place,
        str(place),
        f"{place}/",
        f"{place}//",
        str(place).replace("/a b/", "/a b/./x/../"),
        place.as_uri(),
        DeltaTable(place).table_uri,
        "tête",
        "./tête/",
    ]
    assert {table_id(spelling) for spelling in spellings} == {table_id(place)}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("s3://bucket/t", "s3a://bucket/t/"),
        ("s3://bucket/t", "S3://BUCKET/t?versionId=1#x"),
        ("s3://bucket/t", "s3://key:secret@bucket/t"),
        ("s3://bucket/a b", "s3://bucket/a%20b"),
        ("abfss://c@acc.dfs.core.windows.net/t", "abfs://c@acc.dfs.core.windows.net/t/"),
        ("gs://b/t", "gcs://b//t"),
    ],
)
def test_the_spelling_of_a_remote_table_makes_no_difference(one, other):
    """Scheme aliases, case of the host, credentials and query give one id."""
    assert table_id(one) == table_id(other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("s3://bucket/t", "s3://bucket/T"),
        ("s3://bucket/t", "s3://other/t"),
        ("s3://bucket/t", "gs://bucket/t"),
        ("/data/t", "/data/t2"),
        ("abfs://c@acc/t", "abfs://d@acc/t"),
    ],
)
def test_different_tables_have_different_ids(one, other):
    """Different locations give different ids."""
    assert table_id(one) != table_id(other)


def test_a_key_changes_the_id():
    """A key changes the id, and another key changes it again."""
    ids = {table_id("/t"), table_id("/t", key=b"a"), table_id("/t", key=b"b")}
    assert len(ids) == 3
    assert {len(known) for known in ids} == {32}


@pytest.mark.slow
@given(
    st.lists(
        st.text(min_size=1, max_size=8).filter(lambda s: "/" not in s and s not in ".."), min_size=1
    )
)
def test_a_canonical_location_stays_as_it_is(segments):
    """The function is idempotent for any path, and equals the result for the path's URI."""
    path = "/" + "/".join(segments).replace("\0", "0")
    canonical = canonical_uri(path)
    assert canonical_uri(canonical) == canonical
    assert canonical_uri(f"{path}/") == canonical
    assert canonical_uri(Path(path)) == canonical


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("s3://k:s@b/t?x=1#f", "s3://b/t"),
        ("/data/t", "/data/t"),
        ("https://acc/t?sig=abc", "https://acc/t"),
    ],
)
def test_credentials_are_stripped_from_a_location(uri, expected):
    """The location of the table itself remains."""
    assert strip_credentials(uri) == expected


@pytest.mark.parametrize(
    ("location", "path"),
    [
        ("/data/t", "/data/t"),
        ("/data/a://t", "/data/a://t"),
        ("data/t", "data/t"),
        ("data/a://t", "data/a://t"),
        ("file:///data/a%20b", "/data/a b"),
        ("file://localhost/data/t", "/data/t"),
        ("file:/data/t", "/data/t"),
        ("FILE:/data/t", "/data/t"),
        ("s3://b/t", None),
        ("abfss://c@acc/t", None),
    ],
)
def test_the_path_of_a_location_on_a_local_disk(location, path):
    """A plain path and a `file:` URI have a local path; a location on an object store has none."""
    assert local_path(location) == path
    assert is_uri(location) == (path != location)
    if path is not None:
        assert canonical_uri(location) == canonical_uri(path)


# --- Windows: its path functions on this system -------------------------------------------------------


@pytest.fixture
def windows(monkeypatch):
    """Use the path functions of Windows."""
    monkeypatch.setattr(locations, "_paths", ntpath)


@pytest.mark.parametrize(
    "spelling",
    [
        "C:\\data\\a b",
        "c:\\data\\a b\\",
        "C:/data/a b",
        "C:\\data\\x\\..\\a b",
        "file:///C:/data/a%20b/",
        "file:///c:/data/a b",
        "file://localhost/C:/data/a%20b",
    ],
)
@pytest.mark.usefixtures("windows")
def test_the_spellings_of_a_windows_path_are_one_location(spelling):
    """Backslashes, the letter of the drive and percent-encoding make no difference."""
    assert canonical_uri(spelling) == "file:///C:/data/a%20b"


@pytest.mark.parametrize(
    "spelling", ["\\\\host\\share\\t", "file://host/share/t", "//host/share/t/"]
)
@pytest.mark.usefixtures("windows")
def test_the_host_of_a_windows_share_is_part_of_the_location(spelling):
    """A share has a path with its host."""
    assert canonical_uri(spelling) == "file:///host/share/t"


@pytest.mark.parametrize(
    ("uri", "path"),
    [
        ("file:///C:/data/a%20b", "C:/data/a b"),
        ("file://host/share/t", "//host/share/t"),
        ("C:\\data\\t", "C:\\data\\t"),
        ("s3://bucket/t", None),
    ],
)
@pytest.mark.usefixtures("windows")
def test_a_file_uri_is_a_windows_path(uri, path):
    """The path has a drive or a host, and no slash before the drive."""
    assert local_path(uri) == path
    assert is_uri(uri) == ("://" in uri)


@pytest.mark.usefixtures("windows")
def test_spellings_in_messages_have_backslashes():
    """The location and its folders are found in a message, with single and with doubled backslashes."""
    found = locations.spellings.__wrapped__("C:\\Users\\ann smith\\t")
    assert {"C:\\Users\\ann smith\\t", "C:\\\\Users\\\\ann smith", "C:/Users/ann smith"} <= {*found}
