"""Locations of tables and files: URIs, local paths, credentials in URIs, and the ids and names of tables."""

from __future__ import annotations

import hashlib
import os
import posixpath
import re
from functools import lru_cache
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from deltawitness.hashing import digest

__all__ = [
    "canonical_uri",
    "is_uri",
    "last_segment",
    "local_path",
    "spellings",
    "strip_credentials",
    "table_id",
]

_ALIASES = {"s3a": "s3", "s3n": "s3", "abfss": "abfs", "gcs": "gs", "wasbs": "wasb", "azure": "az"}
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_SAFE_IN_PATH = "/-._~!$&'()*+,;=:@"
_CONTAINER_SCHEMES = frozenset({"abfs", "abfss", "wasb", "wasbs"})
_DRIVE = re.compile(r"/?([A-Za-z]):")
_HOME_PARENTS = frozenset({"home", "Users", "users", "Documents and Settings"})

_paths = os.path
"""The path functions of this platform; a test of Windows paths replaces them by `ntpath`."""


# --- URIs --------------------------------------------------------------------------------------------


def canonical_uri(uri: str | os.PathLike[str]) -> str:
    """Return the canonical URI of a table's location, for any spelling of it.

    These are normalized: trailing and doubled slashes, `file://` URIs and plain or relative paths,
    aliases of a scheme (`s3a://`), the case of scheme and host, percent-encoding, and `.` and `..` in
    a local path (an object store uses them as names). Credentials, query and fragment are removed.
    Symbolic links are not resolved: their target may change, and resolving reads the disk. On Windows,
    the letter of a drive becomes upper case; the case of folders is left.

    Args:
        uri: a URI or a local path.

    >>> canonical_uri("s3a://Bucket/lake//t/?sig=x")
    's3://bucket/lake/t'
    >>> canonical_uri("/data/a b/") == canonical_uri("file:///data/a%20b")
    True
    """
    text = os.fspath(uri)
    if text[:1] == "/" and _paths is posixpath:
        return _canonical_path(text)
    if _is_file_uri(text):
        return _local(_path_of_file_uri(text))
    match = _SCHEME.match(text)
    # Path.absolute() keeps `..`.
    return _local(_paths.abspath(text)) if match is None else _remote(text)


@lru_cache(maxsize=1024)
def _canonical_path(path: str) -> str:
    """Return the URI of an absolute path of POSIX, which does not depend on the working directory."""
    return _local(posixpath.abspath(path))


def _local(path: str) -> str:
    normal = posixpath.normpath(path.replace(_paths.sep, "/"))
    if _is_windows() and (drive := _DRIVE.match(normal)):
        normal = f"{drive[1].upper()}:{normal[drive.end() :]}"
    return "file://" + quote("/" + normal.lstrip("/"), safe=_SAFE_IN_PATH, errors="surrogatepass")


def _remote(text: str) -> str:
    parts = urlsplit(text)
    scheme = _ALIASES.get(parts.scheme.lower(), parts.scheme.lower())
    # In abfs://container@account the part before the @ is the container, not a credential.
    host = parts.netloc if scheme in _CONTAINER_SCHEMES else parts.netloc.rpartition("@")[2]
    if scheme in _CONTAINER_SCHEMES and ":" in host.rpartition("@")[0]:
        host = host.rpartition("@")[2]
    path = re.sub(r"/+", "/", unquote(parts.path)).strip("/")
    return f"{scheme}://{host.lower()}" + (f"/{quote(path, safe=_SAFE_IN_PATH)}" if path else "")


@lru_cache(maxsize=4096)
def strip_credentials(uri: str) -> str:
    """Return a location without user, password, query and fragment, for storage on this machine.

    >>> strip_credentials("s3://key:secret@bucket/t?sig=x")
    's3://bucket/t'
    >>> strip_credentials("abfss://container@account/t?sig=x")
    'abfss://container@account/t'
    """
    if "://" not in uri:
        return uri
    parts = urlsplit(uri)
    user, _, host = parts.netloc.rpartition("@")
    # In abfss://container@account the part before the @ is the container, not a credential.
    is_container = parts.scheme.lower() in _CONTAINER_SCHEMES and user and ":" not in user
    netloc = parts.netloc if is_container else host
    return urlunsplit((parts.scheme, netloc, parts.path, "", ""))


# --- local paths -------------------------------------------------------------------------------------


def local_path(uri: str) -> str | None:
    """Return the path of a location on a local disk; None for one on an object store.

    As in delta-rs and DataFusion, a location is local if it begins with `file:` or has no scheme at
    its start.

    Args:
        uri: location of a table or of files.

    >>> local_path("file:///data/a%20b/"), local_path("s3://bucket/t")
    ('/data/a b/', None)
    >>> local_path("file:/data/t"), local_path("/data/a://t")
    ('/data/t', '/data/a://t')
    """
    if _is_file_uri(uri):
        return _path_of_file_uri(uri)
    return None if _SCHEME.match(uri) else uri


def _path_of_file_uri(uri: str) -> str:
    """Return the path of a file URI; on Windows `C:/x` of `file:///C:/x`, `//host/x` of `file://host/x`."""
    parts = urlsplit(uri)
    path = unquote(parts.path)
    if not _is_windows():
        return path
    if parts.netloc.lower() not in {"", "localhost"}:
        return f"//{parts.netloc}{path}"
    return path[1:] if path.startswith("/") and _DRIVE.match(path) else path


def _is_windows() -> bool:
    return _paths.sep == "\\"


def is_uri(location: str) -> bool:
    """Return whether a location is a URI, and not a path.

    >>> is_uri("file:/data/t"), is_uri("s3://bucket/t"), is_uri("data/a://t")
    (True, True, False)
    """
    return _is_file_uri(location) or _SCHEME.match(location) is not None


def _is_file_uri(text: str) -> bool:
    return text[:5].lower() == "file:"


# --- ids and names -----------------------------------------------------------------------------------


def table_id(uri: str | os.PathLike[str], *, key: bytes | None = None) -> str:
    """Return the stable id of a table: the hash of its canonical location.

    Args:
        uri: the location, in any spelling.
        key: a secret that keys the hash, so that an id cannot be found by hashing guessed locations.

    >>> table_id("/data/t/") == table_id("file:///data/t")
    True
    """
    text = os.fspath(uri)
    # A relative path depends on the working directory, so its text cannot be the key of the lru_cache.
    if not text.startswith("/") and ":" not in text:
        text = canonical_uri(text)
    return _table_id(text, key)


@lru_cache(maxsize=4096)
def _table_id(uri: str, key: bytes | None) -> str:
    canonical = canonical_uri(uri)
    if key is None:
        return digest("table/1", canonical)
    keyed = hashlib.blake2b(canonical.encode(), key=hashlib.sha256(key).digest(), digest_size=16)
    return keyed.hexdigest()


def last_segment(uri: str) -> str | None:
    """Return the last segment of a location; None for the root and for a user's home folder.

    >>> last_segment("s3://bucket/lake/flights/"), last_segment("/home/ann")
    ('flights', None)
    """
    path = unquote(urlsplit(strip_credentials(uri)).path if "://" in uri else uri)
    segments = [segment for segment in re.split(r"[/\\]", path) if segment not in {"", "."}]
    if (
        not segments
        or (len(segments) > 1 and segments[-2] in _HOME_PARENTS)
        or segments == ["root"]
    ):
        return None
    return segments[-1]


@lru_cache(maxsize=256)
def spellings(location: str) -> tuple[str, ...]:
    """Return the spellings an engine may use for a location and its parent folders, longest first."""
    path = urlsplit(location).path if "://" in location else location
    plain = unquote(path).replace(_paths.sep, "/").strip("/")
    segments = plain.split("/")
    folders = ["/".join(segments[:end]) for end in range(len(segments), 0, -1)]
    # A single word may also be a word of the message; a name with a slash or a blank is not.
    distinct = [folder for folder in folders if "/" in folder or " " in folder]
    found = {
        spelling
        for folder in distinct
        for spelling in (folder, quote(folder), quote(folder, safe="/ "), *_native(folder))
    }
    unquoted = path.strip("/")
    if "/" in unquoted or " " in unquoted:
        found.add(unquoted)
    return tuple(sorted(found, key=len, reverse=True))


def _native(folder: str) -> tuple[str, ...]:
    """Return a folder with the backslashes of Windows, and with those of its text in quotes."""
    if not _is_windows():
        return ()
    native = folder.replace("/", "\\")
    return native, native.replace("\\", "\\\\")
